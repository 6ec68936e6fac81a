//! `bkp config lifecycle`: the rules by which the service of a store moves data to colder storage classes.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::error::{Fault, Kind};
use crate::ops::report::Report;
use crate::wire::AppContext;

/// The stable shape `bkp.config-lifecycle/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cmd) struct LifecycleReport {
    store: String,
    /// As `aws s3api put-bucket-lifecycle-configuration` takes it.
    lifecycle: Value,
}

/// The rules of the chosen store, or of the only one that has some. Asks no service.
///
/// # Errors
/// [`Kind::Usage`] if there are several; [`Kind::Refused`] if there is none.
pub(super) fn run(app: &AppContext) -> anyhow::Result<Report> {
    let mut found = Vec::new();
    for name in app.store_names()? {
        found.extend(app.lifecycle(&name)?.map(|lifecycle| (name, lifecycle)));
    }
    let names = || found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let (store, lifecycle) = match found.as_slice() {
        [only] => only.clone(),
        [] => {
            let message = "no configured store has lifecycle rules";
            return Err(Fault::new(Kind::Refused, message)
                .hint("choose a store in a bucket with --store")
                .into());
        }
        _ => {
            let message = format!("several stores have lifecycle rules: {}", names());
            return Err(Fault::new(Kind::Usage, message).hint("choose one with --store").into());
        }
    };
    let text = serde_json::to_string_pretty(&lifecycle)?;
    Report::done("bkp.config-lifecycle/1", &LifecycleReport { store, lifecycle }, text)
}
