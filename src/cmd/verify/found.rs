//! What a verification found is written beside the backup, so that nothing is built on damage.

use super::{Level, Verified};
use crate::cmd::marks::{Said, Word, said};
use crate::domain::names::{BackupName, Mark};
use crate::error::{Kind, diagnose};
use crate::store::ReadStore;
use crate::wire::House;

/// The longest reason that is kept, characters.
const REASON_CHARS_MAX: usize = 500;

/// Writes it down if it is news: that the backup is damaged, or that it is not after all. Not being able
/// to is no failure of the verification.
pub(super) fn note(
    house: &House,
    store: &dyn ReadStore,
    (name, marks): (&BackupName, &dyn Fn() -> anyhow::Result<Vec<Mark>>),
    level: Level,
    verified: &anyhow::Result<Verified>,
) {
    let noted = match verified {
        Ok(verified) if verified.ok => {
            marks().and_then(|marks| sound(house, store, name, level, &marks))
        }
        Err(error) if diagnose(error).kind == Kind::Integrity => {
            let why = format!("{error:#}").chars().take(REASON_CHARS_MAX).collect();
            marks().and_then(|marks| damaged(house, store, name, (level, why), &marks))
        }
        Ok(_) | Err(_) => return,
    };
    if let Err(error) = noted {
        let id = name.id;
        house.ctx.monitor.warn(&format!(
            "what was found is not noted beside backup {id}, so that a later one may build on it: {error:#}"
        ));
    }
}

fn damaged(
    house: &House,
    store: &dyn ReadStore,
    name: &BackupName,
    (level, why): (Level, String),
    marks: &[Mark],
) -> anyhow::Result<()> {
    if Mark::damage(marks) {
        return Ok(());
    }
    let said = Said::now(&house.ctx, Word::Damaged, Some(why), Some(level));
    said.add(&*house.store_append(store.url())?, name, marks)
}

/// A look that was less deep than the one that found the damage takes nothing back.
fn sound(
    house: &House,
    store: &dyn ReadStore,
    name: &BackupName,
    level: Level,
    marks: &[Mark],
) -> anyhow::Result<()> {
    if !Mark::damage(marks) {
        return Ok(());
    }
    let found = said(store, name, marks)?;
    let damage = found.iter().rfind(|said| said.word == Word::Damaged);
    if damage.and_then(|said| said.level).is_some_and(|deepest| deepest > level) {
        return Ok(());
    }
    let said = Said::now(&house.ctx, Word::Sound, None, Some(level));
    said.add(&*house.store_append(store.url())?, name, marks)
}
