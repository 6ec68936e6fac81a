//! Whether a replica would restore: read to its end, or restored and read by the crate `parquet`.

use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use super::footer::{self, FOOTER_BYTES_MAX, TAIL_BYTES};
use super::inventory::{HeldFile, Inventory, broken};
use super::path::RelativePath;
use super::restore;
use super::walk;
use crate::concurrent;
use crate::ctx::Ctx;
use crate::source::{Chain, Check, Compared, DecodeTools, DrillTools, Drilled, RestoreRequest};

/// Files that are read at a time.
const AT_A_TIME: usize = 4;
/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// Reads every object that the newest replica refers to, and compares size, SHA-256 and rows with the inventory.
///
/// # Errors
/// [`crate::error::Kind::Integrity`] if one differs; what store and keys say.
pub(super) fn decode(chain: &Chain<'_>, _tools: &DecodeTools<'_>, ctx: &Ctx) -> anyhow::Result<()> {
    let inventory = Inventory::of(chain, ctx)?;
    let links = restore::links(chain);
    let files: Vec<_> = inventory.0.iter().collect();
    concurrent::each_of_few(&files, AT_A_TIME, &ctx.cancel, |(path, file)| {
        restore::read(&links, (path, file), ctx, &mut |input| compare(input, path, file))
    })?;
    Ok(())
}

/// Compares the rows of a file that has any.
fn compare(input: &mut dyn Read, path: &RelativePath, file: &HeldFile) -> anyhow::Result<()> {
    let Some(expected) = file.rows else {
        std::io::copy(input, &mut std::io::sink())?;
        return Ok(());
    };
    let (mut kept, mut length) = (VecDeque::new(), 0_u64);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = input.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        length += count as u64;
        kept.extend(buffer.get(..count).unwrap_or_default());
        // How long the footer is, only its end says.
        let over = kept.len().saturating_sub(FOOTER_BYTES_MAX + TAIL_BYTES);
        kept.drain(..over.min(kept.len()));
    }
    let end = kept.make_contiguous();
    let end_at = length - end.len() as u64;
    let found = footer::of_file(length, &|bytes, at| {
        let start = at.checked_sub(end_at).and_then(|start| usize::try_from(start).ok());
        let rest = start.and_then(|start| end.get(start..)).unwrap_or_default();
        (&*rest).read_exact(bytes)
    })?;
    match found.map(|footer| footer.map(|footer| footer.rows)) {
        Ok(Some(rows)) if rows == expected => Ok(()),
        Ok(Some(rows)) => Err(broken(&format!("`{path}` has {rows} rows instead of {expected}"))),
        Ok(None) => Err(broken(&format!("`{path}` does not say its rows any more"))),
        Err(why) => Err(broken(&format!("`{path}`: {why}"))),
    }
}

/// Restores the files at a scratch folder, and reads every page of every Parquet file.
///
/// # Errors
/// As [`restore::restore`].
pub(super) fn drill(
    chain: &Chain<'_>,
    folder: &Path,
    _tools: &DrillTools,
    ctx: &Ctx,
) -> anyhow::Result<Drilled> {
    let began = Instant::now();
    let target = folder.join("files");
    let request = RestoreRequest::to(target.clone());
    restore::restore(chain, &request, ctx)?;
    let rto_seconds = began.elapsed().as_secs_f64();
    let inventory = Inventory::of(chain, ctx)?;
    let tables: Vec<_> = inventory.0.iter().filter(|(_, file)| file.rows.is_some()).collect();
    let root = walk::open_root(&target)?;
    let mut wrong = Vec::new();
    // One at a time: a page may say that it takes 2 GiB.
    for (path, file) in &tables {
        ctx.cancel.check()?;
        let opened = walk::open_file(&root, path).map_err(|error| error.to_string());
        match opened.and_then(footer::read_all) {
            Ok(rows) if Some(rows) == file.rows => {}
            Ok(rows) => {
                let expected = file.rows.unwrap_or_default();
                wrong.push(format!("`{path}` has {rows} rows instead of {expected}"));
            }
            Err(why) => wrong.push(format!("`{path}`: {why}")),
        }
    }
    let restored = Check {
        what: "files restored".into(),
        ok: true,
        found: format!("{} files, {} bytes", inventory.0.len(), inventory.bytes()),
        hint: None,
    };
    let found = match wrong.as_slice() {
        [] => format!("{} files, {} rows, every page read", tables.len(), inventory.rows()),
        [first, ..] => format!("{} file(s) not readable; {first}", wrong.len()),
    };
    let hint = "the copies are as the files were: check them where they were written";
    let ok = wrong.is_empty();
    let hint = (!ok).then(|| hint.to_owned());
    let read = Check { what: "Parquet".into(), ok, found, hint };
    Ok(Drilled { rto_seconds, compared: Compared::Equal, checks: vec![restored, read] })
}
