//! What libpq's own programs are told, so that they connect as bkp does: to the place that answered bkp, as the same
//! role, with the same certificates. Everything but the name of the database stands in variables: the command line of
//! a process can be read by every user, its environment cannot.

use zeroize::Zeroizing;

use super::conninfo::{ChannelBinding, Conninfo, Endpoint, Keepalive};
use super::tls_settings::{RootCert, SslMode, TlsSettings};
use crate::error::{Fault, Kind};

/// How a dead peer is found out where nobody says otherwise, seconds: the system's own two hours are too long for
/// a program that somebody waits for.
const KEEPALIVE_IDLE: u64 = 60;
const KEEPALIVE_INTERVAL: u64 = 20;
const KEEPALIVE_COUNT: u32 = 6;

/// Variables of the environment with their values.
pub type Variables = Vec<(&'static str, Zeroizing<String>)>;

impl Conninfo {
    /// The variables with which libpq connects to `at`. The one with the password is among them.
    ///
    /// # Errors
    /// [`Kind::Config`] for a password that cannot stand in a variable.
    pub fn variables(&self, at: &Endpoint, database: &str) -> Result<Variables, Fault> {
        let mut variables = Variables::new();
        let mut set = |name, value: &str| variables.push((name, Zeroizing::new(value.to_owned())));
        set("PGHOST", &at.host);
        if let Some(address) = at.address {
            set("PGHOSTADDR", &address.to_string());
        }
        set("PGPORT", &at.port.to_string());
        set("PGUSER", &self.user);
        set("PGDATABASE", database);
        set("PGAPPNAME", "bkp");
        set("PGCONNECT_TIMEOUT", &self.connect_timeout.as_secs().to_string());
        set("PGGSSENCMODE", "disable");
        let binding = match self.channel_binding {
            ChannelBinding::Disable => "disable",
            ChannelBinding::Prefer => "prefer",
            ChannelBinding::Require => "require",
        };
        set("PGCHANNELBINDING", binding);
        if let Some(options) = &self.options {
            set("PGOPTIONS", options);
        }
        encryption(&self.tls, &mut set);
        if let Some(password) = self.password(at, database) {
            let text = std::str::from_utf8(&password).ok().filter(|text| !text.contains('\0'));
            let text = text.ok_or_else(|| {
                Fault::new(Kind::Config, "the password is not UTF-8, or has a zero byte in it")
                    .hint("give the role a password of UTF-8: libpq's programs are told it in a variable")
            })?;
            set("PGPASSWORD", text);
        }
        Ok(variables)
    }

    /// The connection string for the command line of libpq's programs: the database, and what has no variable.
    #[must_use]
    pub fn words(&self, database: &str) -> String {
        let Keepalive { enabled, idle, interval, count, user_timeout } = self.keepalive;
        let dbname = format!("dbname={}", quoted(database));
        if !enabled {
            return format!("{dbname} keepalives=0");
        }
        let idle = idle.map_or(KEEPALIVE_IDLE, |idle| idle.as_secs());
        let interval = interval.map_or(KEEPALIVE_INTERVAL, |interval| interval.as_secs());
        let count = count.unwrap_or(KEEPALIVE_COUNT);
        let timeout = user_timeout.map(|timeout| format!(" tcp_user_timeout={timeout}"));
        format!(
            "{dbname} keepalives_idle={idle} keepalives_interval={interval} keepalives_count={count}{}",
            timeout.unwrap_or_default()
        )
    }
}

/// A value in a connection string.
#[must_use]
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn encryption(tls: &TlsSettings, set: &mut dyn FnMut(&'static str, &str)) {
    let mode = match tls.mode {
        SslMode::Disable => "disable",
        SslMode::Allow => "allow",
        SslMode::Prefer => "prefer",
        SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    };
    set("PGSSLMODE", mode);
    if tls.direct {
        set("PGSSLNEGOTIATION", "direct");
    }
    match &tls.root {
        RootCert::Unchecked => {}
        RootCert::File(path) => set("PGSSLROOTCERT", &path.to_string_lossy()),
        RootCert::System => set("PGSSLROOTCERT", "system"),
    }
    if let Some((cert, key)) = &tls.own {
        set("PGSSLCERT", &cert.to_string_lossy());
        set("PGSSLKEY", &key.to_string_lossy());
    }
    if !tls.names_server {
        set("PGSSLSNI", "0");
    }
    let [with_12, with_13] = tls.versions;
    set("PGSSLMINPROTOCOLVERSION", if with_12 { "TLSv1.2" } else { "TLSv1.3" });
    if !with_13 {
        set("PGSSLMAXPROTOCOLVERSION", "TLSv1.2");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::postgres::client::Surroundings;

    #[test]
    fn the_programs_are_told_what_bkp_was_told_and_no_password_in_words() {
        let none = |_: &str| None;
        let surroundings = Surroundings { variable: &none, home: None, user: "u".into() };
        let text = "host=db hostaddr=10.0.0.1 port=5433 user=bkp sslmode=require keepalives_idle=5 options='-c work_mem=1MB'";
        let conninfo = Conninfo::parse(text, &surroundings).expect("valid");
        let conninfo = conninfo.with_password(Zeroizing::new(b"pass word'\\".to_vec()));
        let at = conninfo.endpoints.first().expect("one").clone();
        let variables = conninfo.variables(&at, "app").expect("UTF-8");
        let value = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.as_str())
        };
        for (name, expected) in [
            ("PGHOST", "db"),
            ("PGHOSTADDR", "10.0.0.1"),
            ("PGPORT", "5433"),
            ("PGUSER", "bkp"),
            ("PGDATABASE", "app"),
            ("PGSSLMODE", "require"),
            ("PGOPTIONS", "-c work_mem=1MB"),
            ("PGPASSWORD", "pass word'\\"),
        ] {
            assert_eq!(value(name), Some(expected), "{name}");
        }
        let words = conninfo.words("it's = odd");
        assert!(words.starts_with("dbname='it\\'s = odd' keepalives_idle=5 "), "{words}");
        assert!(!words.contains("pass"), "{words}");
    }
}
