//! What must not be restored where: a replica of a running cluster has promised things to its peers
//! that an old data file has forgotten.

use std::fs::File;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde_json::Value;

use super::totals;
use crate::error::{Fault, Kind};
use crate::source::RestoreRequest;

/// Refuses a restore that would do harm, before anything is read or written.
pub(super) fn guard(record: &Value, request: &RestoreRequest) -> anyhow::Result<()> {
    if request.force && is_held(&request.target) {
        let message = format!("a running server holds {}", request.target.display());
        let hint = "stop that server first, or restore to another place";
        return Err(Fault::new(Kind::Refused, message).hint(hint).into());
    }
    let number = |key: &str| record.get(key).and_then(Value::as_u64);
    let count = number("replica_count").unwrap_or(1);
    match (count, request.replica) {
        (1, None | Some(0)) => return Ok(()),
        (1, Some(replica)) => {
            let message = format!("replica {replica}: the backup is of a cluster with one replica");
            return Err(Fault::new(Kind::Refused, message).hint("leave out --replica").into());
        }
        (_, None) => {
            let message = format!("the backup is of a cluster with {count} replicas");
            return Err(Fault::new(Kind::Refused, message).hint(recover_hint(record)).into());
        }
        (_, Some(replica)) if u64::from(replica) >= count => {
            let message = format!("replica {replica}: the cluster has replicas 0 to {}", count - 1);
            return Err(Fault::new(Kind::Refused, message).into());
        }
        (_, Some(_)) => {}
    }
    for address in &request.addresses {
        if totals::accepts(address) {
            let message = format!(
                "a replica answers at {address}: the cluster still runs, and an old data file in it can lose what the cluster has committed since"
            );
            return Err(Fault::new(Kind::Refused, message).hint(recover_hint(record)).into());
        }
    }
    Ok(())
}

/// Whether a process holds the lock that a server takes on its data file.
fn is_held(path: &Path) -> bool {
    let lock = |file: File| rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
    File::open(path).is_ok_and(|file| lock(file) == Err(Errno::WOULDBLOCK))
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
