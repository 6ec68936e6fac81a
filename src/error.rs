//! Errors as a closed set of kinds, and how a kind is found in an error chain.
//!
//! Typed errors live beside the trait they belong to and implement [`Classify`]. Between commands
//! and `main` they travel inside [`anyhow::Error`], which adds context; [`diagnose`] finds them
//! again. Nothing here prints.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a run did not end with "done". It alone decides the exit code (see [`crate::exit`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Failed, and none of the other kinds fits.
    Failed,
    /// The command line could not be understood.
    Usage,
    /// Some items failed, others are done.
    Partial,
    /// There is no such backup, store or source.
    NotFound,
    /// Another run of the same job holds the lock.
    Busy,
    /// A key is missing, wrong or refused.
    Key,
    /// Stored bytes are not what was written, or a drill's comparison failed.
    Integrity,
    /// A safety rule refused the operation.
    Refused,
    /// The source is not available, or could not be captured consistently.
    Source,
    /// The store is not available, full, or refused a write.
    Store,
    /// The backup is durable; a ledger event or notification is still pending.
    Pending,
    /// A source is out of its recovery point objective.
    Stale,
    /// Stored objects are being thawed; come back later.
    Thawing,
    /// The configuration is not valid.
    Config,
    /// Stopped by SIGINT.
    Interrupted,
    /// Stopped by SIGTERM.
    Terminated,
}

impl Kind {
    /// Every kind, in the order of its exit code.
    pub const ALL: [Kind; 16] = [
        Kind::Failed,
        Kind::Usage,
        Kind::Partial,
        Kind::NotFound,
        Kind::Busy,
        Kind::Key,
        Kind::Integrity,
        Kind::Refused,
        Kind::Source,
        Kind::Store,
        Kind::Pending,
        Kind::Stale,
        Kind::Thawing,
        Kind::Config,
        Kind::Interrupted,
        Kind::Terminated,
    ];

    /// The word that `--json` errors carry.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Usage => "usage",
            Kind::Partial => "partial",
            Kind::NotFound => "not-found",
            Kind::Busy => "busy",
            Kind::Key => "key",
            Kind::Integrity => "integrity",
            Kind::Refused => "refused",
            Kind::Source => "source",
            Kind::Store => "store",
            Kind::Pending => "pending",
            Kind::Stale => "stale",
            Kind::Thawing => "thawing",
            Kind::Config => "config",
            Kind::Interrupted => "interrupted",
            Kind::Terminated => "terminated",
        }
    }

    /// What to do about it, where the error itself does not know better.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Kind::Failed => {
                "see the causes above; if they do not explain it, report this message and the output of `bkp --version`"
            }
            Kind::Usage => "see `bkp help`",
            Kind::Partial => "see the failed items in the report",
            Kind::NotFound => "see `bkp list` for what exists",
            Kind::Busy => "wait for the other run to end; no manual cleanup is needed",
            Kind::Key => {
                "provide one of the keys the backup was sealed for, in [keys] recipients or with --key"
            }
            Kind::Integrity => {
                "`bkp verify --all` shows which backups are sound; restore one with --id; nothing that builds on a damaged backup restores, so start a new chain: `bkp snapshot SOURCE --scope full`, or `bkp export` or `bkp replicate` for those; keep the damaged one for analysis"
            }
            Kind::Refused => {
                "nothing was changed; choose a backup, target or store other than the one named, then run the command again"
            }
            Kind::Source => "check the source's table in the configuration, and the source itself",
            Kind::Store => {
                "run `bkp doctor`, which exercises everything a store must do and reports what fails"
            }
            Kind::Pending => "nothing is lost; the next run or `bkp verify --ledger` delivers it",
            Kind::Stale => "see `bkp status`",
            Kind::Thawing => "run the same command again later",
            Kind::Config => "`bkp config schema` lists every key; see also bkp.toml(5)",
            Kind::Interrupted | Kind::Terminated => {
                "nothing visible was left behind; run the same command again"
            }
        }
    }
}

/// What every typed error of this crate can say of itself.
pub trait Classify: std::error::Error + Send + Sync + 'static {
    /// The kind that decides exit code and retry.
    fn kind(&self) -> Kind;

    /// An instruction for the operator, if there is a better one than [`Kind::hint`].
    fn hint(&self) -> Option<String> {
        None
    }
}

/// What `main` needs to render a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Decides the exit code.
    pub kind: Kind,
    /// An instruction for the operator.
    pub hint: String,
}

/// Looks for an error of some type: how many links of the chain of causes stand above it, and what it says of
/// itself.
pub type Probe = fn(&anyhow::Error) -> Option<(usize, Diagnosis)>;

/// Looks for an `E` that was attached as context or that is a link of the chain of causes.
#[must_use]
pub fn probe<E: Classify>(error: &anyhow::Error) -> Option<(usize, Diagnosis)> {
    let mut links = error.chain().enumerate();
    let linked = links.find_map(|(above, link)| Some((above, link.downcast_ref::<E>()?)));
    // What was attached as context is no link by itself, and stands above what it was attached to.
    let attached = error.downcast_ref::<E>();
    let found = match (attached, linked) {
        (Some(attached), Some((above, linked))) if std::ptr::eq(attached, linked) => {
            Some((above, linked))
        }
        (Some(attached), _) => Some((0, attached)),
        (None, linked) => linked,
    };
    found.map(|(above, typed)| {
        let kind = typed.kind();
        let hint = typed.hint().unwrap_or_else(|| kind.hint().to_owned());
        (above, Diagnosis { kind, hint })
    })
}

/// How the types that implement [`Classify`] are looked for; [`diagnosed`] adds one.
#[linkme::distributed_slice]
pub static PROBES: [Probe];

/// Has [`diagnose`] find a type that implements [`Classify`], said in the file that has the type: nothing
/// here knows what stands above. A `tidy` test sees to it that every type is found.
macro_rules! diagnosed {
    ($error:ty) => {
        #[expect(unsafe_code, reason = "the linker puts it there; linkme sees to the type")]
        const _: () = {
            #[linkme::distributed_slice($crate::error::PROBES)]
            static PROBE: $crate::error::Probe = $crate::error::probe::<$error>;
        };
    };
}

pub(crate) use diagnosed;

/// Finds the classified error in `error`; [`Kind::Failed`] if there is none. A [`Fault`] counts first, then the
/// outermost error: whoever made it knew those below it. In which order the linker puts the types is of no
/// matter.
#[must_use]
pub fn diagnose(error: &anyhow::Error) -> Diagnosis {
    let typed = || PROBES.iter().filter_map(|probe| probe(error)).min_by_key(|(above, _)| *above);
    let found = probe::<Fault>(error).or_else(typed);
    let unknown = Kind::Failed;
    found.map_or_else(
        || Diagnosis { kind: unknown, hint: unknown.hint().to_owned() },
        |(_, diagnosis)| diagnosis,
    )
}

/// The outcome of many: damage before everything else, then whatever came first.
#[must_use]
pub fn worst(so_far: Option<Kind>, next: Option<Kind>) -> Option<Kind> {
    let damage = [so_far, next].into_iter().flatten().find(|kind| *kind == Kind::Integrity);
    damage.or(so_far).or(next)
}

/// A classified failure of a command that belongs to no trait: a refusal, a lock that is held, a
/// backup that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl Fault {
    /// A failure of `kind` that says `message` (one line that names the thing).
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Fault { kind, message: message.into(), hint: None }
    }

    /// Adds an instruction for the operator.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl Classify for Fault {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// The first typed failure of a chain of [`std::io::Read`]s and [`std::io::Write`]s, kept beside it.
///
/// Libraries between two of our stages turn an [`io::Error`] into text; a typed error that
/// travelled inside one would lose its kind. So the stage that fails notes the error here and
/// hands a plain [`io::Error`] up, and whoever drives the chain asks here first.
#[derive(Debug, Clone, Default)]
pub struct FirstError(Arc<Mutex<Option<anyhow::Error>>>);

impl FirstError {
    /// Notes `error` unless an earlier one is there, and returns what to hand to the library.
    pub fn note(&self, error: impl Into<anyhow::Error>) -> io::Error {
        let error = error.into();
        let text = error.to_string();
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(error);
        io::Error::other(text)
    }

    /// The noted error if there is one, else `fallback`.
    pub fn or(&self, fallback: impl Into<anyhow::Error>) -> anyhow::Error {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.take().unwrap_or_else(|| fallback.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn the_kind_survives_context() {
        let error = Err::<(), _>(Fault::new(Kind::Busy, "held").hint("wait"))
            .context("outer")
            .context("outermost")
            .unwrap_err();
        assert_eq!(diagnose(&error), Diagnosis { kind: Kind::Busy, hint: "wait".into() });
    }

    #[test]
    fn a_fault_attached_as_context_decides() {
        let error = Err::<(), _>(io::Error::other("inner"))
            .context(Fault::new(Kind::Store, "outer"))
            .context("outermost")
            .unwrap_err();
        assert_eq!(diagnose(&error).kind, Kind::Store);
    }

    #[test]
    fn of_two_faults_the_one_attached_last_decides() {
        let error = anyhow::Error::new(Fault::new(Kind::Integrity, "inner"))
            .context("between")
            .context(Fault::new(Kind::Integrity, "outer").hint("look in the other store"));
        assert_eq!(diagnose(&error).hint, "look in the other store");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("inner")]
    struct Inner;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[from] Inner);

    impl Classify for Inner {
        fn kind(&self) -> Kind {
            Kind::Store
        }
    }

    impl Classify for Outer {
        fn kind(&self) -> Kind {
            Kind::Pending
        }
    }

    diagnosed!(Inner);
    diagnosed!(Outer);

    #[test]
    fn the_outermost_typed_error_decides() {
        let error = anyhow::Error::new(Outer(Inner)).context("outermost");
        assert_eq!(diagnose(&error).kind, Kind::Pending);
        assert_eq!(diagnose(&anyhow::Error::new(Inner).context("outer")).kind, Kind::Store);
        assert_eq!(diagnose(&anyhow::anyhow!("nobody knows it")).kind, Kind::Failed);
    }

    #[test]
    fn first_error_keeps_the_first_typed_error() {
        let first_error = FirstError::default();
        let plain = first_error.note(Fault::new(Kind::Integrity, "first"));
        let _second = first_error.note(Fault::new(Kind::Key, "second"));
        let error = first_error.or(plain);
        assert_eq!(diagnose(&error).kind, Kind::Integrity);
        assert_eq!(error.to_string(), "first");
    }
}
