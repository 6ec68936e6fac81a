//! What a bucket does to keep its objects, and where that contradicts what the configuration promises of the backups
//! in it.

use time::Duration;

use super::thaw::ThawSpeed;
use super::tier::StorageClass;

/// Something about a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<T> {
    /// As the service tells it.
    Known(T),
    /// The service does not tell it: it has no such thing, or does not allow to see it.
    Hidden,
}

/// Whether a bucket keeps what is overwritten or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioning {
    /// It does not.
    Off,
    /// It keeps what it kept before, and nothing that comes.
    Suspended,
    /// It does.
    Enabled {
        /// Versions are deleted only with the code of a second factor.
        mfa_delete: bool,
    },
}

/// What a bucket does to objects that come without a lock of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultLock {
    /// Nobody at all can end the lock before its time.
    pub compliance: bool,
    /// For how many days they are locked.
    pub days: u32,
}

/// Whether a bucket can lock objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketLock {
    /// It cannot.
    Off,
    /// It can, and locks those that come without a lock of their own so.
    On(Option<DefaultLock>),
}

/// A rule by which a bucket deletes objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiration {
    /// The name of the rule.
    pub rule: String,
    /// At which age, days; 0 for a rule by date.
    pub days: u32,
}

/// A rule by which the service copies a bucket to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The name of the rule.
    pub rule: String,
    /// The name of the other bucket.
    pub to: String,
    /// A deletion here hides the object there, too.
    pub deletes: bool,
    /// Within how many minutes the service promises the copy, if it promises anything.
    pub minutes: Option<u32>,
}

/// When data goes to a class that is not read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archiving {
    /// From which age on, days.
    pub after_days: u32,
    /// The class.
    pub class: StorageClass,
}

/// What a bucket does, and what its store's table asks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// Whether it keeps versions.
    pub versioning: Seen<Versioning>,
    /// Whether it locks objects.
    pub lock: Seen<BucketLock>,
    /// What it deletes by itself of what is below the store's prefix.
    pub expirations: Seen<Vec<Expiration>>,
    /// For how many days former versions stay there, if not for ever.
    pub former_days: Option<u32>,
    /// Where what is below the store's prefix is copied to.
    pub replicas: Seen<Vec<Replica>>,
    /// For how many days bkp locks at least what it writes, if it does.
    pub own_lock_days: Option<u32>,
    /// What moves to an archive, warmest first.
    pub archiving: Vec<Archiving>,
}

/// What the configuration promises of the backups that a job has in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// The job.
    pub job: String,
    /// The age that none of its backups exceeds; `None` if they stay for ever.
    pub kept: Option<Duration>,
    /// The age until which each of its backups is promised to stay: until then bkp locks it.
    pub within: Option<Duration>,
    /// The age of the newest good backup that breaks the promise of its job.
    pub rpo: Option<Duration>,
    /// Within which time its source is to be restorable.
    pub rto: Option<Duration>,
}

/// What is to be said of one side of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aspect {
    /// Which one.
    pub name: &'static str,
    /// How it is.
    pub found: String,
    /// What contradicts it: the problem, and what to do about it.
    pub conflicts: Vec<(String, String)>,
}

impl Protection {
    /// All that is to be said of it.
    #[must_use]
    pub fn aspects(&self, promises: &[Promise]) -> Vec<Aspect> {
        vec![
            self.of_versioning(promises),
            self.of_lock(promises),
            self.of_expiration(promises),
            self.of_replication(promises),
            self.of_archives(promises),
        ]
    }

    fn of_versioning(&self, promises: &[Promise]) -> Aspect {
        let mut conflicts = Vec::new();
        let found = match self.versioning {
            Seen::Hidden => hidden("s3:GetBucketVersioning"),
            Seen::Known(Versioning::Off) => {
                "off: what is overwritten or deleted is gone".to_owned()
            }
            Seen::Known(Versioning::Suspended) => {
                let problem = "suspended: what is overwritten or deleted from now on is gone";
                let hint = "enable it: aws s3api put-bucket-versioning --versioning-configuration Status=Enabled";
                conflicts.push((problem.to_owned(), hint.to_owned()));
                problem.to_owned()
            }
            Seen::Known(Versioning::Enabled { mfa_delete }) => {
                if let Some(promise) =
                    promises.iter().find(|promise| mfa_delete && promise.kept.is_some())
                {
                    let problem = format!(
                        "MFA delete is on, so cleanup cannot delete what the retention of job {} lets go",
                        promise.job
                    );
                    let hint = "turn MFA delete off and protect the backups with `object_lock`; or delete versions by hand with the code of the second factor";
                    conflicts.push((problem, hint.to_owned()));
                }
                let reach = match self.former_days {
                    Some(days) => format!("former versions stay for {days} days"),
                    None => "former versions stay for ever, and cost".to_owned(),
                };
                format!("on; {reach}")
            }
        };
        Aspect { name: "versioning", found, conflicts }
    }

    fn of_lock(&self, promises: &[Promise]) -> Aspect {
        let mut conflicts = Vec::new();
        let own = match self.own_lock_days {
            Some(days) => format!("bkp locks for {days} days and as long as backups are promised"),
            None => "bkp locks nothing".to_owned(),
        };
        let found = match self.lock {
            Seen::Hidden => format!("{own}; {}", hidden("s3:GetBucketObjectLockConfiguration")),
            Seen::Known(BucketLock::Off) if self.own_lock_days.is_some() => {
                let problem = "the bucket has no object lock, and the store's table asks for it";
                let hint =
                    "enable it: aws s3api put-object-lock-configuration; or remove `object_lock`";
                conflicts.push((problem.to_owned(), hint.to_owned()));
                problem.to_owned()
            }
            Seen::Known(BucketLock::Off) => {
                "off: who may delete versions can delete backups".to_owned()
            }
            Seen::Known(BucketLock::On(None)) => format!("on; {own}; no default retention"),
            Seen::Known(BucketLock::On(Some(default))) => {
                let mode = if default.compliance { "compliance" } else { "governance" };
                format!("on; {own}; default retention of {} days in {mode} mode", default.days)
            }
        };
        let default = match self.lock {
            Seen::Known(BucketLock::On(default)) => default.map(|default| default.days),
            Seen::Known(BucketLock::Off) | Seen::Hidden => None,
        };
        for promise in promises {
            conflicts.extend(default.and_then(|days| too_long(promise, days, "default retention")));
            conflicts.extend(
                self.own_lock_days.and_then(|days| too_long(promise, days, "object_lock_days")),
            );
            conflicts.extend(self.too_short(promise));
        }
        Aspect { name: "object lock", found, conflicts }
    }

    /// That backups are kept by their number beyond the day until which they are locked.
    fn too_short(&self, promise: &Promise) -> Option<(String, String)> {
        let days = self.own_lock_days?;
        let locked = promise.within.unwrap_or_default().max(Duration::days(days.into()));
        let is_longer = promise.kept.is_none_or(|kept| kept > locked);
        is_longer.then(|| {
            let problem = format!(
                "backups of job {} are locked for {} days and kept {}: after that anyone who may delete can remove them",
                promise.job,
                locked.whole_days(),
                promise.kept.map_or("for ever".to_owned(), |kept| format!("for up to {} days", kept.whole_days())),
            );
            let hint = "raise `object_lock_days` to that, or keep them by `keep_within`, which is a promise that locks follow";
            (problem, hint.to_owned())
        })
    }

    fn of_expiration(&self, promises: &[Promise]) -> Aspect {
        let mut conflicts = Vec::new();
        let found = match &self.expirations {
            Seen::Hidden => hidden("s3:GetLifecycleConfiguration"),
            Seen::Known(rules) if rules.is_empty() => {
                "no rule of the bucket deletes backups".to_owned()
            }
            Seen::Known(rules) => {
                for Expiration { rule, days } in rules {
                    let age = Duration::days((*days).into());
                    for promise in promises
                        .iter()
                        .filter(|promise| promise.kept.is_none_or(|kept| kept >= age))
                    {
                        let problem = format!(
                            "lifecycle rule `{rule}` deletes objects after {days} days, before the retention of job {} lets them go, and whatever builds on them",
                            promise.job
                        );
                        let hint = "remove `Expiration` from the rule: only cleanup knows what backups need";
                        conflicts.push((problem, hint.to_owned()));
                    }
                }
                let rules =
                    rules.iter().map(|rule| format!("`{}` after {} days", rule.rule, rule.days));
                format!("objects are deleted by {}", rules.collect::<Vec<_>>().join(", "))
            }
        };
        Aspect { name: "expiration", found, conflicts }
    }

    fn of_replication(&self, promises: &[Promise]) -> Aspect {
        let mut conflicts = Vec::new();
        let found = match &self.replicas {
            Seen::Hidden => hidden("s3:GetReplicationConfiguration"),
            Seen::Known(rules) if rules.is_empty() => {
                "the service copies the bucket nowhere".to_owned()
            }
            Seen::Known(rules) => {
                for Replica { rule, to, deletes, minutes } in rules {
                    if *deletes {
                        let problem = format!(
                            "replication rule `{rule}` copies deletions to {to}: whoever deletes backups here hides them there, too"
                        );
                        let hint = "set DeleteMarkerReplication to Disabled in the rule, as examples/aws/replication.json does";
                        conflicts.push((problem, hint.to_owned()));
                    }
                    let lag = Duration::minutes(minutes.unwrap_or(0).into());
                    for (job, rpo) in promises.iter().filter_map(|p| Some((&p.job, p.rpo?))) {
                        if lag > rpo {
                            let problem = format!(
                                "replication rule `{rule}` has a copy in {to} within {lag}, later than the RPO of job {job}, {rpo}"
                            );
                            conflicts.push((
                                problem,
                                "shorten the time, or raise `critical_after`".to_owned(),
                            ));
                        }
                    }
                }
                rules.iter().map(told).collect::<Vec<_>>().join("; ")
            }
        };
        Aspect { name: "replication", found, conflicts }
    }

    fn of_archives(&self, promises: &[Promise]) -> Aspect {
        let mut conflicts = Vec::new();
        let mut found = Vec::new();
        for Archiving { after_days, class } in &self.archiving {
            let Some(terms) = ThawSpeed::Standard.terms(*class) else { continue };
            let hours = terms.longest.as_secs() / 3600;
            found.push(format!(
                "{class} from {after_days} days on, which takes {hours} hours to thaw"
            ));
            let longest = Duration::try_from(terms.longest).unwrap_or(Duration::MAX);
            for (job, rto) in promises.iter().filter_map(|p| Some((&p.job, p.rto?))) {
                if longest > rto {
                    let problem = format!(
                        "data older than {after_days} days is in {class} and takes {hours} hours to thaw, longer than the `rto` of the source of job {job}, {rto}"
                    );
                    let hint = "use GLACIER_IR, which is read at once, or a later tier than any restore in a hurry needs, or raise `rto`";
                    conflicts.push((problem, hint.to_owned()));
                }
            }
        }
        let found = if found.is_empty() {
            "everything is read at once".to_owned()
        } else {
            found.join("; ")
        };
        Aspect { name: "archives", found, conflicts }
    }
}

/// That objects stay locked for longer than any of a job is to be kept.
fn too_long(promise: &Promise, days: u32, what: &str) -> Option<(String, String)> {
    let kept = promise.kept.filter(|kept| *kept < Duration::days(days.into()))?;
    let problem = format!(
        "{what} locks for {days} days, and job {} keeps backups for at most {}: cleanup cannot delete what its retention lets go",
        promise.job,
        kept.whole_days(),
    );
    Some((problem, "lock for no longer than backups are kept, or keep them for longer".to_owned()))
}

fn told(replica: &Replica) -> String {
    let when = match replica.minutes {
        Some(minutes) => format!("within {minutes} minutes"),
        None => "without a promised time".to_owned(),
    };
    let deletions = if replica.deletes { "with deletions" } else { "without deletions" };
    format!("to {} {when}, {deletions}", replica.to)
}

fn hidden(right: &str) -> String {
    format!("cannot tell: allow {right}, if the service has it")
}
