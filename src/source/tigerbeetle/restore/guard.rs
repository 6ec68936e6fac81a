//! Refuses unsafe restores: a replica of a running cluster has promised things to its peers that an old
//! data file has forgotten.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde_json::Value;

use crate::domain::id::BackupId;
use crate::error::{Fault, Kind};
use crate::source::RestoreRequest;
use crate::source::tigerbeetle::cluster::address::{ADDRESS_HINT, Presence, parse_address, probe};
use crate::source::tigerbeetle::data_file::superblock::Superblock;

/// Refuses a restore that would do harm, before anything is read or written; returns warnings.
pub(crate) fn guard(record: &Value, request: &RestoreRequest) -> anyhow::Result<Vec<String>> {
    if request.force {
        let _looked = lock_data_file(&request.target)?;
    }
    let number = |key: &str| record.get(key).and_then(Value::as_u64);
    let count = number("replica_count").unwrap_or(1);
    match (count, request.replica) {
        (1, None | Some(0)) => return Ok(Vec::new()),
        (1, Some(replica)) => {
            let message = format!("replica {replica}: the backup is of a cluster with one replica");
            return Err(Fault::new(Kind::Refused, message).hint("omit --replica").into());
        }
        (_, None) => {
            let message = format!("the backup is of a cluster with {count} replicas");
            return Err(Fault::new(Kind::Refused, message).hint(recover_hint(record)).into());
        }
        (_, Some(replica)) if u64::from(replica) >= count => {
            let message = format!("replica {replica}: the cluster has replicas 0 to {}", count - 1);
            let hint = format!("pass --replica with a number from 0 to {}", count - 1);
            return Err(Fault::new(Kind::Refused, message).hint(hint).into());
        }
        (_, Some(_)) => {}
    }
    for address in &request.addresses {
        if parse_address(address).is_none() {
            let message = format!("`{address}` is not a replica address");
            return Err(Fault::new(Kind::Usage, message).hint(ADDRESS_HINT).into());
        }
    }
    let mut unknown = Vec::new();
    for address in &request.addresses {
        let presence = probe(address);
        if presence == Presence::Unknown {
            unknown.push(address.as_str());
        }
        if presence == Presence::There {
            let message = format!(
                "a replica answers at {address}: the cluster is still running, and an old data file in it can lose what was committed since"
            );
            return Err(Fault::new(Kind::Refused, message).hint(recover_hint(record)).into());
        }
    }
    let sure = format!("make sure that all {count} replicas are permanently stopped");
    Ok(if request.addresses.is_empty() {
        vec![format!(
            "cannot check whether the cluster is still running, since its addresses are unknown: pass --addresses, or {sure}"
        )]
    } else if unknown.is_empty() {
        Vec::new()
    } else {
        vec![format!(
            "no answer from {}, so the cluster may still be running: {sure}",
            unknown.join(", ")
        )]
    })
}

/// What to do with a restored file.
pub(crate) fn next_steps(
    superblock: &Superblock,
    request: &RestoreRequest,
    id: BackupId,
) -> String {
    let target = request.target.display();
    let count = superblock.replica_count();
    let start = format!("tigerbeetle start --addresses=<addresses of all replicas> {target}");
    if count == 1 {
        return start;
    }
    format!(
        "restore all {count} replicas (--replica 0 to {}) from this one backup, --id {id}, before any of them starts, and do not combine them with replicas that were formatted or kept; then, on each host: {start}",
        count - 1
    )
}

/// Takes the lock that a server takes on its data file, so that none starts on it while it is moved
/// aside. `None` if there is no such file.
///
/// # Errors
/// [`Kind::Refused`] if a server holds it, or if that cannot be told.
pub(crate) fn lock_data_file(path: &Path) -> Result<Option<File>, Fault> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let message = format!("cannot tell whether a server holds {}: {error}", path.display());
            return Err(Fault::new(Kind::Refused, message)
                .hint("run bkp as the owner of the file, or rename it yourself"));
        }
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => {
            let message = format!("a running server holds {}", path.display());
            Err(Fault::new(Kind::Refused, message)
                .hint("stop that server first, or restore to another path"))
        }
        // Whatever has no such lock has no server.
        Ok(()) | Err(_) => Ok(Some(file)),
    }
}

fn recover_hint(record: &Value) -> String {
    let text = |key: &str| record.get(key).map(|value| value.to_string().replace('"', ""));
    let of = |key: &str| text(key).unwrap_or_else(|| format!("<{key}>"));
    format!(
        "to replace one lost replica of a running cluster: tigerbeetle recover --cluster={} --replica={} --replica-count={} --addresses=<all replicas> <new file>; if the whole cluster is lost, restore every replica from this one backup, each with --replica N, and destroy the old files first",
        of("cluster"),
        of("replica"),
        of("replica_count"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Classify as _;

    #[test]
    fn what_cannot_be_looked_at_is_not_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        assert!(lock_data_file(&file).unwrap().is_none());
        File::create(&file).unwrap();
        assert!(lock_data_file(&file).unwrap().is_some());
        // Another error than that there is nothing.
        assert_eq!(lock_data_file(&file.join("below")).unwrap_err().kind(), Kind::Refused);
        let server = File::open(&file).unwrap();
        rustix::fs::flock(&server, FlockOperation::LockExclusive).unwrap();
        assert_eq!(lock_data_file(&file).unwrap_err().kind(), Kind::Refused);
    }
}
