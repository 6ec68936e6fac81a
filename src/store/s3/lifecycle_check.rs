//! Compares the bucket's lifecycle with the tiers of the store's table, for `doctor`.

use aws_sdk_s3::types::{
    ExpirationStatus, LifecycleRule, LifecycleRuleAndOperator, LifecycleRuleFilter, Tag,
};

use super::remote::{ANSWER, Remote};
use super::settings::encode;
use super::tiers::{TAG, TiersBy};
use crate::domain::tier::{StorageClass, Tier};
use crate::store::StoreError;
use crate::store::s3::s3_error::{S3Error, S3ErrorClass};

/// What a rule of the bucket chooses.
pub(super) struct Choice<'a> {
    pub(super) prefix: &'a str,
    tags: Vec<&'a Tag>,
}

/// Whether the bucket moves data as the table says, and leaves in place what every run reads. Returns what
/// there is to say of that, if anything.
///
/// # Errors
/// [`StoreError::Denied`] if it does not.
pub(super) fn compare(remote: &Remote) -> Result<Option<&'static str>, StoreError> {
    let (settings, url) = (&remote.settings, &remote.settings.url);
    let expects = !settings.tiers.rules().is_empty() && settings.tiers_by == TiersBy::Lifecycle;
    let fetch = || async {
        let request = remote.client.get_bucket_lifecycle_configuration();
        remote.once(ANSWER, request.bucket(&settings.bucket).send()).await
    };
    let look = async {
        Ok(match remote.send_with_retries(fetch).await {
            Ok(answer) => Some(answer.rules.unwrap_or_default()),
            Err(S3Error { class: S3ErrorClass::Missing, .. }) => Some(Vec::new()),
            // Who makes backups need not be allowed to see the bucket's rules.
            Err(_) => None,
        })
    };
    let Some(rules) = remote.wait(("read the lifecycle of", url), look)? else {
        return Ok(expects.then_some(
            "cannot tell whether the bucket's lifecycle moves data as `tiers` says: allow s3:GetLifecycleConfiguration",
        ));
    };
    let failed = |problem: String, hint: &str| {
        let (store, key, hint) = (url.clone(), settings.bucket.clone(), hint.to_owned());
        Err(StoreError::Denied { store, operation: "use", key, problem, hint })
    };
    let active: Vec<&LifecycleRule> =
        rules.iter().filter(|rule| rule.status() == &ExpirationStatus::Enabled).collect();
    for rule in &active {
        let Some(class) = archive_of(rule).filter(|_class| takes_index(remote, rule)) else {
            continue;
        };
        let id = rule.id().unwrap_or_default().escape_debug().to_string();
        let problem = format!(
            "lifecycle rule `{id}` moves manifests and block maps to {class}, where no run can read them"
        );
        let hint =
            "restrict the rule to the tag bkp-role=data: `bkp config lifecycle` prints one that is";
        return failed(problem, hint);
    }
    if !expects {
        return Ok(None);
    }
    if active.iter().any(|rule| moves_data(remote, rule)) {
        return Ok(Some("the bucket's lifecycle moves data as `tiers` says"));
    }
    let problem = "no lifecycle rule of the bucket moves data as `tiers` says".to_owned();
    let hint = "add the rules that `bkp config lifecycle` prints to those of the bucket (aws s3api put-bucket-lifecycle-configuration), or set tiers_by = \"cleanup\"";
    failed(problem, hint)
}

/// What a rule is about.
pub(super) fn choice(rule: &LifecycleRule) -> Choice<'_> {
    let filter = rule.filter();
    let and = filter.and_then(LifecycleRuleFilter::and);
    #[expect(deprecated, reason = "rules of that old form are still in force")]
    let old = rule.prefix();
    let prefix = and.and_then(|and| and.prefix());
    let prefix = prefix.or(filter.and_then(LifecycleRuleFilter::prefix)).or(old);
    let tags = and.map(LifecycleRuleAndOperator::tags).unwrap_or_default().iter();
    let tags = tags.chain(filter.and_then(LifecycleRuleFilter::tag)).collect();
    Choice { prefix: prefix.unwrap_or_default(), tags }
}

/// The archive class that a rule moves objects to, if it does.
fn archive_of(rule: &LifecycleRule) -> Option<StorageClass> {
    classes(rule).map(|tier| tier.class).find(|class| class.needs_thaw())
}

/// The classes that a rule moves objects to, and when.
pub(super) fn classes(rule: &LifecycleRule) -> impl Iterator<Item = Tier> {
    rule.transitions().iter().map(|transition| Tier {
        // One by date is in force from then on.
        after_days: transition.days().and_then(|days| days.try_into().ok()).unwrap_or_default(),
        class: transition
            .storage_class()
            .map_or(StorageClass::Other, |class| StorageClass::named(class.as_str())),
    })
}

/// Whether a rule with this prefix takes objects of the store.
pub(super) fn is_below(remote: &Remote, prefix: &str) -> bool {
    let ours = remote.settings.prefix.as_str();
    ours.starts_with(prefix) || prefix.starts_with(ours)
}

/// Whether a rule takes objects that every run reads.
fn takes_index(remote: &Remote, rule: &LifecycleRule) -> bool {
    let Choice { prefix, tags } = choice(rule);
    let own = remote.settings.attributes.tagging.as_deref().unwrap_or_default();
    let is_own = |tag: &&Tag| {
        let tag = format!("{}={}", encode(tag.key()), encode(tag.value()));
        own.split('&').any(|own| own == tag)
    };
    is_below(remote, prefix) && tags.iter().all(is_own)
}

/// Whether a rule moves all data, and when the table says.
fn moves_data(remote: &Remote, rule: &LifecycleRule) -> bool {
    let Choice { prefix, tags } = choice(rule);
    let is_of_data = |tag: &&Tag| (tag.key(), tag.value()) == TAG;
    let mut found: Vec<Tier> = classes(rule).collect();
    found.sort_by_key(|tier| tier.after_days);
    remote.settings.prefix.starts_with(prefix)
        && tags.iter().all(is_of_data)
        && found == remote.settings.tiers.rules()
}
