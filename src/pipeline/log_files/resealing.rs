//! Copies of archived files under another data key.

use std::io::Read;

use super::header::{id_of, signed_about};
use super::{ListedFile, LogFileFacts, LogFiles, digest};
use crate::error::{Fault, FirstError, Kind};
use crate::keys::DataKey;
use crate::keys::keyring::Keyring;
use crate::pipeline::copies::CopyOutcome;
use crate::stage::digest::{DigestReader, UploadSink, drain};
use crate::stage::seal::{About, Header, ObjectName, Opener, Prelude, Sealer, open_header};
use crate::stage::tee::Tee;
use crate::stage::zstd;
use crate::store::{AppendStore, StoreError};

/// How a file in another store that is not of the same size compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// It was sealed anew: the same file under another data key, as long as it should be.
    Resealed,
    /// It is not the same.
    Different,
}

impl LogFiles<'_> {
    /// Copies an archived file to another store, sealed anew for the recipients in `keys`. What its header says of it
    /// stays word for word. When this returns without an error, what is there is whole and authentic, and nobody
    /// else can open it.
    ///
    /// # Errors
    /// As [`LogFiles::read`]; [`Kind::Refused`] if a file of that name is there that is another one, or that others can
    /// open; what the other store fails with. Then nothing was added.
    pub fn reseal(
        &self,
        file: &ListedFile,
        to: &dyn AppendStore,
        keys: &Keyring,
    ) -> anyhow::Result<CopyOutcome> {
        match self.seal_anew(file, to, keys) {
            Ok(()) => Ok(CopyOutcome::Copied),
            Err(error) => match error.downcast_ref() {
                Some(StoreError::Exists { .. }) => self.confirm_resealed(file, to, keys),
                _ => Err(error),
            },
        }
    }

    fn seal_anew(
        &self,
        file: &ListedFile,
        to: &dyn AppendStore,
        keys: &Keyring,
    ) -> anyhow::Result<()> {
        let (name, key) = (&file.name, file.name.key());
        let upload = to.create(&key, &self.labels())?;
        let first_error = FirstError::default();
        let mut input = self.watched(self.store.open(&key, None)?, &first_error);
        let prelude = open_header(&mut input, ObjectName::Behind(&name.place()))
            .map_err(|error| first_error.or(error))?;
        let (old_key, facts) = self.authentic(&key, &prelude)?;
        let (object, text) = said(&prelude);
        let id = id_of(object).ok_or_else(|| self.refused(&key, "it has no id"))?;
        let new_key = DataKey::generate()?;
        let wrapped =
            keys.providers().iter().map(|provider| provider.wrap(&new_key, id, &self.source));
        let recipients = wrapped.collect::<Result<_, _>>()?;
        let about: About = signed_about((object, text), &new_key, keys.signer());
        let stored = Box::new(UploadSink::new("stored", upload));
        let sealer = Box::new(Sealer::new(&new_key, object, recipients, Some(about), stored)?);
        let opener = Opener::new(input, &prelude, &old_key?, first_error.clone());
        let (tee, copy) = Tee::new(opener, sealer, first_error.clone());
        let plain: Box<dyn Read> = match name.folder {
            Some(_) => Box::new(zstd::Decoder::new(tee, &key, first_error.clone())?),
            None => Box::new(tee),
        };
        let sha256 = digest(&facts.sha256, &key)?;
        let mut checked = DigestReader::new(plain, &key, facts.bytes, sha256, first_error.clone());
        drain(&mut checked).map_err(|error| first_error.or(error))?;
        drop(checked);
        copy.finish().map(drop)
    }

    /// Makes sure that a file that another store has is this one, sealed for the recipients in `keys` and nobody else.
    /// Its content is not read.
    ///
    /// # Errors
    /// As [`LogFiles::reseal`].
    pub fn confirm_resealed(
        &self,
        file: &ListedFile,
        to: &dyn AppendStore,
        keys: &Keyring,
    ) -> anyhow::Result<CopyOutcome> {
        let key = file.name.key();
        let there = LogFiles { store: to, ..self.clone() };
        let prelude = there.prelude(&file.name)?;
        let (_, found) = there.authentic(&key, &prelude)?;
        let Header { object, recipients, .. } = &prelude.header;
        if self.facts(&file.name)? != found {
            let message = format!("{}: `{key}` is there with other content", to.url());
            let hint = "two servers claim the same place in one log: give each a source of its own; nothing was overwritten";
            return Err(Fault::new(Kind::Refused, message).hint(hint).into());
        }
        let id = id_of(object).ok_or_else(|| there.refused(&key, "it has no id"))?;
        if !keys.are_recipients(recipients, id)? {
            let message = format!(
                "{}: `{key}` is there already, sealed for keys that are not configured",
                to.url()
            );
            let hint = "nothing is overwritten: seal anew into a store that has no copies yet";
            return Err(Fault::new(Kind::Refused, message).hint(hint).into());
        }
        Ok(CopyOutcome::WasThere)
    }

    /// Compares a file with that of the same name and another size, `bytes`, in another store, by their headers.
    ///
    /// # Errors
    /// What the stores fail with, and that a header is not authentic.
    pub fn compare_sizes(
        &self,
        file: &ListedFile,
        (to, bytes): (&dyn AppendStore, u64),
    ) -> anyhow::Result<Comparison> {
        let there = LogFiles { store: to, ..self.clone() };
        let read = |files: &LogFiles<'_>, bytes: u64| -> anyhow::Result<(LogFileFacts, u64)> {
            let prelude = files.prelude(&file.name)?;
            let (_, facts) = files.authentic(&file.name.key(), &prelude)?;
            // What is behind the header is as long whatever sealed it.
            Ok((facts, bytes.saturating_sub(prelude.bytes)))
        };
        let is_same = read(self, file.bytes)? == read(&there, bytes)?;
        Ok(if is_same { Comparison::Resealed } else { Comparison::Different })
    }
}

/// The name of an object, and what its header says of it, once that was found authentic.
fn said(prelude: &Prelude) -> (&str, &str) {
    let Header { object, about, .. } = &prelude.header;
    (object, about.as_ref().map_or("", |about| about.text.as_str()))
}
