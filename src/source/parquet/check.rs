//! Whether a replica would restore: read to its end, or restored and read by the crate `parquet`.

use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use super::footer::{self, FOOTER_BYTES_MAX, TAIL_BYTES, Tail};
use super::inventory::{HeldFile, Inventory, broken};
use super::path::RelativePath;
use super::restore;
use super::walk;
use crate::concurrent;
use crate::ctx::Ctx;
use crate::source::{
    Chain, Check, Compared, DecodeTools, DrillTools, Drilled, ResourceLimits, RestoreRequest,
};

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
    concurrent::some(&files, AT_A_TIME, &ctx.cancel, |(path, file)| {
        let link = restore::holder(&links, file)?;
        link.named(&file.object, ctx, &mut |input| compare(input, path, file))?;
        restore::check_content(link, path, file, ctx)
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
    let kept = kept.make_contiguous();
    let found = rows(kept, length);
    match found {
        Ok(Some(rows)) if rows == expected => Ok(()),
        Ok(Some(rows)) => Err(broken(&format!("`{path}` has {rows} rows instead of {expected}"))),
        Ok(None) => Err(broken(&format!("`{path}` does not say its rows any more"))),
        Err(why) => Err(broken(&format!("`{path}`: {why}"))),
    }
}

fn rows(end: &[u8], length: u64) -> Result<Option<u64>, String> {
    let (before, last) = end.split_at(end.len().saturating_sub(TAIL_BYTES));
    match footer::tail(last, length)? {
        Tail::Opaque => Ok(None),
        Tail::Footer(bytes) => {
            let start =
                before.len().checked_sub(bytes).ok_or("its footer is longer than the file")?;
            footer::parse(before.get(start..).unwrap_or_default()).map(|footer| Some(footer.rows))
        }
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
    let request = RestoreRequest {
        target: target.clone(),
        replica: None,
        table: None,
        files: Vec::new(),
        addresses: Vec::new(),
        force: false,
        share: ResourceLimits::default(),
    };
    restore::restore(chain, &request, ctx)?;
    let rto_seconds = began.elapsed().as_secs_f64();
    let inventory = Inventory::of(chain, ctx)?;
    let tables: Vec<_> = inventory.0.iter().filter(|(_, file)| file.rows.is_some()).collect();
    let root = walk::open_root(&target)?;
    // One at a time: a page may say that it takes 2 GiB.
    let wrong = concurrent::some(&tables, 1, &ctx.cancel, |(path, file)| {
        let opened = walk::open_file(&root, path).map_err(|error| error.to_string());
        let rows = opened.and_then(footer::read_all);
        Ok(match rows {
            Ok(rows) if Some(rows) == file.rows => None,
            Ok(rows) => {
                let expected = file.rows.unwrap_or_default();
                Some(format!("`{path}` has {rows} rows instead of {expected}"))
            }
            Err(why) => Some(format!("`{path}`: {why}")),
        })
    })?;
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
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
