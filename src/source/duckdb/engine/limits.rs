//! The resource limits of the engine, and the errors when they are exceeded.

use std::path::Path;

use crate::domain::limits::EXPORT_TABLES_MAX;
use crate::error::{Fault, Kind};
use crate::source::ResourceLimits;
use crate::source::duckdb::export::index::TableEntry;

/// Memory of an export, bytes, if the configuration names none: an export reads and sorts, and what
/// does not fit is spilled.
const MODEST_BYTES: u64 = 512 << 20;

/// Memory that a thread should have at least, bytes: each one that writes Parquet holds a group of
/// rows.
const THREAD_BYTES: u64 = 128 << 20;

/// Where the kernel says which groups of processes this one belongs to, a line for each hierarchy: that
/// of control groups in version 2 is `0::/PATH`.
const OWN_GROUP: &str = "/proc/self/cgroup";

/// Where these groups are folders. In a container this is the group of the container; on a host a
/// service has its own further below, and here is none with a limit.
const GROUPS: &str = "/sys/fs/cgroup";

/// What the engine may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EngineLimits {
    /// Bytes of memory.
    pub(crate) memory_bytes: u64,
    /// Threads.
    pub(crate) threads: u64,
}

impl EngineLimits {
    /// For work whose memory does not grow with the data.
    pub(crate) fn modest(share: ResourceLimits) -> EngineLimits {
        EngineLimits::of(share, MODEST_BYTES)
    }

    /// For loading tables: the index of a key has to fit into memory while it is made. Three fifths of
    /// what the machine has.
    pub(crate) fn ample(share: ResourceLimits) -> EngineLimits {
        EngineLimits::of(share, (machine_bytes() / 5 * 3).max(MODEST_BYTES))
    }

    /// The same for putting rows into these tables. DuckDB 1.5 loses values of structs, or ends, where several
    /// threads insert them into a file in their order (a crash of this kind is duckdb/duckdb#14701): then one does.
    pub(crate) fn inserting<'t>(
        self,
        tables: impl IntoIterator<Item = &'t TableEntry>,
    ) -> EngineLimits {
        let is_struct = tables.into_iter().any(TableEntry::has_struct);
        if is_struct { EngineLimits { threads: 1, ..self } } else { self }
    }

    fn of(share: ResourceLimits, memory_bytes: u64) -> EngineLimits {
        let memory_bytes = share.memory_bytes.unwrap_or(memory_bytes);
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let threads = processors.min((memory_bytes / THREAD_BYTES).max(1));
        EngineLimits { memory_bytes, threads: share.threads.map_or(threads, u64::from) }
    }
}

/// The limits that a table can exceed, in words.
pub(crate) fn described(share: ResourceLimits) -> String {
    let words = |limits: EngineLimits| {
        let threads = if limits.threads == 1 { "thread" } else { "threads" };
        format!("{} MiB and {} {threads}", limits.memory_bytes >> 20, limits.threads)
    };
    let (export, load) = (EngineLimits::modest(share), EngineLimits::ample(share));
    format!(
        "exports have {} and spill the rest; restores, decodes, drills, and the reading of logs that need more, have {}, which the index of a key has to fit into; one thread loads tables with structs; of more than {EXPORT_TABLES_MAX} tables the smallest are not stored as Parquet",
        words(export),
        words(load)
    )
}

/// Memory of this machine, or of the group of processes that this one belongs to, bytes.
fn machine_bytes() -> u64 {
    let system = rustix::system::sysinfo();
    #[expect(clippy::useless_conversion, reason = "the field is narrower on some machines")]
    let all = u64::from(system.totalram).saturating_mul(u64::from(system.mem_unit));
    let own = std::fs::read_to_string(OWN_GROUP).unwrap_or_default();
    limit_bytes(&own, Path::new(GROUPS)).map_or(all, |limit| limit.min(all))
}

/// The smallest limit of memory, bytes, of the group that `own` names (the text of [`OWN_GROUP`]) and
/// of those around it, up to the folder `groups`: each of them counts.
fn limit_bytes(own: &str, groups: &Path) -> Option<u64> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // A group without a limit says `max`.
    let limit = |group: &Path| {
        let text = std::fs::read_to_string(groups.join(group).join("memory.max")).ok()?;
        text.trim().parse().ok()
    };
    Path::new(path).ancestors().filter_map(limit).min()
}

/// Whether the engine's words are those of a full disk.
pub(crate) fn is_no_room(words: &str) -> bool {
    const DISK: [&str; 4] =
        ["No space left", "max_temp_directory_size", "Disk quota exceeded", "File too large"];
    DISK.iter().any(|part| words.contains(part))
}

/// How the engine says that memory was too small.
pub(crate) const OUT_OF_MEMORY: &str = "Out of Memory";

/// Whether a failure is that memory was too small.
pub(crate) fn is_no_memory(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains(OUT_OF_MEMORY)
}

/// A failure of the engine with these words: of this kind, unless they say that memory or disk was
/// full, which says nothing of the data.
pub(crate) fn fault(
    kind: Kind,
    message: &str,
    words: &str,
    limits: EngineLimits,
    spill: &Path,
) -> Fault {
    let message = format!("{message}: {words}");
    if is_no_room(words) {
        let place = if spill.as_os_str().is_empty() { Path::new(".") } else { spill };
        return Fault::new(Kind::Failed, message).hint(format!(
            "free space on the file system of {}, or choose another path (--to, --scratch, `state_dir`)",
            place.display()
        ));
    }
    if words.contains(OUT_OF_MEMORY) {
        return Fault::new(Kind::Failed, message).hint(format!(
            "give the engine more than {} MiB: set `memory` in the source's table, and `threads` below {}",
            limits.memory_bytes >> 20,
            limits.threads.max(2)
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
        let limits = EngineLimits { memory_bytes: 512 << 20, threads: 2 };
        let kind = |words: &str| {
            let fault = fault(Kind::Integrity, "it cannot", words, limits, Path::new("x"));
            (fault.kind(), Classify::hint(&fault).unwrap_or_default())
        };
        let (full, hint) =
            kind("Out of Memory Error: failed to allocate (488.0 MiB/488.2 MiB used)");
        assert!(full == Kind::Failed && hint.contains("512 MiB: set `memory`"), "{hint}");
        // The engine calls a full disk out of memory when it spills.
        let (full, hint) =
            kind("Out of Memory Error: failed to offload, see 'max_temp_directory_size'");
        assert!(full == Kind::Failed && hint.contains("file system of x"), "{hint}");
        assert_eq!(kind("IO Error: Could not write file: No space left on device").0, Kind::Failed);
        assert_eq!(kind("IO Error: Corrupt database file").0, Kind::Integrity);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "files of a test")]
    fn every_group_around_a_process_limits_its_memory() {
        let groups = tempfile::tempdir().expect("a folder");
        let service = groups.path().join("system.slice/bkp.service");
        std::fs::create_dir_all(service.join("inner")).expect("folders");
        let limit = |folder: &Path, text: &str| {
            std::fs::write(folder.join("memory.max"), text).expect("a file");
        };
        let found = |own: &str| limit_bytes(own, groups.path());
        let own = "4:memory:/other\n0::/system.slice/bkp.service/inner\n";
        assert_eq!(found(own), None);
        limit(&service, "1073741824\n");
        assert_eq!(found(own), Some(1 << 30));
        // Neither a group within without a limit, nor a larger one around it, lifts it.
        limit(&service.join("inner"), "max\n");
        limit(&groups.path().join("system.slice"), "4294967296\n");
        assert_eq!(found(own), Some(1 << 30));
        assert_eq!(found("0::/system.slice/other.service"), Some(4 << 30));
        assert_eq!(found("0::/user.slice\n"), None);
        // In a container, which sees its own group as the root.
        limit(groups.path(), "536870912\n");
        assert_eq!(found("0::/\n"), Some(512 << 20));
        assert_eq!(found(""), Some(512 << 20));
        assert_eq!(found(own), Some(512 << 20));
    }

    #[test]
    fn threads_go_with_memory() {
        let share = |memory_bytes, threads| ResourceLimits { memory_bytes, threads };
        assert_eq!(EngineLimits::modest(share(Some(1 << 20), None)).threads, 1);
        assert_eq!(EngineLimits::modest(share(Some(1 << 20), Some(7))).threads, 7);
        assert_eq!(EngineLimits::ample(share(Some(1 << 30), None)).memory_bytes, 1 << 30);
        assert!(EngineLimits::ample(share(None, None)).memory_bytes >= MODEST_BYTES);
    }
}
