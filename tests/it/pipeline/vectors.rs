//! The frozen test vectors of the sealed object: bkp and the reference decryptor in `examples` must
//! agree on every one. The vectors were made by neither of them.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, and a scratch file need not be durable"
)]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bkp::domain::id::BackupId;
use bkp::domain::manifest::{Manifest, hex, unhex};
use bkp::error::{FirstError, Kind, diagnose};
use bkp::keys::keyring::{self, Keyring};
use bkp::keys::{self, DataKey, manifest_mac};
use bkp::stage::seal::{ObjectName, Opener, open_header};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

const SEGMENT_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
struct Index {
    data_key: String,
    secrets: std::collections::BTreeMap<String, String>,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    file: Option<String>,
    recipe: Option<Construction>,
    sha256: String,
    /// `opened`, or the name of the kind of failure.
    expect: String,
    open_with: String,
    object: String,
    plaintext_bytes: usize,
}

#[derive(Deserialize)]
struct Construction {
    plaintext_bytes: usize,
    edit: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/seal")
}

fn plaintext(bytes: usize) -> Vec<u8> {
    (0..=250).cycle().take(bytes).collect()
}

/// Builds an object from its recipe, with none of bkp's code.
fn build(recipe: &Construction, data_key: &str) -> Vec<u8> {
    let empty = fs::read(folder().join("empty.bkp")).unwrap();
    let length = u32::from_le_bytes(empty[8..12].try_into().unwrap()) as usize;
    let prelude = &empty[..12 + length];
    let header: serde_json::Value = serde_json::from_slice(&prelude[12..]).unwrap();
    let salt = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        header["salt"].as_str().unwrap(),
    );
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt.unwrap())
        .extract(&unhex(data_key.as_bytes()).unwrap());
    let (info, mut key) = (Sha256::digest(prelude), [0; 32]);
    prk.expand(&[b"bkp seal 1", &info], hkdf::HKDF_SHA256).unwrap().fill(&mut key).unwrap();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());

    let plain = plaintext(recipe.plaintext_bytes);
    let mut parts: Vec<Vec<u8>> = plain.chunks(SEGMENT_BYTES).map(<[u8]>::to_vec).collect();
    if recipe.edit == "empty-last-segment" {
        parts.push(vec![]);
    }
    let count = parts.len();
    for (index, part) in parts.iter_mut().enumerate() {
        let mut nonce = [0; 12];
        nonce[10] = u8::try_from(index).unwrap();
        nonce[11] = u8::from(index + 1 == count);
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, Aad::empty(), part).unwrap();
    }
    match recipe.edit.as_str() {
        "none" | "empty-last-segment" => {}
        "drop-last-segment" => drop(parts.pop()),
        "swap-first-two" => parts.swap(0, 1),
        "append-16-zeros" => parts.push(vec![0; 16]),
        other => panic!("unknown edit {other}"),
    }
    [prelude.to_vec(), parts.concat()].concat()
}

/// What an opener released, and the kind of failure if it failed.
type Opened = (Vec<u8>, Option<Kind>);

fn open_with_bkp(sealed: &[u8], vector: &Vector, secret: &Path) -> Opened {
    let path = secret.display();
    let passphrase = vector.open_with.ends_with("passphrase");
    let prefix = if passphrase { "passphrase:file" } else { "file" };
    let recipient = format!("{prefix}:{path}");
    let mut released = Vec::new();
    let mut open = || -> anyhow::Result<()> {
        let (mut reader, first_error) = (sealed, FirstError::default());
        let prelude = open_header(&mut reader, ObjectName::Whole(&vector.object))?;
        let id: BackupId = prelude.header.object.split('/').next().unwrap().parse()?;
        let key = keyring::unwrap_any(
            &Keyring::new(vec![keys::kinds::open(&recipient, &bkp::ctx::Cancel::default())?]),
            &prelude.header.recipients,
            id,
            &bkp::ctx::Cancel::default(),
        )?;
        let mut opener = Opener::new(reader, &prelude, &key, first_error.clone());
        opener.read_to_end(&mut released).map_err(|error| first_error.or(error))?;
        Ok(())
    };
    let failure = open().err().map(|error| diagnose(&error).kind);
    (released, failure)
}

fn open_with_python(sealed: &Path, vector: &Vector, secret: &Path) -> (Vec<u8>, bool) {
    let flag = if vector.open_with.ends_with("passphrase") { "--passphrase" } else { "--key" };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/unseal.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(flag).arg(secret).args(["--object", &vector.object]).arg(sealed);
    let output = command.output().expect("python3 runs");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!message.contains("Traceback"), "{}: {message}", vector.name);
    assert_eq!(output.status.success(), message.is_empty(), "{}: {message}", vector.name);
    (output.stdout, output.status.success())
}

#[test]
fn bkp_and_the_reference_decryptor_agree_on_every_vector() {
    let index = fs::read(folder().join("index.json")).unwrap();
    let index: Index = serde_json::from_slice(&index).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for (name, content) in &index.secrets {
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600);
        let mut file = file.open(scratch.path().join(name)).unwrap();
        std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
    }
    for vector in &index.vectors {
        let name = &vector.name;
        let sealed = match (&vector.file, &vector.recipe) {
            (Some(file), None) => fs::read(folder().join(file)).unwrap(),
            (None, Some(recipe)) => build(recipe, &index.data_key),
            _ => panic!("{name} has neither a file nor a recipe, or both"),
        };
        assert_eq!(hex(&Sha256::digest(&sealed)), vector.sha256, "{name} is not as it was frozen");
        let path = scratch.path().join("sealed");
        fs::write(&path, &sealed).unwrap();
        let secret = scratch.path().join(&vector.open_with);

        let (released, failure) = open_with_bkp(&sealed, vector, &secret);
        let outcome = failure.map_or("opened", Kind::name);
        assert_eq!(outcome, vector.expect, "{name}");
        assert!(released == plaintext(vector.plaintext_bytes), "{name}: wrong plaintext released");

        let (written, opened) = open_with_python(&path, vector, &secret);
        assert_eq!(opened, vector.expect == "opened", "{name}: the reference disagrees");
        assert!(written == released, "{name}: the reference released other bytes");
    }
}

#[test]
fn the_index_names_every_vector_in_the_folder() {
    let index = fs::read(folder().join("index.json")).unwrap();
    let index: Index = serde_json::from_slice(&index).unwrap();
    let mut named: Vec<_> = index.vectors.into_iter().filter_map(|vector| vector.file).collect();
    named.push("index.json".into());
    named.sort();
    named.dedup();
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, named);
}

#[test]
fn the_reference_decryptor_checks_a_manifest() {
    let scratch = tempfile::tempdir().unwrap();
    let (secret, path) = (scratch.path().join("key"), scratch.path().join("manifest"));
    keys::file::generate(&secret).unwrap();
    let id: BackupId = "019aa3f2-5c00-7a11-8b22-0123456789ab".parse().unwrap();
    let data_key = DataKey::generate().unwrap();
    let provider =
        keys::kinds::open(&format!("file:{}", secret.display()), &bkp::ctx::Cancel::default())
            .unwrap();
    let manifest: Manifest = serde_json::from_value(serde_json::json!({
        "schema": "bkp.manifest/1", "id": id, "type": "tigerbeetle", "source": "books",
        "scope": "full", "kind": "snapshot", "parent": null, "base": id, "host": "h",
        "tool": "bkp", "started": "2026-11-21T02:00:00Z", "ended": "2026-11-21T02:00:00Z",
        "status": "completed", "capture": {"mac": "0".repeat(64)}, "objects": [],
        "sizes": {"plaintext_bytes": 0, "stored_bytes": 0, "ratio": 0.0},
        "keys": [provider.wrap(&data_key, id, "books").unwrap()],
        "retention": {"until": null, "pinned": false}, "ledger": null, "timings": {}, "mac": ""
    }))
    .unwrap();
    let bytes = manifest_mac::encode(manifest, &data_key).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/unseal.py");
    let check = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let mut command = Command::new("python3");
        command.arg(&script).arg("--key").arg(&secret).arg("--manifest").arg(&path);
        command.output().expect("python3 runs").status.code()
    };
    assert_eq!(check(&bytes), Some(0));
    let edited = String::from_utf8(bytes).unwrap().replace("\"books\"", "\"looks\"");
    assert_eq!(check(edited.as_bytes()), Some(1));
    assert_eq!(check(&edited.as_bytes()[..100]), Some(1));
}
