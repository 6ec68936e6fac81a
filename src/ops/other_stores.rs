//! Reading from another store what the first one of a source failed to give.

use crate::error::{Diagnosis, Fault, Kind, diagnose};
use crate::wire::AppContext;

/// Whether another store may give what this one did not.
fn is_of_store(error: &anyhow::Error) -> bool {
    matches!(diagnose(error).kind, Kind::Store | Kind::Integrity | Kind::NotFound)
}

/// Reads from each store in turn that may have a copy of what the first one failed to give. Which one it is, is
/// said.
///
/// # Errors
/// That of the first store, if no other gives what is wanted.
pub(crate) fn read_copy<T>(
    app: &AppContext,
    source: Option<&str>,
    error: anyhow::Error,
    read: impl Fn(&AppContext) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let others = app.stores_with_copies(source);
    if others.is_empty() || !is_of_store(&error) {
        return Err(error);
    }
    for name in &others {
        app.ctx.cancel.check()?;
        app.ctx.monitor.warn(&format!("{error:#}; trying the copy in store `{name}`"));
        let mut other = app.clone();
        other.settings.store = vec![name.clone()];
        match read(&other) {
            Err(error) if is_of_store(&error) => {
                app.ctx.monitor.warn(&format!("{name}: {error:#}"));
            }
            ended => return ended,
        }
    }
    let Diagnosis { kind, hint } = diagnose(&error);
    let message = format!("no intact copy in the first store or in {}", others.join(", "));
    Err(error.context(Fault::new(kind, message).hint(hint)))
}

/// Says in `error` which other stores may have what the first one failed to give. They may have older backups
/// only, so nothing is taken from them unasked.
pub(crate) fn suggest(
    app: &AppContext,
    source: Option<&str>,
    error: anyhow::Error,
) -> anyhow::Error {
    let others = app.stores_with_copies(source);
    if others.is_empty() || !is_of_store(&error) {
        return error;
    }
    let Diagnosis { kind, hint } = diagnose(&error);
    let others: Vec<_> = others.iter().map(|name| format!("--store {name}")).collect();
    let hint = format!("to take what another store has, add {}; or: {hint}", others.join(" or "));
    error.context(Fault::new(kind, "reading from the first store failed").hint(hint))
}
