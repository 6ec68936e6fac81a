//! Guarantees specific to stores in a folder: modes, links, a full disk, a killed process.
//!
//! What belongs to a whole process (its umask, its limits, its mounts, its death) is set in a
//! child: this test binary again, told by [`CHILD`] which folder to work in.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::{Signal, getpid, kill_process};

use super::*;
use crate::support::machine::{PRIVATE, can_mount};

const CHILD: &str = "BKP_TEST_CHILD";

/// The folder to work in, if this process is a child.
#[expect(clippy::disallowed_methods, reason = "how a test talks to itself, not configuration")]
fn child_folder() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Runs one test of this binary in a child, after the shell did `setup`, in private mounts if
/// `wrap` says so.
fn in_child(wrap: &[&str], setup: &str, test: &str, folder: &TempDir) -> Output {
    let script = format!("{setup}\nexec \"$0\" --exact \"$1\" --nocapture");
    let words = wrap.iter().copied().chain(["sh", "-c", &script]).collect::<Vec<_>>();
    let (program, arguments) = words.split_first().expect("a program");
    let mut command = Command::new(program);
    command.args(arguments).arg(std::env::current_exe().expect("this binary"));
    // Of the path of this module the runner leaves out the crate.
    let (_, module) = module_path!().split_once("::").expect("a module of the crate");
    command.arg(format!("{module}::{test}")).env(CHILD, folder.path());
    command.output().expect("a shell")
}

fn assert_passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{text}{}", String::from_utf8_lossy(&output.stderr));
}

fn store_in(folder: &Path) -> Local {
    std::fs::create_dir_all(folder.join("store")).expect("made");
    Local::open(&format!("file://{}/store", folder.display())).expect("opens")
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    for umask in ["000", "077", "277"] {
        let folder = tempfile::tempdir().unwrap();
        let setup = format!("umask {umask}");
        assert_passed(&in_child(&[], &setup, "modes_do_not_depend_on_the_umask_child", &folder));
    }
}

#[test]
fn modes_do_not_depend_on_the_umask_child() {
    let Some(folder) = child_folder() else { return };
    put(&store_in(&folder), "a/b/key", b"bytes").unwrap();
    let mode = |path: &str| folder.join(path).metadata().expect(path).permissions().mode() & 0o7777;
    for path in ["store/a", "store/a/b"] {
        assert_eq!(mode(path), 0o700, "{path}");
    }
    assert_eq!(mode("store/a/b/key"), 0o600);
}

/// A limit on the size of files runs everywhere; a disk that is really full needs private mounts,
/// which not every machine permits.
#[test]
fn a_full_disk_is_full_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let test = "a_full_disk_is_full_and_leaves_nothing_child";
    assert_passed(&in_child(&[], "trap '' XFSZ; ulimit -f 128", test, &folder));
    if can_mount() {
        let setup = format!("mount -t tmpfs -o size=300k none \"${CHILD}\"");
        assert_passed(&in_child(PRIVATE, &setup, test, &folder));
    }
}

#[test]
fn a_full_disk_is_full_and_leaves_nothing_child() {
    let Some(folder) = child_folder() else { return };
    let store = store_in(&folder);
    let refused = put(&store, "a/large", &vec![1; 1_000_000]);
    let named = matches!(&refused, Err(StoreError::Full { key, .. }) if key == "a/large");
    assert!(named, "{refused:?}");
    assert!(keys(&store, "").is_empty());
    assert!(files(&folder).is_empty());
    put(&store, "a/small", b"there is room again").unwrap();
}

/// Without `/proc` an unnamed file cannot be linked: the whole contract over temporary names.
#[test]
fn the_contract_holds_without_unnamed_files() {
    if can_mount() {
        let folder = tempfile::tempdir().unwrap();
        let test = "the_contract_holds_without_unnamed_files_child";
        assert_passed(&in_child(PRIVATE, "mount -t tmpfs none /proc", test, &folder));
    }
}

#[test]
fn the_contract_holds_without_unnamed_files_child() {
    let Some(folder) = child_folder() else { return };
    let upload = begin(&store_in(&folder), "key");
    let [hidden] = files(&folder).try_into().expect("a temporary name");
    assert!(hidden.file_name().unwrap().to_str().unwrap().starts_with(".bkp-tmp-"));
    assert!(keys(&store_in(&folder), "").is_empty());
    assert_eq!(hidden.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    drop(upload);
    run(&local_fixture);
}

#[test]
fn a_killed_upload_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = in_child(&[], "", "a_killed_upload_leaves_nothing_child", &folder);
    assert_eq!(output.status.signal(), Some(Signal::KILL.as_raw()));
    let store = store_in(folder.path());
    assert!(keys(&store, "").is_empty());
    let flags = OFlags::RDWR | OFlags::TMPFILE;
    if rustix::fs::openat(CWD, folder.path(), flags, Mode::RUSR | Mode::WUSR).is_ok() {
        assert!(files(folder.path()).is_empty());
    }
    put(&store, "a/key", b"the next run works").unwrap();
}

#[test]
fn a_killed_upload_leaves_nothing_child() {
    let Some(folder) = child_folder() else { return };
    let mut upload = begin(&store_in(&folder), "a/key");
    upload.write(&vec![3; 3_000_000]).unwrap();
    kill_process(getpid(), Signal::KILL).unwrap();
}

#[test]
fn a_store_that_is_not_there_is_named_and_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/absent", folder.path().display());
    let error = Local::open(&url).unwrap_err();
    assert!(matches!(error, StoreError::Absent { .. }));
    assert!(error.to_string().contains("/absent"), "{error}");
    assert!(!folder.path().join("absent").exists());
    // A file is not a store either.
    std::fs::File::create(folder.path().join("absent")).unwrap();
    assert!(matches!(Local::open(&url), Err(StoreError::Unavailable { transient: false, .. })));
}

/// A store with links in it that lead out, and what they lead to.
fn store_with_links() -> (TempDir, Local, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (outside, store) = (folder.path().join("outside"), store_in(folder.path()));
    std::fs::create_dir(&outside).unwrap();
    put(&Local::open(&format!("file://{}", outside.display())).unwrap(), "secret", b"s").unwrap();
    put(&store, "real/object", b"bytes").unwrap();
    let root = folder.path().join("store");
    symlink(&outside, root.join("folder")).unwrap();
    symlink(outside.join("secret"), root.join("file")).unwrap();
    symlink(outside.join("secret"), root.join("real/file")).unwrap();
    symlink(outside.join("new"), root.join("dangling")).unwrap();
    (folder, store, outside)
}

#[test]
fn links_in_a_store_are_not_followed() {
    let (_folder, store, outside) = store_with_links();
    assert_eq!(keys(&store, ""), ["real/object"]);
    assert_eq!(keys(&store, "folder"), [""; 0]);
    for key in ["folder/secret", "file", "real/file", "dangling"] {
        assert!(matches!(store.head(key), Err(StoreError::Missing { .. })), "{key}");
        assert!(matches!(get(&store, key, None), Err(StoreError::Missing { .. })), "{key}");
    }
    for key in ["file", "dangling"] {
        assert!(matches!(put(&store, key, b"x"), Err(StoreError::Exists { .. })), "{key}");
    }
    let through = put(&store, "folder/new", b"x");
    assert!(matches!(through, Err(StoreError::Unavailable { .. })), "{through:?}");
    store.delete("folder/secret").unwrap();
    store.delete("file").unwrap();
    assert_eq!(files(&outside), [outside.join("secret")]);
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"s");
}

#[test]
fn only_regular_files_are_objects() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path());
    put(&store, "a/object", b"bytes").unwrap();
    let root = folder.path().join("store");
    rustix::fs::mknodat(CWD, root.join("a/pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    for hidden in ["a/.bkp-tmp-1-2", ".hidden", "a/with space", "a/größe"] {
        std::fs::File::create(root.join(hidden)).unwrap();
    }
    assert_eq!(keys(&store, ""), ["a/object"]);
    // Opening the pipe does not wait for a writer.
    assert!(matches!(get(&store, "a/pipe", None), Err(StoreError::Missing { .. })));
}

#[test]
fn the_root_may_be_a_link() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("disk")).unwrap();
    symlink(folder.path().join("disk"), folder.path().join("link")).unwrap();
    let store = Local::open(&format!("file://{}/link", folder.path().display())).unwrap();
    put(&store, "key", b"bytes").unwrap();
    assert!(folder.path().join("disk/key").exists());
}

#[derive(Debug, Clone)]
enum Step {
    Put(String, Vec<u8>),
    Abandon(String),
    Delete(String),
    Read(String, Range<u64>),
    List(String),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Objects end in `.o`, so that no object is where another one needs a folder.
    let key = || "([ab][-.0]?/){0,2}[ab]-?\\.o";
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    let range = (0..50_u64, 0..50_u64).prop_map(|(start, end)| start..end);
    let step = prop_oneof![
        4 => (key(), bytes).prop_map(|(key, bytes)| Step::Put(key, bytes)),
        1 => key().prop_map(Step::Abandon),
        2 => key().prop_map(Step::Delete),
        2 => (key(), range).prop_map(|(key, range)| Step::Read(key, range)),
        2 => "([ab][-.0]?(/[ab][-.0]?)?)?".prop_map(Step::List),
    ];
    proptest::collection::vec(step, 1..40)
}

fn below<'m>(
    model: &'m BTreeMap<String, Vec<u8>>,
    prefix: &'m str,
) -> impl Iterator<Item = &'m String> {
    let folder = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    model.keys().filter(move |key| key.starts_with(&folder))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_local_store_behaves_like_a_map(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(folder.path());
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(key, bytes) => {
                    let put = put(&store, &key, &bytes);
                    prop_assert_eq!(put.is_ok(), !model.contains_key(&key), "{:?}", put);
                    model.entry(key).or_insert(bytes);
                }
                Step::Abandon(key) => {
                    let upload = store.create(&key, &ObjectLabels::default());
                    prop_assert_eq!(upload.is_ok(), !model.contains_key(&key));
                }
                Step::Delete(key) => {
                    store.delete(&key).unwrap();
                    model.remove(&key);
                }
                Step::Read(key, range) => {
                    let part = |bytes: &Vec<u8>| {
                        let end = range.end.min(bytes.len() as u64);
                        let at = |index: &u64| bytes[usize::try_from(*index).expect("small")];
                        (range.start..end).map(|index| at(&index)).collect::<Vec<_>>()
                    };
                    let read = get(&store, &key, Some(range.clone())).ok();
                    prop_assert_eq!(read, model.get(&key).map(part));
                }
                Step::List(prefix) => {
                    let expected: Vec<_> = below(&model, &prefix).cloned().collect();
                    prop_assert_eq!(keys(&store, &prefix), expected);
                }
            }
        }
        prop_assert_eq!(files(folder.path()).len(), model.len());
    }
}

/// A listing and a look tell the same version, and another one after somebody has written over it, be it
/// with the same bytes and the old time.
#[test]
fn a_version_changes_with_every_write() {
    let Fixture { store, folder, .. } = &local_fixture();
    let path = folder.as_ref().unwrap().path().join("a/key");
    put(store.as_ref(), "a/key", b"content").unwrap();
    let version = || {
        let looked = store.head("a/key").unwrap();
        assert_eq!(store.list("").unwrap().next().unwrap().unwrap(), looked);
        looked.version.expect("a folder tells versions")
    };
    let first = version();
    assert_eq!(version(), first);
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    // The clock of a file system may be coarse.
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(&path, b"content").unwrap();
    std::fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
    assert_ne!(version(), first);
}
