//! Storage classes, and the rules by which the data of a backup moves to colder ones as it gets older.
//!
//! Only data moves: manifests, block maps, marks and leases are read by every run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::Duration;

/// Objects below this size stay where they are, bytes: the colder classes charge for at least as much, and a
/// bucket's lifecycle passes over them, too.
pub const SMALL_BYTES: u64 = 128 << 10;

/// Where a service keeps an object, as S3 names it. From warm to cold.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StorageClass {
    /// The usual one; that of a store that has no others.
    #[default]
    Standard,
    /// The service chooses.
    IntelligentTiering,
    /// One that bkp does not know.
    Other,
    /// Read at once, for a fee.
    StandardIa,
    /// The same in one building.
    OnezoneIa,
    /// Read at once, for a higher fee.
    GlacierIr,
    /// Read hours after it was asked for.
    Glacier,
    /// Read up to two days after it was asked for.
    DeepArchive,
}

/// The classes that a rule can name, from warm to cold.
pub const TIERS: [StorageClass; 5] = [
    StorageClass::StandardIa,
    StorageClass::OnezoneIa,
    StorageClass::GlacierIr,
    StorageClass::Glacier,
    StorageClass::DeepArchive,
];

impl StorageClass {
    /// The name that the service uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            StorageClass::Standard => "STANDARD",
            StorageClass::IntelligentTiering => "INTELLIGENT_TIERING",
            StorageClass::Other => "OTHER",
            StorageClass::StandardIa => "STANDARD_IA",
            StorageClass::OnezoneIa => "ONEZONE_IA",
            StorageClass::GlacierIr => "GLACIER_IR",
            StorageClass::Glacier => "GLACIER",
            StorageClass::DeepArchive => "DEEP_ARCHIVE",
        }
    }

    /// The class of this name.
    #[must_use]
    pub fn named(name: &str) -> StorageClass {
        let all = [StorageClass::Standard, StorageClass::IntelligentTiering];
        let found = all.iter().chain(&TIERS).find(|class| class.name() == name);
        found.copied().unwrap_or(StorageClass::Other)
    }

    /// For how many days the service charges at least, however soon the object is removed or moved on.
    #[must_use]
    pub const fn days_min(self) -> u32 {
        match self {
            StorageClass::Standard | StorageClass::IntelligentTiering | StorageClass::Other => 0,
            StorageClass::StandardIa | StorageClass::OnezoneIa => 30,
            StorageClass::GlacierIr | StorageClass::Glacier => 90,
            StorageClass::DeepArchive => 180,
        }
    }

    /// Whether an object has to be restored by the service before it can be read.
    #[must_use]
    pub const fn needs_thaw(self) -> bool {
        matches!(self, StorageClass::Glacier | StorageClass::DeepArchive)
    }
}

impl std::fmt::Display for StorageClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One rule: data that is so old belongs to this class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// The age, days.
    pub after_days: u32,
    /// The class.
    pub class: StorageClass,
}

/// The rules of a store, warmest first. None if nothing moves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tiers(Vec<Tier>);

/// What is wrong with the rules of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierError {
    /// Which rule, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub hint: String,
}

impl Tiers {
    /// These rules, for data that is written to the class `first`.
    ///
    /// # Errors
    /// [`TierError`] if a rule is out of order, or leaves a class before its minimum term is over.
    pub fn new(tiers: Vec<Tier>, first: StorageClass) -> Result<Tiers, TierError> {
        let mut before = Tier { after_days: 0, class: first };
        for (index, tier) in tiers.iter().enumerate() {
            let error = |problem: String, hint: &str| {
                Err(TierError { index, problem, hint: hint.to_owned() })
            };
            let (class, days) = (tier.class, tier.after_days);
            if class <= before.class {
                let problem = format!("{class} is not colder than {}", before.class);
                let order = TIERS.map(StorageClass::name).join(", ");
                return error(problem, &format!("write the tiers from warm to cold: {order}"));
            }
            if before.class == StorageClass::OnezoneIa && class == StorageClass::GlacierIr {
                let problem = "S3 moves nothing from ONEZONE_IA to GLACIER_IR".to_owned();
                return error(problem, "leave one of them out");
            }
            // S3 takes nothing into these two before that.
            let is_infrequent = matches!(class, StorageClass::StandardIa | StorageClass::OnezoneIa);
            if is_infrequent && days < class.days_min() {
                let problem =
                    format!("S3 moves nothing to {class} before {} days", class.days_min());
                return error(problem, "set `after` to 30d or more");
            }
            let least = before.after_days.saturating_add(before.class.days_min());
            if days < least || (index > 0 && days <= before.after_days) {
                let problem = format!(
                    "data would leave {} after less than the {} days that are charged for at least",
                    before.class,
                    before.class.days_min()
                );
                return error(
                    problem,
                    &format!("set `after` to {least}d or more, or leave {} out", before.class),
                );
            }
            before = *tier;
        }
        Ok(Tiers(tiers))
    }

    /// The rules, warmest first.
    #[must_use]
    pub fn rules(&self) -> &[Tier] {
        &self.0
    }

    /// The rule that applies to data of this age; `None` if it stays where it was written.
    #[must_use]
    pub fn at(&self, age: Duration) -> Option<Tier> {
        let is_due = |tier: &&Tier| age >= Duration::days(tier.after_days.into());
        self.0.iter().rfind(is_due).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(rules: &[(u32, &str)]) -> Result<Tiers, String> {
        let tier = |(after_days, class): &(u32, &str)| Tier {
            after_days: *after_days,
            class: StorageClass::named(class),
        };
        let rules = rules.iter().map(tier).collect();
        Tiers::new(rules, StorageClass::Standard).map_err(|error| error.problem)
    }

    #[test]
    fn names_are_read_back() {
        for class in TIERS {
            assert_eq!(StorageClass::named(class.name()), class);
            assert_eq!(serde_json::to_value(class).expect("a name"), class.name());
        }
        assert_eq!(StorageClass::named("SNOW"), StorageClass::Other);
    }

    #[test]
    fn the_age_chooses_the_tier() {
        let tiers = tiers(&[(30, "STANDARD_IA"), (90, "GLACIER_IR"), (365, "DEEP_ARCHIVE")]);
        let tiers = tiers.expect("valid");
        for (days, class) in [
            (0, None),
            (29, None),
            (30, Some(StorageClass::StandardIa)),
            (89, Some(StorageClass::StandardIa)),
            (90, Some(StorageClass::GlacierIr)),
            (4000, Some(StorageClass::DeepArchive)),
        ] {
            let found = tiers.at(Duration::days(days)).map(|tier| tier.class);
            assert_eq!(found, class, "{days}");
        }
        assert_eq!(tiers.at(Duration::days(30) - Duration::SECOND), None);
        assert_eq!(tiers.at(-Duration::days(9)), None);
    }

    #[test]
    fn order_and_minimum_terms_are_checked() {
        for (rules, expected) in [
            (&[(29, "STANDARD_IA")][..], "before 30 days"),
            (&[(30, "STANDARD_IA"), (59, "GLACIER")], "less than the 30 days"),
            (&[(0, "GLACIER"), (89, "DEEP_ARCHIVE")], "less than the 90 days"),
            (&[(30, "GLACIER"), (300, "GLACIER_IR")], "not colder than GLACIER"),
            (&[(30, "GLACIER"), (300, "GLACIER")], "not colder than GLACIER"),
            (&[(30, "ONEZONE_IA"), (300, "GLACIER_IR")], "from ONEZONE_IA to GLACIER_IR"),
        ] {
            let problem = tiers(rules).expect_err("invalid");
            assert!(problem.contains(expected), "{rules:?}: {problem}");
        }
        for rules in
            [&[(0, "GLACIER")][..], &[(30, "STANDARD_IA"), (60, "GLACIER"), (150, "DEEP_ARCHIVE")]]
        {
            assert!(tiers(rules).is_ok(), "{rules:?}");
        }
        let rule = vec![Tier { after_days: 90, class: StorageClass::StandardIa }];
        assert!(Tiers::new(rule, StorageClass::GlacierIr).is_err());
    }
}
