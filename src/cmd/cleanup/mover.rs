//! Moves data to another storage class as planned.

use std::collections::HashSet;

use super::apply::{FAILURES_MAX, Remover};
use super::item::{Action, Item};
use super::plan::Target;
use crate::concurrent::each_of_few;
use crate::domain::id::BackupId;
use crate::store::StoreError;

/// Objects of a backup that are copied at a time.
const COPIES: usize = 4;

/// Moves data as planned, until a chain or the store fails.
#[derive(Debug, Default)]
pub(super) struct Mover {
    /// The chains of which something could not be moved. What they build on stays as warm.
    stuck: HashSet<BackupId>,
    failures_in_a_row: usize,
}

impl Mover {
    /// Moves what an item stands for, and puts into it what came of that. Returns what failed.
    pub(super) fn apply(
        &mut self,
        remover: &Remover<'_>,
        item: &mut Item,
        target: &Target,
    ) -> Option<anyhow::Error> {
        let Target::Data { base, moving, class } = target else { return None };
        if self.stuck.contains(base) || self.failures_in_a_row >= FAILURES_MAX {
            (item.action, item.reason) = (Action::Keep, "not reached".to_owned());
            return None;
        }
        let moved = remover.confirm().and_then(|()| {
            each_of_few(moving, COPIES, &remover.app.ctx.cancel, |object| {
                Ok(remover.store.set_class(&object.key, object.declared, *class)?)
            })
        });
        let Err(error) = moved else {
            self.failures_in_a_row = 0;
            return None;
        };
        self.stuck.insert(*base);
        (item.action, item.reason) = (Action::Keep, format!("cannot move to {class}: {error:#}"));
        if let Some(StoreError::Retained { .. }) = error.downcast_ref() {
            item.action = Action::Retain;
            return None;
        }
        self.failures_in_a_row += 1;
        Some(error)
    }
}
