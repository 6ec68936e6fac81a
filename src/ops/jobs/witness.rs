//! The backup whose key authenticates a record: the one it is about, or else a recent one.

use crate::domain::id::BackupId;
use crate::domain::names::{BackupName, BackupType, MANIFEST_EXTENSION, Scope};
use crate::ops::records;
use crate::store::ReadStore;
use crate::wire::AppContext;

/// How many recent backups of a source are tried.
const TRIED_MAX: usize = 8;

/// Names of backups in a store by which something about `source` can be proven, the best first: that of
/// `id`, then recent ones of the source, or of any if none is named. A folder is listed when it is
/// needed.
pub fn witnesses<'a>(
    app: &'a AppContext,
    store: &'a dyn ReadStore,
    source: Option<&'a str>,
    id: Option<BackupId>,
) -> impl Iterator<Item = BackupName> + 'a {
    let known = |name: &str| app.settings.sources.get(name).map(|known| known.backup_type);
    let all = app.settings.sources.iter().map(|(name, known)| (known.backup_type, name.as_str()));
    let sources: Vec<(BackupType, &str)> = match source {
        Some(name) => known(name).into_iter().map(|of| (of, name)).collect(),
        None => all.collect(),
    };
    // A source need not be configured where a backup of it is restored.
    let places: Vec<(BackupType, &str)> = match source {
        Some(name) if sources.is_empty() => BackupType::ALL.map(|of| (of, name)).to_vec(),
        _ => sources.clone(),
    };
    let itself = id.into_iter().flat_map(move |id| {
        let find = move |(of, name)| named(store, of, name, id);
        places.clone().into_iter().filter_map(find)
    });
    let today = app.ctx.now().date();
    let recent = sources.into_iter().flat_map(move |(of, name)| {
        let backups = records::backups(store, (of, name), &Scope::ALL, today);
        backups.map(|(name, _)| name).take(TRIED_MAX)
    });
    itself.chain(recent)
}

/// The name of a backup of which the scope is not known.
fn named(store: &dyn ReadStore, of: BackupType, source: &str, id: BackupId) -> Option<BackupName> {
    Scope::ALL.into_iter().find_map(|scope| {
        let day = BackupName::day(of, source, scope, id.created().date());
        let keys = store.list(&day).ok()?.map_while(Result::ok);
        let mut names = keys.filter_map(|object| match BackupName::parse(&object.key)? {
            (name, MANIFEST_EXTENSION) => Some(name),
            _ => None,
        });
        names.find(|name| name.id == id)
    })
}
