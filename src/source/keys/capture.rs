//! From the data keys of backups into the archive of a key set.

use serde_json::json;

use crate::archive::EntrySink;
use crate::ctx::{Ctx, host};
use crate::error::{Fault, Kind};
use crate::keys::KeyProvider;
use crate::keys::key_set::{self, END_SCHEMA, End, HEAD_SCHEMA, Head};
use crate::source::{CaptureRequest, Captured, WrappedKeys};

/// So many bytes of lines are one member of the archive, which has to know their length.
pub(super) const MEMBER_BYTES: usize = 4 << 20;

/// Writes the lines of a key set into an archive.
struct Members<'a> {
    out: &'a mut dyn EntrySink,
    held: Vec<u8>,
    written: usize,
}

impl Members<'_> {
    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        self.held.extend_from_slice(line);
        if self.held.len() >= MEMBER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.out.entry(&format!("keyset-{:06}.jsonl", self.written), &self.held)?;
        self.written += 1;
        self.held.clear();
        Ok(())
    }
}

/// Wraps every data key that the request's [`crate::source::BackupKeys`] find.
///
/// # Errors
/// [`Kind::NotFound`] if there is no backup to wrap the key of; what finding and wrapping fail with.
pub(super) fn capture(
    recipients: &[Box<dyn KeyProvider>],
    request: &CaptureRequest<'_>,
    out: &mut dyn EntrySink,
    ctx: &Ctx,
) -> anyhow::Result<Captured> {
    let mut members = Members { out, held: Vec::new(), written: 0 };
    let head = Head { schema: HEAD_SCHEMA.to_owned(), at: ctx.now(), host: host() };
    members.line(&key_set::line(&head)?)?;
    let wrapped = request.keys.wrap(recipients, &mut |line| members.line(line))?;
    let WrappedKeys { sources, stores, tenant, backups, log_files, missing, lost } = wrapped;
    let entries = backups + log_files;
    if entries == 0 {
        let message = match lost.first() {
            None => format!("no backup of {} in {}", sources.join(", "), stores.join(", ")),
            Some(first) => format!("none of {missing} backups has a key that opens here: {first}"),
        };
        let (kind, hint) = if lost.is_empty() {
            (Kind::NotFound, "make a backup first; `bkp list` shows what there is")
        } else {
            (Kind::Key, "make the key set where a key opens the backups, or pass one with --key")
        };
        return Err(Fault::new(kind, message).hint(hint).into());
    }
    let end = End { schema: END_SCHEMA.to_owned(), entries };
    members.line(&key_set::line(&end)?)?;
    members.flush()?;
    let record = json!({
        "mode": "online",
        "consistency": "backups that were there at its beginning",
        "entries": entries,
        "backups": backups,
        "log_files": log_files,
        "missing": missing,
        "sources": sources,
        "tenant": tenant,
        "stores": stores,
        "recipients": recipients.iter().map(|key| key.origin()).collect::<Vec<_>>(),
    });
    Ok(Captured { record, map: None, lost })
}
