//! Hosts that seal for a public key: they make increments of what they cannot open, and nobody else's backups pass
//! for theirs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bkp::keys::envelope::Envelope;
use bkp::keys::mac::{self, MacPurpose};
use bkp::keys::{DataKey, kinds};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use serde_json::Value;
use sha2::Digest as _;
use time::Duration;

use crate::support::bed::{Bed, Run};
use crate::support::planted::{Seed, now, plant};
use crate::support::sealed::{self, AgeKeys, forger, reader, seal_only};
use crate::support::{duck, tb};

fn bed(folder: &tempfile::TempDir) -> (Bed, AgeKeys) {
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    let keys = seal_only(&bed);
    (bed, keys)
}

fn manifest(bed: &Bed, id: &str) -> Value {
    serde_json::from_slice(&fs::read(bed.object(id, "manifest.json")).unwrap()).unwrap()
}

/// Whether these 32 bytes open the first segment of a sealed object, as its key or as the data key of its backup.
fn opens(key: &[u8], object: &Path) -> bool {
    struct Bytes32;
    impl hkdf::KeyType for Bytes32 {
        fn len(&self) -> usize {
            32
        }
    }
    let sealed = fs::read(object).unwrap();
    let header_end = 12 + u32::from_le_bytes(sealed[8..12].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&sealed[12..header_end]).unwrap();
    let salt = BASE64.decode(header["salt"].as_str().unwrap()).unwrap();
    let hash = sha2::Sha256::digest(&sealed[..header_end]);
    let info = [b"bkp seal 1".as_slice(), &hash];
    let mut derived = [0; 32];
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(key);
    prk.expand(&info, Bytes32).unwrap().fill(&mut derived).unwrap();
    let segment = &sealed[header_end..];
    let end = segment.len().min((1 << 20) + 16);
    let is_last = u8::from(end == segment.len());
    [key, derived.as_slice()].into_iter().any(|key| {
        let mut nonce = [0; 12];
        nonce[11] = is_last;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
        let mut text = segment[..end].to_vec();
        key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text).is_ok()
    })
}

fn key(bytes: &[u8]) -> Option<[u8; 32]> {
    bytes.try_into().ok()
}

/// Everything below a folder that could be a key: each run of 32 bytes of a short file, and what base64 or
/// hexadecimal digits in any file stand for.
fn candidates(folder: &Path) -> Vec<[u8; 32]> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(candidates(&path));
            continue;
        }
        let content = fs::read(&path).unwrap();
        if content.len() <= 256 {
            found.extend(content.windows(32).filter_map(key));
        }
        let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
        for word in content.split(|byte| !is_digit(byte)) {
            found.extend(BASE64.decode(word).ok().and_then(|bytes| key(&bytes)));
            let digits = bkp::domain::hex::unhex(word);
            found.extend(digits.and_then(|bytes| key(&bytes)));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The sealed objects in the store: those of data, and the block maps.
fn sealed_objects(bed: &Bed) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let sealed = bed.stored().into_iter().filter(|path| path.extension() == Some("enc".as_ref()));
    sealed.partition(|path| !path.to_str().unwrap().contains("map.json"))
}

/// Nothing that the host has left opens any of its backups; its last block map it does open.
#[track_caller]
fn opens_nothing(bed: &Bed) {
    let mut known = candidates(&bed.path("state"));
    for name in ["bkp.toml", "signing.key"] {
        let text = fs::read_to_string(bed.path(name)).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"+/=".contains(c));
        known.extend(words.filter_map(|word| key(&BASE64.decode(word).ok()?)));
    }
    let (data, maps) = sealed_objects(bed);
    assert!(!data.is_empty());
    for object in &data {
        assert!(!known.iter().any(|key| opens(key, object)), "{}", object.display());
    }
    let opened = maps.iter().filter(|map| known.iter().any(|key| opens(key, map))).count();
    assert!(opened > 0, "this would not notice a key that is there");
}

#[test]
fn a_host_with_a_public_key_takes_a_chain_that_only_the_private_key_opens() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let bed = Bed::new(server.data_file(), "");
    let keys = seal_only(&bed);
    let record = folder.path().join("record");
    tb::fill(server.address(), &record, 500, 20_000);
    let mut chain = vec![bed.snapshot("full")];
    for _ in 0..10 {
        tb::fill(server.address(), &record, 500, 2_000);
        // The choice is bkp's own.
        let report = bed.json(&["snapshot", "books"]);
        let made = &report["manifest"];
        assert_eq!(made["scope"], "incremental");
        assert_eq!(made["parent"], chain.last().unwrap().as_str());
        chain.push(made["id"].as_str().unwrap().to_owned());
    }
    let before = tb::unix_time();
    drop(server);
    let newest = chain.last().unwrap();
    opens_nothing(&bed);

    // The host looks after its backups, as far as that needs no key.
    bed.run(&["verify", "--id", newest, "--level", "digest"]).done();
    let target = bed.path("restored");
    let words = ["restore", "--id", newest, "--to", target.to_str().unwrap(), "--yes"];
    bed.run(&words).failed(12, "none of the available keys");
    bed.run(&["verify", "--id", newest, "--level", "decode"]).failed(12, "none of the available");
    assert!(!target.exists());
    bed.run(&["pin", newest]).done();
    let listed = bed.run(&["list", "--long"]).done();
    assert!(!listed.stdout.contains("(unproven)"), "{}", listed.stdout);

    reader(&bed, &[&keys.signer], &["verify", "--id", newest, "--level", "decode"]).done();
    sealed::restore(&bed, &keys, newest, &target);
    let restored = tb::Server::start_existing(&target);
    tb::check(restored.address(), &record, before, tb::Ids::Every);
}

#[test]
fn what_is_lost_of_the_state_costs_one_full_backup() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, keys) = bed(&folder);
    let full = bed.snapshot("full");
    fs::remove_dir_all(bed.path("state/object-keys")).unwrap();
    bed.run(&["snapshot", "books", "--scope", "incremental"]).failed(12, "cannot build on");
    let run = bed.run(&["snapshot", "books", "--json"]).done();
    assert!(run.stderr.contains("taking a full backup, since"), "{}", run.stderr);
    assert!(run.stderr.contains(&full), "{}", run.stderr);
    let next = bed.snapshot("incremental");
    sealed::restore(&bed, &keys, &next, &bed.path("restored"));
}

#[test]
fn duckdb_snapshots_are_increments_and_exports_are_full() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db.duckdb");
    let version = "1.5.6";
    duck::sql(version, &file, &["CREATE TABLE t AS SELECT range AS a FROM range(200000)"]);
    let bed = duck::bed(&file);
    let keys = seal_only(&bed);
    let mut last = duck::id(&duck::snapshot(&bed, &[])).to_owned();
    for round in 0..10 {
        duck::sql(version, &file, &[&format!("INSERT INTO t VALUES ({round})")]);
        let made = duck::snapshot(&bed, &[]);
        assert_eq!(
            (&made["scope"], &made["parent"]),
            (&"incremental".into(), &last.as_str().into())
        );
        duck::id(&made).clone_into(&mut last);
    }
    for _ in 0..2 {
        assert_eq!(duck::export(&bed, &[])["scope"], "full");
    }
    opens_nothing(&bed);
    let target = bed.path("restored.duckdb");
    sealed::restore(&bed, &keys, &last, &target);
    let count = ["SELECT count(*) FROM t"];
    assert_eq!(duck::sql(version, &target, &count), duck::sql(version, &file, &count));
}

#[test]
fn the_wrapped_key_opens_by_hand_with_age() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, keys) = bed(&folder);
    let id = bed.snapshot("full");
    let made = manifest(&bed, &id);
    assert_eq!(made["keys"][0]["kind"], "age");
    assert_eq!(format!("age:{}", made["keys"][0]["id"].as_str().unwrap()), keys.public);
    assert_eq!(made["signer"], keys.signer.as_str());
    let unseal = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/unseal.py");
    let (object, whole) = (bed.object(&id, "tar.zst.enc"), bed.object(&id, "manifest.json"));
    let script = "set -e; python3 \"$1\" --age identity --manifest \"$2\"; python3 \"$1\" --age identity \"$3\" | zstd -dc | sha256sum";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args([&unseal, &whole, &object]);
    let output = command.current_dir(bed.path("")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("the manifest is authentic"), "{said}");
    let sum = String::from_utf8(output.stdout).unwrap();
    assert_eq!(sum.split(' ').next(), made["objects"][0]["plaintext"]["sha256"].as_str());
}

/// The newest backup is one that somebody else made for the same public key.
fn forged(bed: &Bed, keys: &AgeKeys) -> String {
    let run = forger(bed, keys, &["snapshot", "books", "--scope", "full", "--json"]).done();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    report["manifest"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_backup_of_another_signer_is_refused_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, keys) = bed(&folder);
    let real = bed.snapshot("full");
    let fake = forged(&bed, &keys);
    let target = bed.path("restored");
    let words = |id| ["restore", "--id", id, "--to", target.to_str().unwrap(), "--yes"];
    let run = reader(&bed, &[&keys.signer], &words(&fake)).failed(14, "is not trusted");
    assert!(run.stderr.contains("trust"), "{}", run.stderr);
    assert!(!target.exists());
    reader(&bed, &[], &words(&real)).failed(14, "is not trusted");
    // Without its id the newest that is trusted is taken.
    let words = ["restore", "books", "--latest", "--to", target.to_str().unwrap(), "--yes"];
    let words: Vec<&str> = words.into_iter().filter(|word| *word != "--latest").collect();
    let run = reader(&bed, &[&keys.signer], &words).done();
    assert!(run.stderr.contains(&fake) && run.stderr.contains("is not trusted"), "{}", run.stderr);
    // The host goes on from its own.
    let next = manifest(&bed, &bed.snapshot("incremental"));
    assert_eq!(next["parent"], real.as_str());
    // Whoever trusts the other one restores that.
    let forger_id = manifest(&bed, &fake)["signer"].as_str().unwrap().to_owned();
    let other = bed.path("other");
    let words =
        ["restore", "--id", &fake, "--to", other.to_str().unwrap(), "--yes", "--trust", &forger_id];
    reader(&bed, &[&keys.signer], &words).done();
}

#[test]
fn a_backup_of_another_signer_decides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, keys) = bed(&folder);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let job = "[job.nightly]\nrun = \"snapshot\"\nsource = \"books\"\nevery = \"1h\"\nretention = { keep_last = 1, min_keep = 1 }\n";
    fs::write(bed.path("bkp.toml"), config + job).unwrap();
    let real = bed.snapshot("full");
    let fake = forged(&bed, &keys);
    for run in
        [bed.run(&["cleanup", "--json"]), reader(&bed, &[&keys.signer], &["cleanup", "--json"])]
    {
        assert!(run.code.is_some_and(|code| code == 0 || code == 3), "{run:?}");
        bed.object(&real, "manifest.json");
    }
    let verified = reader(&bed, &[&keys.signer], &["verify", "--all"]);
    assert!(format!("{verified:?}").contains("is not trusted"), "{verified:?}");
    reader(&bed, &[&keys.signer], &["verify", "--id", &fake]).failed(14, "is not trusted");
    // It does not make the job any less due.
    let status: Value = serde_json::from_str(&bed.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["jobs"][0]["last_success"], manifest(&bed, &real)["started"], "{status}");
    assert!(status["findings"].to_string().contains("not authenticated"), "{status}");
}

#[test]
fn an_altered_stripped_or_unsigned_manifest_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, keys) = bed(&folder);
    let id = bed.snapshot("full");
    let path = bed.object(&id, "manifest.json");
    let whole = fs::read_to_string(&path).unwrap();
    let target = bed.path("restored");
    let words = ["restore", "--id", &id, "--to", target.to_str().unwrap(), "--yes"];
    let trust = [keys.signer.as_str()];
    let refused = |text: String, code: i32, naming: &str| {
        fs::write(&path, text).unwrap();
        let run = reader(&bed, &trust, &words);
        assert_eq!(run.code, Some(code), "{run:?}");
        assert!(run.stderr.contains(naming), "{run:?}");
        assert!(!target.exists());
        run
    };
    // Stripped by somebody who does not know the data key.
    let stripped: Vec<&str> = whole.lines().filter(|line| !line.contains("\"sign")).collect();
    refused(stripped.join("\n") + "\n", 14, "does not match its content");
    let altered = whole
        .replace("\"trigger\": \"manual\"", "\"trigger\": \"hooked\"")
        .replace("hooked", "hook");
    assert_ne!(altered, whole);
    refused(altered.clone(), 14, "does not match its content");
    assert!(bed.run(&["verify", "--id", &id]).code.is_some_and(|code| code != 0));
    fs::write(&path, &whole).unwrap();
    reader(&bed, &trust, &words).done();

    // Made anew by somebody who knows the public key only: there is nothing to strip.
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let unsigned = plant(&bed, &bed.app(None), &Seed::at(now() - Duration::hours(1)));
    assert_eq!(unsigned.signer, None);
    fs::write(bed.path("bkp.toml"), config).unwrap();
    let words = ["restore", "--id", &unsigned.id.to_string(), "--to", "new", "--yes"];
    reader(&bed, &trust, &words).failed(14, "nobody signed it");
}

#[test]
fn a_public_key_needs_a_signing_key() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, _keys) = bed(&folder);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let without = config.replace("signing_key = \"file:signing.key\"\n", "");
    fs::write(bed.path("bkp.toml"), without).unwrap();
    bed.run(&["snapshot", "books"]).failed(78, "have to be signed");
    assert!(bed.stored().is_empty());
    let doctor = bed.run(&["doctor"]);
    assert!(doctor.stdout.contains("bkp keys generate --signing"), "{doctor:?}");
    fs::write(bed.path("bkp.toml"), config).unwrap();
    let doctor = bed.run(&["doctor"]);
    assert!(doctor.stdout.contains("this host cannot open its backups"), "{doctor:?}");
    assert!(doctor.stdout.contains("signs as ed25519:"), "{doctor:?}");
}

/// Planted recipients make nobody believe that a key opens a backup, and nobody's MAC.
#[test]
fn what_keys_open_is_not_told_by_what_is_planted() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, keys) = bed(&folder);
    let id = bed.snapshot("full");
    let other = sealed::generate(&bed, "--age", "other");
    plant_envelope(&bed, &id, &other, &DataKey::generate().unwrap());
    let lines = format!(
        "recipients = [\"age:file:identity\", {other:?}]\ntrust = [{:?}]",
        keys.signer.as_str()
    );
    let on = |words: &[&str]| Run::of(&sealed::on(&bed, "both", &lines, words).output().unwrap());
    let listed: Value = serde_json::from_str(&on(&["keys", "list", "--json"]).stdout).unwrap();
    let counted = |nth: usize| listed["keys"][nth]["backups"].as_u64();
    assert_eq!([counted(0), counted(1)], [Some(1), Some(0)], "{listed}");
    assert_eq!([&listed["unproven"], &listed["keys"][0]["alone"]], [0, 1], "{listed}");
    for words in [&["keys", "status"][..], &["status"]] {
        let run = on(words);
        assert!(run.stdout.contains("opens none of the newest backups"), "{run:?}");
    }
    on(&["keys", "rewrap", "--to", &other]).done();
    let listed: Value = serde_json::from_str(&on(&["keys", "list", "--json"]).stdout).unwrap();
    assert_eq!(listed["keys"][1]["backups"], 1, "{listed}");
}

#[test]
fn whom_nobody_trusts_any_more_vouches_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, keys) = bed(&folder);
    bed.snapshot("full");
    bed.snapshot("full");
    let kept = |trust: &[&str]| {
        let lines = format!("recipients = [\"age:file:identity\"]\ntrust = {trust:?}");
        let words = ["cleanup", "--dry-run", "--json"];
        Run::of(&sealed::on(&bed, "cleaner", &lines, &words).output().unwrap())
    };
    let proven = |run: Run| !run.stdout.contains("not authenticated");
    assert!(proven(kept(&[&keys.signer])));
    assert!(!proven(kept(&[])), "the first run's verdict was believed");
    assert!(proven(kept(&[&keys.signer])));
}

/// A MAC proves what a key file sealed, and does not cover the digits of the signature.
#[test]
fn a_garbled_signature_is_an_altered_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    sealed::generate(&bed, "--signing", "signing.key");
    let lines = "recipients = [\"file:key\"]\nsigning_key = \"file:signing.key\"";
    let on = |words: &[&str]| Run::of(&sealed::on(&bed, "signer", lines, words).output().unwrap());
    on(&["snapshot", "books"]).done();
    let id = bed.json(&["list"])["backups"][0]["id"].as_str().unwrap().to_owned();
    let path = bed.object(&id, "manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let signature = manifest(&bed, &id)["signature"].as_str().unwrap().to_owned();
    fs::write(&path, text.replace(&signature, &"f".repeat(signature.len()))).unwrap();
    on(&["verify", "--id", &id]).failed(13, "not authentic");
}

/// Plants an envelope beside a backup that lets a public key open it with this data key.
fn plant_envelope(bed: &Bed, id: &str, public: &str, key: &DataKey) {
    let backup = id.parse().unwrap();
    let provider = kinds::open(public, &bkp::ctx::Cancel::default()).unwrap();
    let whole = bed.object(id, "manifest.json");
    let sha256 = sha2::Sha256::digest(fs::read(&whole).unwrap()).into();
    let wrapped = provider.wrap(key, backup, "books").unwrap();
    let planted = Envelope::new(backup, &sha256, vec![wrapped], now());
    let name = whole.to_str().unwrap().replace(".manifest.json", ".wrapped-99999999.json");
    fs::write(name, planted.encode(key, None).unwrap()).unwrap();
}

/// Who knows the public keys only gives a signed manifest the MAC of a data key of his own, and lets a reader open it
/// by an envelope. Then he could make objects for it, and records, and have it wrapped for other keys.
#[test]
fn no_other_data_key_goes_with_a_signed_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, keys) = bed(&folder);
    let older = bed.snapshot("full");
    let id = bed.snapshot("full");
    let trust = [keys.signer.as_str()];
    let second = sealed::generate(&bed, "--age", "second");
    reader(&bed, &trust, &["keys", "rewrap", "--to", &second]).done();
    let on_second = |words: &[&str]| {
        let lines = format!("recipients = [\"age:file:second\"]\ntrust = {trust:?}");
        Run::of(&sealed::on(&bed, "second", &lines, words).output().unwrap())
    };
    let target = bed.path("restored");
    let words = ["restore", "--id", &id, "--to", target.to_str().unwrap(), "--yes"];
    on_second(&words).done();
    fs::remove_file(&target).unwrap();

    let key = DataKey::generate().unwrap();
    let path = bed.object(&id, "manifest.json");
    let mut bytes = fs::read(&path).unwrap();
    let of = MacPurpose { info: b"bkp manifest 1", closing: b"\"}" };
    assert!(mac::sign(&mut bytes, of, b"", &key));
    fs::write(&path, &bytes).unwrap();
    for public in [&second, &keys.public] {
        plant_envelope(&bed, &id, public, &key);
        on_second(&words).failed(14, "does not match its content");
        reader(&bed, &trust, &words).failed(14, "does not match its content");
    }
    assert!(!target.exists());
    // Nobody's key makes it look genuine, and who has none sees that it is not, too.
    on_second(&["keys", "rewrap", "--to", "file:third"]).failed(12, "third");
    bed.run(&["keys", "generate", "third"]).done();
    let rewrapped = on_second(&["keys", "rewrap", "--to", "file:third", "--json"]);
    assert_eq!(rewrapped.code, Some(3), "{rewrapped:?}");
    let third = |id: &str| {
        let names = bed.stored().into_iter().map(|path| path.to_str().unwrap().to_owned());
        let beside = names.filter(|name| name.contains(id) && name.contains(".wrapped-"));
        beside.filter(|name| fs::read_to_string(name).unwrap().contains("\"file\"")).count()
    };
    assert_eq!([third(&older), third(&id)], [1, 0]);
    let lines = format!("recipients = []\ntrust = {trust:?}");
    let words = ["verify", "--all", "--level", "digest"];
    let verified = Run::of(&sealed::on(&bed, "watcher", &lines, &words).output().unwrap());
    assert_eq!(verified.code, Some(14), "{verified:?}");
}

#[test]
fn what_somebody_plants_for_the_public_key_beside_a_backup_matters_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    let public = sealed::generate(&bed, "--age", "identity");
    let signer = sealed::generate(&bed, "--signing", "signing.key");
    let id = bed.snapshot("full");
    // Sealed for a key file; an envelope lets the private key of age open it.
    let lines = "recipients = [\"file:key\"]\nsigning_key = \"file:signing.key\"";
    let rewrap = ["keys", "rewrap", "--to", &public];
    Run::of(&sealed::on(&bed, "rewrapper", lines, &rewrap).output().unwrap()).done();

    plant_envelope(&bed, &id, &public, &DataKey::generate().unwrap());
    assert!(manifest(&bed, &id)["signature"].is_null());

    let target = bed.path("restored");
    let words = ["restore", "--id", &id, "--to", target.to_str().unwrap(), "--yes"];
    reader(&bed, &[], &words).failed(14, "is not trusted");
    reader(&bed, &[&signer], &words).done();
}

#[test]
fn the_ledger_vouches_for_what_nobody_trusted_signed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("books.tigerbeetle");
    tb::format(&file, 0, 1);
    let server = tb::Server::solo(folder.path());
    let bed = Bed::new(&file, "");
    bed.set_ledger(server.address(), "2m", "");
    let keys = seal_only(&bed);
    let real = bed.snapshot("full");
    let unknown = plant(&bed, &bed.app(None), &Seed::at(now() - Duration::hours(1)));
    let target = bed.path("restored");
    let words = |id| ["restore", "--id", id, "--to", target.to_str().unwrap(), "--yes"];
    let unknown = unknown.id.to_string();
    reader(&bed, &[], &words(&unknown)).failed(14, "nobody signed it");
    assert!(!keys.signer.is_empty());
    reader(&bed, &[], &words(&real)).done();
}

#[test]
fn what_a_sealing_host_records_is_proven_by_its_signature() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, keys) = bed(&folder);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let job = "[job.nightly]\nrun = \"snapshot\"\nsource = \"books\"\nevery = \"1h\"\n[job.check]\nrun = \"verify\"\nsource = \"books\"\nlevel = \"digest\"\nevery = \"1d\"\n";
    fs::write(bed.path("bkp.toml"), config + job).unwrap();
    bed.run(&["run", "nightly"]).done();
    bed.run(&["run", "check"]).done();
    let id = bed.json(&["list"])["backups"][0]["id"].as_str().unwrap().to_owned();
    bed.run(&["pin", &id]).done();
    bed.run(&["unpin", &id]).done();
    // Another host believes them if it trusts the signer, and without its key.
    let trusted = |trust: &[&str]| {
        let lines = format!("recipients = []\ntrust = {trust:?}");
        let words = ["list", "--runs", "--json"];
        let output = sealed::on(&bed, "watcher", &lines, &words).output().unwrap();
        let runs: Value = serde_json::from_slice(&output.stdout).unwrap();
        let of_jobs = runs["runs"].as_array().unwrap().iter().filter(|run| !run["job"].is_null());
        let proven: Vec<bool> = of_jobs.map(|run| run["proven"] == true).collect();
        assert_eq!(proven.len(), 2, "{runs}");
        proven.into_iter().filter(|proven| *proven).count()
    };
    let forger = sealed::generate(&bed, "--signing", "forger.key");
    assert_eq!([trusted(&[&keys.signer]), trusted(&[&forger])], [2, 0]);
    let listed = bed.run(&["list", "--long"]).done();
    assert!(listed.stdout.contains("unpinned"), "{}", listed.stdout);
    assert!(!listed.stdout.contains("(unproven)"), "{}", listed.stdout);
}
