//! A host that has only a public key of age, and another one that has the private key.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::bed::{Bed, Run};

/// The keys of such a pair of hosts.
#[derive(Debug)]
pub(crate) struct AgeKeys {
    /// `age:age1…`.
    pub(crate) public: String,
    /// `ed25519:…` of the host that seals.
    pub(crate) signer: String,
}

/// Generates a key in the bed's folder and returns its public half.
pub(crate) fn generate(bed: &Bed, kind: &str, name: &str) -> String {
    let report = bed.json(&["keys", "generate", kind, name]);
    report["keys"][0]["id"].as_str().unwrap().to_owned()
}

/// Makes a bed one of a host that seals for a public key; the private one is `identity`.
pub(crate) fn seal_only(bed: &Bed) -> AgeKeys {
    let public = generate(bed, "--age", "identity");
    let signer = generate(bed, "--signing", "signing.key");
    fs::remove_file(bed.path("key")).unwrap();
    let recipients = format!("recipients = [{public:?}]\nsigning_key = \"file:signing.key\"");
    replace_recipients(bed, "bkp.toml", "bkp.toml", &recipients, "state");
    AgeKeys { public, signer }
}

/// Writes another configuration of the bed, with these lines under `[keys]` and a state directory of its own.
fn replace_recipients(bed: &Bed, from: &str, to: &str, lines: &str, state: &str) {
    let config = fs::read_to_string(bed.path(from)).unwrap();
    let kept = config
        .lines()
        .filter(|line| !["signing_key = ", "trust = "].iter().any(|key| line.starts_with(key)));
    let replaced: Vec<String> = kept
        .map(|line| match line {
            line if line.starts_with("recipients = ") => lines.to_owned(),
            line if line.starts_with("state_dir = ") => format!("state_dir = {state:?}"),
            line => line.to_owned(),
        })
        .collect();
    fs::write(bed.path(to), replaced.join("\n") + "\n").unwrap();
    bed.chmod(to, 0o600);
}

/// The program on another host with these lines under `[keys]`.
pub(crate) fn on(bed: &Bed, host: &str, lines: &str, words: &[&str]) -> Command {
    let name = format!("{host}.toml");
    replace_recipients(bed, "bkp.toml", &name, lines, &format!("state-{host}"));
    let mut command = bed.command(words);
    command.env("BKP_CONFIG", bed.path(&name));
    command
}

/// Runs it on the host that has the private key and trusts these signers.
pub(crate) fn reader(bed: &Bed, trust: &[&str], words: &[&str]) -> Run {
    let lines = format!("recipients = [\"age:file:identity\"]\ntrust = {trust:?}");
    Run::of(&on(bed, "reader", &lines, words).output().unwrap())
}

/// Runs it on a host that seals for the same public key and signs with a key of its own.
pub(crate) fn forger(bed: &Bed, keys: &AgeKeys, words: &[&str]) -> Run {
    if !bed.path("forger.key").exists() {
        generate(bed, "--signing", "forger.key");
    }
    let lines = format!("recipients = [{:?}]\nsigning_key = \"file:forger.key\"", keys.public);
    Run::of(&on(bed, "forger", &lines, words).output().unwrap())
}

/// Restores a backup where the private key is.
#[track_caller]
pub(crate) fn restore(bed: &Bed, keys: &AgeKeys, id: &str, target: &Path) {
    let words = ["restore", "--id", id, "--to", target.to_str().unwrap(), "--yes"];
    reader(bed, &[&keys.signer], &words).done();
}
