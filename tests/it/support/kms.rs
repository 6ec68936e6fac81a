//! A KMS on loopback (see `kms/server.py`), and what its administrator does.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::s3::{Service, tool};

pub(crate) const REGIONS: [&str; 2] = ["us-east-1", "eu-west-1"];

pub(crate) fn kms() -> &'static Service {
    static SERVICE: OnceLock<Service> = OnceLock::new();
    SERVICE.get_or_init(|| {
        Service::start(|port, _folder| {
            let mut command = Command::new(tool("moto/bin/python"));
            command
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/kms/server.py"));
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        })
    })
}

/// Asks for something that only an administrator does.
pub(crate) fn administer(region: &str, what: &str, body: &Value) -> Value {
    let scope = format!("Credential=admin/20261121/{region}/kms/aws4_request");
    let headers = [
        format!("X-Amz-Target: TrentService.{what}"),
        "Content-Type: application/x-amz-json-1.1".to_owned(),
        format!("Authorization: AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"),
    ];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let answer = kms().post("/", &headers, &body.to_string()).done();
    serde_json::from_str(answer.body()).unwrap_or_default()
}

/// A new key in a region: its ARN.
pub(crate) fn new_key(region: &str) -> String {
    let made = administer(region, "CreateKey", &json!({}));
    made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
}

/// The recipient that a key is.
pub(crate) fn recipient(key: &str) -> String {
    format!("kms:{key}?endpoint={}", kms().endpoint())
}
