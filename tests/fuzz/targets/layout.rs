//! Block maps and listings: `layout.json` of a snapshot.

use bkp::blockfile::listing;
use bkp::blockfile::map::{BlockMap, Checksum};
use bkp::error::{Kind, diagnose};
use bkp::source::kinds::SOURCES;
use serde::{Deserialize, Serialize};

use super::bytes::Bytes;

#[derive(Serialize, Deserialize)]
struct Listing(#[serde(with = "listing")] BlockMap);

/// No map is larger than any file: 64 TiB in blocks of 256 KiB.
const ADDRESS_MAX: u64 = 1 << 28;

fn check(map: &BlockMap) {
    let mut last = None;
    let mut count = 0;
    for (address, checksum) in map.iter() {
        assert!(last.is_none_or(|last| last < address) && address <= ADDRESS_MAX, "{address}");
        assert!(map.holds(address, checksum) && checksum != Checksum(0));
        (last, count) = (Some(address), count + 1);
    }
    assert_eq!(map.len(), count);
}

/// A list is in order and within bounds or is refused, and reads the same after it was printed; a map of
/// a source has no addresses beyond those of any file.
pub(crate) fn run(data: &[u8]) {
    let mut input = Bytes(data);
    let source = input.number::<1>();
    if let Some(entry) = SOURCES.get(source % (SOURCES.len() + 1)) {
        match entry.kind.read_map.map(|read_map| read_map(&mut input.0)) {
            Some(Ok(held)) => check(&held.blocks),
            Some(Err(error)) => assert_eq!(diagnose(&error).kind, Kind::Integrity, "{error:#}"),
            None => {}
        }
        return;
    }
    let Ok(Listing(map)) = serde_json::from_slice(input.0) else { return };
    check(&map);
    let printed = serde_json::to_vec(&Listing(map.clone())).unwrap();
    let Listing(again) = serde_json::from_slice(&printed).unwrap();
    assert!(again.iter().eq(map.iter()));
}

/// A list, and the maps of both sources.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let with = |source: u8, text: &str| [&[source], text.as_bytes()].concat();
    let one = "00112233445566778899aabbccddeeff";
    let duckdb = format!(
        r#"{{"schema":"bkp.duckdb.layout/1","file_bytes":536576,"units_at":12288,"unit_bytes":262144,"headers":"{one}","wal_bytes":100,"piece_bytes":1048576,"wal":[[0,"{one}"]],"units":[[0,"{one}"],[1,"{one}"]]}}"#
    );
    let tigerbeetle = format!(
        r#"{{"schema":"bkp.tigerbeetle.layout/1","cluster":"0","file_bytes":1145569280,"zones":{{"superblock_copies":[0,24576,49152,73728],"wal_headers":98304,"wal_prepares":360448,"client_replies":1074102272,"grid":1141374976}},"superblock":"{one}","wal":[[959,"{one}"],[960,"{one}"]],"replies":[[0,"{one}"]],"grid":[[1,"{one}"],[7,"{one}"]]}}"#
    );
    vec![
        with(0, &duckdb),
        with(1, &tigerbeetle),
        with(2, &format!(r#"[[0,"{one}"],[4096,"{one}"],[268435456,"{one}"]]"#)),
    ]
}
