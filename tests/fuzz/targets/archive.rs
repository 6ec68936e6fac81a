//! The tar inside a backup: our reader and our writer.

use bkp::archive::EntrySink as _;
use bkp::archive::{self, ArchiveWriter};
use bkp::ctx::Cancel;
use bkp::error::{FirstError, Kind, diagnose};

use super::memory::Out;

type Members = Vec<(String, Vec<u8>)>;

fn read(mut input: &[u8]) -> anyhow::Result<Members> {
    let length = input.len();
    let (mut members, mut total) = (Vec::new(), 0);
    archive::read(&mut input, &FirstError::default(), &mut |name, size, body| {
        assert!(!name.starts_with('/') && !name.split('/').any(|part| part == ".."), "{name:?}");
        assert!(name.len() <= 255 && name.is_ascii() && !name.contains('\\'), "{name:?}");
        let mut content = Vec::new();
        body.read_to_end(&mut content)?;
        total += content.len();
        assert!(content.len() as u64 <= size && total <= length, "{size} bytes, {total} in all");
        members.push((name.to_owned(), content));
        Ok(())
    })?;
    Ok(members)
}

fn write(members: &Members) -> anyhow::Result<Vec<u8>> {
    let out = Out::default();
    let mut writer = ArchiveWriter::new(Box::new(out.clone()), 1, Cancel::default());
    for (name, content) in members {
        writer.entry(name, content)?;
    }
    writer.finish()?;
    Ok(out.bytes())
}

/// What is refused is refused as damaged; what is read has plain names, is no longer than the input, and
/// reads the same after it was written again.
pub(crate) fn run(data: &[u8]) {
    match read(data) {
        Err(error) => assert_eq!(diagnose(&error).kind, Kind::Integrity, "{error:#}"),
        // A name that is too long for the header without a division is one that no bkp writes.
        Ok(members) => {
            if let Ok(written) = write(&members) {
                assert_eq!(read(&written).unwrap(), members);
            }
        }
    }
}

/// A snapshot's tar, and what other programs put into theirs.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let member = |name: &str, content: &[u8]| (name.to_owned(), content.to_vec());
    let ours = write(&vec![
        member("grid/12", &[7; 700]),
        member("wal/960", b"a prepare"),
        member("layout.json", b"{}\n"),
    ]);
    let mut foreign = tar::Builder::new(Vec::new());
    for (path, link) in [("a/b", false), ("link", true), (&*"long/".repeat(60), false)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        if link {
            header.set_entry_type(tar::EntryType::Symlink);
            foreign.append_link(&mut header, path, "/etc/passwd").unwrap();
        } else {
            foreign.append_data(&mut header, path, &[][..]).unwrap();
        }
    }
    let pax = b"27 path=a/very/long/path\n30 GNU.sparse.realsize=100000\n";
    let mut extended = tar::Builder::new(Vec::new());
    for (kind, content) in [(tar::EntryType::XHeader, &pax[..]), (tar::EntryType::Regular, b"x")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_entry_type(kind);
        extended.append_data(&mut header, "x", content).unwrap();
    }
    vec![ours.unwrap(), foreign.into_inner().unwrap(), extended.into_inner().unwrap()]
}
