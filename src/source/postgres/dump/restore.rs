//! From an export to a database, or to a folder with the dumps in it.

use std::path::Path;

use serde_json::Value;

use super::custom_format::Contents;
use super::index::{Database, GLOBALS, Index, export};
use super::load::{LoadMethod, load};
use super::selection::{Selected, Selection, plain};
use super::target::{TargetDatabase, is_server};
use super::unpack::{self, UnpackedDump};
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::fs::scratch_dir::ScratchDir;
use crate::pipeline::BackupReader;
use crate::source::postgres::server::account::Account;
use crate::source::postgres::server::programs::{Programs, Task};
use crate::source::{Chain, RestoreRequest, Restored};

/// What the name of a database begins with that is not complete yet.
const UNFINISHED: &str = "bkp_restore_";

/// What has to be known before a restore begins.
///
/// # Errors
/// [`Kind::Usage`] for what cannot be asked of an export.
pub(in crate::source::postgres) fn guard(
    _record: &Value,
    request: &RestoreRequest,
) -> anyhow::Result<Vec<String>> {
    let refuse = |message: &str, hint: &str| {
        Err(Fault::new(Kind::Usage, message.to_owned()).hint(hint.to_owned()).into())
    };
    if request.replica.is_some() || !request.tablespaces.is_empty() {
        return refuse(
            "an export has no replicas and no tablespaces",
            "omit --replica and --tablespace",
        );
    }
    if is_server(&request.target) && request.force {
        return refuse("--force never replaces a database", "name one that does not exist yet");
    }
    let is_part = request.table.is_some() || !request.schemas.is_empty();
    if is_part && !is_server(&request.target) {
        return refuse(
            "only a database can have a part of a dump",
            "restore to --to postgresql://HOST/DATABASE, or omit --schema and --table",
        );
    }
    Ok(Vec::new())
}

/// Names everything that a server does not have and an export needs, before anything is written; notes on the rest.
///
/// # Errors
/// [`Kind::Refused`] with what is missing.
pub(in crate::source::postgres) fn preflight(
    chain: &Chain<'_>,
    request: &RestoreRequest,
    ctx: &Ctx,
) -> anyhow::Result<Vec<String>> {
    if !is_server(&request.target) {
        return Ok(Vec::new());
    }
    let link = export(chain)?;
    let index = Index::of(link, ctx)?;
    let database = index.database(request.database.as_deref())?;
    let mut target = TargetDatabase::open(&request.target, ctx)?;
    let contents = contents(link, database, ctx)?;
    let selected = selection(request).choose(&contents)?;
    let mut notes = target.check((&index, database), &selected)?;
    if !selection(request).is_all() && database.large_objects > 0 {
        notes.push(
            "large objects belong to no table: they are not restored with a part of a database"
                .to_owned(),
        );
    }
    Ok(notes)
}

/// Brings a database back.
///
/// # Errors
/// [`Kind::Integrity`] if the backup is not what it was; [`Kind::Failed`] if the server does not take it. The target
/// is as it was then.
pub(in crate::source::postgres) fn restore(
    chain: &Chain<'_>,
    request: &RestoreRequest,
    ctx: &Ctx,
) -> anyhow::Result<Restored> {
    let link = export(chain)?;
    let index = Index::of(link, ctx)?;
    if !is_server(&request.target) {
        return to_folder(link, &index, request, ctx);
    }
    let database = index.database(request.database.as_deref())?;
    let mut target = TargetDatabase::open(&request.target, ctx)?;
    let major = u8::try_from(target.version_number / 10_000)?;
    let programs = Programs::client("pg_restore", major, request.tools.postgres.as_deref())?;
    let scratch = ScratchDir::within(&request.scratch)?;
    let dump = unpack::dump(link, database, (scratch.folder(), "database.dump"), ctx)?;
    let selected = selection(request).choose(&dump.contents)?;
    target.check((&index, database), &selected)?;
    let loading = Loading { dump: &dump, selected: &selected, programs, scratch: scratch.folder() };
    loading.run(&mut target, database, ctx)?;
    Ok(Restored {
        target: request.target.clone(),
        bytes: dump.bytes,
        bytes_written: dump.bytes,
        moved_aside: None,
        next: format!(
            "collect statistics: run ANALYZE in database {}",
            plain(&target.conninfo.database)
        ),
        lost: selected.lost,
    })
}

fn selection(request: &RestoreRequest) -> Selection {
    let tables = request.table.iter().cloned().collect();
    Selection { schemas: request.schemas.clone(), tables }
}

/// What is in a dump, which is read for that.
fn contents(link: &BackupReader<'_>, database: &Database, ctx: &Ctx) -> anyhow::Result<Contents> {
    let mut contents = Contents::default();
    link.named(&database.object, ctx, &mut |input| {
        contents = Contents::read(input)
            .map_err(|flaw| Fault::new(Kind::Integrity, format!("the dump: {flaw}")))?;
        Ok(())
    })?;
    Ok(contents)
}

/// A dump that is loaded into a database.
struct Loading<'a> {
    dump: &'a UnpackedDump,
    selected: &'a Selected<'a>,
    programs: Programs,
    scratch: &'a Path,
}

impl Loading<'_> {
    /// Loads into a database that gets its name when it is complete; into one that exists, in one transaction.
    fn run(
        &self,
        target: &mut TargetDatabase,
        database: &Database,
        ctx: &Ctx,
    ) -> anyhow::Result<()> {
        if target.exists {
            let name = target.conninfo.database.clone();
            return self.load(target, &name, LoadMethod::OneTransaction, ctx).map_err(as_it_was);
        }
        let name = format!("{UNFINISHED}{}", uuid::Uuid::now_v7().simple());
        target.create(&name, &database.facts).map_err(|error| as_it_was(error.into()))?;
        let loaded = self.load(target, &name, LoadMethod::Parallel, ctx);
        let published = loaded.and_then(|()| Ok(target.publish(&name, &database.facts)?));
        published.map_err(|error| {
            target.abandon(&name, ctx);
            as_it_was(error)
        })
    }

    fn load(
        &self,
        target: &mut TargetDatabase,
        name: &str,
        method: LoadMethod,
        ctx: &Ctx,
    ) -> anyhow::Result<()> {
        let with_tablespaces = target.missing_tablespaces(self.selected)?.is_none();
        let variables = target.conninfo.variables(target.sql.endpoint(), name)?;
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let run = |program: &str, words: &[&str]| {
            let task = Task { name: program, words, variables: &variables };
            self.programs.run(&task, &Account::own(), self.scratch, ctx)
        };
        let dbname = target.conninfo.words(name);
        load(self.dump, self.selected, (&dbname, method), with_tablespaces, &run)
    }
}

/// Says of a failure that it changed nothing.
fn as_it_was(error: anyhow::Error) -> anyhow::Error {
    if matches!(
        crate::error::diagnose(&error).kind,
        Kind::Interrupted | Kind::Terminated | Kind::Integrity
    ) {
        return error;
    }
    let fault =
        Fault::new(Kind::Failed, "the server did not take the dump; it has what it had before");
    error.context(
        fault.hint("see the cause; correct it at the server, and run the same command again"),
    )
}

/// Gives the dumps themselves, for `pg_restore` by hand.
fn to_folder(
    link: &BackupReader<'_>,
    index: &Index,
    request: &RestoreRequest,
    ctx: &Ctx,
) -> anyhow::Result<Restored> {
    let wanted = match &request.database {
        None => index.databases.iter().collect(),
        Some(name) => vec![index.database(Some(name))?],
    };
    let scratch = ScratchDir::beside(&request.target)?;
    let folder = scratch.path("dumps");
    std::fs::DirBuilder::new().create(&folder)?;
    let globals = folder.join("globals.sql");
    let mut bytes = unpack::write(link, GLOBALS, &globals, ctx, &mut |input| {
        std::io::copy(input, &mut std::io::sink())?;
        Ok(())
    })?;
    for database in wanted {
        ctx.cancel.check()?;
        let name = database.object.strip_suffix(".zst.enc").unwrap_or(&database.object);
        // The name of an object is authentic, and still has to be a name.
        if name.contains('/') {
            return Err(Fault::new(Kind::Integrity, "a dump's name is a path").into());
        }
        bytes += unpack::dump(link, database, (&folder, name), ctx)?.bytes;
    }
    let moved_aside = scratch.publish_folder(&folder, &request.target, request.force)?;
    let place = request.target.display();
    Ok(Restored {
        target: request.target.clone(),
        bytes,
        bytes_written: bytes,
        moved_aside,
        next: format!(
            "make what is missing of {place}/globals.sql, then: pg_restore --create --dbname=postgres {place}/DUMP"
        ),
        lost: Vec::new(),
    })
}
