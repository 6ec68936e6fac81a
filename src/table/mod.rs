//! Reads a TOML table into a type, for the configuration and every adapter. Errors name the full path
//! of the key, say what was expected without quoting the value (it could be a secret), and suggest the
//! key that was probably meant.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{self, DeserializeOwned, IntoDeserializer, Unexpected, Visitor};
use serde_path_to_error::Segment;
use toml::{Table, Value};

mod error;
pub mod units;

pub use error::ConfigError;

/// Reads `table`, which stands at the key path `place` (`source.books`; empty for the whole
/// document), as a `T`.
///
/// Derive `Deserialize` with `deny_unknown_fields` for `T`; then every key that it does not know is
/// an error with a suggestion.
///
/// # Errors
/// [`ConfigError::Invalid`] with the key's path as its place.
pub fn parse_table<T: DeserializeOwned>(place: &str, table: Table) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(Node(Value::Table(table))).map_err(|error| {
        let place = error.path().iter().fold(place.to_owned(), |place, segment| match segment {
            Segment::Seq { index } => format!("{place}[{index}]"),
            Segment::Map { key } => join(&place, key),
            Segment::Enum { .. } | Segment::Unknown => place,
        });
        let Problem { missing, text, hint } = error.into_inner();
        let place = match missing {
            Some(key) => join(&place, key),
            None => place,
        };
        ConfigError::Invalid { place, problem: text, hint }
    })
}

/// The key of `known` that `typed` was probably meant to be.
#[must_use]
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Jaro-Winkler favours a common beginning, which is how keys are mistyped; below 0.8 the
    // suggestions look random.
    let scored = known.into_iter().map(|word| (strsim::jaro_winkler(typed, word), word));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= 0.8).then_some(best.1)
}

/// The error for a key that is not one of `known`.
#[must_use]
pub fn unknown_key(place: &str, key: &str, known: &[&str]) -> ConfigError {
    let error = ConfigError::invalid(join(place, key), "unknown key");
    match suggestion(key, known) {
        Some(hint) => error.suggest(hint),
        None => error,
    }
}

/// The path of `key` inside the table at `place`.
#[must_use]
pub fn join(place: &str, key: &str) -> String {
    // A key that needs quotes is shown with them, so that the path reads as in the file.
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let key =
        if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { format!("{key:?}") };
    if place.is_empty() { key } else { format!("{place}.{key}") }
}

fn suggestion(typed: &str, known: &[&str]) -> Option<String> {
    match nearest(typed, known.iter().copied()) {
        Some(word) => Some(format!("did you mean `{word}`?")),
        None if known.is_empty() => None,
        None => Some(format!("known keys: {}", known.join(", "))),
    }
}

/// A value, read in a way that makes no error quote it.
struct Node(Value);

/// What is wrong. Where that is, who reads keeps track of.
#[derive(Debug)]
struct Problem {
    /// The key that the table lacks.
    missing: Option<&'static str>,
    text: String,
    hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Problem {}

/// What was found, without the value if that could be a secret.
fn found(unexpected: &Unexpected<'_>) -> String {
    if let Unexpected::Str(_) = unexpected { "a string".to_owned() } else { unexpected.to_string() }
}

impl de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Problem { missing: None, text: message.to_string(), hint: None }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format!("expected {expected}, found {}", found(&unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let text = format!("expected one of {}", expected.join(", "));
        let hint = nearest(variant, expected.iter().copied());
        Problem { missing: None, text, hint: hint.map(|word| format!("did you mean `{word}`?")) }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Problem { hint: suggestion(field, expected), ..Self::custom("unknown key") }
    }

    fn missing_field(field: &'static str) -> Self {
        let hint = Some(format!("add `{field} = …`"));
        Problem { missing: Some(field), text: "missing key".to_owned(), hint }
    }
}

impl IntoDeserializer<'_, Problem> for Node {
    type Deserializer = Node;

    fn into_deserializer(self) -> Node {
        self
    }
}

impl<'de> de::Deserializer<'de> for Node {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0 {
            Value::String(text) => visitor.visit_string(text),
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Float(number) => visitor.visit_f64(number),
            Value::Boolean(value) => visitor.visit_bool(value),
            Value::Datetime(value) => visitor.visit_string(value.to_string()),
            Value::Array(values) => {
                visitor.visit_seq(SeqDeserializer::new(values.into_iter().map(Node)))
            }
            Value::Table(table) => {
                let nodes = table.into_iter().map(|(key, value)| (key, Node(value)));
                visitor.visit_map(MapDeserializer::new(nodes))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        // TOML has no null: a key that is there has a value.
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let word = self.0.as_str().ok_or_else(|| de::Error::custom("expected a word"))?;
        visitor.visit_enum(StrDeserializer::<Problem>::new(word))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by the derive")]
    struct Inner {
        data_file: Option<std::path::PathBuf>,
        level: u8,
        mode: Option<Mode>,
        #[serde(default)]
        addresses: Vec<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Online,
        Reflink,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        source: BTreeMap<String, Inner>,
    }

    fn failure(text: &str) -> (String, String, Option<String>) {
        match parse_table::<Outer>("", text.parse().expect("TOML")) {
            Err(ConfigError::Invalid { place, problem, hint }) => (place, problem, hint),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_path_and_a_suggestion() {
        let (place, problem, hint) = failure("[source.books]\nlevel = 1\ndatafile = 'x'");
        assert_eq!(place, "source.books.datafile");
        assert_eq!(problem, "unknown key");
        assert_eq!(hint.as_deref(), Some("did you mean `data_file`?"));
        assert_eq!(failure("sources = 1").0, "sources");
    }

    #[test]
    fn a_missing_key_and_a_wrong_type_are_named_too() {
        assert_eq!(failure("[source.books]").0, "source.books.level");
        let (place, problem, _) = failure("[source.books]\nlevel = 'secret'");
        assert_eq!(place, "source.books.level");
        assert_eq!(problem, "expected u8, found a string");
        let (place, ..) = failure("[source.books]\nlevel = 1\naddresses = ['a', 1]");
        assert_eq!(place, "source.books.addresses[1]");
    }

    #[test]
    fn a_wrong_word_lists_the_right_ones() {
        let (place, problem, hint) = failure("[source.books]\nlevel = 1\nmode = 'onlin'");
        assert_eq!(place, "source.books.mode");
        assert_eq!(problem, "expected one of online, reflink");
        assert_eq!(hint.as_deref(), Some("did you mean `online`?"));
    }

    #[test]
    fn a_valid_table_is_read() {
        let text =
            "[source.books]\nlevel = 1\nmode = 'reflink'\ndata_file = '/a'\naddresses = ['b']";
        let outer: Outer = parse_table("", text.parse().expect("TOML")).expect("valid");
        assert!(outer.source.contains_key("books"));
    }
}
