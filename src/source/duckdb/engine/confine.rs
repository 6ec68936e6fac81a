//! Confines the engine process before it opens anything: it works on files and text written by others,
//! and a flaw in the engine must not give access to what bkp can access.

use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath,
    PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, Scope, make_bitflags,
};
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The newest rules of the kernel that are asked for; an older kernel has those that it knows.
const RULES: ABI = ABI::V6;

/// Memory beside what the engine counts itself, bytes: its program, threads, and what it forgets to count.
const MEMORY_BESIDE_BYTES: u64 = 2 << 30;

/// Where the kernel says how much memory there is: the engine reads it in any case, and ends where it cannot.
const MEMORY_LIMITS: [(&str, BitFlags<AccessFs>); 2] = [
    ("/proc/self/cgroup", make_bitflags!(AccessFs::{ReadFile})),
    ("/sys/fs/cgroup", make_bitflags!(AccessFs::{ReadFile | ReadDir})),
];

/// Gives up privileges, inherited files and the way to get either back. Signals to a group of processes
/// are bkp's to answer, which ends the engine then.
///
/// # Errors
/// What the system refuses, in words.
pub(crate) fn confine() -> Result<(), String> {
    close_inherited()?;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let said = |what: &'static str| move |error: rustix::io::Errno| format!("{what}: {error}");
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(said("no core files"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(said("no tracing"))?;
    rustix::thread::set_no_new_privs(true).map_err(said("no new privileges"))?;
    // Without the right to do it there is nothing in the set that counts.
    for capability in CapabilitySet::all().iter() {
        let _kept = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    // A kernel without this set has nothing in it.
    let _none = rustix::thread::clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, none).map_err(said("no capabilities"))?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let noted = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
        noted.map_err(|error| format!("signals: {error}"))?;
    }
    Ok(())
}

/// Closes what the process that started bkp left open.
fn close_inherited() -> Result<(), String> {
    let open =
        std::fs::read_dir("/proc/self/fd").map_err(|error| format!("open files: {error}"))?;
    let number = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.ok()?.file_name().to_str()?.parse::<i32>().ok()
    };
    let inherited: Vec<i32> = open.filter_map(number).filter(|fd| *fd > 2).collect();
    for fd in inherited {
        // The listing itself is closed by now.
        if !Path::new(&format!("/proc/self/fd/{fd}")).is_symlink() {
            continue;
        }
        #[expect(unsafe_code, reason = "nothing else can name a file that it did not open")]
        // SAFETY: this process was just started and has one thread; what is open beyond the three
        // standard files was inherited, so nothing in it owns the file.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    Ok(())
}

/// From here on the kernel refuses every file but those in the folder that the process lives in, if it is
/// to have that one, and every connection, and more memory than the engine is to take.
///
/// # Errors
/// What the system refuses, in words.
pub(crate) fn enclose(folder: bool, memory_bytes: u64) -> Result<(), String> {
    let most = memory_bytes.saturating_mul(2).saturating_add(MEMORY_BESIDE_BYTES);
    // What counts is memory that can be written, not room that is only reserved.
    setrlimit(Resource::Data, Rlimit { current: Some(most), maximum: Some(most) })
        .map_err(|error| format!("memory: {error}"))?;
    // An old kernel has no such rules, or not all of them: then the engine's own have to do.
    let rules = || -> Result<(), landlock::RulesetError> {
        let mut created = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(RULES))?
            .handle_access(AccessNet::from_all(RULES))?
            .scope(Scope::from_all(RULES))?
            .create()?;
        if folder && let Ok(here) = PathFd::new(".") {
            created = created.add_rule(PathBeneath::new(here, AccessFs::from_all(RULES)))?;
        }
        for (path, access) in MEMORY_LIMITS {
            if let Ok(path) = PathFd::new(path) {
                created = created.add_rule(PathBeneath::new(path, access))?;
            }
        }
        created.restrict_self().map(|_status| ())
    };
    rules().map_err(|error| format!("rules for files: {error}"))
}
