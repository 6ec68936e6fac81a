//! The units of a database file: which of them changed since they were last read, and reading them
//! until their blocks are consistent.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{CaptureRun, whole_bytes};
use crate::blockfile::map::Checksum;
use crate::domain::limits::DUCKDB_FILE_BYTES_MAX;
use crate::source::SourceError;
use crate::source::duckdb::attempt_error::{AttemptError, again};
use crate::source::duckdb::data_file::database::Observation;
use crate::source::duckdb::data_file::format::{
    BLOCKS_AT, GLANCE_BYTES, Headers, UNIT_BYTES, digest, is_whole, number, unit_offset,
};
use crate::source::duckdb::data_file::layout::unit_member;

/// Times that a block is read which does not have its checksum: it may be in the middle of a write.
const READS_MAX: u32 = 10;
/// How long to wait between them.
const READ_PAUSE: Duration = Duration::from_millis(2);

impl CaptureRun<'_> {
    /// Reads the units that changed since the last attempt, and pushes those that are new. Returns
    /// how many have another content than before.
    pub(super) fn file(&mut self, observation: &Observation) -> Result<u64, AttemptError> {
        let database = self.database;
        let file_bytes = whole_bytes(observation);
        if file_bytes > DUCKDB_FILE_BYTES_MAX {
            let reason = format!("it has {file_bytes} bytes, more than this bkp can capture");
            let what = database.path.display().to_string();
            return Err(SourceError::Unsupported { what, reason }.into());
        }
        let count = (file_bytes - BLOCKS_AT).div_ceil(UNIT_BYTES as u64);
        let known = self.unit_digests.len() as u64;
        let per_unit = UNIT_BYTES as u64 / observation.headers.block_bytes();
        let torn: BTreeSet<u64> = self.torn.iter().map(|block| block / per_unit).collect();
        for unit in count..known {
            self.units.set(unit, Checksum(0));
            self.torn.retain(|block| block / per_unit != unit);
        }
        self.unit_digests.resize(usize::try_from(count).unwrap_or(usize::MAX), 0);
        let mut changed = 0;
        for unit in 0..count {
            let length = file_bytes - unit_offset(unit);
            let length = usize::try_from(length).unwrap_or(UNIT_BYTES).min(UNIT_BYTES);
            let is_new = unit >= known || torn.contains(&unit);
            if is_new || self.is_changed(&observation.headers, unit, length)? {
                self.ctx.cancel.check().map_err(anyhow::Error::from)?;
                changed += u64::from(self.unit(&observation.headers, unit, length)?);
            }
        }
        Ok(changed)
    }

    /// Whether a unit looks different at its first pages, or cannot be told by them.
    fn is_changed(&self, headers: &Headers, unit: u64, length: usize) -> Result<bool, SourceError> {
        if headers.is_encrypted() {
            return Ok(true);
        }
        let block_bytes = usize::try_from(headers.block_bytes()).unwrap_or(UNIT_BYTES);
        let mut pages = vec![0; length.div_ceil(block_bytes) * GLANCE_BYTES];
        for (page, at) in pages.chunks_mut(GLANCE_BYTES).zip((0..).step_by(block_bytes)) {
            self.database.read(page, unit_offset(unit) + at)?;
        }
        let index = usize::try_from(unit).unwrap_or(usize::MAX);
        Ok(self.unit_digests.get(index) != Some(&unit_digest(&pages, length)))
    }

    /// Reads a unit until its blocks have their checksums, and pushes it if it is new. Returns
    /// whether its content may be another one than before.
    fn unit(&mut self, headers: &Headers, unit: u64, length: usize) -> Result<bool, AttemptError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let bytes = buffer.get_mut(..length).unwrap_or_default();
        let read = self.read_unit(headers, unit, bytes);
        self.buffer = buffer;
        read
    }

    fn read_unit(
        &mut self,
        headers: &Headers,
        unit: u64,
        bytes: &mut [u8],
    ) -> Result<bool, AttemptError> {
        let length = bytes.len();
        let block_bytes = usize::try_from(headers.block_bytes()).unwrap_or(UNIT_BYTES);
        let first = unit * (UNIT_BYTES / block_bytes) as u64;
        for read in 1..=READS_MAX {
            if self.database.read(bytes, unit_offset(unit))? < length {
                return Err(again("the file was truncated meanwhile"));
            }
            let mut in_work = false;
            for (block, content) in (first..).zip(bytes.chunks(block_bytes)) {
                let is_torn = !headers.is_encrypted() && !is_whole(content);
                in_work |= is_torn && !is_hole(content);
                if is_torn {
                    self.torn.insert(block)
                } else {
                    self.torn.remove(&block)
                };
            }
            if !in_work || self.database.is_clone() {
                break;
            }
            if read < READS_MAX {
                self.ctx.pause(READ_PAUSE).map_err(anyhow::Error::from)?;
            }
        }
        let pages: Vec<u8> = bytes
            .chunks(block_bytes)
            .flat_map(|block| block.iter().copied().take(GLANCE_BYTES))
            .collect();
        let index = usize::try_from(unit).unwrap_or(usize::MAX);
        if let Some(seen) = self.unit_digests.get_mut(index) {
            *seen = unit_digest(&pages, length);
        }
        self.ctx.monitor.advance(length as u64);
        if !self.mapped {
            self.out.entry(&unit_member(unit), bytes)?;
            return Ok(true);
        }
        let digest = digest(bytes);
        let held = self.parent.is_some_and(|parent| parent.blocks.holds(unit, digest));
        if !held && !self.units_sent.holds(unit, digest) {
            self.out.entry(&unit_member(unit), bytes)?;
            self.units_sent.set(unit, digest);
            self.pushed += 1;
        }
        Ok(self.units.set(unit, digest) != Some(digest))
    }
}

/// Whether a block is a hole that DuckDB punched, or space not written yet: it lacks its checksum, but
/// is not in the middle of a write, and reading it again changes nothing.
fn is_hole(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// What the first pages of a unit of `length` bytes look like.
fn unit_digest(pages: &[u8], length: usize) -> u64 {
    let Checksum(digest) = digest(pages);
    number(&digest.to_le_bytes(), 0) ^ length as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::duckdb::data_file::format::BlockChecksum;

    #[test]
    fn a_hole_is_not_in_work() {
        let mut block = vec![7; 16 << 10];
        let mut sum = BlockChecksum::new();
        sum.add(&block[8..]);
        block[..8].copy_from_slice(&sum.value().to_le_bytes());
        assert!(is_whole(&block) && !is_hole(&block));
        block[100] ^= 1;
        assert!(!is_whole(&block) && !is_hole(&block));
        block.fill(0);
        assert!(!is_whole(&block) && is_hole(&block));
    }
}
