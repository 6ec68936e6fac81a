//! What needs no server; drills of real ones are in `tests/it/source/postgres`.

use std::fs;

use super::*;

#[test]
fn a_folder_that_leads_elsewhere_is_refused() {
    let (scratch, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = scratch.path().join("data");
    fs::create_dir_all(data.join("pg_tblspc")).unwrap();
    let inside = scratch.path().join("space");
    fs::create_dir(&inside).unwrap();
    std::os::unix::fs::symlink(&inside, data.join("pg_tblspc/16384")).unwrap();
    check_links(&data, scratch.path()).unwrap();
    for link in ["pg_tblspc/16385", "pg_wal"] {
        std::os::unix::fs::symlink(elsewhere.path(), data.join(link)).unwrap();
        let error = check_links(&data, scratch.path()).unwrap_err();
        assert!(error.to_string().contains(link), "{error}");
        fs::remove_file(data.join(link)).unwrap();
    }
    assert!(check_links(elsewhere.path(), scratch.path()).is_err());
}

#[test]
fn the_folder_of_a_socket_is_short_enough() {
    let scratch = tempfile::tempdir().unwrap();
    let near = socket_folder(scratch.path()).unwrap();
    assert!(near.path().starts_with(scratch.path()));
    let long = scratch.path().join("x".repeat(100));
    fs::create_dir(&long).unwrap();
    let far = socket_folder(&long).unwrap();
    assert!(far.path().as_os_str().len() < 60 && far.path().is_dir());
    let place = far.path().to_owned();
    drop(far);
    assert!(!place.exists());
}

#[test]
fn values_are_quoted() {
    assert_eq!(quoted(r"cp '/a\b' %p"), r"'cp ''/a\\b'' %p'");
}
