//! Files as inputs: a few bytes each at places of zones, so that a file of a gigabyte, most of which is
//! empty, is an input of some kilobytes.
//!
//! ```text
//! zone u8 | index u16 | offset in it u24 | count u16 | bytes
//! ```

use std::collections::BTreeMap;

use super::bytes::Bytes;

/// What all zones may hold together, bytes; what is beyond is left out.
const BYTES_MAX: usize = 4 << 20;

/// Runs of zeros that are shorter do not end a patch: the next one would need as much.
const GAP: usize = 8;

/// Zones and what is in their parts.
#[derive(Debug, Default)]
pub(crate) struct Parts(pub(crate) BTreeMap<(u8, u16), Vec<u8>>);

impl Parts {
    /// Reads the patches of an input. Nothing is longer than `longest` says of its zone.
    pub(crate) fn read(mut input: Bytes<'_>, longest: impl Fn(u8) -> usize) -> Parts {
        let (mut parts, mut total) = (Parts::default(), 0);
        while !input.0.is_empty() {
            let (zone, index) = (input.number::<1>(), input.number::<2>());
            let (at, count) = (input.number::<3>(), input.number::<2>());
            let bytes = input.take(count);
            let (zone, index) = (u8::try_from(zone).unwrap(), u16::try_from(index).unwrap());
            let end = at + bytes.len();
            let known = parts.0.get(&(zone, index)).map_or(0, Vec::len);
            let more = end.saturating_sub(known);
            if end > longest(zone) || total + more > BYTES_MAX {
                continue;
            }
            total += more;
            let part = parts.0.entry((zone, index)).or_default();
            part.resize(part.len().max(end), 0);
            part[at..end].copy_from_slice(bytes);
        }
        parts
    }

    /// One part, empty if there is none.
    pub(crate) fn one(&mut self, zone: u8, index: u16) -> Vec<u8> {
        self.0.remove(&(zone, index)).unwrap_or_default()
    }

    /// All parts of a zone.
    pub(crate) fn zone(&mut self, zone: u8) -> BTreeMap<u16, Vec<u8>> {
        let mut rest = self.0.split_off(&(zone, 0));
        if let Some(next) = zone.checked_add(1) {
            self.0.append(&mut rest.split_off(&(next, 0)));
        }
        rest.into_iter().map(|((_, index), part)| (index, part)).collect()
    }
}

/// Writes a part as patches.
pub(crate) fn write(out: &mut Vec<u8>, zone: u8, index: u16, part: &[u8]) {
    let mut at = 0;
    while let Some(start) = part[at..].iter().position(|byte| *byte != 0).map(|skip| at + skip) {
        let mut end = start;
        while end < part.len() && end - start < usize::from(u16::MAX) {
            let rest = &part[end..part.len().min(end + GAP)];
            match rest.iter().position(|byte| *byte != 0) {
                Some(skip) => end += skip + 1,
                None => break,
            }
        }
        end = end.min(start + usize::from(u16::MAX));
        out.push(zone);
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(&u32::try_from(start).unwrap().to_le_bytes()[..3]);
        out.extend_from_slice(&u16::try_from(end - start).unwrap().to_le_bytes());
        out.extend_from_slice(&part[start..end]);
        at = end;
    }
}
