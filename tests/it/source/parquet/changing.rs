//! Folders that others write while they are copied, and runs that are killed.

use super::*;

/// Content that says itself whether it is whole: its length, then bytes that follow from its number.
fn content(number: u64) -> Vec<u8> {
    let length = 20_000 + number % 90_000;
    let seed = Sha256::digest(number.to_le_bytes());
    let body = seed.iter().copied().cycle().take(usize::try_from(length).unwrap());
    length.to_le_bytes().into_iter().chain(body).collect()
}

fn is_whole(bytes: &[u8]) -> bool {
    let Some((length, body)) = bytes.split_at_checked(8) else { return false };
    let length = u64::from_le_bytes(length.try_into().unwrap());
    let seed = body.get(..32).unwrap_or_default();
    body.len() as u64 == length && body.chunks(32).all(|chunk| seed.starts_with(chunk))
}

/// Files are written in place, replaced, cut off and removed all the time. What a replica has of each is what it
/// was at some moment: never a part of it, and never a mixture of two.
#[test]
fn files_that_change_while_they_are_read_are_whole_or_named() {
    let tier = Tier::of_any();
    let stop = AtomicBool::new(false);
    let number = AtomicU64::new(0);
    for n in 0..40 {
        tier.write(format!("steady/{n}"), content(n));
    }
    thread::scope(|scope| {
        for writer in 0..2 {
            let (tier, stop, number) = (&tier, &stop, &number);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let n = number.fetch_add(1, Ordering::Relaxed);
                    let path = tier.path(format!("changing-{writer}-{}", n % 12));
                    match n % 5 {
                        // As a whole, under another name first.
                        0 | 1 => {
                            let new = path.with_extension("new");
                            fs::write(&new, content(n)).unwrap();
                            fs::rename(new, &path).unwrap();
                        }
                        2 => drop(fs::remove_file(&path)),
                        _ => fs::write(&path, content(n)).unwrap(),
                    }
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        for round in 0..rounds() {
            let run = tier.bed.run(&["replicate", "tier", "--json"]);
            assert!(matches!(run.code, Some(0 | 3)), "{round}: {}", run.stderr);
            let report: Value = serde_json::from_str(&run.stdout).unwrap();
            let restored = tier.restore(&["--id", id(&report["manifest"])]);
            let steady = restored.keys().filter(|path| path.starts_with("steady")).count();
            assert_eq!(steady, 40, "{round}");
            for (path, (bytes, _)) in &restored {
                // A file that is truncated and written anew is empty, or a part of itself, for a moment: at that
                // moment it was so.
                let is_moment =
                    path.to_string_lossy().starts_with("changing") && bytes.len() < 110_008;
                assert!(is_whole(bytes) || is_moment, "{round}: {} is torn", path.display());
                assert!(is_prefix_of_one(bytes), "{round}: {} is a mixture", path.display());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let replica = tier.replicate();
    assert!(tier.restore(&["--id", id(&replica)]) == tier.files());
}

/// Whether bytes are a beginning of some content, which they are not if they come from two.
fn is_prefix_of_one(bytes: &[u8]) -> bool {
    let body = bytes.get(8..).unwrap_or_default();
    let seed = body.get(..32).unwrap_or(body);
    body.chunks(32).all(|chunk| seed.starts_with(chunk))
}

/// A file that has the size and the time that it had may still be another one.
#[test]
fn a_change_within_the_tick_of_a_clock_is_seen() {
    let tier = Tier::of_any();
    tier.write("a", "first");
    let times = fs::metadata(tier.path("a")).unwrap().modified().unwrap();
    tier.replicate();
    // The writer sets the time back: only the system's own time of the change tells.
    tier.write("a", "other");
    let file = fs::File::options().append(true).open(tier.path("a")).unwrap();
    file.set_modified(times).unwrap();
    drop(file);
    tier.replicate();
    assert_eq!(tier.restore(&["tier"])[Path::new("a")].0, b"other");
}

/// Killed at any moment, a run leaves a whole replica or none, and the next one works.
#[test]
fn runs_that_are_killed_leave_a_whole_replica_or_none() {
    let tier = Tier::of_any();
    for n in 0..120 {
        tier.write(format!("{}/{n}", n % 7), content(n));
    }
    let mut known = tier.bed.json(&["list"])["backups"].as_array().unwrap().len();
    for round in 0..rounds() * 4 {
        tier.write(format!("new-{round}"), content(round as u64));
        let mut command = tier.bed.command(&["replicate", "tier"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(7 * (round as u64 % 24)));
        child.kill().unwrap();
        child.wait().unwrap();
        let listed = tier.bed.json(&["list"])["backups"].as_array().unwrap().len();
        assert!(listed == known || listed == known + 1, "{round}");
        known = listed;
        if listed > 0 {
            tier.bed.run(&["verify", "tier", "--level", "decode"]).done();
        }
    }
    let run = tier.bed.run(&["replicate", "tier", "--wait-lock", "2m"]);
    run.done();
    assert!(tier.restore(&["tier"]) == tier.files());
}

/// Killed at any moment, a restore leaves the whole folder or none, and the next one works.
#[test]
fn restores_that_are_killed_leave_the_whole_folder_or_none() {
    let tier = Tier::of_any();
    for n in 0..120 {
        tier.write(format!("{}/{n}", n % 7), content(n));
    }
    tier.replicate();
    let place = tier.bed.path("place");
    fs::create_dir(&place).unwrap();
    let target = place.join("restored");
    for round in 0..rounds() * 4 {
        let words = ["restore", "tier", "--yes", "--to", target.to_str().unwrap()];
        let mut command = tier.bed.command(&words);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(5 * (round as u64 % 24)));
        child.kill().unwrap();
        child.wait().unwrap();
        if target.exists() {
            assert!(files(&target) == tier.files(), "{round}");
            fs::remove_dir_all(&target).unwrap();
        }
    }
    let words = ["restore", "tier", "--yes", "--to", target.to_str().unwrap()];
    tier.bed.run(&words).done();
    assert!(files(&target) == tier.files());
    let left: Vec<_> =
        fs::read_dir(&place).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(left, ["restored"]);
}

/// A folder that cannot be read for a moment has not lost its files.
#[test]
fn what_cannot_be_read_stays_as_it_was() {
    let tier = Tier::of_any();
    for path in ["a/1", "a/2", "b/1"] {
        tier.write(path, path);
    }
    let before = tier.files();
    tier.replicate();
    let nobody = |path: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(tier.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    tier.write("b/1", "changed");
    nobody("a", 0o000);
    // Root reads everything, unless it gives that up.
    let words = ["replicate", "tier"];
    let run = Run::of(&unprivileged(&tier, &words).output().unwrap());
    nobody("a", 0o755);
    partly(&run, "2 file(s) in it stay as they were");
    let restored = tier.restore(&["tier"]);
    assert_eq!(restored[Path::new("b/1")].0, b"changed");
    assert!(restored[Path::new("a/1")] == before[Path::new("a/1")]);
    assert_eq!(restored.len(), 3);
}

/// The program without the right to read what others forbid.
fn unprivileged(tier: &Tier, words: &[&str]) -> Command {
    let own = tier.bed.command(words);
    let mut command = Command::new("setpriv");
    command.args([
        "--bounding-set=-dac_override,-dac_read_search",
        "--inh-caps=-dac_override,-dac_read_search",
    ]);
    command.arg(own.get_program()).args(own.get_args());
    for (name, value) in own.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Where a chain is shortened, what cannot be read now is kept from the links that are left out.
#[test]
fn last_versions_stay_when_a_chain_is_shortened() {
    let tier = Tier::new("files = [\"**/*\"]");
    tier.write("base", vec![1; 1 << 20]);
    tier.replicate();
    let whole = tier.bed.path("whole.parquet");
    write_parquet(std::slice::from_ref(&whole), 100);
    let bytes = fs::read(&whole).unwrap();
    tier.write("late.parquet", &bytes);
    for run in 0..27 {
        tier.write("counter", format!("run {run}"));
        tier.replicate();
    }
    for run in 0..4 {
        // Its writer has begun anew, and not ended.
        tier.write("late.parquet", format!("half a file {run}"));
        let run = tier.bed.run(&["replicate", "tier"]).done();
        assert!(run.stderr.contains("its last version stays"), "{}", run.stderr);
        assert_eq!(tier.restore(&["tier"])[Path::new("late.parquet")].0, bytes);
    }
    // And a disk that is not mounted is not a deletion, whatever the next replica builds on.
    for path in tier.files().keys() {
        fs::remove_file(tier.folder.path().join(path)).unwrap();
    }
    for scope in ["auto", "incremental"] {
        tier.bed.run(&["replicate", "tier", "--scope", scope]).failed(15, "none of the 3 files");
    }
}

/// A new chain begins with what is known, too.
#[test]
fn a_chain_that_is_given_up_is_still_known() {
    let tier = Tier::of_any();
    tier.write("small", "1");
    tier.write("large", vec![7; 270 << 20]);
    tier.replicate();
    tier.remove("large");
    tier.write("other", "2");
    let made = tier.replicate();
    assert_eq!(made["scope"], "incremental");
    tier.remove("small");
    tier.remove("other");
    tier.bed.run(&["replicate", "tier"]).failed(15, "none of the 2 files");
    tier.write("small", "1");
    let made = tier.replicate();
    assert_eq!((&made["scope"], &made["capture"]["deleted"]), (&json!("full"), &json!(1)));
    assert!(tier.restore(&["tier"]) == tier.files());
}

/// A file that is moved while the folder is read is in the replica all the same, or named.
#[test]
fn files_that_are_moved_meanwhile_are_not_lost() {
    let tier = Tier::of_any();
    for n in 0..300 {
        tier.write(format!("m/{n}"), content(n));
    }
    tier.write("a/moved", "it");
    fs::create_dir(tier.path("b")).unwrap();
    tier.replicate();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::rename(tier.path("a/moved"), tier.path("b/moved")).unwrap();
                thread::sleep(Duration::from_millis(3));
                fs::rename(tier.path("b/moved"), tier.path("a/moved")).unwrap();
                thread::sleep(Duration::from_millis(3));
            }
        });
        let mut whole = 0;
        for _ in 0..rounds() {
            let run = tier.bed.run(&["replicate", "tier"]);
            let restored = tier.restore(&["tier"]);
            let is_there = restored.keys().any(|path| path.ends_with("moved"));
            assert!(is_there || run.code == Some(3), "{}", run.stderr);
            whole += usize::from(is_there);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(whole > 0);
    });
}

/// A time in the future does not make a broken file one that is being written for ever.
#[test]
fn a_broken_file_of_the_future_is_copied() {
    let tier = Tier::new("");
    for name in ["a.parquet", "b.parquet"] {
        tier.write(name, "");
        let later = SystemTime::now() + Duration::from_hours(9000);
        fs::File::options()
            .append(true)
            .open(tier.path(name))
            .unwrap()
            .set_modified(later)
            .unwrap();
    }
    // By the system's own time it may be one that is being written.
    let run = tier.bed.run(&["replicate", "tier"]).done();
    assert!(run.stderr.contains("still being written"), "{}", run.stderr);
    for name in ["a.parquet", "b.parquet"] {
        age(&tier.path(name));
    }
    let run = tier.bed.run(&["replicate", "tier"]);
    partly(&run, "`a.parquet`");
    partly(&run, "`b.parquet`");
}
