//! Notifications: hooks, pings, webhooks, Slack and e-mail, against real listeners on loopback.

use std::fs;

use serde_json::Value;

use crate::support::jobs::{add, bed, code, hide, records};
use crate::support::smtp::mail_server;
use crate::support::web::Web;

const JOB: &str = "[job.nightly]\nrun = \"snapshot\"\nsource = \"books\"\nretries = 0\nretention = { keep_all = true }\n[job.check]\nrun = \"verify\"\nsource = \"books\"\nlevel = \"exists\"\nenabled = true\nafter = [\"nightly\"]\n";

#[test]
fn hooks_and_pings_surround_a_run() {
    let web = Web::start();
    let (folder, bed) = bed("");
    let hook = |event: &str| {
        let log = bed.path("log");
        format!("{event} = [\"sh\", \"-c\", \"cat >>{0}; echo >>{0}\"]\n", log.display())
    };
    let hooks: String = ["before", "after", "failed", "finally"].map(hook).concat();
    let ping = web.url("ping/uuid");
    add(
        &bed,
        &format!(
            "[job.nightly]\nrun = \"snapshot\"\nsource = \"books\"\nping = \"{ping}\"\n[job.nightly.hooks]\n{hooks}"
        ),
    );
    let report = bed.json(&["run", "nightly"]);
    let back = hide(folder.path());
    bed.run(&["run", "nightly"]).failed_in_text(15, "nightly: FAILED");
    back();
    let log = fs::read_to_string(bed.path("log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["before", "after", "finally", "before", "failed", "finally"]);
    assert_eq!(lines[1]["backup"], report["jobs"][0]["backup"]);
    assert_eq!((&lines[4]["exit_code"], &lines[4]["job"]), (&15.into(), &"nightly".into()));
    let paths: Vec<String> = web.heard().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["/ping/uuid/start", "/ping/uuid/0", "/ping/uuid/start", "/ping/uuid/15"]);
    // A hook that fails before the run keeps it from beginning; any other changes nothing.
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let failing = |event: &str| {
        let words = format!("{event} = [\"sh\", \"-c\", \"echo not today >&2; exit 3\"]\n");
        fs::write(bed.path("bkp.toml"), config.replace(&hook(event), &words)).unwrap();
        bed.run(&["run", "nightly"])
    };
    let backups = || bed.json(&["list"])["backups"].as_array().unwrap().len();
    failing("before").failed_in_text(1, "not today");
    assert_eq!(backups(), 1);
    for event in ["after", "finally"] {
        let run = failing(event).done();
        assert!(run.stderr.contains("not today"), "it is not silent: {}", run.stderr);
    }
    assert_eq!(backups(), 3);
    let codes: Vec<String> =
        records(&bed, "nightly").iter().map(|name| code(name).to_owned()).collect();
    assert_eq!(codes, ["0", "15", "1", "0", "0"]);
}

#[test]
fn a_finding_is_notified_once_and_so_is_its_end() {
    let web = Web::start();
    let (port, mail) = mail_server();
    let (folder, bed) = bed(JOB);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let kind = "kind = \"tigerbeetle\"";
    let config = config.replace(kind, &format!("{kind}\ntenant = \"acme\""));
    fs::write(bed.path("bkp.toml"), config).unwrap();
    fs::write(bed.path("slack-url"), web.url("services/secret")).unwrap();
    bed.chmod("slack-url", 0o600);
    add(
        &bed,
        &format!(
            "[notify.hook]\nkind = \"webhook\"\nurl = \"{}\"\n[notify.chat]\nkind = \"slack\"\nlevel = \"critical\"\nurl = \"file:{}\"\n[notify.post]\nkind = \"email\"\nurl = \"smtp://127.0.0.1:{port}\"\nfrom = \"bkp@example.org\"\nto = [\"ops@example.org\", \"Boss <boss@example.org>\"]\n",
            web.url("alerts"),
            bed.path("slack-url").display()
        ),
    );
    bed.run(&["run"]).done();
    assert_eq!(web.heard(), []);
    assert_eq!(mail.lock().unwrap().len(), 0);
    let back = hide(folder.path());
    bed.run(&["run", "nightly"]).failed_in_text(15, "FAILED");
    bed.run(&["run", "nightly"]).failed_in_text(15, "FAILED");
    let heard = web.heard();
    assert_eq!(heard.len(), 2, "once for each channel: {heard:?}");
    let of = |path: &str| heard.iter().find(|(found, _)| found == path).unwrap().1.clone();
    let alert: Value = serde_json::from_str(&of("/alerts")).unwrap();
    assert_eq!(alert["schema"], "bkp.alert/1");
    assert_eq!(
        (&alert["alerts"][0]["rule"], &alert["alerts"][0]["recovered"]),
        (&"failing".into(), &false.into())
    );
    assert_eq!(alert["alerts"][0]["tenant"], "acme");
    let slack: Value = serde_json::from_str(&of("/services/secret")).unwrap();
    assert!(
        slack["text"]
            .as_str()
            .unwrap()
            .contains("critical: nightly (tenant acme): 1 consecutive run(s) failed"),
        "{slack}"
    );
    let letters = std::mem::take(&mut *mail.lock().unwrap());
    assert_eq!(letters.len(), 1, "{letters:?}");
    for part in [
        "RCPT TO:<ops@example.org>",
        "RCPT TO:<boss@example.org>",
        "Subject: bkp on ",
        "critical: nightly",
    ] {
        assert!(letters[0].contains(part), "`{part}` is not in: {}", letters[0]);
    }
    back();
    bed.run(&["run", "nightly"]).done();
    let heard = web.heard();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard.iter().all(|(_, body)| body.contains("recovered")), "{heard:?}");
    assert_eq!(mail.lock().unwrap().len(), 1);
}

#[test]
fn a_failed_notification_is_retried_and_fails_no_run() {
    let web = Web::start();
    *web.answer.lock().unwrap() = "503 Busy";
    let (folder, bed) = bed(JOB);
    bed.run(&["run"]).done();
    add(
        &bed,
        &format!(
            "[notify.hook]\nkind = \"webhook\"\nlevel = \"critical\"\nurl = \"{}\"\n",
            web.url("x?token=secret")
        ),
    );
    let back = hide(folder.path());
    let run = bed.run(&["run", "nightly"]);
    assert_eq!(run.code, Some(15), "{}", run.stderr);
    assert!(run.stderr.contains("could not notify `hook`"), "{}", run.stderr);
    assert!(!run.stderr.contains("secret"), "{}", run.stderr);
    *web.answer.lock().unwrap() = "200 OK";
    assert_eq!(web.heard().len(), 1);
    bed.run(&["run", "nightly"]).failed_in_text(15, "FAILED");
    assert_eq!(web.heard().len(), 1, "it is told after all");
    // Its end cannot be told: the run is done, and says that something is pending.
    *web.answer.lock().unwrap() = "503 Busy";
    back();
    bed.run(&["run", "nightly", "-q"]).failed_in_text(17, "nightly: done");
}
