//! The keyring: everything that a command has to open backups with, and to tell whether they are bkp's.

use super::KeyProvider;

/// The keys at hand. Several commands may share one.
#[derive(Default)]
pub struct Keyring {
    providers: Vec<Box<dyn KeyProvider>>,
}

impl Keyring {
    /// A keyring with these providers, in the order in which they are configured.
    #[must_use]
    pub fn new(providers: Vec<Box<dyn KeyProvider>>) -> Keyring {
        Keyring { providers }
    }

    /// Its providers.
    #[must_use]
    pub fn providers(&self) -> &[Box<dyn KeyProvider>] {
        &self.providers
    }

    /// Whether nothing is at hand that could tell anything of a backup.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.providers.is_empty()
    }

    /// Which keys these are: what they did not open is not tried with them again.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.providers.iter().map(|key| key.origin()).collect::<Vec<_>>().join("\n")
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("providers", &self.fingerprint()).finish_non_exhaustive()
    }
}
