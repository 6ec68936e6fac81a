//! Metadata of an object, from the store or from the writer.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::domain::hex::hex;
use crate::domain::tier::StorageClass;

/// What the writer says it wrote; the store confirms it before the object becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declared {
    /// Number of bytes.
    pub bytes: u64,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
}

/// An object as a listing, or a look at it alone, shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The key, relative to the store's prefix, `/`-separated.
    pub key: String,
    /// Size in bytes as stored.
    pub bytes: u64,
    /// Which stored version this is; `None` if the store does not tell, and then nothing that was
    /// learned of the object before may be taken for known.
    pub version: Option<Version>,
    /// SHA-256 of the content, where the store tells one; a listing never does. The one that the
    /// service calculated over the whole object, else the one that its writer put into its metadata.
    /// Another one than expected means another object. The expected one proves nothing against
    /// somebody who can write to the store, since metadata is the writer's word.
    pub sha256: Option<[u8; 32]>,
    /// Its storage class; the standard one where a store has no others.
    pub class: StorageClass,
}

impl ObjectInfo {
    /// What of this object is not as expected, in words; `None` if nothing the store tells differs.
    #[must_use]
    pub fn differs(&self, expected: &Declared) -> Option<String> {
        let Declared { bytes, sha256 } = expected;
        if self.bytes != *bytes {
            return Some(format!("has {} bytes, the manifest says {bytes}", self.bytes));
        }
        let found = self.sha256.filter(|found| found != sha256)?;
        Some(format!("has the SHA-256 {}, the manifest says {}", hex(&found), hex(sha256)))
    }
}

/// Tells the versions of an object apart that a store has had under one key: whoever overwrites an
/// object, with the same content or another one, makes another version. A listing and a look show the
/// same one. It names no version to a service; it is only ever compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version([u8; 16]);

impl Version {
    /// The version that these facts identify: everything a store knows that a new version changes.
    #[must_use]
    pub fn of(facts: &[&[u8]]) -> Version {
        let mut hasher = Sha256::new();
        for fact in facts {
            hasher.update((fact.len() as u64).to_le_bytes());
            hasher.update(fact);
        }
        let mut short = [0; 16];
        short.iter_mut().zip(hasher.finalize()).for_each(|(to, from)| *to = from);
        Version(short)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Which store is meant, and what the configuration says of it.
#[derive(Debug, Clone)]
pub struct StoreLocation {
    /// The key path of its table, for messages: `store.main`; the URL where there is no table.
    pub name: String,
    /// Scheme and place.
    pub url: String,
    /// What only the kind of store understands.
    pub table: toml::Table,
}

impl StoreLocation {
    /// A store that only its URL describes.
    #[must_use]
    pub fn of_url(url: &str) -> StoreLocation {
        StoreLocation { name: url.to_owned(), url: url.to_owned(), table: toml::Table::new() }
    }

    /// How an operator calls it: the name of its table, or its URL where it has none.
    #[must_use]
    pub fn called(&self) -> &str {
        self.name.strip_prefix("store.").unwrap_or(&self.name)
    }
}

/// Where the object `key` of the store at `url` is. Through which endpoint the service is reached is no
/// part of that.
#[must_use]
pub fn location(url: &str, key: &str) -> String {
    let place = url.split_once("?endpoint=").map_or(url, |(place, _endpoint)| place);
    format!("{}/{key}", place.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(bytes: u64, sha256: Option<[u8; 32]>) -> ObjectInfo {
        ObjectInfo {
            key: "key".into(),
            bytes,
            version: None,
            sha256,
            class: StorageClass::Standard,
        }
    }

    #[test]
    fn only_what_the_store_tells_can_differ() {
        let expected = Declared { bytes: 3, sha256: [1; 32] };
        assert_eq!(info(3, None).differs(&expected), None);
        assert_eq!(info(3, Some([1; 32])).differs(&expected), None);
        assert!(info(4, Some([1; 32])).differs(&expected).is_some_and(|why| why.contains('4')));
        assert!(info(3, Some([2; 32])).differs(&expected).is_some_and(|why| why.contains("0202")));
    }

    #[test]
    fn facts_do_not_run_into_each_other() {
        assert_ne!(Version::of(&[b"ab", b"c"]), Version::of(&[b"a", b"bc"]));
        assert_eq!(Version::of(&[b"ab", b"c"]), Version::of(&[b"ab", b"c"]));
    }
}
