//! Where servers live: a folder of this run that their user may enter, with the programs in it.
//!
//! `PostgreSQL` refuses to run as root. So a test that runs as root runs its servers as `nobody`, who may not
//! enter the folders of root: neither the build's nor a bed's.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; clippy sees tests only in marked functions"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::super::s3::{number, tool};

/// What ends the servers that still run when the test's process has ended, however it did, and removes the
/// folder: each has a folder with its process id in it.
const KEEPER: &str = r#"
cat >/dev/null
mine() { tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -qF "$2/"; }
for file in "$1"/*/pid; do
    [ -e "$file" ] || continue
    read -r pid <"$file"
    ! mine "$pid" "$1" || kill -QUIT "$pid"
    while mine "$pid" "$1"; do sleep 0.1; done
done
rm -rf "$1"
"#;

/// The folder of this run, in the system's folder for temporary files.
struct Run {
    folder: PathBuf,
    /// Waits for the end of a pipe that only this process holds.
    _keeper: Child,
}

fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("bkp-postgres-").tempdir().unwrap().keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(&folder);
        // A signal from the keyboard is for the tests; this comes after them.
        keeper.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        Run { _keeper: keeper.spawn().unwrap(), folder }
    })
}

/// The user and the group that servers run as, if that is not who runs the tests.
pub(crate) fn user() -> Option<(u32, u32)> {
    static USER: OnceLock<(u32, u32)> = OnceLock::new();
    // Asked of the system, which has more users than those in its file.
    let id = |word: &str| {
        let output = Command::new("id").args([word, "nobody"]).output().unwrap();
        let number = String::from_utf8_lossy(&output.stdout).trim().parse();
        number.unwrap_or_else(|_| panic!("there is no user `nobody`, whom servers could run as"))
    };
    let is_root = rustix::process::geteuid().is_root();
    is_root.then(|| *USER.get_or_init(|| (id("-u"), id("-g"))))
}

/// A command in an empty environment, run as the servers' user in a folder that is theirs.
pub(crate) fn as_user(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env_clear().stdin(Stdio::null());
    command.env("HOME", folder).env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
    if let Some((user, group)) = user() {
        command.uid(user).gid(group);
    }
    command
}

/// A new folder for a server and what belongs to it: private to the servers' user, removed at the end.
pub(crate) fn home() -> PathBuf {
    let folder = run().folder.join(number().to_string());
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    own(&folder);
    folder
}

/// Gives a folder and everything in it to the servers' user.
pub(crate) fn own(path: &Path) {
    let Some((user, group)) = user() else { return };
    lchown(path, Some(user), Some(group)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for item in fs::read_dir(path).unwrap() {
            own(&item.unwrap().path());
        }
    }
}

/// A folder with `bin` in it, of a server that `examples/prepare.sh` got.
pub(super) fn installed(version: &str) -> PathBuf {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    let installed = tool(&format!("postgres/{version}"));
    if user().is_none() {
        return installed;
    }
    PROGRAMS.get_or_init(|| linked(installed.parent().unwrap())).join(version)
}

/// The program itself where a server can run it, as its `archive_command` does.
pub(crate) fn bkp() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let built = Path::new(env!("CARGO_BIN_EXE_bkp"));
    if user().is_none() {
        return built.to_owned();
    }
    let link = || {
        // It looks for its libraries beside itself too.
        linked(&tool("duckdb/libduckdb.so"));
        linked(built)
    };
    PROGRAM.get_or_init(link).clone()
}

/// Makes something appear in the folder of this run, where every user can read it.
fn linked(from: &Path) -> PathBuf {
    let to = run().folder.join(from.file_name().unwrap());
    let copy = |how: &str| Command::new("cp").arg(how).args([from, &to]).output().unwrap();
    // Links are at once there, but only within one file system.
    if !copy("-al").status.success() {
        let _some = fs::remove_dir_all(&to);
        let copied = copy("-a");
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    }
    to
}
