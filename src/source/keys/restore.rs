//! From the archive of a key set to a file.

use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::capture::MEMBER_BYTES;
use crate::concurrent;
use crate::ctx::Ctx;
use crate::domain::id::BackupId;
use crate::domain::limits::MARK_BYTES_MAX;
use crate::error::{Fault, Kind};
use crate::fs::staged_file::StagedFile;
use crate::keys::key_set::{self, Contents};
use crate::keys::keyring::Keyring;
use crate::keys::{Effort, KeyError, envelope};
use crate::source::{
    Chain, Check, Compared, DecodeTools, DrillTools, Drilled, RestoreRequest, Restored,
};

/// Writes the key set to a file, for its owner alone.
///
/// # Errors
/// [`Kind::Integrity`] if it is not whole; what store, keys and file system fail with.
pub(super) fn restore(
    chain: &Chain<'_>,
    request: &RestoreRequest,
    ctx: &Ctx,
) -> anyhow::Result<Restored> {
    let target = &request.target;
    let staged = StagedFile::beside(target)?;
    write(chain, (&staged, target), ctx)?;
    let bytes = staged.file().metadata()?.len();
    let moved_aside = staged.publish_at(target, request.force)?;
    let shown = target.display();
    let next = format!(
        "open backups with it and the recovery key: bkp --with-keyset {shown} --key KEY restore SOURCE; `bkp --with-keyset {shown} --key KEY keys rewrap --to NEW` brings a new key to all of them"
    );
    let (target, lost) = (target.clone(), Vec::new());
    Ok(Restored { target, bytes, bytes_written: bytes, moved_aside, next, lost })
}

/// The longest member: so much, and the line with which it became too long.
const MEMBER_BYTES_MAX: u64 = MEMBER_BYTES as u64 + MARK_BYTES_MAX;

/// Writes the members of the archive, one after the other, and checks what that makes.
fn write(
    chain: &Chain<'_>,
    (staged, target): (&StagedFile, &Path),
    ctx: &Ctx,
) -> anyhow::Result<Contents> {
    let failed = |error: io::Error| {
        let message = format!("cannot write the key set beside {}: {error}", target.display());
        Fault::new(Kind::Failed, message).hint("free space there, or choose another path with --to")
    };
    let newest = chain.last().ok_or_else(|| broken("its chain is empty"))?;
    let mut out = BufWriter::new(staged.file());
    let mut piece = Vec::new();
    newest.entries(ctx, &mut |name, size, body| {
        // So that what fails is either the store or the disk.
        if size > MEMBER_BYTES_MAX {
            return Err(broken(&format!("{name} has {size} bytes")).into());
        }
        piece.clear();
        body.read_to_end(&mut piece)?;
        Ok(out.write_all(&piece).map_err(failed)?)
    })?;
    out.flush().and_then(|()| staged.file().sync_all()).map_err(failed)?;
    drop(out);
    let entries = newest.manifest().capture.get("entries").and_then(Value::as_u64);
    let contents = read(staged, &mut |_| Ok(()))?;
    if !contents.is_whole() || Some(contents.entries) != entries {
        let reason = format!("{} entries of {}", contents.entries, entries.unwrap_or_default());
        return Err(broken(&reason).into());
    }
    Ok(contents)
}

fn read(
    staged: &StagedFile,
    visit: &mut dyn FnMut(&key_set::Entry<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Contents> {
    let mut file = staged.file();
    io::Seek::rewind(&mut file)?;
    let read = key_set::read(&mut BufReader::new(file), visit)?;
    Ok(read.ok_or_else(|| broken("it has no head"))?)
}

fn broken(reason: &str) -> Fault {
    let message = format!("the key set is not what was captured: {reason}");
    Fault::new(Kind::Integrity, message).hint("use another one: `bkp list` shows them")
}

/// Reads the key set as a restore would.
///
/// # Errors
/// As [`restore`].
pub(super) fn decode(chain: &Chain<'_>, tools: &DecodeTools<'_>, ctx: &Ctx) -> anyhow::Result<()> {
    let scratch = (tools.scratch)()?;
    let path = scratch.path("keyset.jsonl");
    write(chain, (&StagedFile::beside(&path)?, &path), ctx).map(drop)
}

/// Restores the key set and opens every entry, if the recovery key is at hand.
///
/// # Errors
/// As [`restore`].
pub(super) fn drill(
    chain: &Chain<'_>,
    scratch: &Path,
    tools: &DrillTools,
    ctx: &Ctx,
) -> anyhow::Result<Drilled> {
    let began = Instant::now();
    let path = scratch.join("keyset.jsonl");
    let staged = StagedFile::beside(&path)?;
    let contents = write(chain, (&staged, &path), ctx)?;
    let rto_seconds = began.elapsed().as_secs_f64();
    let found = format!("as many entries as were recorded, {}", contents.entries);
    let mut checks = vec![Check { what: "key set".to_owned(), ok: true, found, hint: None }];
    let mut opening = Opening { keys: tools.keys.as_deref(), ..Opening::default() };
    let mut batch = Vec::new();
    read(&staged, &mut |entry| {
        batch.push((entry.id, entry.line.to_vec()));
        if batch.len() < BATCH {
            return Ok(());
        }
        opening.open(&std::mem::take(&mut batch), ctx)
    })?;
    opening.open(&batch, ctx)?;
    checks.push(opening.check(contents.entries));
    Ok(Drilled { rto_seconds, compared: Compared::Equal, checks })
}

/// Entries that are opened at a time: a key may be a service's.
const BATCH: usize = 256;

/// How the entries of a key set open.
#[derive(Default)]
struct Opening<'a> {
    keys: Option<&'a Keyring>,
    opened: u64,
    /// For others than the keys at hand.
    foreign: u64,
    /// Why the first that is for a key at hand does not open.
    problem: Option<String>,
}

impl Opening<'_> {
    fn open(&mut self, entries: &[(BackupId, Vec<u8>)], ctx: &Ctx) -> anyhow::Result<()> {
        let Some(keys) = self.keys else {
            self.foreign += entries.len() as u64;
            return Ok(());
        };
        let opened = concurrent::each(entries, &ctx.cancel, |(id, line)| {
            let opened = envelope::open(line, (*id, &[0; 32]), (keys, Effort::Usual), &ctx.cancel);
            ctx.cancel.check()?;
            Ok(opened.map(|opened| opened.is_some()))
        })?;
        for ((id, _), opened) in entries.iter().zip(opened) {
            let problem = match opened {
                Ok(true) => {
                    self.opened += 1;
                    continue;
                }
                Ok(false) => "its entry was altered".to_owned(),
                Err(error) if matches!(error.downcast_ref(), Some(KeyError::NoneFits { .. })) => {
                    self.foreign += 1;
                    continue;
                }
                Err(error) => format!("{error:#}"),
            };
            self.problem.get_or_insert_with(|| format!("{id}: {problem}"));
        }
        Ok(())
    }

    fn check(self, entries: u64) -> Check {
        let Opening { opened, foreign, problem, .. } = self;
        let what = "entries".to_owned();
        if let Some(problem) = problem {
            let hint = "the key set does not open all backups: make another one, bkp snapshot";
            let found = format!("{opened} of {entries} open; {problem}");
            return Check { what, ok: false, found, hint: Some(hint.to_owned()) };
        }
        let found = match (opened, foreign) {
            (_, 0) => format!("{entries} of {entries} open with the keys at hand"),
            (0, _) => "not opened: the recovery key is not at hand".to_owned(),
            _ => {
                format!("{opened} of {entries} open with the keys at hand; the rest is for others")
            }
        };
        Check { what, ok: true, found, hint: None }
    }
}

/// Refuses what is for other kinds of sources.
///
/// # Errors
/// [`Kind::Usage`].
pub(super) fn guard(_record: &Value, request: &RestoreRequest) -> anyhow::Result<Vec<String>> {
    let RestoreRequest { replica, database, schemas, table, files, tablespaces, .. } = request;
    let is_part = replica.is_some() || database.is_some() || table.is_some();
    if is_part || !(schemas.is_empty() && files.is_empty() && tablespaces.is_empty()) {
        let message = "a key set is restored as a whole, to one file";
        return Err(Fault::new(Kind::Usage, message).hint("pass --to FILE only").into());
    }
    Ok(Vec::new())
}
