//! The map that tells whose row is whose: the `[source.NAME.tenants]` table.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::table::ConfigError;

/// The keys of a `[source.NAME.tenants]` table. Tables are named SCHEMA.TABLE.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::source::postgres) struct TenantsTable {
    /// The database that the tenants are in, as backups call it. Default: the one that `--into` names.
    #[serde(default)]
    database: Option<String>,
    /// The table with one row for each tenant.
    root: String,
    /// Its column that other tables refer to. Default: its primary key.
    #[serde(default)]
    key: Option<String>,
    /// Its column with what `--tenant` names. Default: the same.
    #[serde(default)]
    name: Option<String>,
    /// Tables that belong to all tenants: they are compared, and never changed. SCHEMA.* is all other tables of a schema.
    #[serde(default)]
    shared: Vec<String>,
    /// Tables that are neither compared nor changed, such as logs of an audit. SCHEMA.* as above.
    #[serde(default)]
    excluded: Vec<String>,
    /// By which rule the rows of each table belong to a tenant.
    #[serde(default)]
    tables: BTreeMap<String, RuleTable>,
}

/// The rule of one table: exactly one of these keys.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    /// A column with the tenant's key.
    #[serde(default)]
    column: Option<String>,
    /// The name of a foreign key: a row belongs to whom the row that it refers to belongs.
    #[serde(default)]
    via: Option<String>,
    /// A condition on the columns of a row, in SQL, with $tenant for the key. Other tables are named with their schema.
    #[serde(default, rename = "where")]
    condition: Option<String>,
}

/// By which rule rows belong to a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    /// A column has the tenant's key.
    Column(String),
    /// They belong to whom the rows belong that this foreign key leads to.
    Via(String),
    /// A condition of the operator's.
    Condition(String),
}

/// Whose row is whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source::postgres) struct TenantMap {
    /// Its table in the configuration.
    pub(super) place: String,
    pub(super) database: Option<String>,
    pub(super) root: String,
    pub(super) key: Option<String>,
    pub(super) name: Option<String>,
    pub(super) shared: Vec<String>,
    pub(super) excluded: Vec<String>,
    pub(super) tables: BTreeMap<String, Rule>,
}

/// What a table is to the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role<'a> {
    /// The one with a row for each tenant.
    Root,
    /// Its rows belong to tenants.
    Ruled(&'a Rule),
    /// Its rows belong to all.
    Shared,
    /// It is left alone.
    Excluded,
    /// The map does not name it.
    Unknown,
}

impl TenantMap {
    /// Reads the table that stands at `place`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for names that are none, and for tables with no rule or several.
    pub(in crate::source::postgres) fn read(
        place: String,
        table: TenantsTable,
    ) -> Result<TenantMap, ConfigError> {
        let TenantsTable { database, root, key, name, shared, excluded, tables } = table;
        let named = |key: &str, name: &str| match name.split_once('.') {
            Some((schema, table)) if !schema.is_empty() && !table.is_empty() => Ok(()),
            _ => {
                let problem = format!("`{name}` is not the name of a table");
                let error = ConfigError::invalid(format!("{place}.{key}"), problem);
                Err(error.suggest("write SCHEMA.TABLE, such as public.invoice"))
            }
        };
        named("root", &root)?;
        shared.iter().try_for_each(|name| named("shared", name))?;
        excluded.iter().try_for_each(|name| named("excluded", name))?;
        let mut rules = BTreeMap::new();
        for (name, rule) in tables {
            named("tables", &name)?;
            let key = format!("{place}.tables.{name:?}");
            let rule = rule.read().map_err(|problem| {
                let error = ConfigError::invalid(key.clone(), problem);
                error.suggest("write one of column, via and where")
            })?;
            if name == root {
                let error = ConfigError::invalid(key, "the root table needs no rule");
                return Err(error.suggest("remove it: its rows are the tenants"));
            }
            rules.insert(name, rule);
        }
        Ok(TenantMap { place, database, root, key, name, shared, excluded, tables: rules })
    }

    /// What a table is to the map. A name says more than a whole schema does.
    pub(super) fn role(&self, table: &str) -> Role<'_> {
        if table == self.root {
            return Role::Root;
        }
        if let Some(rule) = self.tables.get(table) {
            return Role::Ruled(rule);
        }
        let is_in = |names: &[String]| names.iter().any(|name| name == table);
        let is_of = |names: &[String]| {
            let schemas = names.iter().filter_map(|name| name.strip_suffix(".*"));
            let of =
                |schema: &str| table.strip_prefix(schema).is_some_and(|rest| rest.starts_with('.'));
            schemas.into_iter().any(of)
        };
        match () {
            () if is_in(&self.shared) => Role::Shared,
            () if is_in(&self.excluded) => Role::Excluded,
            () if is_of(&self.shared) => Role::Shared,
            () if is_of(&self.excluded) => Role::Excluded,
            () => Role::Unknown,
        }
    }

    /// The names of tables in it that are not in a database with these tables.
    pub(super) fn missing<'m>(&'m self, tables: &[String]) -> Vec<&'m str> {
        let names = std::iter::once(&self.root).chain(self.tables.keys());
        let others = self.shared.iter().chain(&self.excluded).filter(|name| !name.ends_with(".*"));
        let is_missing = |name: &&String| !tables.contains(name);
        names.chain(others).filter(is_missing).map(String::as_str).collect()
    }
}

impl RuleTable {
    fn read(self) -> Result<Rule, &'static str> {
        match (self.column, self.via, self.condition) {
            (Some(column), None, None) => Ok(Rule::Column(column)),
            (None, Some(key), None) => Ok(Rule::Via(key)),
            (None, None, Some(condition)) if condition.contains("$tenant") => {
                Ok(Rule::Condition(condition))
            }
            (None, None, Some(_)) => Err("the condition does not mention $tenant"),
            (None, None, None) => Err("it has no rule"),
            (_, _, _) => Err("it has more than one rule"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Result<TenantMap, String> {
        let table = toml::from_str(text).map_err(|error| error.to_string())?;
        TenantMap::read("source.pg.tenants".to_owned(), table).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_says_more_than_its_schema() {
        let map = map(r#"
            root = "public.tenant"
            shared = ["public.*", "audit.kinds"]
            excluded = ["audit.*", "public.noise"]
            [tables]
            "public.invoice" = { column = "tenant_id" }
        "#);
        let map = map.expect("valid");
        assert_eq!(map.role("public.tenant"), Role::Root);
        let rule = Rule::Column("tenant_id".to_owned());
        assert_eq!(map.role("public.invoice"), Role::Ruled(&rule));
        assert_eq!(map.role("public.country"), Role::Shared);
        assert_eq!(map.role("public.noise"), Role::Excluded);
        assert_eq!(map.role("audit.kinds"), Role::Shared);
        assert_eq!(map.role("audit.log"), Role::Excluded);
        assert_eq!(map.role("auditing.log"), Role::Unknown);
        let there = ["public.tenant".to_owned(), "audit.kinds".to_owned()];
        assert_eq!(map.missing(&there), ["public.invoice", "public.noise"]);
    }

    #[test]
    fn what_is_no_map_is_named() {
        for (text, part) in [
            ("root = 'tenant'", "root: `tenant` is not the name of a table"),
            ("root = 'a.t'\nshared = ['x']", "shared: `x`"),
            ("root = 'a.t'\n[tables]\n'a.b' = {}", "no rule"),
            ("root = 'a.t'\n[tables]\n'a.b' = { column = 'x', via = 'y' }", "more than one rule"),
            ("root = 'a.t'\n[tables]\n'a.b' = { where = 'true' }", "$tenant"),
            ("root = 'a.t'\n[tables]\n'a.t' = { column = 'x' }", "needs no rule"),
            ("root = 'a.t'\n[tables]\n'a.b' = { colum = 'x' }", "unknown field"),
            ("shared = []", "missing field"),
        ] {
            let error = map(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
