//! Pieces of SQL: quoting, and what can be read from the text of a definition.

/// A name as SQL takes it in every case.
pub(crate) fn name(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A string.
pub(crate) fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The statement that takes a value of a sequence with this name, which is in quotes.
pub(crate) fn next_value(sequence: &str) -> String {
    format!("SELECT nextval({});", text(sequence))
}

/// Names with commas between them.
pub(crate) fn names(list: &[String]) -> String {
    list.iter().map(|text| name(text)).collect::<Vec<_>>().join(", ")
}

/// Walks over SQL and says of each character how many parentheses are open around it; characters
/// in quotes are `None`.
fn depths(text: &str) -> Vec<(char, Option<usize>)> {
    let (mut depth, mut quote) = (0_usize, None);
    let step = |c: char| {
        if quote.is_some() || c == '"' || c == '\'' {
            // A doubled quote ends one and begins the next.
            quote = if quote == Some(c) { None } else { quote.or(Some(c)) };
            return (c, None);
        }
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (c, Some(depth))
    };
    text.chars().map(step).collect()
}

/// The parts of `CREATE TABLE name(part, part, …)`, and what stands before them.
fn parts(table_sql: &str) -> Option<(String, Vec<String>)> {
    let marked = depths(table_sql);
    let open = marked.iter().position(|found| *found == ('(', Some(1)))?;
    let close = marked.iter().rposition(|found| *found == (')', Some(0)))?;
    let head = marked.get(..open)?.iter().map(|(c, _)| c).collect();
    let mut parts = vec![String::new()];
    for (c, depth) in marked.get(open + 1..close)? {
        if (*c, *depth) == (',', Some(1)) {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(*c);
        }
    }
    Some((head, parts.into_iter().map(|part| part.trim().to_owned()).collect()))
}

/// For each of the first `columns` columns of a table, whether it is generated.
pub(crate) fn generated(table_sql: &str, columns: usize) -> Vec<bool> {
    let (_, parts) = parts(table_sql).unwrap_or_default();
    let is_generated = |part: &String| {
        let bare = depths(part).into_iter().filter(|(_, depth)| *depth == Some(0));
        bare.map(|(c, _)| c).collect::<String>().contains("GENERATED ALWAYS AS")
    };
    parts.iter().take(columns).map(is_generated).collect()
}

/// Whether a table has these columns with these types, and nothing else.
pub(crate) fn is_bare(table_sql: &str, columns: &[(&str, &str)]) -> bool {
    let (_, parts) = parts(table_sql).unwrap_or_default();
    let is_it = |(part, (name, data_type)): (&String, &(&str, &str))| {
        let (names, rest) = named(part);
        names == [*name] && rest.trim() == *data_type
    };
    parts.len() == columns.len() && parts.iter().zip(columns).all(is_it)
}

/// Puts `missing` constraints where a table's definition has nothing between two commas: so does
/// DuckDB before 2.0 write foreign keys of a table to itself. `None` if they do not fit.
pub(crate) fn filled(table_sql: &str, missing: &[String]) -> Option<String> {
    let (head, parts) = parts(table_sql)?;
    let mut missing = missing.iter();
    let mut filled = Vec::new();
    for part in parts {
        filled.push(if part.is_empty() { missing.next()?.clone() } else { part });
    }
    missing.next().is_none().then(|| format!("{head}({});", filled.join(", ")))
}

/// The type as which a value of `data_type` goes through Parquet, where that would bend it:
/// intervals lose what is below a millisecond and cannot be negative, times lose their offset,
/// large integers become floating-point numbers, infinite seconds cannot be microseconds.
pub(crate) fn parquet_type(data_type: &str) -> Option<String> {
    const BENT: [&str; 5] = ["INTERVAL", "HUGEINT", "UHUGEINT", "BIGNUM", "TIMESTAMP_S"];
    const OFFSET: &str = "TIME WITH TIME ZONE";
    // A timestamp with time zone has another first word.
    let out = unquoted_replace(&with_words(data_type, &BENT, "VARCHAR"), OFFSET, "VARCHAR");
    (out != data_type).then_some(out)
}

/// A type that tells the texts in its values apart, and not the floating-point numbers; nothing where there
/// are not both.
pub(crate) fn without_floats(data_type: &str) -> Option<String> {
    let has_texts = ["VARCHAR", "BLOB", "ENUM", "BIT"].iter().any(|name| data_type.contains(name));
    let without = with_words(data_type, &["FLOAT", "DOUBLE"], "BOOLEAN");
    (has_texts && without != data_type).then_some(without)
}

/// Whether a type is that of places, in whatever system of coordinates: and not of lists of them.
pub(crate) fn is_place(data_type: &str) -> bool {
    let system = data_type.strip_prefix("GEOMETRY");
    system
        .is_some_and(|system| system.is_empty() || system.starts_with('(') && system.ends_with(')'))
}

/// A type in which some words, outside of quotes, are replaced by another one.
fn with_words(data_type: &str, words: &[&str], by: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let end_word = |out: &mut String, word: &mut String| {
        out.push_str(if words.contains(&word.as_str()) { by } else { word });
        word.clear();
    };
    for (c, depth) in depths(data_type) {
        if depth.is_some() && (c.is_alphanumeric() || c == '_') {
            word.push(c);
        } else {
            end_word(&mut out, &mut word);
            out.push(c);
        }
    }
    end_word(&mut out, &mut word);
    out
}

/// Replaces `from` where it stands outside of quotes and is not the end of a longer word.
fn unquoted_replace(text: &str, from: &str, to: &str) -> String {
    let marked = depths(text);
    let from: Vec<char> = from.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while let Some((c, depth)) = marked.get(at) {
        let here = marked.get(at..at + from.len()).unwrap_or_default();
        let is_here = depth.is_some() && here.iter().map(|(c, _)| c).eq(from.iter());
        let starts = !out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if is_here && starts {
            out.push_str(to);
            at += from.len();
        } else {
            out.push(*c);
            at += 1;
        }
    }
    out
}

/// How well DuckDB's own hash tells values of a type apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HashQuality {
    /// Every two: they have 64 bits or fewer.
    Narrow,
    /// Every two, but for chance.
    Wide,
    /// Many: what has 128 bits is folded in halves, so that 0 and -1 have the same hash.
    Folded,
    /// Every two that DuckDB itself tells apart: not the sign of zero, nor what is no number from its like.
    Float,
    /// Every two, but for chance; and there is no text of them.
    State,
    /// Some that differ have the same hash.
    Loosely,
}

/// How well DuckDB's own hash tells values of this type apart.
pub(crate) fn hashes(data_type: &str) -> HashQuality {
    const NARROW: [&str; 16] = [
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "DATE",
        "TIME",
        "TIMESTAMP",
        "TIMESTAMP_S",
        "TIMESTAMP_MS",
        "TIMESTAMP_NS",
        "TIMESTAMP WITH TIME ZONE",
    ];
    const WIDE: [&str; 2] = ["VARCHAR", "BLOB"];
    const FOLDED: [&str; 3] = ["HUGEINT", "UHUGEINT", "UUID"];
    match data_type {
        "FLOAT" | "DOUBLE" => HashQuality::Float,
        // It has no text.
        _ if data_type.starts_with("AGGREGATE_STATE<") => HashQuality::State,
        _ if NARROW.contains(&data_type) => HashQuality::Narrow,
        _ if WIDE.contains(&data_type) => HashQuality::Wide,
        _ if FOLDED.contains(&data_type) => HashQuality::Folded,
        _ => match digits(data_type) {
            Some(0..=18) => HashQuality::Narrow,
            Some(_) => HashQuality::Folded,
            None => HashQuality::Loosely,
        },
    }
}

/// Whether every value of a type is known to come back from Parquet as it is.
pub(crate) fn is_plain(data_type: &str) -> bool {
    !matches!(hashes(data_type), HashQuality::Loosely)
}

/// Whether values of a type may have floating-point numbers in them, which have texts that differ where they
/// are equal: to DuckDB both zeros are one, and so is all that is no number. A variant may hold any.
pub(crate) fn may_float(data_type: &str) -> bool {
    ["FLOAT", "DOUBLE", "VARIANT"].iter().any(|name| data_type.contains(name))
}

/// Whether somebody who knows how values of a type are hashed can make two that differ and share their hash: those
/// whose text leaves something out, and that have no other form but DuckDB's own hash, which has no key. The text of
/// a union leaves out its member; signs of zeros are left out of every text with numbers, and where it has other
/// texts in it those go in once more only if [`without_floats`] knows how. Names count wherever they stand, in
/// quotes, too: a type more here costs room, one less a backup.
pub(crate) fn may_collide(data_type: &str) -> bool {
    let has = |names: &[&str]| names.iter().any(|name| data_type.contains(name));
    let is_place_within = has(&["GEOMETRY"]) && !is_place(data_type);
    let is_bent = hashes(data_type) == HashQuality::Loosely
        && may_float(data_type)
        && has(&["VARCHAR", "BLOB", "ENUM", "JSON"])
        && without_floats(data_type).is_none();
    is_place_within || is_bent || has(&["VARIANT", "AGGREGATE_STATE", "UNION("])
}

/// Digits of a decimal type.
fn digits(data_type: &str) -> Option<u8> {
    let inner = data_type.strip_prefix("DECIMAL(")?.strip_suffix(')')?;
    inner.split(',').next()?.parse().ok()
}

/// What follows the name that a text begins with.
pub(crate) fn after_name(text: &str) -> &str {
    named(text).1
}

/// What a call that fits no body of a macro is told: `NAME(a TYPE, b := 7)` of each, below a line of its
/// own. As many are expected as there are lists of parameters; names go into our quotes.
pub(crate) fn signatures(
    told: &str,
    name: &str,
    parameters: &[Vec<String>],
) -> Option<Vec<String>> {
    let (_, mut rest) = told.split_once("\nCandidate macros:")?;
    let mut found = Vec::new();
    for (number, names) in parameters.iter().enumerate() {
        rest = rest.strip_prefix("\n\t")?.strip_prefix(name)?.strip_prefix('(')?;
        // A default may have the text that separates them in it, but not outside of quotes.
        let marked = depths(&format!("({rest}"));
        let is_end = |(c, depth): &(char, Option<usize>)| (*c, *depth) == (')', Some(0));
        let chars = marked.iter().position(is_end)?.checked_sub(1)?;
        let end = rest.char_indices().nth(chars)?.0;
        let (inner, after) = rest.split_at_checked(end)?;
        found.push(signature(inner, names)?);
        rest = after.strip_prefix(')')?;
        let is_last = number + 1 == parameters.len();
        if is_last && !(rest.is_empty() || rest.starts_with("\n\nLINE ")) {
            return None;
        }
    }
    Some(found)
}

/// One of [`signatures`], without its parentheses.
fn signature(inner: &str, names: &[String]) -> Option<String> {
    let mut rest = inner;
    let mut parts = Vec::new();
    for (index, parameter) in names.iter().enumerate() {
        rest = rest.strip_prefix(parameter.as_str())?;
        let mut part = rest;
        if let Some(next) = names.get(index + 1) {
            let separator = format!(", {next}");
            let is_here =
                |(at, _): &(usize, &str)| outside_quotes(rest.get(..*at).unwrap_or_default());
            let (at, _) = rest.match_indices(&separator).find(is_here)?;
            part = rest.get(..at)?;
            rest = rest.get(at + 2..)?;
        }
        if !part.is_empty() && !part.starts_with(' ') {
            return None;
        }
        parts.push(format!("{}{part}", name(parameter)));
    }
    Some(format!("({})", parts.join(", ")))
}

/// Whether a text ends outside of quotes and of what it opened.
fn outside_quotes(text: &str) -> bool {
    depths(&format!("{text},")).last().is_some_and(|(_, depth)| *depth == Some(0))
}

/// The parts of the name that a text begins with.
pub(crate) fn identifiers(text: &str) -> Vec<String> {
    named(text).0
}

/// The parts of the name that a text begins with, and what follows it.
fn named(text: &str) -> (Vec<String>, &str) {
    let mut parts = Vec::new();
    let mut rest = text.trim_start();
    loop {
        let mut part = String::new();
        if let Some(mut inner) = rest.strip_prefix('"') {
            while let Some((before, after)) = inner.split_once('"') {
                part.push_str(before);
                inner = after;
                match inner.strip_prefix('"') {
                    Some(after) => {
                        part.push('"');
                        inner = after;
                    }
                    None => break,
                }
            }
            rest = inner;
        } else {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$');
            let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
            part.push_str(name);
            rest = after;
        }
        parts.push(part);
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None => return (parts, rest),
        }
    }
}

/// A pattern of tables as it is matched: one without a schema is of `main`, unless it begins with `*`,
/// which then stands for the schema too.
pub(crate) fn qualified(pattern: &str) -> String {
    let is_whole = pattern.contains('.') || pattern.starts_with('*');
    if is_whole { pattern.to_owned() } else { format!("main.{pattern}") }
}

/// Whether a name fits a pattern in which `*` stands for anything. No two names differ by case only.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), name.to_lowercase());
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some((_, after)) = left.split_once(piece) else { return false };
        left = after;
    }
    left.ends_with(last)
}

/// What a row of the table is called in a query: no column is.
pub(crate) const ROW: &str = "bkp_row";

/// A column of [`ROW`].
pub(crate) fn of_row(column: &str) -> String {
    format!("{ROW}.{}", name(column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_whose_hash_can_be_computed_back_is_known() {
        for data_type in [
            "VARIANT",
            "UNION(i INTEGER, s VARCHAR)[]",
            "GEOMETRY[]",
            "STRUCT(j JSON, d DOUBLE)",
            "MAP(JSON, FLOAT)",
            "STRUCT(\"FLOAT\" VARCHAR)",
            "STRUCT(aFLOAT VARCHAR)[]",
            "STRUCT(e ENUM('DOUBLE'), s VARCHAR)",
        ] {
            assert!(may_collide(data_type), "{data_type}");
        }
        for data_type in [
            "DOUBLE",
            "DOUBLE[]",
            "VARCHAR",
            "GEOMETRY",
            "JSON",
            "JSON[]",
            "STRUCT(a DOUBLE, b INTEGER)",
            "STRUCT(d DOUBLE, s VARCHAR)",
        ] {
            assert!(!may_collide(data_type), "{data_type}");
        }
    }

    #[test]
    fn signatures_of_macros_are_told() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let parameters: Vec<Vec<String>> =
            vec![names(&["a", "b c", "d"]), names(&["a"]), names(&[])];
        let told = "Binder Error: Macro m() does not.\nCandidate macros:\n\tm(a, b c INTEGER := 3, d := 'x, d)\n\tm(')\n\tm(a := [1, 2])\n\tm()\n\nLINE 1: m()";
        let found = signatures(told, "m", &parameters).expect("three");
        let expected = [
            r#"("a", "b c" INTEGER := 3, "d" := 'x, d)"#.to_owned() + "\n\tm(')",
            r#"("a" := [1, 2])"#.to_owned(),
            "()".to_owned(),
        ];
        assert_eq!(found, expected);
        assert_eq!(signatures(told, "n", &parameters), None);
        assert_eq!(signatures(told, "m", &parameters[..2]), None);
    }

    #[test]
    fn what_parquet_bends_goes_as_text_and_names_stay() {
        for (data_type, expected) in [
            ("INTEGER", None),
            ("TIMESTAMP WITH TIME ZONE", None),
            ("ENUM('INTERVAL', 'it''s TIME WITH TIME ZONE')", None),
            ("INTERVAL", Some("VARCHAR")),
            ("TIME WITH TIME ZONE", Some("VARCHAR")),
            ("HUGEINT[3]", Some("VARCHAR[3]")),
            (
                "STRUCT(\"INTERVAL\" INTERVAL, b MAP(VARCHAR, UHUGEINT)[])",
                Some("STRUCT(\"INTERVAL\" VARCHAR, b MAP(VARCHAR, VARCHAR)[])"),
            ),
        ] {
            assert_eq!(parquet_type(data_type).as_deref(), expected, "{data_type}");
        }
    }

    #[test]
    fn definitions_are_read_outside_of_quotes_and_parentheses() {
        let sql = "CREATE TABLE s.\"a(b,\"(i INTEGER PRIMARY KEY, \"GENERATED ALWAYS AS\" VARCHAR DEFAULT('x, ('), d DECIMAL(18,3), g INTEGER GENERATED ALWAYS AS((i + 1)), , );";
        assert_eq!(generated(sql, 4), [false, false, false, true]);
        let missing = ["A".to_owned(), "B".to_owned()];
        let filled = filled(sql, &missing).expect("two are missing");
        assert!(filled.ends_with("AS((i + 1)), A, B);"), "{filled}");
        assert_eq!(super::filled(sql, &missing[..1]), None);
        assert_eq!(super::filled("CREATE TABLE t(i INTEGER);", &missing), None);
    }

    #[test]
    fn a_name_has_parts_in_quotes_or_not() {
        for (text, expected) in [
            ("f(x) AS x", &["f"] as &[&str]),
            ("s.f (x)", &["s", "f"]),
            ("\"a.b\".\"odd(\"\"name\"(x)", &["a.b", "odd(\"name"]),
            ("c.\"s 2\".plain_1(x)", &["c", "s 2", "plain_1"]),
        ] {
            assert_eq!(identifiers(text), expected, "{text}");
        }
    }

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, text, expected) in [
            ("main.*", "main.orders", true),
            ("main.*", "other.main.x", false),
            ("*.log_*_old", "s.log_a_b_old", true),
            ("*.log_*_old", "s.log_old", false),
            ("main.orders", "main.orders2", false),
            ("*", "main.orders", true),
            ("orders", "main.orders", true),
            ("orders", "s.orders", false),
            ("log_*", "main.log_a", true),
            ("*orders", "s.orders", true),
            ("Sales.ORDERS*", "sales.Orders_old", true),
        ] {
            let pattern = qualified(pattern);
            assert_eq!(fits(&pattern, text), expected, "{pattern} {text}");
        }
    }
}
