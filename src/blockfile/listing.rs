//! Block maps as JSON: a list of pairs `[address, "checksum"]` by ascending address, written and
//! read without a copy in memory. Used as `#[serde(with = "listing")]`.

use std::fmt;
use std::io::Write;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::map::{BlockMap, Checksum};

/// Largest address that is read: 64 TiB in the smallest blocks that a map has, 256 KiB.
const ADDRESS_MAX: u64 = 1 << 28;

/// A checksum as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex(pub Checksum);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = Hex;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("32 hex digits")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Hex, E> {
                let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
                let number = u128::from_str_radix(text, 16).ok().filter(|_| digits);
                let number = number.ok_or_else(|| E::custom("a checksum has 32 hex digits"))?;
                Ok(Hex(Checksum(number)))
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

/// Writes a map.
///
/// # Errors
/// What the serializer fails with.
pub fn serialize<S: Serializer>(map: &BlockMap, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(map.iter().map(|(address, checksum)| (address, Hex(checksum))))
}

/// Reads a map.
///
/// # Errors
/// If addresses do not ascend, or one is larger than any file can have.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BlockMap, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = BlockMap;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of [address, checksum]")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut pairs: A) -> Result<BlockMap, A::Error> {
            let mut map = BlockMap::default();
            let mut last = None;
            while let Some((address, Hex(checksum))) = pairs.next_element::<(u64, Hex)>()? {
                if last.is_some_and(|last| address <= last) || address > ADDRESS_MAX {
                    return Err(A::Error::custom(format!(
                        "address {address} is out of order or range"
                    )));
                }
                map.set(address, checksum);
                last = Some(address);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_seq(Pairs)
}

/// Counts the bytes that are written to it.
#[derive(Debug, Default)]
pub struct Counter(pub u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
