//! Reads a chain of exports to its end, and reports what a restore of it would be missing.

use std::collections::BTreeSet;
use std::io::Read;

use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::duckdb::engine::limits::EngineLimits;
use crate::source::duckdb::engine::{CATALOG, plain};
use crate::source::duckdb::export::index::{Index, SqlObject, Statement};
use crate::source::duckdb::export::links;
use crate::source::duckdb::export::links::{broken, indexes};
use crate::source::duckdb::export::{carrier, native};
use crate::source::duckdb::restore::BuildContext;
use crate::source::duckdb::restore::reread;
use crate::source::{Chain, DecodeTools};

/// Reads every byte of a chain, checks that the indexes refer to what is there, and compares every row with
/// what was recorded.
///
/// # Errors
/// [`Kind::Integrity`] for a chain that is not whole, or whose rows are not those that were exported;
/// [`Kind::Partial`] if all that a restore would lack are other objects; what store, keys and engine say.
pub(crate) fn decode(chain: &Chain<'_>, tools: &DecodeTools<'_>, ctx: &Ctx) -> anyhow::Result<()> {
    let indexes = indexes(chain, ctx)?;
    check_archives(chain, &indexes, ctx)?;
    let Some(newest) = indexes.last() else { return Err(broken("its chain is empty")) };
    let scratch = (tools.scratch)()?;
    let path = scratch.path(&format!("{CATALOG}.duckdb"));
    let context = BuildContext::of(chain, newest, &path, EngineLimits::ample(tools.share), ctx);
    let reread::RestoreGaps { schema, rows, read } = reread::find_restore_gaps(&context, &indexes)?;
    check_tables(chain, &indexes, &read, ctx)?;
    let kind = match (&*rows, &*schema) {
        ([], []) => return Ok(()),
        ([], _) => Kind::Partial,
        _ => Kind::Integrity,
    };
    let gaps = rows.iter().chain(&schema).map(|text| plain(text)).collect::<Vec<_>>();
    let message = format!("a restore of this export would be missing {}", gaps.join("; "));
    let mut fault = Fault::new(kind, message);
    if kind == Kind::Partial {
        fault = fault.hint(
            "the rest restores, with exit code 3; `bkp restore --from-export` names what is missing",
        );
    }
    Err(fault.into())
}

/// Reads the archives of a chain and checks that they have what the indexes refer to.
fn check_archives(chain: &Chain<'_>, indexes: &[Index], ctx: &Ctx) -> anyhow::Result<()> {
    if let Some(newest) = indexes.last() {
        for table in &newest.tables {
            links::of(indexes, table)?;
        }
    }
    for (reader, index) in chain.iter().zip(indexes) {
        let mut members = BTreeSet::new();
        reader.entries(ctx, &mut |name, _size, body| {
            members.insert(name.to_owned());
            if [native::MEMBER, carrier::MEMBER].contains(&name) {
                std::io::copy(body, &mut std::io::sink())?;
                return Ok(());
            }
            check_parquet(name, body)
        })?;
        let carried =
            |statement: &Statement| statement.carried && statement.makes != SqlObject::Table;
        let wanted = [
            (native::MEMBER, index.tables.iter().any(|table| table.native.is_some())),
            (carrier::MEMBER, index.statements.iter().any(carried)),
        ];
        let is_missing = |(name, wanted): &&(&str, bool)| *wanted && !members.contains(*name);
        if let Some((member, _)) = wanted.iter().find(is_missing) {
            return Err(broken(&format!("it has no member `{member}`")));
        }
        for table in &index.tables {
            if let Some(member) = table.rows_member.as_ref().filter(|name| !members.contains(*name))
            {
                return Err(broken(&format!("it has no member `{member}`")));
            }
        }
    }
    Ok(())
}

/// Reads the objects with tables that were not `read` yet: of tables that the newest export does not have any more,
/// for instance.
fn check_tables(
    chain: &Chain<'_>,
    indexes: &[Index],
    read: &BTreeSet<(usize, String)>,
    ctx: &Ctx,
) -> anyhow::Result<()> {
    for (order, (reader, index)) in chain.iter().zip(indexes).enumerate() {
        let data = index.tables.iter().filter_map(|table| table.data.clone());
        for data in data.filter(|data| !read.contains(&(order, data.clone()))) {
            reader.named(&data, ctx, &mut |body| check_parquet(&data, body))?;
        }
    }
    Ok(())
}

/// Reads a Parquet file to its end, so that its digest is compared, and looks for its marks at both
/// ends.
fn check_parquet(name: &str, body: &mut dyn Read) -> anyhow::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let (mut first, mut last): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    loop {
        let count = body.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        first.extend(bytes.iter().take(4_usize.saturating_sub(first.len())));
        last.extend(bytes.iter().skip(count.saturating_sub(4)));
        last.drain(..last.len().saturating_sub(4));
    }
    if first == b"PAR1" && last == b"PAR1" {
        return Ok(());
    }
    Err(broken(&format!("`{name}` is not a Parquet file")))
}
