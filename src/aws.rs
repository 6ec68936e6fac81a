//! Shared by the S3 store and the KMS recipients: connections and credentials for AWS services.
//!
//! Credentials and region come from the usual chain: environment, profile (also `credential_process`
//! and assumed roles), web identity, container, instance metadata. Nothing of it is bkp's own
//! configuration, and no secret passes through here.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a body may stand still before the request counts as failed.
const STALLED: Duration = Duration::from_secs(20);

/// The region for a service at an endpoint of its own, where none is given: such services want one
/// in the signature and mostly do not care which.
const REGION_OF_ENDPOINTS: &str = "us-east-1";

/// How one service is reached. What is not given comes from the usual chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The region.
    pub region: Option<String>,
    /// The profile in the files of the AWS command line. If it is given, the environment's
    /// credentials do not count.
    pub profile: Option<String>,
    /// A file with profiles and their credentials, in place of the AWS command line's. If it is
    /// given, the environment's credentials do not count.
    pub credentials_file: Option<PathBuf>,
    /// The URL of a service that is not AWS's own.
    pub endpoint: Option<String>,
}

impl Access {
    /// Resolves region and credentials. Asks the network where the chain leads there.
    ///
    pub async fn resolve(&self) -> SdkConfig {
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http_client())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled()
                    .upload_enabled(true)
                    .download_enabled(true)
                    .grace_period(STALLED)
                    .build(),
            );
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(files) = self.profile_files() {
            loader = loader.profile_files(files);
        }
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let region = self.region.clone().map(Region::new);
        let region = region
            .or_else(|| self.endpoint.is_some().then(|| Region::from_static(REGION_OF_ENDPOINTS)));
        if let Some(region) = region.clone() {
            loader = loader.region(region);
        }
        if self.profile.is_some() || self.credentials_file.is_some() {
            loader = loader.credentials_provider(self.of_profile(region));
        }
        loader.load().await
    }

    fn profile_files(&self) -> Option<EnvConfigFiles> {
        let path = self.credentials_file.as_ref()?;
        let files = EnvConfigFiles::builder().include_default_config_file(true);
        Some(files.with_file(EnvConfigFileKind::Credentials, path).build())
    }

    /// Credentials from the profile alone: who names one does not mean the environment's.
    fn of_profile(&self, region: Option<Region>) -> ProfileFileCredentialsProvider {
        let how = ProviderConfig::without_region().with_http_client(http_client());
        let mut provider =
            ProfileFileCredentialsProvider::builder().configure(&how.with_region(region));
        if let Some(profile) = &self.profile {
            provider = provider.profile_name(profile);
        }
        if let Some(files) = self.profile_files() {
            provider = provider.profile_files(files);
        }
        provider.build()
    }
}

/// An error and its causes in one line; a cause that says what stands there already is left out.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The HTTP client of the process, with TLS by rustls and ring; its connections are shared. The
/// environment may name proxies, in the usual variables.
fn http_client() -> SharedHttpClient {
    static CLIENT: OnceLock<SharedHttpClient> = OnceLock::new();
    let make = || {
        Builder::new().build_with_connector_fn(|settings, components| {
            let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
            connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).build()
        })
    };
    CLIENT.get_or_init(make).clone()
}
