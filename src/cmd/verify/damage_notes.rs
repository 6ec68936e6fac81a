//! Records the result of a verification beside the backups concerned, so that nothing is built on
//! damage, and no sound backup is removed in favour of a damaged one.

use std::cell::RefCell;
use std::collections::HashSet;

use crate::catalog::{Catalog, FoundBackup, Need};
use crate::cmd::verify::verify_report::VerifyReport;
use crate::domain::id::BackupId;
use crate::domain::names::{BackupName, Mark};
use crate::domain::verify_level::VerifyLevel;
use crate::error::{Kind, diagnose};
use crate::ops::annotations::{AnnotationBody, AnnotationKind, Damage, judge, refutable};
use crate::ops::authenticity::ProofChecker;
use crate::pipeline::BackupReader;
use crate::store::AppendStore;
use crate::wire::AppContext;

/// The longest reason that is kept, characters.
const REASON_CHARS_MAX: usize = 500;

/// Where it is written.
pub(crate) struct DamageNotes<'a> {
    pub(crate) app: &'a AppContext,
    pub(crate) store: &'a dyn AppendStore,
    pub(crate) catalog: &'a Catalog<'a>,
    pub(crate) proof_checker: &'a ProofChecker<'a>,
    /// The backups of the source at least, with their marks.
    pub(crate) found: &'a [FoundBackup],
    pub(crate) level: VerifyLevel,
    /// What this run has written down already.
    pub(crate) noted: RefCell<HashSet<(BackupId, bool)>>,
}

impl DamageNotes<'_> {
    /// Writes down what is news: which backups are damaged, or that they are not after all. Not being able
    /// to is no failure of the verification.
    pub(crate) fn write(&self, name: &BackupName, verified: &anyhow::Result<VerifyReport>) {
        let noted = match verified {
            Ok(verified) if verified.ok => {
                verified.chain.iter().try_for_each(|id| self.sound(name, *id))
            }
            Err(error) if diagnose(error).kind == Kind::Integrity => {
                let why: String = format!("{error:#}").chars().take(REASON_CHARS_MAX).collect();
                self.culprits(name).into_iter().try_for_each(|id| self.damaged(name, id, &why))
            }
            Ok(_) | Err(_) => return,
        };
        if let Err(error) = noted {
            let why = format!("cannot record the finding for backup {}: {error:#}", name.id);
            self.app.ctx.monitor.warn(&why);
        }
    }

    /// The backup that does not verify, and the links of its chain that are to blame: what builds on them
    /// is damaged, too. Where every stored byte is right, its first link is as suspect as the last.
    fn culprits(&self, name: &BackupName) -> Vec<BackupId> {
        let mut blamed = vec![name.id];
        if let Ok(chain) = self.catalog.chain_for(name, Need::Proof) {
            let is_to_blame = |link: &&BackupReader<'_>| {
                let read = link.check_objects(&self.app.ctx).and_then(|()| match self.level {
                    VerifyLevel::Exists => Ok(()),
                    VerifyLevel::Digest | VerifyLevel::Decode | VerifyLevel::Drill => {
                        link.check_digests(&self.app.ctx)
                    }
                });
                read.is_err_and(|error| diagnose(&error).kind == Kind::Integrity)
            };
            let id = |link: &BackupReader<'_>| link.manifest().id;
            blamed.extend(chain.iter().filter(is_to_blame).map(id));
            if blamed.len() == 1 {
                blamed.extend(chain.first().map(id));
            }
        }
        blamed.sort_unstable();
        blamed.dedup();
        blamed
    }

    /// A link of the chain of `name`.
    fn link(&self, name: &BackupName, id: BackupId) -> Option<&FoundBackup> {
        let mut of_id = self.found.iter().filter(|found| {
            found.name.id == id
                && found.name.source == name.source
                && found.name.backup_type == name.backup_type
        });
        // Whoever can write to the store can give the id to something of another scope.
        if id == name.id {
            return of_id.find(|found| found.name == *name);
        }
        let all: Vec<&FoundBackup> = of_id.collect();
        let opens = all.iter().find(|found| self.proof_checker.can_prove(&found.name));
        opens.or(all.first()).copied()
    }

    fn damaged(&self, name: &BackupName, id: BackupId, why: &str) -> anyhow::Result<()> {
        let Some(link) = self.link(name, id) else { return Ok(()) };
        let known = judge(self.store, self.proof_checker, &link.name, &link.marks)?.damage;
        if known == Damage::Confirmed || !self.is_new(id, true) {
            return Ok(());
        }
        // Where nothing opens it, one word without a proof is as good as another.
        if known == Damage::Claimed && !self.proof_checker.can_prove(&link.name) {
            return Ok(());
        }
        self.add(link, AnnotationKind::Damaged, Some(why.to_owned()), &[])
    }

    /// A look that was less deep than the one that found the damage takes nothing back.
    fn sound(&self, name: &BackupName, id: BackupId) -> anyhow::Result<()> {
        let Some(link) = self.link(name, id) else { return Ok(()) };
        let known = judge(self.store, self.proof_checker, &link.name, &link.marks)?.damage;
        if known == Damage::None {
            return Ok(());
        }
        let (store, name, marks) = (self.store, &link.name, &link.marks);
        let refuted = refutable(store, self.proof_checker, name, marks, self.level)?;
        if refuted.is_empty() || !self.is_new(id, false) {
            return Ok(());
        }
        self.add(link, AnnotationKind::Sound, None, &refuted)
    }

    /// Whether it has not been written down yet.
    fn is_new(&self, id: BackupId, damaged: bool) -> bool {
        self.noted.borrow_mut().insert((id, damaged))
    }

    fn add(
        &self,
        link: &FoundBackup,
        word: AnnotationKind,
        note: Option<String>,
        against: &[Mark],
    ) -> anyhow::Result<()> {
        // What was found in the past says nothing of what is there now.
        if self.app.settings.store_at.is_some() {
            return Ok(());
        }
        let said = AnnotationBody::now(&self.app.ctx, word, note, Some(self.level));
        said.add(self.store, &link.name, against, self.proof_checker)
    }
}
