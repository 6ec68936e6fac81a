//! The tiers of a `[store.NAME]` table, and the bucket's lifecycle that they stand for.
//!
//! A lifecycle rule chooses objects by prefix and tags. Keys of data and of manifests begin alike, so where
//! the lifecycle moves the data, bkp tags it: what is not tagged stays where it was written.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::tier::{StorageClass, TIERS, Tier, Tiers};
use crate::table::ConfigError;
use crate::table::units::duration;

/// The tag of data, which the rule for tiers asks for.
pub(super) const TAG: (&str, &str) = ("bkp-role", "data");
/// After how many days the printed rule removes the parts of an upload that nobody finished.
const ABORT_DAYS: u32 = 7;
/// Oldest age of a rule, days.
const AFTER_DAYS_MAX: u32 = 36_500;
const DAY: u64 = 86_400;

/// One rule for data as it gets older.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TierTable {
    /// The age from which on it applies, in whole days: `30d`.
    after: String,
    /// The storage class: `STANDARD_IA`, `ONEZONE_IA`, `GLACIER_IR`, `GLACIER` or `DEEP_ARCHIVE`.
    class: String,
}

/// Who moves the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TiersBy {
    /// `bkp cleanup`, whole chains at a time.
    #[default]
    Cleanup,
    /// The bucket's lifecycle, each object by its own age.
    Lifecycle,
}

/// Reads the tiers of a store's table.
///
/// # Errors
/// [`ConfigError::Invalid`].
pub(super) fn read(
    at: &dyn Fn(&str) -> String,
    (rules, by): (&[TierTable], Option<TiersBy>),
    storage_class: Option<&str>,
) -> Result<Tiers, ConfigError> {
    let first = storage_class.map_or(StorageClass::Standard, StorageClass::named);
    if rules.is_empty() && by.is_some() {
        let error = ConfigError::invalid(at("tiers_by"), "there are no tiers");
        return Err(error.suggest("add `tiers`, or remove it"));
    }
    let mut tiers = Vec::new();
    for (index, tier) in rules.iter().enumerate() {
        let place = |key: &str| at(&format!("tiers[{index}].{key}"));
        let most = u64::from(AFTER_DAYS_MAX) * DAY;
        let after = duration(&place("after"), &tier.after, 0, most)?.as_secs();
        if !after.is_multiple_of(DAY) {
            let error = ConfigError::invalid(place("after"), "it is not a whole number of days");
            return Err(error.suggest("write it as days: 30d"));
        }
        let class = StorageClass::named(&tier.class);
        if !TIERS.contains(&class) {
            let error = ConfigError::invalid(place("class"), "no storage class for older data");
            let known = TIERS.map(StorageClass::name).join(", ");
            return Err(error.suggest(format!("known: {known}")));
        }
        // A copy in place reads the object, and those cannot be read.
        let before = tiers.last().map(|before: &Tier| before.class);
        let archived = before
            .filter(|before| before.needs_thaw() && by.unwrap_or_default() == TiersBy::Cleanup);
        if let Some(before) = archived {
            let problem = format!("cleanup cannot move anything on from {before}");
            let error = ConfigError::invalid(place("class"), problem);
            return Err(error.suggest("set tiers_by = \"lifecycle\", or leave one of them out"));
        }
        let after_days = u32::try_from(after / DAY).unwrap_or(AFTER_DAYS_MAX);
        tiers.push(Tier { after_days, class });
    }
    Tiers::new(tiers, first).map_err(|error| {
        let place = at(&format!("tiers[{}]", error.index));
        ConfigError::invalid(place, error.problem).suggest(error.hint)
    })
}

/// The lifecycle configuration of the bucket that moves data as the table says, if that is for the lifecycle to
/// do, as `aws s3api put-bucket-lifecycle-configuration` takes it. It also removes the parts of unfinished uploads, which
/// takes a rule without tags.
pub(super) fn lifecycle(prefix: &str, (tiers, by): (&Tiers, TiersBy)) -> Value {
    let name = |what: &str| match prefix.trim_end_matches('/') {
        "" => format!("bkp {what}"),
        prefix => format!("bkp {what} below {prefix}"),
    };
    let mut rules = Vec::new();
    let moved = tiers.rules().iter().copied().filter(|_| by == TiersBy::Lifecycle);
    let transitions: Vec<Value> = moved.map(transition).collect();
    if !transitions.is_empty() {
        let tag = json!({ "Key": TAG.0, "Value": TAG.1 });
        rules.push(json!({
            "ID": name("tiers"),
            "Status": "Enabled",
            "Filter": { "And": { "Prefix": prefix, "Tags": [tag] } },
            "Transitions": transitions,
        }));
    }
    rules.push(json!({
        "ID": name("unfinished uploads"),
        "Status": "Enabled",
        "Filter": { "Prefix": prefix },
        "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": ABORT_DAYS },
    }));
    json!({ "Rules": rules })
}

fn transition(tier: Tier) -> Value {
    json!({ "Days": tier.after_days, "StorageClass": tier.class.name() })
}
