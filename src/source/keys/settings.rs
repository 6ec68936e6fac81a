//! A configured key set.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::capture;
use crate::archive::EntrySink;
use crate::ctx::{Ctx, host};
use crate::domain::limits::RECIPIENTS_MAX;
use crate::domain::manifest::Identity;
use crate::domain::names::is_name;
use crate::error::{Fault, Kind, diagnose};
use crate::keys;
use crate::source::{CaptureRequest, Captured, Check, DrillTools, Opened, Source};
use crate::table::{ConfigError, parse_table};

/// The keys of a `[source.NAME]` table with `kind = "keys"`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// Who opens the key set, and with it every backup whose key is in it: recipients as in `[keys]`, best the
    /// public key of one whose private half is on no host. The key set itself is sealed for them, too.
    #[schemars(extend("items" = { "type": "string", "format": "recipient" }))]
    recipients: Vec<String>,
    /// The sources whose backups it is for; also ones that are no longer configured. Default: all that are
    /// configured, or with `tenant` those of that tenant.
    #[serde(default)]
    sources: Vec<String>,
}

/// A configured key set.
#[derive(Debug)]
struct Configured {
    name: String,
    recipients: Vec<String>,
    sources: Vec<String>,
}

pub(super) fn open(name: &str, table: toml::Table) -> Opened {
    let place = format!("source.{name}");
    let Table { recipients, sources } = parse_table(&place, table)?;
    if recipients.is_empty() || recipients.len() > RECIPIENTS_MAX {
        let problem = format!("{} recipients: 1 to {RECIPIENTS_MAX} are needed", recipients.len());
        let error = ConfigError::invalid(format!("{place}.recipients"), problem);
        return Err(error.suggest("name whom to wrap the keys for: recipients = [\"age:age1…\"]"));
    }
    let mut known = BTreeSet::new();
    for (index, source) in sources.iter().enumerate() {
        let invalid = |problem: String| {
            let error = ConfigError::invalid(format!("{place}.sources[{index}]"), problem);
            error.suggest("name other sources, each once; or omit `sources` for all of them")
        };
        if !is_name(source) {
            return Err(invalid(format!("`{source}` is not a valid name for a source")));
        }
        if source == name || !known.insert(source) {
            return Err(invalid(format!("`{source}` is the key set itself, or listed twice")));
        }
    }
    Ok(Box::new(Configured { name: name.to_owned(), recipients, sources }))
}

impl Source for Configured {
    fn identity(&self, _ctx: &Ctx) -> anyhow::Result<Identity> {
        Ok([("host".to_owned(), host()), ("keyset".to_owned(), self.name.clone())].into())
    }

    fn check_parent(&self, _record: &Value, _ctx: &Ctx) -> anyhow::Result<()> {
        let fault = Fault::new(Kind::Refused, "a key set is always a full backup");
        Err(fault.hint("omit --scope").into())
    }

    fn recipients(&self) -> &[String] {
        &self.recipients
    }

    fn of_sources(&self) -> &[String] {
        &self.sources
    }

    fn capture(
        &self,
        request: &CaptureRequest<'_>,
        out: &mut dyn EntrySink,
        ctx: &Ctx,
    ) -> anyhow::Result<Captured> {
        let open = |text: &String| keys::kinds::open(text, &ctx.cancel);
        let recipients = self.recipients.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        capture::capture(&recipients, request, out, ctx)
    }

    fn check(&self, _tools: &DrillTools, ctx: &Ctx) -> Vec<Check> {
        let check = |text: &String| {
            let what = format!("recovery recipient {}", keys::shown(text));
            match keys::kinds::open(text, &ctx.cancel).map_err(anyhow::Error::from) {
                Ok(key) if key.is_public() => {
                    Check { what, ok: true, found: "a public key".to_owned(), hint: None }
                }
                Ok(_) => {
                    let found =
                        "a key that this host has: whoever takes it over has the recovery key, too"
                            .to_owned();
                    Check { what, ok: true, found, hint: None }
                }
                Err(error) => {
                    let hint = Some(diagnose(&error).hint);
                    Check { what, ok: false, found: format!("{error:#}"), hint }
                }
            }
        };
        self.recipients.iter().map(check).collect()
    }
}
