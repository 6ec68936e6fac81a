//! Bringing archived objects back for a while: how long it takes and what it costs.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::tier::StorageClass;

/// Whether an object can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// At once.
    Readable,
    /// It is in this archive class, and nobody has asked for it.
    Archived(StorageClass),
    /// It is in this archive class, and on its way out.
    Thawing(StorageClass),
}

impl Availability {
    /// Whether it can be read now.
    #[must_use]
    pub fn is_readable(self) -> bool {
        self == Availability::Readable
    }
}

/// How soon an archived object is to be readable; S3 calls it the tier of a retrieval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub enum ThawSpeed {
    /// The cheapest.
    Bulk,
    /// Within half a day at most.
    #[default]
    Standard,
    /// Within minutes.
    Expedited,
}

/// How long a retrieval takes and what it costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ThawTerms {
    /// The longest that it usually takes.
    pub longest: Duration,
    /// US dollars per GiB.
    pub per_gib: f64,
    /// US dollars per 1000 requests.
    pub per_thousand: f64,
}

impl ThawSpeed {
    /// All of them, the cheapest first.
    pub const ALL: [ThawSpeed; 3] = [ThawSpeed::Bulk, ThawSpeed::Standard, ThawSpeed::Expedited];

    /// The name that the service uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ThawSpeed::Bulk => "Bulk",
            ThawSpeed::Standard => "Standard",
            ThawSpeed::Expedited => "Expedited",
        }
    }

    /// The terms for an archive class; `None` if the class is not retrieved at this speed. Public ones of S3
    /// in us-east-1 in November 2026, as [`super::cost::PRICES`].
    #[must_use]
    pub fn terms(self, class: StorageClass) -> Option<ThawTerms> {
        let (hours, per_gib, per_thousand) = match (class, self) {
            (StorageClass::Glacier, ThawSpeed::Bulk) => (12.0, 0.0, 0.0),
            (StorageClass::Glacier, ThawSpeed::Standard) => (5.0, 0.01, 0.05),
            (StorageClass::Glacier, ThawSpeed::Expedited) => (5.0 / 60.0, 0.03, 10.0),
            (StorageClass::DeepArchive, ThawSpeed::Bulk) => (48.0, 0.0025, 0.025),
            (StorageClass::DeepArchive, ThawSpeed::Standard) => (12.0, 0.02, 0.10),
            _ => return None,
        };
        let longest = Duration::from_secs_f64(hours * 3600.0);
        Some(ThawTerms { longest, per_gib, per_thousand })
    }
}

impl std::fmt::Display for ThawSpeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_service_offers_has_terms() {
        assert!(ThawSpeed::Expedited.terms(StorageClass::DeepArchive).is_none());
        for speed in ThawSpeed::ALL {
            assert!(speed.terms(StorageClass::GlacierIr).is_none(), "{speed}");
            assert!(speed.terms(StorageClass::Glacier).is_some(), "{speed}");
        }
        let longest = |speed: ThawSpeed, class| speed.terms(class).map(|terms| terms.longest);
        let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
        assert_eq!(longest(ThawSpeed::Expedited, StorageClass::Glacier), minutes(5));
        assert_eq!(longest(ThawSpeed::Bulk, StorageClass::DeepArchive), minutes(48 * 60));
    }
}
