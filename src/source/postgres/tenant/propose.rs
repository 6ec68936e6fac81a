//! A map of tenants made of a database's foreign keys, for a person to read, or a configured one that is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::database::check_rules;
use super::map::{Role, Rule, TenantMap};
use super::plan::{Plan, problems};
use super::schema::{ForeignKey, Schema, Table, begin_session};
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::Check;
use crate::source::postgres::configured::Server;
use crate::source::postgres::dump::selection::{bounded, plain};
use crate::source::tenants::{MapRequest, TenantMapReport};

/// How long the server may say nothing.
const SILENCE: Duration = Duration::from_mins(10);

/// Checks the configured map against the configured server, or proposes one that begins at a root table.
///
/// # Errors
/// [`Kind::Usage`] without a map and a root, or without a database; what the server fails with.
pub(super) fn tenant_map(
    server: &Server,
    request: &MapRequest<'_>,
    ctx: &Ctx,
) -> anyhow::Result<TenantMapReport> {
    let MapRequest { root, database } = *request;
    let configured = server.tenants.as_ref().filter(|_| root.is_none());
    let usage = |message: &str, hint: &str| {
        Fault::new(Kind::Usage, message.to_owned()).hint(hint.to_owned())
    };
    let database = database.or_else(|| configured?.database.as_deref()).ok_or_else(|| {
        usage("no database is named", "name the database of the tenants with --database")
    })?;
    let mut sql = server.connect(database, SILENCE, ctx)?;
    begin_session(&mut sql)?;
    let schema = Schema::read(&mut sql)?;
    let (map, mut problems) = match (configured, root) {
        (Some(map), _) => (map.clone(), problems(map, &schema)),
        (None, Some(root)) => propose(&server.place, root, database, &schema)?,
        (None, None) => {
            let hint = "name the table with a row for each tenant: --root public.tenant";
            return Err(usage("no map of tenants is configured", hint).into());
        }
    };
    if problems.is_empty() && configured.is_some() {
        let plan = Plan::make(&map, &schema, database)?;
        let checked = check_rules(&mut sql, &plan, &map.place);
        problems.extend(checked.err().map(|error| error.to_string()));
    }
    problems.sort();
    Ok(TenantMapReport {
        database: database.to_owned(),
        configured: configured.is_some(),
        map: written(&map),
        problems,
    })
}

/// What `bkp doctor` tells of the map, if there is one.
pub(in crate::source::postgres) fn check(server: &Server, ctx: &Ctx) -> Option<Check> {
    server.tenants.as_ref()?.database.as_ref()?;
    let request = MapRequest { root: None, database: None };
    let line = |ok, found, hint: Option<&str>| Check {
        what: "tenants (bkp restore --tenant)".to_owned(),
        ok,
        found,
        hint: hint.map(str::to_owned),
    };
    Some(match tenant_map(server, &request, ctx) {
        Ok(report) if report.problems.is_empty() => {
            line(true, format!("the map fits database {}", plain(&report.database)), None)
        }
        Ok(report) => {
            let found = bounded(report.problems.iter().map(String::as_str));
            line(false, found, Some("correct the map; `bkp config tenants` shows it"))
        }
        Err(error) => line(true, format!("not compared: {error:#}"), None),
    })
}

/// Follows the foreign keys from the table of the tenants, the nearest first.
fn propose(
    place: &str,
    root: &str,
    database: &str,
    schema: &Schema,
) -> Result<(TenantMap, Vec<String>), Fault> {
    let Some(table) = schema.table(root) else {
        let names: Vec<String> = schema.tables.iter().map(Table::full_name).collect();
        let nearest = crate::table::nearest(root, names.iter().map(String::as_str));
        let hint = nearest.map_or("write SCHEMA.TABLE".to_owned(), |nearest| {
            format!("did you mean `{nearest}`?")
        });
        let message = format!("the database has no table {}", plain(root));
        return Err(Fault::new(Kind::NotFound, message).hint(hint));
    };
    let key = match table.key.as_slice() {
        [only] => only.name.clone(),
        _ => String::new(),
    };
    let mut proposal =
        Proposal { root, key: &key, schema, rules: BTreeMap::new(), notes: Vec::new() };
    proposal.follow();
    proposal.by_name();
    proposal.follow();
    let mut map = TenantMap {
        place: format!("{place}.tenants"),
        database: Some(database.to_owned()),
        root: root.to_owned(),
        key: Some(key.clone()).filter(|key| !key.is_empty()),
        name: None,
        shared: Vec::new(),
        excluded: Vec::new(),
        tables: proposal.rules,
    };
    let mut notes = proposal.notes;
    for table in schema.tables.iter().filter(|table| table.kind != "f") {
        let name = table.full_name();
        if map.role(&name) == Role::Unknown {
            let shown = plain(&name);
            notes.push(format!("no foreign key leads from {shown} to a tenant: it is proposed as shared; exclude it if its rows come and go with those of tenants"));
            map.shared.push(name);
        }
    }
    notes.extend(problems(&map, schema));
    Ok((map, notes))
}

/// A map that is being made.
struct Proposal<'a> {
    root: &'a str,
    /// The root table's key.
    key: &'a str,
    schema: &'a Schema,
    rules: BTreeMap<String, Rule>,
    notes: Vec<String>,
}

impl Proposal<'_> {
    /// Adds the tables that refer to those that are in the map, until none is left.
    fn follow(&mut self) {
        loop {
            let known: BTreeSet<&str> =
                self.rules.keys().map(String::as_str).chain([self.root]).collect();
            let mut found = BTreeMap::new();
            for table in &self.schema.tables {
                let name = table.full_name();
                if known.contains(name.as_str()) || table.kind == "f" {
                    continue;
                }
                let keys = self.schema.keys.iter();
                let keys: Vec<&ForeignKey> = keys
                    .filter(|key| {
                        key.child == name
                            && known.contains(key.parent.as_str())
                            && !(key.of_periods || key.of_partition)
                    })
                    .collect();
                if let Some((rule, note)) = self.rule(table, &keys) {
                    self.notes.extend(note);
                    found.insert(name, rule);
                }
            }
            if found.is_empty() {
                return;
            }
            self.rules.extend(found);
        }
    }

    /// The best rule for a table with these foreign keys, and what a person should know of it.
    fn rule(&self, table: &Table, keys: &[&ForeignKey]) -> Option<(Rule, Option<String>)> {
        let is_null = |key: &ForeignKey| {
            let column = |name: &str| table.column(name).is_none_or(|column| !column.not_null);
            key.columns.iter().any(|reference| column(&reference.child))
        };
        let to_root = |key: &ForeignKey| {
            let column = key.columns.iter().find(|column| column.parent == self.key)?;
            (key.parent == self.root && key.columns.len() == 1).then(|| column.child.clone())
        };
        let best = keys.iter().min_by_key(|key| (is_null(key), to_root(key).is_none()))?;
        let rule = to_root(best).map_or_else(|| Rule::Via(best.name.clone()), Rule::Column);
        let name = plain(&table.full_name());
        let others: Vec<String> =
            keys.iter().filter(|key| key.name != best.name).map(|key| plain(&key.name)).collect();
        let note = match () {
            () if is_null(best) => Some(format!(
                "{} of {name} may be null: such rows belong to no tenant",
                plain(&best.name)
            )),
            () if !others.is_empty() => {
                Some(format!("{name} could also be mapped via {}", others.join(", ")))
            }
            () => None,
        };
        Some((rule, note))
    }

    /// Adds tables without a foreign key that have a column of a name and type by which others refer to the tenants.
    fn by_name(&mut self) {
        let columns: BTreeSet<(String, String)> = self
            .rules
            .iter()
            .filter_map(|(table, rule)| match rule {
                Rule::Column(column) => {
                    let known = self.schema.table(table)?.column(column)?;
                    Some((column.clone(), known.sql_type.clone()))
                }
                Rule::Via(_) | Rule::Condition(_) => None,
            })
            .collect();
        for table in &self.schema.tables {
            let name = table.full_name();
            if name == self.root || self.rules.contains_key(&name) || table.kind == "f" {
                continue;
            }
            let of_name = table
                .columns
                .iter()
                .find(|column| columns.contains(&(column.name.clone(), column.sql_type.clone())));
            if let Some(column) = of_name {
                self.notes.push(format!(
                    "{} has no foreign key to the tenants: mapped by the name of its column {}",
                    plain(&name),
                    plain(&column.name)
                ));
                self.rules.insert(name, Rule::Column(column.name.clone()));
            }
        }
    }
}

/// A map as the configuration has it.
fn written(map: &TenantMap) -> String {
    // On one line, as keys have to be: what JSON escapes, TOML reads.
    let quoted =
        |text: &str| serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f");
    let list =
        |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let root = Some(map.root.clone());
    let named =
        [("database", &map.database), ("root", &root), ("key", &map.key), ("name", &map.name)];
    let named = named.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
    let mut lines = vec![format!("[{}]", map.place)];
    lines.extend(named.map(|(key, value)| format!("{key} = {}", quoted(value))));
    lines.push(format!("shared = [{}]", list(&map.shared)));
    lines.push(format!("excluded = [{}]", list(&map.excluded)));
    lines.push(format!("\n[{}.tables]", map.place));
    for (name, rule) in &map.tables {
        let (word, value) = match rule {
            Rule::Column(column) => ("column", column),
            Rule::Via(key) => ("via", key),
            Rule::Condition(condition) => ("where", condition),
        };
        lines.push(format!("{} = {{ {word} = {} }}", quoted(name), quoted(value)));
    }
    lines.join("\n") + "\n"
}
