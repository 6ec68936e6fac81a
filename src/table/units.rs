//! Values with a unit, as people write them: `90s`, `5m`, `2h`.

use std::time::Duration;

use super::ConfigError;

/// The units of a duration, in seconds.
const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];

/// Reads the duration at the key path `place`: a whole number and a unit, within `min` and `max`
/// seconds.
///
/// # Errors
/// [`ConfigError::Invalid`] for anything else.
pub fn duration(place: &str, text: &str, min: u64, max: u64) -> Result<Duration, ConfigError> {
    let read = || {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(*seconds)
    };
    let seconds = read().ok_or_else(|| {
        ConfigError::invalid(place, format!("`{text}` is not a duration"))
            .suggest("write an integer and a unit: 90s, 5m, 2h, 1d")
    })?;
    if !(min..=max).contains(&seconds) {
        let [min, max] = [min, max].map(|seconds| spelled(Duration::from_secs(seconds)));
        let problem = format!("{text} is not between {min} and {max}");
        return Err(ConfigError::invalid(place, problem));
    }
    Ok(Duration::from_secs(seconds))
}

/// The units of a size, in bytes.
const SIZES: [(&str, u64); 5] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Reads the size at the key path `place`, bytes: a whole number and a unit.
///
/// # Errors
/// [`ConfigError::Invalid`] for anything else.
pub fn size(place: &str, text: &str) -> Result<u64, ConfigError> {
    let read = || {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(*bytes)
    };
    read().ok_or_else(|| {
        ConfigError::invalid(place, format!("`{text}` is not a size"))
            .suggest("write an integer and a unit: 500GiB, 2TiB")
    })
}

/// The shortest spelling of a duration that [`duration`] reads.
#[must_use]
pub fn spelled(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let whole =
        UNITS.iter().rev().find(|(_, unit)| seconds >= *unit && seconds.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{seconds}s"), |(name, unit)| format!("{}{name}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("p", "500GiB").ok(), Some(500 << 30));
        for text in ["", "5", "5GB", "5.5GiB", "99999999999TiB", "-1B"] {
            assert!(size("p", text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_and_spelled() {
        for (text, seconds) in [("90s", 90), ("2m", 120), ("3h", 10_800), ("1d", 86_400)] {
            let read = duration("p", text, 1, 100_000).expect(text);
            assert_eq!(read.as_secs(), seconds);
            assert_eq!(spelled(read), text);
        }
        for text in ["", "s", "5", "5 m", "-5m", "1.5h", "5x", "99999999999999999999s", "9d"] {
            assert!(duration("p", text, 1, 100_000).is_err(), "{text}");
        }
    }
}
