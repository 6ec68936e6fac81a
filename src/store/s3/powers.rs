//! What the credentials of this host could destroy if somebody else used them, tried by `doctor` with the object of
//! its rehearsal: bkp itself overwrites and deletes nothing that `cleanup` does not.

use std::sync::Arc;

use aws_sdk_s3::primitives::SdkBody;
use sha2::{Digest as _, Sha256};

use super::remote::{ANSWER, Remote};
use super::upload::context::UploadContext;
use crate::store::s3::s3_error::{S3Error, S3ErrorClass};
use crate::store::{ObjectLabels, StoreError};

/// An `ETag` that no object has: a deletion on that condition deletes nothing.
const NO_ETAG: &str = "\"00000000000000000000000000000000\"";

/// Whether a request would be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    Has,
    Lacks,
    Unknown,
}

/// Tries it with the object `key`, which exists and has this content; returns what was found, in words, and warns of
/// what could be destroyed.
///
/// # Errors
/// That the run is to stop.
pub(super) fn probe(
    remote: &Arc<Remote>,
    (key, labels, content): (&str, &ObjectLabels, &'static [u8]),
) -> Result<String, StoreError> {
    let tried = [
        ("overwrite", overwrite(remote, (key, labels, content))?),
        ("delete", delete(remote, key)?),
        ("remove the former versions of", delete_version(remote, key)?),
    ];
    let verbs = |power: Power| {
        let of_power = tried.iter().filter(|(_, found)| *found == power);
        listed(&of_power.map(|(verb, _)| *verb).collect::<Vec<_>>())
    };
    let (can, cannot, unknown) = (verbs(Power::Has), verbs(Power::Lacks), verbs(Power::Unknown));
    let mut said = Vec::new();
    if let Some(can) = can {
        let can =
            format!("these credentials can {can} backups, and so can anyone who obtains them");
        if remote.settings.attributes.object_lock.is_none() {
            remote.ctx.monitor.warn(&format!(
                "{}: {can}: allow no more than examples/aws/append.json does, or set `object_lock` in the store's table",
                remote.settings.url
            ));
        }
        said.push(can);
    }
    said.extend(cannot.map(|cannot| format!("these credentials cannot {cannot} backups")));
    said.extend(
        unknown.map(|verbs| format!("unknown whether these credentials can {verbs} backups")),
    );
    Ok(said.join("; "))
}

/// Verbs as they stand in a sentence.
fn listed(verbs: &[&str]) -> Option<String> {
    let (last, others) = verbs.split_last()?;
    Some(if others.is_empty() {
        (*last).to_owned()
    } else {
        format!("{} or {last}", others.join(", "))
    })
}

/// Writes the object once more, without the condition and without any lock.
fn overwrite(
    remote: &Arc<Remote>,
    (key, labels, body): (&str, &ObjectLabels, &'static [u8]),
) -> Result<Power, StoreError> {
    let mut unconditional = UploadContext::new(remote, key, labels)?;
    (unconditional.create_only, unconditional.lock) = (false, None);
    let sha256: [u8; 32] = Sha256::digest(body).into();
    let body = SdkBody::from(body);
    let put = async { Ok(remote.send_with_retries(|| unconditional.put(&body, &sha256)).await) };
    Ok(power(&remote.wait(("write", key), put)?))
}

/// Deletes the object on a condition that does not hold. Where a service ignores the condition the object goes, and
/// the next rehearsal writes it again.
fn delete(remote: &Arc<Remote>, key: &str) -> Result<Power, StoreError> {
    let name = remote.name(key)?;
    let send = || async {
        let request = remote.client.delete_object().bucket(&remote.settings.bucket).key(&name);
        remote.once(ANSWER, request.if_match(NO_ETAG).send()).await
    };
    let answer = async { Ok(remote.send_with_retries(send).await) };
    Ok(power(&remote.wait(("delete", key), answer)?))
}

/// Removes the version of the object that is there, for good: there is nothing else to try it with. Not where it is
/// locked, since a refusal says nothing there, nor where there are no versions.
fn delete_version(remote: &Arc<Remote>, key: &str) -> Result<Power, StoreError> {
    let name = remote.name(key)?;
    let look = || async {
        let request = remote.client.head_object().bucket(&remote.settings.bucket).key(&name);
        remote.once(ANSWER, request.send()).await
    };
    let work = async {
        let found = match remote.send_with_retries(look).await {
            Ok(found) if found.object_lock_mode().is_none() => found,
            Ok(_) | Err(_) => return Ok(Power::Unknown),
        };
        let Some(version) = found.version_id().filter(|version| *version != "null") else {
            return Ok(Power::Unknown);
        };
        let send = || async {
            let request = remote.client.delete_object().bucket(&remote.settings.bucket);
            remote.once(ANSWER, request.key(&name).version_id(version).send()).await
        };
        Ok(power(&remote.send_with_retries(send).await))
    };
    remote.wait(("delete", key), work)
}

fn power<T>(answer: &Result<T, S3Error>) -> Power {
    match answer {
        // The condition did not hold, so the right was there.
        Ok(_) | Err(S3Error { class: S3ErrorClass::Taken, .. }) => Power::Has,
        Err(S3Error { class: S3ErrorClass::Denied(_), said, .. })
            if !said.contains("NotImplemented") =>
        {
            Power::Lacks
        }
        Err(_) => Power::Unknown,
    }
}
