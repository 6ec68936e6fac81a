//! Other users of the same machine, and programs that bkp starts.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::bed::{Bed, Run};
use crate::support::jobs::{SNAPSHOT, add, bed, hide};
use crate::support::planted::now;
use crate::support::s3::usual;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A user whom nobody else is.
const SOMEBODY: u32 = 65534;

/// The program as systemd starts it: an ordinary user who may read every file, and what it starts with it.
fn as_a_service(bed: &Bed, words: &[&str]) -> Command {
    let own = bed.command(words);
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.args(["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]);
        command
    } else {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-current-user", "--keep-caps"]);
        command
    };
    command.arg(own.get_program()).args(own.get_args()).env_clear();
    command.current_dir(bed.path(""));
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        for item in fs::read_dir(path).unwrap() {
            give(&item.unwrap().path(), user);
        }
    }
}

/// What a hook sees of itself and of bkp goes to a file. bkp itself still reads a file that is not its own.
#[test]
fn hooks_inherit_neither_capabilities_nor_secrets_and_nobody_reads_bkps_memory() {
    let (folder, bed) = bed(SNAPSHOT);
    let see = "env >seen; grep ^Cap /proc/self/status >>seen; grep core /proc/$PPID/limits >>seen; echo owner-$(stat -c %u /proc/$PPID/environ)-$(id -u) >>seen";
    add(
        &bed,
        &format!(
            "[job.nightly.hooks]\nbefore = [\"sh\", \"-c\", '{see}']\n[notify.x]\nkind = \"webhook\"\nlevel = \"critical\"\nurl = \"env:NOTIFY_URL\"\n"
        ),
    );
    if is_root() {
        give(&bed.path(""), SOMEBODY);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let mut command = as_a_service(&bed, &["run", "nightly"]);
    command
        .env("AWS_SECRET_ACCESS_KEY", "hidden-1")
        .env("NOTIFY_URL", "http://127.0.0.1:9/hidden-2");
    Run::of(&command.output().unwrap()).done();
    let seen = fs::read_to_string(bed.path("seen")).unwrap();
    assert!(!seen.contains("hidden"), "{seen}");
    assert!(seen.contains("PATH="), "the rest is there: {seen}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(seen.contains(&format!("{set}:\t0000000000000000")), "{set}: {seen}");
    }
    let limit = seen.lines().find(|line| line.starts_with("Max core")).unwrap();
    assert!(limit.split_whitespace().nth(4) == Some("0"), "{limit}");
    let owner = seen.lines().find_map(|line| line.strip_prefix("owner-")).unwrap();
    let (of_bkp, of_hook) = owner.split_once('-').unwrap();
    assert_ne!(of_bkp, of_hook, "whoever is the same user could read its memory");
}

/// Whoever can write to the collector's folder chooses no other file to be overwritten.
#[test]
fn metrics_overwrite_nothing_through_a_link() {
    let (_folder, bed) = bed(SNAPSHOT);
    let collector = bed.path("collector");
    fs::create_dir(&collector).unwrap();
    fs::write(bed.path("precious"), "precious").unwrap();
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let config = config
        .replace("[status]", &format!("[status]\nmetrics_file = {:?}", collector.join("bkp.prom")));
    fs::write(bed.path("bkp.toml"), config).unwrap();
    symlink(bed.path("precious"), collector.join("bkp.prom")).unwrap();
    // The name that bkp would use can be known before: it had the number of its process.
    let script = "ln -s ../precious collector/bkp.prom.$$.new; exec \"$0\" status";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_bkp")]).current_dir(bed.path(""));
    command.env("BKP_CONFIG", bed.path("bkp.toml"));
    let run = Run::of(&command.output().unwrap());
    assert_eq!(fs::read_to_string(bed.path("precious")).unwrap(), "precious", "{run:?}");
    let metrics = fs::read_to_string(collector.join("bkp.prom")).unwrap();
    assert!(metrics.contains("bkp_store_up"), "{metrics}");
    assert!(!collector.join("bkp.prom").is_symlink());
    let mode = fs::metadata(collector.join("bkp.prom")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

/// A lock stays with whoever inherited it, under the number of a process that is gone; and that number
/// is somebody else's then.
#[test]
fn a_stranger_with_the_number_of_the_server_is_not_paused() {
    let (folder, bed) = bed("");
    let script = "exec 9<\"$1\"; flock -x 9 & gone=$!; wait $gone; echo $((gone - 1)) >/proc/sys/kernel/ns_last_pid; sleep 600 9<&- & [ $! = $gone ] || { echo no luck; exit 99; }; \"$0\" snapshot books --mode pause; code=$?; kill $gone; exit $code";
    let mut command = Command::new("unshare");
    if !is_root() {
        command.arg("-r");
    }
    command.args(["-p", "-f", "-m", "--mount-proc", "sh", "-c", script]);
    command.arg(env!("CARGO_BIN_EXE_bkp")).arg(folder.path().join("0_0.tigerbeetle"));
    command.current_dir(bed.path("")).env("BKP_CONFIG", bed.path("bkp.toml"));
    let run = Run::of(&command.output().unwrap());
    assert!(!run.stderr.contains("pausing"), "{}", run.stderr);
    run.failed(15, "no server holds the data file");
}

#[test]
fn a_secret_command_that_hangs_is_killed() {
    let (_folder, bed) = bed("");
    bed.recipients_are(&["passphrase:cmd:sleep 600"]);
    let began = now();
    bed.run(&["snapshot", "books"]).failed(12, "was killed after 30 s");
    assert!(now() - began < time::Duration::minutes(5));
}

/// Who writes the configuration, or puts another one in its place, runs programs as bkp's user.
#[test]
fn a_configuration_that_others_can_change_is_refused() {
    let (_folder, bed) = bed("");
    let check = || bed.run(&["config", "check"]);
    check().done();
    for (name, mode, usual) in [
        ("bkp.toml", 0o664, 0o644),
        ("bkp.toml", 0o646, 0o644),
        ("", 0o777, 0o700),
        ("", 0o720, 0o700),
    ] {
        bed.chmod(name, mode);
        for words in [&["config", "check"][..], &["list"], &["run"]] {
            bed.run(words).failed(78, "writable by others").failed(78, "chmod go-w");
        }
        bed.chmod(name, usual);
    }
    check().done();
    if is_root() {
        chown(bed.path("bkp.toml"), Some(SOMEBODY), None).unwrap();
        check().failed(78, "owned by user 65534").failed(78, "chown root");
    }
}

#[test]
fn a_secret_in_a_configuration_that_all_can_read_is_refused() {
    let (_folder, bed) = bed("");
    let url = "https://chat.example/hidden";
    add(&bed, &format!("[notify.ops]\nkind = \"webhook\"\nurl = {url:?}\n"));
    bed.run(&["config", "check"]).done();
    bed.chmod("", 0o755);
    bed.chmod("bkp.toml", 0o644);
    let run = bed.run(&["list"]).failed(78, "notify.ops.url").failed(78, "file:PATH");
    assert!(!run.stderr.contains("hidden"), "{}", run.stderr);
    bed.chmod("bkp.toml", 0o640);
    bed.run(&["list"]).done();
}

/// What would stop every message is found by those who look, and named for what it is.
#[test]
fn doctor_checks_the_secrets_of_notifications() {
    let (_folder, bed) = bed("");
    let of = |file: &str| format!("[notify.ops]\nkind = \"slack\"\nurl = \"file:{file}\"\n");
    add(&bed, &of("slack-url"));
    let missing = bed.json(&["config", "check"]);
    assert!(missing["warnings"].to_string().contains("notify.ops.url"), "{missing}");
    fs::write(bed.path("slack-url"), "https://chat.example/x").unwrap();
    bed.chmod("slack-url", 0o644);
    bed.run(&["config", "check"]).failed(78, "notify.ops.url").failed(78, "chmod 600");
    let run = bed.run(&["doctor"]).failed_in_text(78, "FAILED  notify.ops");
    let mut failed = run.stdout.lines().filter(|line| line.starts_with("FAILED"));
    assert!(failed.all(|line| !line.contains("key file")), "{}", run.stdout);
    bed.chmod("slack-url", 0o600);
    bed.run(&["config", "check"]).done();
    bed.run(&["doctor"]).failed_in_text(0, "ok      notify.ops");
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let mail = "[notify.mail]\nkind = \"email\"\nurl = \"smtps://mail.example\"\nfrom = \"a@example.org\"\nto = [\"b@example.org\"]\nuser = \"u\"\npassword = \"hidden\"\n";
    fs::write(bed.path("bkp.toml"), config + mail).unwrap();
    let run = bed.run(&["list"]).failed(78, "refer to it");
    assert!(!run.stderr.contains("hidden"), "{}", run.stderr);
}

/// KMS answers with keys as they are: nobody on the way may read that, whoever names the endpoint.
#[test]
fn kms_is_not_asked_where_others_can_listen() {
    let (_folder, bed) = bed("");
    bed.recipients_are(&["kms:alias/x?endpoint=http://kms.example.net"]);
    bed.run(&["config", "check"]).failed(78, "not https://");
    bed.recipients_are(&["kms:alias/x?region=eu-west-1"]);
    for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"] {
        let mut command = bed.command(&["snapshot", "books"]);
        command.env(name, "http://kms.invalid:1");
        command.env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "x");
        Run::of(&command.output().unwrap()).failed(12, "sent in the clear");
    }
}

/// `libc` without links: every system call that makes one fails, as on vfat; with `rename` also the one
/// that renames without overwriting, as on what FUSE mounts.
fn without_links(bed: &Bed, rename: bool, words: &[&str]) -> Run {
    // A filter of system calls, for x86_64 and aarch64: linkat, unnamed files, and renameat2.
    const FILTER: &str = r"
import ctypes, errno, os, platform, struct, sys
link, rename, open_ = {'x86_64': (265, 316, 257), 'aarch64': (37, 276, 56)}[platform.machine()]
def fail(number): return (0x06, 0, 0, 0x00050000 | number)
code = [(0x20, 0, 0, 0), (0x15, 0, 1, link), fail(errno.EPERM)]
if sys.argv[1] == 'yes': code += [(0x15, 0, 1, rename), fail(errno.EINVAL)]
code += [(0x15, 0, 3, open_), (0x20, 0, 0, 32), (0x45, 0, 1, 0x400000), fail(errno.EOPNOTSUPP)]
code += [(0x06, 0, 0, 0x7fff0000)]
program = b''.join(struct.pack('HBBI', *one) for one in code)
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure): _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_char_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(len(code), program)), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[2], sys.argv[2:])
";
    let own = bed.command(words);
    let mut command = Command::new("python3");
    command.args(["-c", FILTER, if rename { "yes" } else { "no" }]);
    command.arg(own.get_program()).args(own.get_args()).env_clear().current_dir(bed.path(""));
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Run::of(&command.output().unwrap())
}

#[test]
fn a_file_system_without_hard_links_works_or_is_refused_by_doctor() {
    let (_folder, bed) = bed("");
    without_links(&bed, false, &["doctor"]).done();
    without_links(&bed, false, &["snapshot", "books"]).done();
    without_links(&bed, false, &["snapshot", "books"]).done();
    bed.run(&["verify", "books", "--level", "decode"]).done();
    let before = bed.stored();
    let run = without_links(&bed, true, &["doctor"]).failed_in_text(16, "has no hard links");
    assert!(run.stdout.contains("s3://BUCKET"), "{}", run.stdout);
    without_links(&bed, true, &["snapshot", "books"]).failed(16, "has no hard links");
    assert_eq!(bed.stored(), before, "nothing is left, not even an empty file");
}

/// Locks of a base end when its first child is as old; what builds on it would be worth nothing then.
#[test]
fn the_locks_of_a_chain_last_as_long_as_its_newest_backup() {
    usual().ask("PUT", "/chain", &["x-amz-bucket-object-lock-enabled: true"]).done();
    let (_folder, bed) = bed("");
    let at = |days: u32| {
        usual().table_at(
            &usual().endpoint(),
            "chain",
            &format!("object_lock = \"governance\"\nobject_lock_days = {days}"),
        )
    };
    bed.store_is(&at(1));
    bed.snapshot("full");
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config.replace("object_lock_days = 1", "object_lock_days = 9"))
        .unwrap();
    bed.snapshot("incremental");
    let listed = bed.json(&["list", "--long"]);
    let url = bed.run(&["config", "show"]).done().stdout;
    let prefix = url.split("s3://chain/").nth(1).unwrap().split(['"', '?']).next().unwrap();
    let mut ends: Vec<String> = Vec::new();
    for backup in listed["backups"].as_array().unwrap() {
        for object in backup["manifest"]["objects"].as_array().unwrap() {
            let path = format!("/chain/{prefix}/{}", object["key"].as_str().unwrap());
            let head = usual().ask("HEAD", &path, &[]).done();
            ends.push(head.header("x-amz-object-lock-retain-until-date").unwrap().to_owned());
        }
    }
    let soon = (now() + Duration::from_hours(8 * 24)).date().to_string();
    assert!(ends.len() > 1 && ends.iter().all(|end| end[..10] >= soon[..10]), "{ends:?}");
}

/// Whoever gets hold of credentials that overwrite destroys backups.
#[test]
fn doctor_says_whether_the_credentials_can_overwrite() {
    let (_folder, bed) = bed("");
    bed.store_is(&usual().table_at(&usual().endpoint(), "backups", ""));
    let run = bed.run(&["doctor"]).done();
    assert!(run.stderr.contains("can overwrite or delete backups"), "{}", run.stderr);
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/aws/append.json");
    let policy: serde_json::Value = serde_json::from_slice(&fs::read(policy).unwrap()).unwrap();
    for statement in policy["Statement"].as_array().unwrap() {
        if statement["Action"].to_string().contains("s3:PutObject\"") {
            assert!(statement["Condition"].is_object(), "{statement}");
        }
    }
}

/// On a new machine everything is due at once, and nothing is wrong.
#[test]
fn the_first_tick_of_a_fresh_install_pages_nobody() {
    let web = crate::support::web::Web::start();
    let jobs = "[job.check]\nrun = \"verify\"\nsource = \"books\"\n[job.drill]\nrun = \"verify\"\nsource = \"books\"\nlevel = \"drill\"\nat = \"weekly on sunday at 04:47\"\n[job.tidy]\nrun = \"cleanup\"\n";
    let (folder, bed) = bed(&format!("{SNAPSHOT}{jobs}"));
    add(
        &bed,
        &format!(
            "[notify.hook]\nkind = \"webhook\"\nlevel = \"critical\"\nurl = {:?}\n",
            web.url("x")
        ),
    );
    bed.run(&["run"]).done();
    assert_eq!(web.heard(), [], "all went well");
    assert_eq!(crate::support::jobs::records(&bed, "drill").len(), 1);
    // A first backup that fails is worth a page only once it is late; what verifies it waits.
    let fresh = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let config =
        config.replace(bed.path("store").to_str().unwrap(), fresh.path().to_str().unwrap());
    fs::write(bed.path("bkp.toml"), config.replace("\"state\"", "\"state-new\"")).unwrap();
    let back = hide(folder.path());
    let run = bed.run(&["run"]);
    assert!(!run.stdout.contains("check: FAILED"), "{}", run.stdout);
    assert_eq!(web.heard(), [], "{}", run.stdout);
    back();
}

/// A host that cannot open what it makes says so in the end.
#[test]
fn full_backups_every_time_are_a_finding() {
    let (_folder, bed) = bed(SNAPSHOT);
    fs::write(bed.path("pass"), "one").unwrap();
    bed.chmod("pass", 0o600);
    bed.recipients_are(&["passphrase:file:pass"]);
    for word in ["one", "two", "three"] {
        fs::write(bed.path("pass"), word).unwrap();
        assert_eq!(bed.json(&["snapshot", "books"])["manifest"]["scope"], "full");
    }
    let status = bed.run(&["status"]);
    assert!(status.stdout.contains("the last 3 backups are full"), "{}", status.stdout);
    bed.run(&["snapshot", "books"]).done();
    let status = bed.run(&["status"]);
    assert!(!status.stdout.contains("backups are full, although"), "{}", status.stdout);
}

/// Once its manifest was sent a run has made a backup, whoever took its lease while it was stopped.
#[test]
fn a_run_that_was_stopped_after_its_manifest_was_sent_does_not_deny_its_backup() {
    let (_folder, bed) = bed("");
    bed.set_ledger("", "2s", "");
    let manifests = || {
        let stored = bed.stored().into_iter();
        stored.filter(|path| path.to_str().unwrap().ends_with("manifest.json")).count()
    };
    let mut stopped = 0;
    for _ in 0..100 {
        let before = manifests();
        let mut command = bed.on_host(1, &["snapshot", "books", "--scope", "full"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        while manifests() == before && child.try_wait().unwrap().is_none() {
            std::hint::spin_loop();
        }
        let in_time = kill_process(Pid::from_child(&child), Signal::STOP).is_ok()
            && child.try_wait().unwrap().is_none();
        let free = || bed.on_host(2, &["snapshot", "books"]).output().unwrap().status.code();
        while in_time && free() == Some(11) {
            std::thread::park_timeout(Duration::from_millis(200));
        }
        let _ended = kill_process(Pid::from_child(&child), Signal::CONT);
        let run = Run::of(&child.wait_with_output().unwrap());
        if in_time && manifests() > before {
            stopped += 1;
            assert!(!run.stderr.contains("not making a backup"), "{}", run.stderr);
        }
        if stopped == 3 {
            return;
        }
    }
    panic!("no run was stopped after its manifest");
}
