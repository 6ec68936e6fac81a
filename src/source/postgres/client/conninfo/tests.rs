//! What becomes of connection strings, variables and files.

#![expect(clippy::disallowed_methods, reason = "files of a test need not be durable")]

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn parse_with(text: &str, variables: &[(&str, &str)], home: &Path) -> Result<Conninfo, Fault> {
    let variable = |name: &str| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    let home = Some(home.to_owned());
    Conninfo::parse(text, &Surroundings { variable: &variable, home, user: "os".to_owned() })
}

fn parse(text: &str) -> Result<Conninfo, Fault> {
    parse_with(text, &[], Path::new("/nowhere"))
}

fn places(text: &str) -> Vec<String> {
    parse(text).unwrap().endpoints.iter().map(Endpoint::to_string).collect()
}

#[test]
fn places_are_those_of_the_three_lists() {
    let defaults = ["/var/run/postgresql/.s.PGSQL.5432", "/tmp/.s.PGSQL.5432"];
    assert_eq!(places(""), defaults);
    assert_eq!(places("host=a,b port=1,2"), ["a:1", "b:2"]);
    assert_eq!(places("host=a,b port=7"), ["a:7", "b:7"]);
    assert_eq!(places("postgresql://a,[::1]:9/d"), ["a:5432", "[::1]:9"]);
    assert_eq!(places("host=/run/x"), ["/run/x/.s.PGSQL.5432"]);
    assert_eq!(places("host=a hostaddr=127.0.0.1"), ["a:5432 (127.0.0.1)"]);
    assert_eq!(places("hostaddr=127.0.0.1"), ["127.0.0.1:5432"]);
    for wrong in ["host=a,b port=1,2,3", "host=a hostaddr=b", "port=0", "port=x", "host=@a"] {
        assert_eq!(crate::error::Classify::kind(&parse(wrong).unwrap_err()), Kind::Config);
    }
}

#[test]
fn unknown_and_unfit_keywords_are_named() {
    for (text, part) in [
        ("hots=a", "`hots`"),
        ("sslmode=full", "`full`"),
        ("sslcrl=/x", "`sslcrl`"),
        ("gssencmode=require", "`gssencmode`"),
        ("connect_timeout=soon", "`soon`"),
        ("target_session_attrs=x", "target_session_attrs"),
        ("sslrootcert=system sslmode=require", "sslrootcert=system"),
        ("sslmode=verify-full", "/nowhere/.postgresql/root.crt"),
        ("service=x", "no service `x`"),
    ] {
        let message = parse(text).unwrap_err().to_string();
        assert!(message.contains(part), "{text}: {message}");
    }
    let fine = "application_name=x keepalives_idle=5 gssencmode=prefer sslcrl='' connect_timeout=0";
    let found = parse(fine).unwrap();
    assert_eq!(found.connect_timeout, CONNECT_TIMEOUT);
    assert_eq!(found.keepalive.idle, Some(Duration::from_secs(5)));
    assert_eq!((&*found.user, &*found.database), ("os", "os"));
}

#[test]
fn text_comes_before_service_and_service_before_variables() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(".pg_service.conf"), "[s]\nhost=from-service\nport=1\nuser=s\n")
        .unwrap();
    let variables = [("PGSERVICE", "s"), ("PGPORT", "2"), ("PGDATABASE", "v"), ("PGHOST", "no")];
    let found = parse_with("user=t", &variables, home.path()).unwrap();
    assert_eq!(found.endpoints[0].to_string(), "from-service:1");
    assert_eq!((&*found.user, &*found.database), ("t", "v"));
}

#[test]
fn passwords_are_found_but_never_shown() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    fs::write(&file, "h:5432:replication:u:hunter1\nlocalhost:5432:*:u:hunter2\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let password = |text: &str, variables: &[(&str, &str)], database: &str| {
        let found = parse_with(text, variables, home.path()).unwrap();
        assert!(!format!("{found:?}").contains("hunter"));
        found.password(&found.endpoints[0], database).map(|found| found.to_vec())
    };
    assert_eq!(password("host=h user=u", &[], "replication").unwrap(), b"hunter1");
    assert_eq!(password("host=h user=u", &[], "u"), None);
    assert_eq!(password("user=u", &[], "replication").unwrap(), b"hunter2");
    assert_eq!(password("user=u", &[("PGPASSWORD", "hunter3")], "x").unwrap(), b"hunter3");
    let in_text = parse("user=u password=hunter4").unwrap();
    assert!(in_text.has_password_in_text());
    let given = in_text.with_password(Zeroizing::new(b"hunter5".to_vec()));
    assert_eq!(given.password(&given.endpoints[0], "x").unwrap().as_slice(), b"hunter5");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(parse_with("user=u", &[], home.path()).unwrap_err().to_string().contains("644"));
    assert!(parse_with("user=u", &[("PGPASSWORD", "x")], home.path()).is_ok());
}

#[test]
fn root_certificates_are_those_of_libpq() {
    let home = tempfile::tempdir().unwrap();
    let root = |text: &str| parse_with(text, &[], home.path()).unwrap().tls.root;
    assert_eq!(root("sslmode=require"), tls_settings::RootCert::Unchecked);
    assert_eq!(root("sslrootcert=system"), tls_settings::RootCert::System);
    let folder = home.path().join(".postgresql");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("root.crt"), "").unwrap();
    let file = tls_settings::RootCert::File(folder.join("root.crt"));
    assert_eq!(root("sslmode=require"), file);
    assert_eq!(root("sslmode=verify-ca"), file);
}
