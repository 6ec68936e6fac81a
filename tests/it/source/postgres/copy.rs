//! Rows go from one server into another with every value as it was, or none of them does.

use std::sync::Arc;
use std::time::Duration;

use bkp::ctx::{Cancel, Ctx, NullMonitor};
use bkp::source::postgres::client::{Connection, Conninfo, Purpose, Surroundings};

use crate::support::postgres::access::Access;
use crate::support::postgres::{Version, shared};

fn connect(server: &Access, database: &str) -> Connection {
    let ctx = Ctx::new(Cancel::default(), Arc::new(NullMonitor));
    let surroundings = Surroundings { variable: &|_| None, home: None, user: String::new() };
    let conninfo = Conninfo::parse(&server.conninfo(), &surroundings).unwrap();
    let database = Some(database.to_owned());
    let purpose = Purpose { replication: false, database, silence: Duration::from_mins(1) };
    Connection::connect(&conninfo, &purpose, &ctx).unwrap()
}

const ROWS: &str = "select count(*), sum(hashtextextended(t::text, 0)::numeric) from t";

#[test]
fn rows_arrive_as_they_were_or_not_at_all() {
    for version in Version::even() {
        let server = shared(version);
        for database in ["copy_from", "copy_to"] {
            server.sql(&format!("create database {database}"));
            server.sql_in(database, "create table t (id bigint primary key, a text, b bytea)");
        }
        server.sql_in(
            "copy_from",
            r"insert into t select n, nullif(E'\\.\t\n' || repeat('ä', n % 90), E'\\.\t\n'), decode(md5(n::text), 'hex') from generate_series(1, 50000) n;
              insert into t values (0, repeat('x', 20000000), null)",
        );
        let (mut from, mut to) = (connect(server, "copy_from"), connect(server, "copy_to"));
        let (out, into) = ("copy t to stdout", "copy t from stdin");
        assert_eq!(from.copy_rows(out, &mut to, into).unwrap(), 50_001);
        assert_eq!(server.sql_in("copy_to", ROWS), server.sql_in("copy_from", ROWS));
        let stored = server.sql_in("copy_to", ROWS);
        // One side or the other refuses: at the beginning, in the middle, at the end.
        let in_the_middle =
            "copy (select id + 100000 + 0 / (40000 - id), a, b from t order by id) to stdout";
        for (out, into, naming) in [
            ("copy none to stdout", into, "42P01"),
            (out, "copy none from stdin", "42P01"),
            (in_the_middle, into, "22012"),
            (out, into, "23505"),
            ("copy (select 'no', '', null from t) to stdout", into, "22P02"),
        ] {
            let error = from.copy_rows(out, &mut to, into).unwrap_err();
            assert_eq!(error.sqlstate(), Some(naming), "{error}");
            assert_eq!(server.sql_in("copy_to", ROWS), stored);
            assert_eq!(from.query_value("select 1").unwrap(), "1");
            assert_eq!(to.query_value("select 2").unwrap(), "2");
        }
        // A command that copies nothing is a mistake that is told.
        let error = from.copy_rows("select 1", &mut to, into).unwrap_err();
        assert!(error.to_string().contains("unexpected message"), "{error}");
        assert_eq!(to.query_value("select 3").unwrap(), "3");
        drop((from, to));
        for database in ["copy_from", "copy_to"] {
            server.sql(&format!("drop database {database} with (force)"));
        }
    }
}
