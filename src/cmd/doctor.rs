//! `bkp doctor`: checks everything a backup needs, without making one.

use schemars::JsonSchema;
use serde::Serialize;

use crate::config::Settings;
use crate::domain::id::BackupId;
use crate::error::{Kind, worst};
use crate::keys::{self, DataKey, KeyError};
use crate::ledger::in_store;
use crate::ops::known_stores::KnownStores;
use crate::ops::report::Report;
use crate::ops::scratch;
use crate::source::Check;
use crate::store::{ObjectLabels, ReadStore, StoreError};
use crate::version;
use crate::wire::AppContext;

mod buckets;
mod check;
mod leases;
mod ledger;
mod notifications;
mod probe;
mod signing;

use self::check::{CheckResult, bad, good, tried};

/// The stable shape `bkp.doctor/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DoctorReport<'a> {
    /// Every check is as it should be.
    ok: bool,
    checks: Vec<&'a Check>,
}

/// The source that `doctor` names where a key wants one. No source of a configuration is called so.
const DOCTOR: &str = "(doctor)";

/// Checks configuration, state, programs, stores, keys, ledger and sources, in the order in which a
/// snapshot needs them. The outcome is the kind of the first check that failed.
///
/// # Errors
/// Only a cancellation: a check that fails is a line of the report.
pub fn run(app: &AppContext) -> anyhow::Result<Report> {
    let steps: [fn(&AppContext) -> Vec<CheckResult>; 10] = [
        local,
        tools,
        stores,
        buckets::buckets,
        recipients,
        signing::signatures,
        ledger::ledger,
        sources,
        notifications::exports,
        notifications::channels,
    ];
    let mut found = Vec::new();
    for step in steps {
        app.ctx.cancel.check()?;
        found.extend(step(app));
    }
    let failed = found.iter().filter(|(_, check)| !check.ok).map(|(kind, _)| Some(*kind));
    let outcome = failed.fold(None, worst);
    let checks: Vec<&Check> = found.iter().map(|(_, check)| check).collect();
    let text = lines(checks.iter().copied());
    let body = DoctorReport { ok: outcome.is_none(), checks };
    Ok(Report::done("bkp.doctor/1", &body, text)?.with_outcome(outcome))
}

/// Checks for people to read, one a line.
pub(super) fn lines<'c>(checks: impl IntoIterator<Item = &'c Check>) -> String {
    checks.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(check: &Check) -> String {
    let mark = if check.ok { "ok    " } else { "FAILED" };
    let line = format!("{mark}  {}: {}", check.what, check.found);
    match &check.hint {
        Some(hint) if !check.ok => format!("{line}\n        hint: {hint}"),
        _ => line,
    }
}

/// The configuration file and the state directory.
fn local(app: &AppContext) -> Vec<CheckResult> {
    let settings = &app.settings;
    let looked = || format!("none; searched {}", settings.provenance.looked.join(", "));
    let file = settings.file.as_ref().map_or_else(looked, |path| path.display().to_string());
    let mut found = vec![(Kind::Config, good("configuration", file))];
    if let Err(error) = settings.check_secret_files() {
        found.push(tried("files with secrets".to_owned(), Err(error.into())));
    }
    if probe::is_shared(&settings.state_dir) {
        let hint = format!("chmod go-w {}", settings.state_dir.display());
        let shared = "writable by others, who can change what bkp remembers of its stores and runs";
        found.push((Kind::Config, bad("state directory permissions", shared, hint)));
    }
    let what = format!("state directory {}", settings.state_dir.display());
    found.extend(scratch::left(app).iter().map(|left| {
        let what = format!("folder {}", left.folder.display());
        let hint = "the next snapshot, export or restore removes it; until then it may hold plaintext rows of a database";
        (Kind::Failed, bad(what, "left behind by a killed run", hint))
    }));
    found.push((
        Kind::Config,
        match probe::writable(&settings.state_dir) {
            Ok(found) => good(what, found),
            Err(error) => bad(
                what,
                error.to_string(),
                "create it for the user who runs bkp, or set `state_dir`",
            ),
        },
    ));
    found
}

/// The libraries linked in, and the program that drills start.
fn tools(app: &AppContext) -> Vec<CheckResult> {
    let versions = version::versions();
    let mut found: Vec<CheckResult> =
        versions.into_iter().map(|(name, version)| (Kind::Failed, good(name, version))).collect();
    let configured = app.settings.tigerbeetle.as_deref();
    let program = configured.unwrap_or_else(|| "tigerbeetle".as_ref());
    let what = format!("program {}", program.display());
    found.push((
        Kind::Source,
        match (probe::version_of(program, &app.ctx), configured) {
            (Ok(version), _) => good(what, version),
            (Err(error), None) if error.kind() == std::io::ErrorKind::NotFound => {
                good(what, "not in PATH; only drills of TigerBeetle need it")
            }
            (Err(error), _) => bad(
                what,
                error.to_string(),
                "set [tools] tigerbeetle to the binary that the cluster runs",
            ),
        },
    ));
    found
}

/// Every store: an upload that is begun, written to, and abandoned, then a listing that must not
/// show it; the leases of every source and job are read. What takes a commit, each kind of store
/// rehearses itself: it knows whether it can remove again what it wrote.
fn stores(app: &AppContext) -> Vec<CheckResult> {
    let settings = &app.settings;
    let chosen = settings.store.iter().filter(|text| text.contains("://"));
    let names: Vec<&String> = settings.stores.keys().chain(chosen).collect();
    if names.is_empty() {
        let check =
            bad("store", "none is configured", "add a [store.NAME] table, or pass --store URL");
        return vec![(Kind::Config, check)];
    }
    let leases = |name: &String| tried(format!("leases in {name}"), leases::odd_leases(app, name));
    let of_store = |name: &String| [tried(format!("store {name}"), store(app, name)), leases(name)];
    names.into_iter().flat_map(of_store).collect()
}

fn store(app: &AppContext, name: &str) -> anyhow::Result<String> {
    let store = app.store_append(name)?;
    let key = format!("doctor-{}", BackupId::new(app.ctx.now()));
    // A listing of something small: the right to list, not the length of the list, is in question. It
    // comes first because its refusal says more than that of others.
    store.list("doctor")?.next().transpose()?;
    for (source, settings) in &app.settings.sources {
        let only = settings.store.is_empty() && app.settings.stores.len() == 1;
        if only || settings.store.iter().any(|of_source| of_source == name) {
            KnownStores::of(app, &*store, settings.backup_type, source).check(&*store)?;
        }
    }
    let mut upload = store.create(&key, &ObjectLabels::default())?;
    upload.write(b"written by bkp doctor, then abandoned")?;
    drop(upload);
    match store.head(&key) {
        Err(StoreError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
        Ok(_) => {
            let message = format!("{}: the abandoned upload `{key}` is visible", store.url());
            return Err(crate::error::Fault::new(Kind::Store, message).into());
        }
    }
    let left = store.self_test()?.unwrap_or_else(|| "nothing was left behind".to_owned());
    let leases = leases(app, &*store)?;
    Ok(format!("{}: started an upload, aborted it, listed; {left}; {leases}", store.url()))
}

/// Reads the leases that a run of any source or job would have to take.
fn leases(app: &AppContext, store: &dyn ReadStore) -> anyhow::Result<String> {
    let Settings { sources, jobs, .. } = &app.settings;
    let names = sources.keys().cloned().chain(jobs.keys().map(|name| format!("{name}.job")));
    let mut taken = Vec::new();
    for name in names {
        let holder = in_store::held(store, &name, app.ctx.now(), time::Duration::ZERO)?;
        taken.extend(holder.map(|holder| format!("the lease of `{name}` is taken: {holder}")));
    }
    Ok(if taken.is_empty() { "no lease is taken".to_owned() } else { taken.join("; ") })
}

/// Every recipient: wraps a key and opens it again.
fn recipients(app: &AppContext) -> Vec<CheckResult> {
    let recipients = &app.settings.recipients;
    if recipients.is_empty() {
        let hint =
            "add `recipients = [\"file:/etc/bkp/key\"]` under [keys] and run `bkp keys generate`";
        return vec![(Kind::Config, bad("keys", "no recipient is configured", hint))];
    }
    recipients
        .iter()
        .map(|text| tried(format!("key {}", keys::shown(text)), recipient(app, text)))
        .collect()
}

fn recipient(app: &AppContext, text: &str) -> anyhow::Result<String> {
    let provider = keys::kinds::open(text, &app.ctx.cancel)?;
    let id = BackupId::new(app.ctx.now());
    let key = DataKey::generate()?;
    let wrapped = provider.wrap(&key, id, DOCTOR)?;
    if !provider.can_open() {
        return Ok(format!("seals for {}; this host cannot open its backups", wrapped.id));
    }
    let opened = match provider.unwrap(&wrapped, id) {
        Err(KeyError::Forbidden { .. }) => {
            let note = "as it should be on a machine that only makes backups";
            let unsigned = if app.settings.signing_key.is_some() {
                ""
            } else {
                "; where no other recipient opens its backups, it needs a `signing_key` under [keys]: without one every snapshot is full, and `bkp logs` fails after its first run"
            };
            let id = &wrapped.id;
            return Ok(format!("wraps a data key, id {id}; may not unwrap it, {note}{unsigned}"));
        }
        opened => opened?,
    };
    if !provider.matches(&wrapped) || opened.0 != key.0 {
        let message = format!("key {} does not unwrap what it wrapped", provider.origin());
        return Err(crate::error::Fault::new(Kind::Key, message).into());
    }
    Ok(format!("wraps and unwraps a data key, id {}", wrapped.id))
}

/// What each source says of itself.
fn sources(app: &AppContext) -> Vec<CheckResult> {
    let mut found = Vec::new();
    for name in app.settings.sources.keys() {
        match app.source(name) {
            Ok(source) => found.extend(
                source.check(&app.drill_tools(source.share()), &app.ctx).into_iter().map(
                    |mut check| {
                        check.what = format!("source {name}: {}", check.what);
                        (Kind::Source, check)
                    },
                ),
            ),
            Err(error) => found.push(tried(format!("source {name}"), Err(error))),
        }
    }
    found
}
