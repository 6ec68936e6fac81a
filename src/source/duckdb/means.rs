//! What the engine may take of the machine, and what it means that it was not enough.

use std::path::Path;

use crate::error::{Fault, Kind};
use crate::source::Share;

/// Memory of an export, bytes, if the configuration names none: an export reads and sorts, and what
/// does not fit is spilled.
const MODEST_BYTES: u64 = 512 << 20;

/// Memory that a thread should have at least, bytes: each one that writes Parquet holds a group of
/// rows.
const THREAD_BYTES: u64 = 128 << 20;

/// Where the kernel says how much memory the service may take, if that is limited.
const LIMIT: &str = "/sys/fs/cgroup/memory.max";

/// What the engine may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Means {
    /// Bytes of memory.
    pub(super) memory_bytes: u64,
    /// Threads.
    pub(super) threads: u64,
}

impl Means {
    /// For work whose memory does not grow with the data.
    pub(super) fn modest(share: Share) -> Means {
        Means::of(share, MODEST_BYTES)
    }

    /// For loading tables: the index of a key has to fit into memory while it is made. Three fifths of
    /// what the machine has.
    pub(super) fn ample(share: Share) -> Means {
        Means::of(share, (machine_bytes() / 5 * 3).max(MODEST_BYTES))
    }

    fn of(share: Share, memory_bytes: u64) -> Means {
        let memory_bytes = share.memory_bytes.unwrap_or(memory_bytes);
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let threads = processors.min((memory_bytes / THREAD_BYTES).max(1));
        Means { memory_bytes, threads: share.threads.map_or(threads, u64::from) }
    }
}

/// Memory of this machine, or of the group of processes that this one belongs to, bytes.
fn machine_bytes() -> u64 {
    let system = rustix::system::sysinfo();
    #[expect(clippy::useless_conversion, reason = "the field is narrower on some machines")]
    let all = u64::from(system.totalram).saturating_mul(u64::from(system.mem_unit));
    let limit = std::fs::read_to_string(LIMIT).ok().and_then(|text| text.trim().parse().ok());
    limit.map_or(all, |limit: u64| limit.min(all))
}

/// A failure of the engine with these words: of this kind, unless they say that memory or disk was
/// full, which says nothing of the data.
pub(super) fn fault(kind: Kind, message: &str, words: &str, means: Means, spill: &Path) -> Fault {
    const DISK: [&str; 4] =
        ["No space left", "max_temp_directory_size", "Disk quota exceeded", "Could not write"];
    let message = format!("{message}: {words}");
    if DISK.iter().any(|part| words.contains(part)) {
        let place = if spill.as_os_str().is_empty() { Path::new(".") } else { spill };
        return Fault::new(Kind::Failed, message).hint(format!(
            "free space where {} is, or choose another place (--to, --scratch, `state_dir`)",
            place.display()
        ));
    }
    if words.contains("Out of Memory") {
        return Fault::new(Kind::Failed, message).hint(format!(
            "give the engine more than {} MiB: set `memory` in the source's table, and `threads` to less than {}",
            means.memory_bytes >> 20,
            means.threads.max(2)
        ));
    }
    Fault::new(kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Classify;

    #[test]
    fn a_full_machine_is_no_damage() {
        let means = Means { memory_bytes: 512 << 20, threads: 2 };
        let kind = |words: &str| {
            let fault = fault(Kind::Integrity, "it cannot", words, means, Path::new("x"));
            (fault.kind(), Classify::hint(&fault).unwrap_or_default())
        };
        let (full, hint) =
            kind("Out of Memory Error: failed to allocate (488.0 MiB/488.2 MiB used)");
        assert!(full == Kind::Failed && hint.contains("512 MiB: set `memory`"), "{hint}");
        // The engine calls a full disk out of memory when it spills.
        let (full, hint) =
            kind("Out of Memory Error: failed to offload, see 'max_temp_directory_size'");
        assert!(full == Kind::Failed && hint.contains("where x is"), "{hint}");
        assert_eq!(kind("IO Error: Could not write file: No space left on device").0, Kind::Failed);
        assert_eq!(kind("IO Error: Corrupt database file").0, Kind::Integrity);
    }

    #[test]
    fn threads_go_with_memory() {
        let share = |memory_bytes, threads| Share { memory_bytes, threads };
        assert_eq!(Means::modest(share(Some(1 << 20), None)).threads, 1);
        assert_eq!(Means::modest(share(Some(1 << 20), Some(7))).threads, 7);
        assert_eq!(Means::ample(share(Some(1 << 30), None)).memory_bytes, 1 << 30);
        assert!(Means::ample(share(None, None)).memory_bytes >= MODEST_BYTES);
    }
}
