//! Restores of objects in an archive: planned, asked for, come back later.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use bkp::domain::tier::StorageClass;
use bkp::store::Declared;
use serde_json::Value;

use crate::support::bed::Bed;
use crate::support::s3::{Service, number, tool, usual};
use crate::support::schema::wrong;
use crate::support::tb;

/// Another service that archives.
fn moto() -> &'static Service {
    static SERVICE: OnceLock<Service> = OnceLock::new();
    SERVICE.get_or_init(|| {
        Service::start(|port, _folder| {
            let mut command = Command::new(tool("moto/bin/moto_server"));
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        })
    })
}

/// A chain of two in a new bucket of a service.
fn chain(service: &Service, file: &Path, more: &str) -> (Bed, String) {
    let bed = Bed::new(file, "");
    let bucket = format!("thaw-{}", number());
    service.ask("PUT", &format!("/{bucket}"), &[]).done();
    bed.store_is(&service.table_at(&service.endpoint(), &bucket, more));
    bed.snapshot("full");
    let newest = bed.snapshot("incremental");
    (bed, newest)
}

/// Moves the data of every backup to a class.
fn freeze(bed: &Bed, class: StorageClass) -> Vec<String> {
    let app = bed.app(None);
    let store = app.store_prune("main").unwrap();
    let found: Vec<_> = store.list("tigerbeetle").unwrap().map(Result::unwrap).collect();
    let data = found.into_iter().filter(|object| object.key.ends_with("tar.zst.enc"));
    let moved = data.map(|object| {
        let found = store.head(&object.key).unwrap();
        let declared = Declared { bytes: found.bytes, sha256: found.sha256.unwrap() };
        store.set_class(&object.key, declared, class).unwrap();
        object.key
    });
    moved.collect()
}

fn restore(bed: &Bed, id: &str, more: &[&str]) -> crate::support::bed::Run {
    let target = bed.path("restored");
    let words = ["restore", "--id", id, "--to", target.to_str().unwrap(), "--yes"];
    bed.run(&[&words, more].concat())
}

#[test]
fn a_chain_in_an_archive_is_asked_for_at_once_and_restored_later() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    for (service, more) in [(usual(), ""), (moto(), "checksum = \"when-required\"")] {
        let (bed, newest) = chain(service, &file, more);
        assert_eq!(freeze(&bed, StorageClass::Glacier).len(), 2);
        // What lists and what increments read is not there.
        assert_eq!(bed.json(&["list", "--long"])["backups"].as_array().unwrap().len(), 2);
        let verify = ["verify", "--id", &newest, "--level", "digest"];
        bed.run(&verify).failed(75, "not read: 2 object(s)");
        bed.run(&["verify", "--all", "--level", "digest"]).failed_in_text(75, "skipped: not read");
        bed.run(&["verify", "--all", "--level", "exists"]).done();

        let target = bed.path("restored");
        let words = ["restore", "--id", &newest, "--to", target.to_str().unwrap(), "--dry-run"];
        let plan = bed.json(&words)["thaw"].clone();
        assert_eq!((&plan["objects"], &plan["archived"]), (&2.into(), &2.into()), "{plan}");
        assert!(plan["price"].as_f64().unwrap() > 0.0, "{plan}");
        assert_eq!(plan["classes"][0], "GLACIER", "{plan}");
        assert_eq!(bed.json(&words)["thaw"], plan, "a dry run asks for nothing");

        let run = restore(&bed, &newest, &["--tier", "bulk", "--json"]);
        assert_eq!(run.code, Some(75), "{}{}", run.stdout, run.stderr);
        let asked: Value = serde_json::from_str(&run.stdout).unwrap();
        let schema = bed.run(&["config", "schema", "--report", "thaw"]).done().stdout;
        let schema: Value = serde_json::from_str(&schema).unwrap();
        assert_eq!(wrong(&schema, &schema, &asked, ""), Vec::<String>::new());
        assert_eq!((&asked["schema"], &asked["archived"]), (&"bkp.thaw/1".into(), &2.into()));
        assert_eq!((&asked["tier"], &asked["seconds"]), (&"Bulk".into(), &43_200.into()));
        assert!(!target.exists());
        assert!(bed.noted("restored").is_empty());
        let run = restore(&bed, &newest, &["--wait"]).done();
        assert!(run.stdout.contains("restored"), "{}", run.stdout);
        assert!(target.exists());
        bed.run(&verify).done();
    }
}

#[test]
fn a_deep_archive_is_not_restored_in_minutes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let (bed, newest) = chain(usual(), &file, "");
    freeze(&bed, StorageClass::DeepArchive);
    restore(&bed, &newest, &["--tier", "Expedited"]).failed(2, "DEEP_ARCHIVE");
    let run = restore(&bed, &newest, &[]).failed_in_text(75, "within 12 hours");
    assert!(run.stdout.contains("run the same command again"), "{}", run.stdout);
    restore(&bed, &newest, &["--wait"]).done();
    // GLACIER_IR can be read at once.
    let (bed, newest) = chain(usual(), &file, "");
    freeze(&bed, StorageClass::GlacierIr);
    restore(&bed, &newest, &[]).done();
}
