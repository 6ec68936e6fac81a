//! A Parquet file in a folder: another program's, and read in the process that holds the keys.

use std::fs;
use std::io::Write;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use bkp::archive::EntrySink;
use bkp::ctx::Ctx;
use bkp::domain::names::BackupType;
use bkp::pipeline::objects::{ObjectBody, ObjectSink};
use bkp::source::kinds::kind_of;
use bkp::source::{ReplicaRequest, Source};
use tempfile::TempDir;

/// Takes objects into memory.
#[derive(Default)]
struct Objects(Vec<Vec<u8>>);

impl ObjectSink for Objects {
    fn object(
        &mut self,
        _role: &str,
        _name: &str,
        _sealed: bool,
        body: &mut ObjectBody<'_>,
    ) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        body(&mut bytes as &mut dyn Write)?;
        self.0.push(bytes);
        Ok(())
    }

    fn compressed(
        &mut self,
        role: &str,
        name: &str,
        body: &mut ObjectBody<'_>,
    ) -> anyhow::Result<()> {
        self.object(role, name, true, body)
    }

    fn archive(
        &mut self,
        _push: &mut dyn FnMut(&mut dyn EntrySink) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        unreachable!("a replica has no archive")
    }
}

/// The folder, and the source that it is.
static TIER: LazyLock<(TempDir, Box<dyn Source>)> = LazyLock::new(|| {
    let folder = super::scratch();
    let table = format!("path = {:?}\n", folder.path());
    let open = kind_of(BackupType::Parquet).unwrap().open;
    let source = open("tier", table.parse().unwrap()).unwrap();
    (folder, source)
});

/// Whatever its footer says, a file is copied as it is; one that is whole has rows, and nothing is lost.
pub(crate) fn run(data: &[u8]) {
    let (folder, source) = &*TIER;
    let path = folder.path().join("a.parquet");
    fs::write(&path, data).unwrap();
    // A young one without a footer would be taken for one that is being written.
    let file = fs::File::options().append(true).open(&path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_hours(24)).unwrap();
    let id = "01935a3c-7a00-7abc-8def-0123456789ab".parse().unwrap();
    let mut objects = Objects::default();
    let request = ReplicaRequest { id, chain: &[], skipped: &[] };
    let captured = source.replicate(&request, &mut objects, &Ctx::fixed(super::now)).unwrap();
    assert!(objects.0 == [data], "other bytes were copied");
    assert_eq!(captured.record["files"], 1);
    assert!(captured.lost.len() <= 1, "{:?}", captured.lost);
    assert!(captured.lost.is_empty() || captured.record["rows"] == 0);
}

/// A table with nested columns, as DuckDB writes it.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![super::unpacked(include_bytes!("../seeds/parquet.zst"))]
}
