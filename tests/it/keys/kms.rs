//! KMS recipients, against a KMS on loopback (see `tests/it/support/kms/server.py`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::bed::{Bed, Run};
use crate::support::kms::{REGIONS, administer, new_key, recipient};
use crate::support::tb;

/// A bed with a small source; `signer` is who bkp is to KMS.
fn bed(folder: &Path, recipients: &[&str]) -> Bed {
    let file = folder.join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    bed.recipients_are(recipients);
    sign_as(&bed, "operator");
    bed
}

fn sign_as(bed: &Bed, signer: &str) {
    let profile = format!("[default]\naws_access_key_id = {signer}\naws_secret_access_key = s\n");
    fs::create_dir_all(bed.path(".aws")).unwrap();
    fs::write(bed.path(".aws/credentials"), profile).unwrap();
}

fn verify(bed: &Bed, id: &str, keys: &[&str]) -> Run {
    let mut words = vec!["verify", "--id", id, "--level", "decode"];
    for key in keys {
        words.extend(["--key", key]);
    }
    bed.run(&words)
}

#[test]
fn any_of_several_kms_keys_opens_a_backup() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = REGIONS.map(new_key);
    let alias = json!({ "AliasName": "alias/second", "TargetKeyId": second });
    administer(REGIONS[1], "CreateAlias", &alias);
    let by_alias = format!("{}&region={}", recipient("alias/second"), REGIONS[1]);
    let by_arn = recipient(&first);
    let bed = bed(folder.path(), &[&by_arn, &by_alias, "file:key"]);
    bed.run(&["doctor"]).done();
    let id = bed.snapshot("full");
    let file = format!("file:{}", bed.path("key").display());
    for key in [&by_arn, &by_alias, &recipient(&second), &file] {
        verify(&bed, &id, &[key]).done();
    }
    let next = bed.snapshot("incremental");
    bed.restore(&next);

    // The administrator's side of this KMS takes no ARN.
    let plain = first.rsplit('/').next().unwrap();
    administer(REGIONS[0], "DisableKey", &json!({ "KeyId": plain }));
    verify(&bed, &id, &[&by_arn]).failed(12, "DisabledException").failed(12, "enable-key");
    verify(&bed, &id, &[&by_arn, &by_alias]).done();
    bed.run(&["snapshot", "books"]).failed(12, "enable-key");
    administer(REGIONS[0], "EnableKey", &json!({ "KeyId": plain }));
    verify(&bed, &id, &[&by_arn]).done();
    let soon = json!({ "KeyId": plain, "PendingWindowInDays": 7 });
    administer(REGIONS[0], "ScheduleKeyDeletion", &soon);
    verify(&bed, &id, &[&by_arn]).failed(12, "cancel-key-deletion");

    let third = recipient(&new_key(REGIONS[0]));
    verify(&bed, &id, &[&third]).failed(12, "none of the available keys");
    // An alias says nothing of its key: KMS does.
    let alias = json!({ "AliasName": "alias/second", "TargetKeyId": new_key(REGIONS[1]) });
    administer(REGIONS[1], "DeleteAlias", &json!({ "AliasName": "alias/second" }));
    administer(REGIONS[1], "CreateAlias", &alias);
    verify(&bed, &id, &[&by_alias]).failed(12, "hint:");
}

#[test]
fn a_key_may_be_deleted_once_backups_are_rewrapped() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = REGIONS.map(new_key);
    let bed = bed(folder.path(), &[&recipient(&old)]);
    let id = bed.snapshot("full");
    bed.run(&["keys", "rewrap", "--to", &recipient(&new)]).done();
    let plain = old.rsplit('/').next().unwrap();
    let soon = json!({ "KeyId": plain, "PendingWindowInDays": 7 });
    administer(REGIONS[0], "ScheduleKeyDeletion", &soon);
    // Also where the old key is still configured: that it cannot be used is no word against the new one.
    bed.recipients_are(&[&recipient(&old), &recipient(&new)]);
    verify(&bed, &id, &[]).done();
    bed.recipients_are(&[&recipient(&new)]);
    verify(&bed, &id, &[]).done();
    let next = bed.snapshot("incremental");
    bed.restore(&next);
    bed.run(&["keys", "rewrap", "--to", "file:key"]).done();
    verify(&bed, &id, &["file:key"]).done();
}

#[test]
fn who_makes_backups_may_be_unable_to_open_them() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = REGIONS.map(|region| recipient(&new_key(region)));
    let bed = bed(folder.path(), &[&first, &second]);
    sign_as(&bed, "backup-host");
    let doctor = bed.run(&["doctor"]).done();
    assert!(doctor.stdout.contains("only makes backups"), "{}", doctor.stdout);
    let id = bed.snapshot("full");
    verify(&bed, &id, &[]).failed(12, "kms:Decrypt");
    sign_as(&bed, "operator");
    verify(&bed, &id, &[]).done();
}

#[test]
fn the_context_ties_a_key_to_its_backup_and_source() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(folder.path(), &[&recipient(&new_key(REGIONS[0]))]);
    let id = bed.snapshot("full");
    let path: PathBuf = bed.object(&id, "manifest.json");
    let whole = fs::read_to_string(&path).unwrap();
    let (before, recipient) = whole.split_once("\"encrypted_key\"").unwrap();
    let (recipient, after) = recipient.split_once("books").unwrap();
    let altered = format!("{before}\"encrypted_key\"{recipient}other{after}");
    fs::write(&path, altered).unwrap();
    verify(&bed, &id, &[]).failed(12, "InvalidCiphertext").failed(12, "another backup or source");
    fs::write(&path, whole).unwrap();
    verify(&bed, &id, &[]).done();
}

/// What man/bkp-format.5 says: KMS decrypts the wrapping key, and the rest needs no bkp.
#[test]
fn a_backup_for_a_kms_key_opens_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(folder.path(), &[&recipient(&new_key(REGIONS[1]))]);
    let id = bed.snapshot("full");
    let manifest = bed.object(&id, "manifest.json");
    let parsed: Value = serde_json::from_str(&fs::read_to_string(&manifest).unwrap()).unwrap();
    let wrapped = &parsed["keys"][0];
    let context = json!({ "backup_id": id, "source": wrapped["source"] });
    let request = json!({
        "KeyId": wrapped["id"],
        "CiphertextBlob": wrapped["encrypted_key"],
        "EncryptionContext": context,
    });
    let opened = administer(REGIONS[1], "Decrypt", &request);
    fs::write(bed.path("wrapping-key"), opened["Plaintext"].as_str().unwrap()).unwrap();
    let unseal = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/unseal.py");
    let mut command = Command::new("python3");
    command.arg(unseal).arg("--kms").arg(bed.path("wrapping-key"));
    command.arg("--manifest").arg(&manifest);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_kms_that_is_away_and_missing_credentials_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let key = new_key(REGIONS[0]);
    let bed = bed(folder.path(), &[&format!("kms:{key}?endpoint=http://127.0.0.1:1")]);
    bed.run(&["snapshot", "books"]).failed(12, "is reachable");
    bed.recipients_are(&[&recipient(&key.replace("key/", "key/0"))]);
    bed.run(&["snapshot", "books"]).failed(12, "correct the key's ARN");
    fs::remove_file(bed.path(".aws/credentials")).unwrap();
    let mut command = bed.command(&["snapshot", "books"]);
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    Run::of(&command.output().unwrap()).failed(12, "provide credentials");
    bed.recipients_are(&["kms:alias/x?regoin=y"]);
    bed.run(&["snapshot", "books"]).failed(78, "`regoin` is not known");
    assert!(bed.stored().is_empty());
}
