//! Connection strings as libpq has them, with what stands in its variables and files.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::keyword_table::{Treatment, VARIABLES, treatment};
use super::keywords::{Malformed, split};
use super::password_file::PasswordFile;
use super::service_file;
use super::tls_settings::{self, TlsSettings, invalid};
use crate::error::{Fault, Kind};

/// Where servers put their sockets, where nobody says otherwise.
const SOCKET_FOLDERS: &str = "/var/run/postgresql,/tmp";

/// The port of PostgreSQL.
const PORT: u16 = 5432;

/// How long a connection to one host may take where nobody says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a connection string is read with.
pub struct Surroundings<'a> {
    /// The variables of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The home folder of the user, if it has one.
    pub home: Option<PathBuf>,
    /// The name of the user, which is that of the role where nobody says otherwise.
    pub user: String,
}

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A place where a server may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The name, the address, or the folder of a socket.
    pub host: String,
    /// The address, if it is not to be asked for.
    pub address: Option<IpAddr>,
    /// The port, which is part of the name of a socket too.
    pub port: u16,
}

impl Endpoint {
    /// The path of the socket, if it is one.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        let local = self.address.is_none() && self.host.starts_with('/');
        local.then(|| PathBuf::from(&self.host).join(format!(".s.PGSQL.{}", self.port)))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.socket(), self.address) {
            (Some(path), _) => write!(f, "{}", path.display()),
            (None, Some(address)) if self.host != address.to_string() => {
                write!(f, "{}:{} ({address})", self.host, self.port)
            }
            (None, _) if self.host.contains(':') => write!(f, "[{}]:{}", self.host, self.port),
            (None, _) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Whether the client insists on proof that nobody stands between it and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where both sides can.
    Prefer,
    /// Always: otherwise there is no connection.
    Require,
}

/// Which of several servers will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSession {
    /// The first that answers.
    Any,
    /// One whose sessions may write.
    ReadWrite,
    /// One whose sessions may not.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is.
    Standby,
    /// One that is in recovery, or else any.
    PreferStandby,
}

/// How a dead peer is found out, where the system shall not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keepalive {
    pub(super) enabled: bool,
    pub(super) idle: Option<Duration>,
    pub(super) interval: Option<Duration>,
    pub(super) count: Option<u32>,
    /// Milliseconds for which what was sent may stay without an answer.
    pub(super) user_timeout: Option<u32>,
}

/// How to reach a server, and as whom. `Debug` shows no password.
#[derive(Clone)]
pub struct Conninfo {
    /// The places to try, in this order. Never empty.
    pub endpoints: Vec<Endpoint>,
    /// The role.
    pub user: String,
    /// The database.
    pub database: String,
    /// Which of the servers will do.
    pub target: TargetSession,
    /// Whether channel binding is asked for.
    pub channel_binding: ChannelBinding,
    /// How long the connection to one place may take.
    pub connect_timeout: Duration,
    pub(super) options: Option<String>,
    pub(super) tls: TlsSettings,
    pub(super) keepalive: Keepalive,
    password: Option<Zeroizing<Vec<u8>>>,
    password_in_text: bool,
    password_file: Option<PasswordFile>,
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conninfo")
            .field("endpoints", &self.endpoints)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl Conninfo {
    /// Reads a connection string of either form, then the service it names, then libpq's variables, and the
    /// password file if nothing of that has a password.
    ///
    /// # Errors
    /// [`Kind::Config`] for a text that is none, an unknown keyword, a value that is none of its keyword's, and
    /// files that cannot be read. No error shows a password.
    pub fn parse(text: &str, surroundings: &Surroundings<'_>) -> Result<Conninfo, Fault> {
        let pairs = split(text).map_err(|Malformed(problem)| {
            Fault::new(Kind::Config, format!("the connection string has {problem}"))
                .hint("write host=... user=..., or postgresql://USER@HOST:PORT/DATABASE")
        })?;
        let mut values = Values(BTreeMap::new());
        for (keyword, value) in pairs {
            values.0.insert(keyword, value);
        }
        let password_in_text = values.get("password").is_some();
        values.complete(surroundings)?;
        values.check()?;
        let user = values.get("user").unwrap_or(&surroundings.user).to_owned();
        let password = values.get("password").map(|text| Zeroizing::new(text.as_bytes().to_vec()));
        let in_home = surroundings.home.as_ref().map(|home| home.join(".pgpass"));
        let file = values.get("passfile").map(PathBuf::from).or(in_home);
        let password_file = match file.filter(|_| password.is_none()) {
            Some(path) => PasswordFile::read(&path)?,
            None => None,
        };
        let home = surroundings.home.as_deref();
        Ok(Conninfo {
            endpoints: endpoints(&values)?,
            database: values.get("dbname").unwrap_or(&user).to_owned(),
            target: target(&values)?,
            channel_binding: channel_binding(&values)?,
            connect_timeout: connect_timeout(&values)?,
            options: values.get("options").map(str::to_owned),
            tls: tls_settings::read(&|keyword| values.get(keyword), home)?,
            keepalive: keepalive(&values)?,
            user,
            password,
            password_in_text,
            password_file,
        })
    }

    /// Whether the text itself has a password in it, which the configuration may not.
    #[must_use]
    pub fn has_password_in_text(&self) -> bool {
        self.password_in_text
    }

    /// The same with this password, whatever else was found.
    #[must_use]
    pub fn with_password(self, password: Zeroizing<Vec<u8>>) -> Conninfo {
        Conninfo { password: Some(password), ..self }
    }

    /// The password for one place, and for a database that is called `database` in the password file.
    pub(super) fn password(&self, at: &Endpoint, database: &str) -> Option<Zeroizing<Vec<u8>>> {
        if self.password.is_some() {
            return self.password.clone();
        }
        let is_default = SOCKET_FOLDERS.split(',').any(|folder| folder == at.host);
        let host = if is_default { "localhost" } else { &at.host };
        let port = at.port.to_string();
        let file = self.password_file.as_ref()?;
        let find = |database| file.find([host, &port, database, &self.user]);
        find(database).or_else(|| find(&self.database))
    }
}

/// Values by keyword. An empty one is none.
struct Values(BTreeMap<String, String>);

impl Values {
    fn get(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Adds what service and variables say of keywords that have no value.
    fn complete(&mut self, surroundings: &Surroundings<'_>) -> Result<(), Fault> {
        let variable = |name| (surroundings.variable)(name).filter(|value| !value.is_empty());
        let service = self.get("service").map(str::to_owned).or_else(|| variable("PGSERVICE"));
        if let Some(service) = service {
            let named = self.get("servicefile").map(str::to_owned);
            let own = named.or_else(|| variable("PGSERVICEFILE")).map(PathBuf::from);
            let in_home = || surroundings.home.as_ref().map(|home| home.join(".pg_service.conf"));
            let folder = variable("PGSYSCONFDIR").unwrap_or("/etc/postgresql-common".to_owned());
            let shared = PathBuf::from(folder).join("pg_service.conf");
            let files: Vec<PathBuf> = own.or_else(in_home).into_iter().chain([shared]).collect();
            for (keyword, value) in service_file::find(&service, &files)? {
                self.add(&keyword, value);
            }
        }
        for (name, keyword) in VARIABLES {
            if let Some(value) = variable(name) {
                self.add(keyword, value);
            }
        }
        Ok(())
    }

    fn add(&mut self, keyword: &str, value: String) {
        if self.get(keyword).is_none() {
            self.0.insert(keyword.to_owned(), value);
        }
    }

    /// Refuses what bkp could not obey.
    fn check(&self) -> Result<(), Fault> {
        let fail = |message: String, hint: &str| {
            Err(Fault::new(Kind::Config, message).hint(hint.to_owned()))
        };
        for keyword in self.0.keys() {
            let value = self.get(keyword);
            match treatment(keyword) {
                Some(Treatment::Obeyed | Treatment::Ignored) => {}
                Some(Treatment::Only(allowed)) if value.is_none_or(|v| allowed.contains(&v)) => {}
                Some(Treatment::Unsupported) if value.is_none() => {}
                Some(Treatment::Only(allowed)) => {
                    let hint = format!("bkp can do {keyword}={} only", allowed.join(" or "));
                    return fail(format!("`{keyword}` asks for what bkp cannot do"), &hint);
                }
                Some(Treatment::Unsupported) => {
                    let hint =
                        "remove it from the connection string, its service and the environment";
                    return fail(format!("bkp does not know what to do with `{keyword}`"), hint);
                }
                None => {
                    let hint = "the keywords are those of libpq: host, port, user, dbname, sslmode and so on";
                    return fail(
                        format!("unknown keyword `{keyword}` in a connection string"),
                        hint,
                    );
                }
            }
        }
        Ok(())
    }

    /// A number of a keyword.
    fn number<N: std::str::FromStr>(&self, keyword: &str) -> Result<Option<N>, Fault> {
        let parse = |text: &str| {
            text.trim_ascii().parse().map_err(|_no_number| invalid(keyword, text, "a number"))
        };
        self.get(keyword).map(parse).transpose()
    }
}

/// The places in the three lists of hosts, addresses and ports.
fn endpoints(values: &Values) -> Result<Vec<Endpoint>, Fault> {
    let list = |text: &str| text.split(',').map(|item| item.trim_ascii().to_owned()).collect();
    let addresses: Vec<String> = values.get("hostaddr").map(list).unwrap_or_default();
    let default = if addresses.is_empty() { Some(SOCKET_FOLDERS) } else { None };
    let hosts: Vec<String> = values.get("host").or(default).map(list).unwrap_or_default();
    let ports: Vec<String> = values.get("port").map(list).unwrap_or_default();
    let count = hosts.len().max(addresses.len());
    for (keyword, found) in [("hostaddr", addresses.len()), ("host", hosts.len())] {
        if found != 0 && found != count {
            return Err(counts_differ(keyword, found, count));
        }
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(counts_differ("port", ports.len(), count));
    }
    let mut found = Vec::new();
    for at in 0..count {
        let address = addresses.get(at).filter(|text| !text.is_empty());
        let parse = |text: &String| {
            text.parse()
                .map_err(|_name| invalid("hostaddr", text, "an IP address; a name is `host`"))
        };
        let address: Option<IpAddr> = address.map(parse).transpose()?;
        let port = ports.get(at).or(ports.first()).filter(|text| !text.is_empty());
        let port = port.map_or(Ok(PORT), |text| {
            let parsed: Option<u16> = text.parse().ok().filter(|port| *port != 0);
            parsed.ok_or_else(|| invalid("port", text, "a number from 1 to 65535"))
        })?;
        let host = hosts.get(at).filter(|host| !host.is_empty()).cloned();
        let hosts = match (host, address) {
            (Some(host), _) => vec![host],
            (None, Some(address)) => vec![address.to_string()],
            (None, None) => list(SOCKET_FOLDERS),
        };
        found.extend(hosts.into_iter().map(|host| Endpoint { host, address, port }));
    }
    if let Some(strange) = found.iter().find(|place| place.host.starts_with('@')) {
        return Err(invalid("host", &strange.host, "a name, an address or the folder of a socket"));
    }
    Ok(found)
}

fn counts_differ(keyword: &str, found: usize, hosts: usize) -> Fault {
    let message = format!("{found} values of {keyword} for {hosts} hosts in a connection string");
    Fault::new(Kind::Config, message).hint(format!("write as many values of {keyword} as hosts"))
}

fn target(values: &Values) -> Result<TargetSession, Fault> {
    let allowed = "any, read-write, read-only, primary, standby or prefer-standby";
    match values.get("target_session_attrs") {
        None | Some("any") => Ok(TargetSession::Any),
        Some("read-write") => Ok(TargetSession::ReadWrite),
        Some("read-only") => Ok(TargetSession::ReadOnly),
        Some("primary") => Ok(TargetSession::Primary),
        Some("standby") => Ok(TargetSession::Standby),
        Some("prefer-standby") => Ok(TargetSession::PreferStandby),
        Some(other) => Err(invalid("target_session_attrs", other, allowed)),
    }
}

fn channel_binding(values: &Values) -> Result<ChannelBinding, Fault> {
    match values.get("channel_binding") {
        Some("disable") => Ok(ChannelBinding::Disable),
        None | Some("prefer") => Ok(ChannelBinding::Prefer),
        Some("require") => Ok(ChannelBinding::Require),
        Some(other) => Err(invalid("channel_binding", other, "disable, prefer or require")),
    }
}

/// Zero and less mean for ever to libpq; here nothing waits for ever. One second is too short for libpq.
fn connect_timeout(values: &Values) -> Result<Duration, Fault> {
    let seconds: Option<i32> = values.number("connect_timeout")?;
    let positive = seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|s| *s > 0);
    Ok(positive.map_or(CONNECT_TIMEOUT, |seconds| Duration::from_secs(seconds.max(2))))
}

fn keepalive(values: &Values) -> Result<Keepalive, Fault> {
    let seconds = |keyword| -> Result<Option<Duration>, Fault> {
        let number: Option<u32> = values.number(keyword)?;
        Ok(number.filter(|number| *number > 0).map(|number| Duration::from_secs(number.into())))
    };
    Ok(Keepalive {
        enabled: values.number::<u32>("keepalives")? != Some(0),
        idle: seconds("keepalives_idle")?,
        interval: seconds("keepalives_interval")?,
        count: values.number("keepalives_count")?.filter(|count| *count > 0),
        user_timeout: values.number("tcp_user_timeout")?.filter(|length| *length > 0),
    })
}

#[cfg(test)]
mod tests;
