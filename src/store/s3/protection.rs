//! What a bucket does by itself to keep its objects, or to lose them: for `doctor`.

use aws_sdk_s3::types::{
    BucketVersioningStatus, DefaultRetention, DeleteMarkerReplicationStatus, Destination,
    ExpirationStatus, LifecycleRule, MfaDeleteStatus, ObjectLockEnabled, ObjectLockRetentionMode,
    ReplicationConfiguration, ReplicationRule, ReplicationRuleStatus,
};

use super::lifecycle_check::{choice, classes, is_below};
use super::remote::{ANSWER, Remote};
use super::tiers::TiersBy;
use crate::domain::protection::{
    Archiving, BucketLock, DefaultLock, Expiration, Protection, Replica, Seen, Versioning,
};
use crate::domain::tier::{StorageClass, Tier};
use crate::store::StoreError;
use crate::store::s3::s3_error::{S3Error, S3ErrorClass};

/// Days of a year of a default retention.
const YEAR: u32 = 365;

/// Looks at everything that the service lets this host see.
///
/// # Errors
/// [`StoreError::Stopped`].
pub(super) fn look(remote: &Remote) -> Result<Protection, StoreError> {
    let settings = &remote.settings;
    let url = settings.url.as_str();
    let work = async {
        let rules = lifecycle(remote).await;
        Ok(Protection {
            versioning: versioning(remote).await,
            lock: lock(remote).await,
            former_days: rules.iter().flatten().filter_map(former_days).min(),
            expirations: match &rules {
                None => Seen::Hidden,
                Some(rules) => Seen::Known(rules.iter().filter_map(expiration).collect()),
            },
            replicas: replicas(remote).await,
            own_lock_days: settings.attributes.object_lock.map(|(_mode, days)| days),
            archiving: archiving(remote, rules.as_deref().unwrap_or_default()),
        })
    };
    remote.wait(("look at", url), work)
}

/// What the service tells, or that there is nothing.
fn told<T>(answer: Result<T, S3Error>) -> Result<Option<T>, S3Error> {
    match answer {
        Err(S3Error { class: S3ErrorClass::Missing, .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

async fn versioning(remote: &Remote) -> Seen<Versioning> {
    let send = || async {
        let request = remote.client.get_bucket_versioning().bucket(&remote.settings.bucket);
        remote.once(ANSWER, request.send()).await
    };
    let Ok(found) = remote.send_with_retries(send).await else { return Seen::Hidden };
    Seen::Known(match found.status() {
        None => Versioning::Off,
        Some(BucketVersioningStatus::Enabled) => Versioning::Enabled {
            mfa_delete: found.mfa_delete() == Some(&MfaDeleteStatus::Enabled),
        },
        Some(_) => Versioning::Suspended,
    })
}

async fn lock(remote: &Remote) -> Seen<BucketLock> {
    let send = || async {
        let request = remote.client.get_object_lock_configuration();
        remote.once(ANSWER, request.bucket(&remote.settings.bucket).send()).await
    };
    let Ok(found) = told(remote.send_with_retries(send).await) else { return Seen::Hidden };
    let found = found.and_then(|answer| answer.object_lock_configuration);
    let is_on = |enabled: Option<&ObjectLockEnabled>| enabled == Some(&ObjectLockEnabled::Enabled);
    Seen::Known(match found.filter(|found| is_on(found.object_lock_enabled())) {
        None => BucketLock::Off,
        Some(found) => {
            let default = found.rule().and_then(|rule| rule.default_retention());
            BucketLock::On(default.and_then(default_lock))
        }
    })
}

fn default_lock(default: &DefaultRetention) -> Option<DefaultLock> {
    let whole = |count: Option<i32>| count.and_then(|count| u32::try_from(count).ok());
    let years = whole(default.years()).map(|years| years.saturating_mul(YEAR));
    Some(DefaultLock {
        compliance: default.mode() == Some(&ObjectLockRetentionMode::Compliance),
        days: whole(default.days()).or(years)?,
    })
}

/// The rules in force for what is below the prefix; `None` if the service does not tell.
async fn lifecycle(remote: &Remote) -> Option<Vec<LifecycleRule>> {
    let send = || async {
        let request = remote.client.get_bucket_lifecycle_configuration();
        remote.once(ANSWER, request.bucket(&remote.settings.bucket).send()).await
    };
    let answer = told(remote.send_with_retries(send).await).ok()?;
    let mut rules = answer.and_then(|answer| answer.rules).unwrap_or_default();
    rules.retain(|rule| {
        rule.status() == &ExpirationStatus::Enabled && is_below(remote, choice(rule).prefix)
    });
    Some(rules)
}

fn expiration(rule: &LifecycleRule) -> Option<Expiration> {
    let expires = rule.expiration()?;
    // One that removes nothing but markers of deletions has neither.
    let days = match (expires.days(), expires.date()) {
        (Some(days), _) => u32::try_from(days).ok()?,
        (None, Some(_date)) => 0,
        (None, None) => return None,
    };
    Some(Expiration { rule: rule.id().unwrap_or_default().escape_debug().to_string(), days })
}

fn former_days(rule: &LifecycleRule) -> Option<u32> {
    u32::try_from(rule.noncurrent_version_expiration()?.noncurrent_days()?).ok()
}

async fn replicas(remote: &Remote) -> Seen<Vec<Replica>> {
    let send = || async {
        let request = remote.client.get_bucket_replication().bucket(&remote.settings.bucket);
        remote.once(ANSWER, request.send()).await
    };
    let Ok(found) = told(remote.send_with_retries(send).await) else { return Seen::Hidden };
    let found = found.and_then(|answer| answer.replication_configuration);
    let rules = found.iter().flat_map(ReplicationConfiguration::rules);
    let ours = |rule: &&ReplicationRule| {
        let filter = rule.filter();
        let and = filter.and_then(|filter| filter.and());
        let prefix = and.and_then(|and| and.prefix()).or(filter.and_then(|f| f.prefix()));
        rule.status() == &ReplicationRuleStatus::Enabled
            && is_below(remote, prefix.unwrap_or_default())
    };
    Seen::Known(rules.filter(ours).map(replica).collect())
}

fn replica(rule: &ReplicationRule) -> Replica {
    let destination = rule.destination();
    let bucket = destination.map(Destination::bucket).unwrap_or_default();
    let minutes = destination.and_then(|to| to.replication_time()?.time()?.minutes());
    let markers = rule.delete_marker_replication().and_then(|markers| markers.status());
    // A rule of the first form, without a filter, has always copied them.
    let deletes = match markers {
        None => rule.filter().is_none(),
        Some(status) => status == &DeleteMarkerReplicationStatus::Enabled,
    };
    Replica {
        rule: rule.id().unwrap_or_default().escape_debug().to_string(),
        to: bucket.rsplit(':').next().unwrap_or_default().escape_debug().to_string(),
        deletes,
        minutes: minutes.and_then(|minutes| u32::try_from(minutes).ok()),
    }
}

/// When data goes to an archive: when it is written, by cleanup, or by the bucket's rules.
fn archiving(remote: &Remote, rules: &[LifecycleRule]) -> Vec<Archiving> {
    let settings = &remote.settings;
    let written = settings.attributes.storage_class.as_deref().map(StorageClass::named);
    let written = written.map(|class| Tier { after_days: 0, class });
    let by_cleanup = settings.tiers_by == TiersBy::Cleanup;
    let tiers = settings.tiers.rules().iter().copied().filter(|_| by_cleanup);
    let found = written.into_iter().chain(tiers).chain(rules.iter().flat_map(classes));
    let archives = found.filter(|tier| tier.class.needs_thaw());
    let mut archives: Vec<Archiving> =
        archives.map(|Tier { after_days, class }| Archiving { after_days, class }).collect();
    archives.sort_by_key(|archiving| (archiving.after_days, archiving.class));
    archives.dedup();
    archives
}
