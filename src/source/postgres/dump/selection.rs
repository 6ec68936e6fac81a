//! Which entries of a dump are restored, where not all of them are.
//!
//! `pg_restore --table` leaves out indexes, constraints and sequences. Here a table that is chosen brings everything
//! that belongs to it, and what its definition needs: types, functions, extensions, schemas, and the table that it is
//! a part of.

use std::collections::{BTreeMap, BTreeSet};

use super::custom_format::{Contents, Entry};
use crate::error::{Fault, Kind};

/// What is wanted of a dump.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Schemas, with everything in them.
    pub(crate) schemas: Vec<String>,
    /// Tables and views, as SCHEMA.TABLE.
    pub(crate) tables: Vec<String>,
}

/// The entries that are restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected<'c> {
    /// In the order of the dump.
    pub(crate) entries: Vec<&'c Entry>,
    /// What of the dump cannot come along although it belongs to what was chosen, in words.
    pub(crate) lost: Vec<String>,
    /// Whether it is everything.
    pub(crate) is_all: bool,
}

/// Kinds of entries that rows can be in, or that can be read like a table.
const TABLES: [&str; 4] = ["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW"];
/// Kinds that exist only with their table, and need all of the tables, constraints and indexes that they name.
const PARTS: [&str; 17] = [
    "CHECK CONSTRAINT",
    "CONSTRAINT",
    "DEFAULT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "MATERIALIZED VIEW DATA",
    "POLICY",
    "ROW SECURITY",
    "RULE",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "STATISTICS",
    "STATISTICS DATA",
    "TABLE ATTACH",
    "TABLE DATA",
    "TRIGGER",
];
/// Kinds that say something of any other.
const REMARKS: [&str; 4] = ["ACL", "COMMENT", "SECURITY LABEL", "SEQUENCE SET"];
/// Kinds that are of the whole database: they are not restored with a part of it, and are made by another statement
/// than those of a dump where all of it is.
const OF_DATABASE: [&str; 2] = ["DATABASE", "DATABASE PROPERTIES"];

impl Selection {
    /// Whether nothing was chosen, which is everything.
    pub(crate) fn is_all(&self) -> bool {
        self.schemas.is_empty() && self.tables.is_empty()
    }

    /// Chooses.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a schema or a table that the dump does not have.
    pub(crate) fn choose<'c>(&self, contents: &'c Contents) -> Result<Selected<'c>, Fault> {
        let mut choice = Choice::new(contents);
        let dangling: BTreeSet<i64> = choice.dangling().collect();
        if self.is_all() {
            choice.chosen = contents.entries.iter().map(|entry| entry.id).collect();
        } else {
            self.schemas.iter().try_for_each(|schema| choice.schema(schema))?;
            self.tables.iter().try_for_each(|table| choice.table(table))?;
            choice.complete();
        }
        choice.chosen.retain(|id| !dangling.contains(id));
        let is_taken = |entry: &&Entry| {
            choice.chosen.contains(&entry.id) && !OF_DATABASE.contains(&entry.kind.as_str())
        };
        Ok(Selected {
            entries: contents.entries.iter().filter(is_taken).collect(),
            lost: choice.lost(&dangling),
            is_all: self.is_all() && dangling.is_empty(),
        })
    }
}

impl Selected<'_> {
    /// The list for `pg_restore --use-list`.
    pub(crate) fn list(&self) -> String {
        let ids: Vec<String> = self.entries.iter().map(|entry| entry.id.to_string()).collect();
        ids.join(";\n") + ";\n"
    }
}

/// A choice in progress.
struct Choice<'c> {
    contents: &'c Contents,
    by_id: BTreeMap<i64, &'c Entry>,
    chosen: BTreeSet<i64>,
    /// Tables whose rows and partitions come along.
    whole: BTreeSet<i64>,
}

impl<'c> Choice<'c> {
    fn new(contents: &'c Contents) -> Choice<'c> {
        let by_id = contents.entries.iter().map(|entry| (entry.id, entry)).collect();
        Choice { contents, by_id, chosen: BTreeSet::new(), whole: BTreeSet::new() }
    }

    fn schema(&mut self, schema: &str) -> Result<(), Fault> {
        let before = self.chosen.len();
        for entry in &self.contents.entries {
            let is_it = entry.kind == "SCHEMA" && entry.name == schema;
            let is_in_it = entry.schema.as_deref() == Some(schema);
            // Foreign keys and attached partitions may need what is elsewhere.
            let is_elsewhere =
                PARTS.contains(&entry.kind.as_str()) || entry.kind.starts_with("PUBLICATION");
            if is_it || (is_in_it && !is_elsewhere) {
                self.chosen.insert(entry.id);
                if TABLES.contains(&entry.kind.as_str()) {
                    self.whole.insert(entry.id);
                }
            }
            if is_in_it && entry.kind == "SEQUENCE" {
                self.chosen.insert(entry.id);
            }
        }
        if self.chosen.len() > before { Ok(()) } else { Err(self.unknown("schema", schema)) }
    }

    fn table(&mut self, table: &str) -> Result<(), Fault> {
        let is_it = |entry: &&Entry| {
            let name = entry.schema.as_ref().map(|schema| format!("{schema}.{}", entry.name));
            TABLES.contains(&entry.kind.as_str()) && name.as_deref() == Some(table)
        };
        let found = self.contents.entries.iter().find(is_it);
        let id = found.ok_or_else(|| self.unknown("table", table))?.id;
        self.chosen.insert(id);
        self.whole.insert(id);
        Ok(())
    }

    fn unknown(&self, what: &str, name: &str) -> Fault {
        let names = self.contents.entries.iter().filter_map(|entry| match what {
            "schema" => entry.schema.clone(),
            _ if TABLES.contains(&entry.kind.as_str()) => {
                entry.schema.as_ref().map(|schema| format!("{schema}.{}", entry.name))
            }
            _ => None,
        });
        let names: BTreeSet<String> = names.collect();
        let nearest = crate::table::nearest(name, names.iter().map(String::as_str));
        let hint = match nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("it has: {}", bounded(names.iter().map(String::as_str))),
        };
        Fault::new(Kind::NotFound, format!("the dump has no {what} `{name}`")).hint(hint)
    }

    /// Adds what belongs to what was chosen, and what that needs, until nothing more comes.
    fn complete(&mut self) {
        loop {
            let before = (self.chosen.len(), self.whole.len());
            let contents = self.contents;
            for entry in &contents.entries {
                if self.chosen.contains(&entry.id) {
                    self.need(entry);
                } else {
                    self.belong(entry);
                }
            }
            let schemas: BTreeSet<&str> =
                self.chosen.iter().filter_map(|id| self.by_id.get(id)?.schema.as_deref()).collect();
            let is_around =
                |entry: &&Entry| entry.kind == "SCHEMA" && schemas.contains(entry.name.as_str());
            let around: Vec<i64> =
                contents.entries.iter().filter(is_around).map(|entry| entry.id).collect();
            self.chosen.extend(around);
            if (self.chosen.len(), self.whole.len()) == before {
                return;
            }
        }
    }

    /// Adds what an entry that was chosen depends on.
    fn need(&mut self, entry: &Entry) {
        for id in &entry.depends_on {
            let Some(needed) = self.by_id.get(id) else { continue };
            self.chosen.insert(*id);
            let reads_it = TABLES.contains(&entry.kind.as_str()) && entry.kind.contains("VIEW");
            if reads_it && TABLES.contains(&needed.kind.as_str()) {
                self.whole.insert(*id);
            }
        }
    }

    /// Adds an entry that belongs to what was chosen.
    fn belong(&mut self, entry: &Entry) {
        let kind = entry.kind.as_str();
        let is_chosen = |id: &&i64| self.chosen.contains(id);
        if REMARKS.contains(&kind) && entry.depends_on.iter().any(|id| is_chosen(&id)) {
            self.chosen.insert(entry.id);
            return;
        }
        if !PARTS.contains(&kind) {
            return;
        }
        if kind == "TABLE ATTACH" {
            self.partition(entry);
        }
        let is_needed = |id: &&i64| {
            let kind = self.by_id.get(id).map(|entry| entry.kind.as_str()).unwrap_or_default();
            TABLES.contains(&kind) || PARTS.contains(&kind)
        };
        let mut needed = entry.depends_on.iter().filter(is_needed).peekable();
        let belongs = needed.peek().is_some() && needed.all(|id| self.chosen.contains(id));
        let with_rows =
            kind != "TABLE DATA" || entry.depends_on.iter().any(|id| self.whole.contains(id));
        if belongs && with_rows {
            self.chosen.insert(entry.id);
        }
    }

    /// Adds a partition of a table that comes as a whole.
    fn partition(&mut self, attached: &Entry) {
        let is_child = |id: &i64| {
            self.by_id
                .get(id)
                .is_some_and(|entry| entry.name == attached.name && entry.schema == attached.schema)
        };
        let (children, parents): (Vec<i64>, Vec<i64>) =
            attached.depends_on.iter().partition(|id| is_child(id));
        if parents.iter().any(|id| self.whole.contains(id)) {
            self.chosen.extend(&children);
            self.whole.extend(children);
        }
    }

    /// Foreign keys to tables that were left out of the dump: they cannot be made.
    fn dangling(&self) -> impl Iterator<Item = i64> {
        let keys = self.contents.entries.iter().filter(|entry| entry.kind == "FK CONSTRAINT");
        let is_key = |id: &i64| {
            let kind = self.by_id.get(id).map(|entry| entry.kind.as_str());
            // Where an extension made the table, its constraints are part of the extension.
            matches!(kind, Some("CONSTRAINT" | "INDEX" | "EXTENSION"))
        };
        keys.filter(move |entry| !entry.depends_on.iter().any(is_key)).map(|entry| entry.id)
    }

    /// What cannot come along.
    fn lost(&self, dangling: &BTreeSet<i64>) -> Vec<String> {
        let is_of_chosen = |entry: &&Entry| {
            let is_table = |id: &&i64| {
                let entry = self.by_id.get(id);
                entry.is_some_and(|entry| TABLES.contains(&entry.kind.as_str()))
            };
            entry.kind == "FK CONSTRAINT"
                && !self.chosen.contains(&entry.id)
                && (dangling.contains(&entry.id)
                    || entry.depends_on.iter().filter(is_table).any(|id| {
                        let owner = self.by_id.get(id);
                        let is_own = owner
                            .is_some_and(|own| entry.name.starts_with(&format!("{} ", own.name)));
                        is_own && self.chosen.contains(id)
                    }))
        };
        let keys = self.contents.entries.iter().filter(is_of_chosen);
        let named = keys.map(|key| {
            let schema = key.schema.as_deref().unwrap_or_default();
            format!("the foreign key {schema}.{}, whose table does not come along", key.name)
        });
        named.collect()
    }
}

/// A name as it can be shown: it may hold characters that steer a terminal.
pub(crate) fn plain(name: &str) -> String {
    let escaped =
        |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    name.chars().map(escaped).collect()
}

/// The first names of a list, and how many more there are.
pub(crate) fn bounded<'n>(names: impl Iterator<Item = &'n str>) -> String {
    const SHOWN_MAX: usize = 20;
    let names: Vec<&str> = names.collect();
    let more = names.len().saturating_sub(SHOWN_MAX);
    let shown: Vec<String> = names.iter().take(SHOWN_MAX).map(|name| plain(name)).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: i64, kind: &str, name: &str, depends_on: &[i64]) -> Entry {
        let schema = (!["SCHEMA", "EXTENSION"].contains(&kind)).then(|| "s".to_owned());
        let (kind, name) = (kind.to_owned(), name.to_owned());
        Entry { id, kind, name, schema, depends_on: depends_on.to_vec(), ..Entry::default() }
    }

    /// Two tables with a foreign key, a partitioned one, and a sequence, as `pg_dump` describes them.
    fn contents() -> Contents {
        let entries = vec![
            entry(1, "SCHEMA", "s", &[]),
            entry(2, "EXTENSION", "citext", &[]),
            entry(3, "TYPE", "mood", &[1]),
            entry(10, "TABLE", "a", &[3, 2]),
            entry(11, "TABLE", "b", &[1]),
            entry(12, "SEQUENCE", "b_n_seq", &[11]),
            entry(13, "SEQUENCE OWNED BY", "b_n_seq", &[12]),
            entry(14, "TABLE", "p", &[]),
            entry(15, "TABLE", "p1", &[14]),
            entry(16, "TABLE", "p2", &[14]),
            entry(17, "TABLE ATTACH", "p1", &[15, 14]),
            entry(18, "TABLE ATTACH", "p2", &[16, 14]),
            entry(19, "DEFAULT", "b n", &[12, 11, 11]),
            entry(20, "TABLE DATA", "a", &[10]),
            entry(21, "TABLE DATA", "b", &[11]),
            entry(22, "TABLE DATA", "p1", &[15]),
            entry(23, "TABLE DATA", "p2", &[16]),
            entry(24, "SEQUENCE SET", "b_n_seq", &[12]),
            entry(30, "CONSTRAINT", "a a_pkey", &[10]),
            entry(31, "CONSTRAINT", "p p_pkey", &[14]),
            entry(32, "CONSTRAINT", "p1 p1_pkey", &[15, 31]),
            entry(33, "CONSTRAINT", "p2 p2_pkey", &[16, 31]),
            entry(34, "INDEX ATTACH", "p1_pkey", &[32, 15, 31, 14]),
            entry(35, "INDEX", "b_i_idx", &[11]),
            entry(36, "FK CONSTRAINT", "b b_i_fkey", &[10, 30, 11]),
            entry(37, "COMMENT", "TABLE a", &[10]),
            entry(38, "PUBLICATION", "pub", &[]),
            entry(39, "PUBLICATION TABLE", "pub a", &[10, 38]),
            entry(40, "FK CONSTRAINT", "b b_gone_fkey", &[11]),
            entry(41, "DATABASE", "app", &[]),
        ];
        Contents { entries, ..Contents::default() }
    }

    fn chosen(tables: &[&str]) -> (Vec<i64>, Vec<String>) {
        let tables = tables.iter().map(|table| (*table).to_owned()).collect();
        let contents = contents();
        let selection = Selection { tables, ..Selection::default() };
        let selected = selection.choose(&contents).expect("there");
        (selected.entries.iter().map(|entry| entry.id).collect(), selected.lost)
    }

    #[test]
    fn a_table_brings_what_belongs_to_it_and_what_it_needs() {
        assert_eq!(chosen(&["s.a"]).0, [1, 2, 3, 10, 20, 30, 37]);
        let (entries, lost) = chosen(&["s.b"]);
        assert_eq!(entries, [1, 11, 12, 13, 19, 21, 24, 35]);
        assert_eq!(lost.len(), 2, "{lost:?}");
        let (entries, lost) = chosen(&["s.a", "s.b"]);
        assert!(entries.contains(&36) && lost.len() == 1, "{entries:?} {lost:?}");
    }

    #[test]
    fn a_partitioned_table_brings_its_partitions_and_a_partition_its_table_without_the_others() {
        let (entries, _) = chosen(&["s.p"]);
        assert_eq!(entries, [1, 14, 15, 16, 17, 18, 22, 23, 31, 32, 33, 34]);
        let (entries, _) = chosen(&["s.p1"]);
        assert_eq!(entries, [1, 14, 15, 17, 22, 31, 32, 34]);
    }

    #[test]
    fn everything_is_all_but_keys_to_what_was_left_out_and_the_database_itself() {
        let contents = contents();
        let selected = Selection::default().choose(&contents).expect("all");
        assert_eq!(selected.entries.len(), contents.entries.len() - 2);
        assert!(!selected.is_all && selected.lost.len() == 1);
        let wrong = Selection { tables: vec!["s.aa".into()], ..Selection::default() };
        let fault = wrong.choose(&contents).expect_err("unknown");
        assert!(fault.to_string().contains("`s.aa`"), "{fault}");
    }

    #[test]
    fn a_schema_brings_everything_in_it() {
        let contents = contents();
        let selection = Selection { schemas: vec!["s".into()], ..Selection::default() };
        let selected = selection.choose(&contents).expect("there");
        let ids: Vec<i64> = selected.entries.iter().map(|entry| entry.id).collect();
        let left_out = [38, 39, 40, 41];
        let all = contents.entries.iter().map(|entry| entry.id);
        assert_eq!(ids, all.filter(|id| !left_out.contains(id)).collect::<Vec<_>>());
    }
}
