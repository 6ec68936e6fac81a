//! Archived objects: whether one can be read, and asking the service to restore it for a while.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{GlacierJobParameters, RestoreRequest, Tier};

use super::remote::{ANSWER, Remote};
use crate::domain::thaw::{Availability, ThawSpeed};
use crate::domain::tier::StorageClass;
use crate::store::StoreError;
use crate::store::s3::s3_error::{S3Error, S3ErrorClass};

const NOT_ALLOWED: &str =
    "grant the user or role that restores s3:RestoreObject, or restore the objects by hand";
const BUSY: &str = "the service has no capacity for expedited restores now: pass --tier Standard";

/// Whether an object can be read, as a look at it shows.
pub(super) fn state(seen: &HeadObjectOutput) -> Availability {
    let class = seen
        .storage_class()
        .map_or(StorageClass::Standard, |class| StorageClass::named(class.as_str()));
    let said = seen.restore().unwrap_or_default();
    if !class.needs_thaw() || said.contains("ongoing-request=\"false\"") {
        return Availability::Readable;
    }
    if said.contains("ongoing-request=\"true\"") {
        return Availability::Thawing(class);
    }
    Availability::Archived(class)
}

/// Whether an object can be read now.
pub(super) fn availability(remote: &Remote, key: &str) -> Result<Availability, StoreError> {
    let name = remote.name(key)?;
    let look = || async {
        let request = remote.client.head_object().bucket(&remote.settings.bucket).key(&name);
        remote.once(ANSWER, request.send()).await
    };
    let seen = remote.wait(("inspect", key), remote.send_with_retries(look))?;
    Ok(state(&seen))
}

/// Asks for an object to be readable for so many days. One that was asked for already stays so.
pub(super) fn thaw(
    remote: &Remote,
    key: &str,
    speed: ThawSpeed,
    days: u32,
) -> Result<(), StoreError> {
    let name = remote.name(key)?;
    let tier = match speed {
        ThawSpeed::Bulk => Tier::Bulk,
        ThawSpeed::Standard => Tier::Standard,
        ThawSpeed::Expedited => Tier::Expedited,
    };
    let parameters = GlacierJobParameters::builder().tier(tier).build();
    let parameters = parameters.map_err(|error| {
        remote.error(S3Error::broken(error.to_string()), "restore from the archive", key)
    })?;
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    let wanted = RestoreRequest::builder().days(days).glacier_job_parameters(parameters).build();
    let send = || async {
        let request = remote.client.restore_object().bucket(&remote.settings.bucket).key(&name);
        remote.once(ANSWER, request.restore_request(wanted.clone()).send()).await
    };
    let work = async {
        match remote.send_with_retries(send).await {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.said.contains("RestoreAlreadyInProgress") => Ok(()),
            Err(refusal) => Err(hinted(refusal)),
        }
    };
    remote.wait(("restore from the archive", key), work)
}

fn hinted(refusal: S3Error) -> S3Error {
    let is_forbidden = matches!(refusal.class, S3ErrorClass::Denied(_));
    let class = if is_forbidden && refusal.said.contains("AccessDenied") {
        S3ErrorClass::Denied(NOT_ALLOWED)
    } else if refusal.said.contains("GlacierExpeditedRetrievalNotAvailable") {
        S3ErrorClass::Denied(BUSY)
    } else {
        refusal.class
    };
    S3Error { class, ..refusal }
}
