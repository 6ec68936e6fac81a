//! Which of libpq's keywords are understood, and the variables that stand in for them.

/// What becomes of a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Its value is obeyed.
    Obeyed,
    /// It makes no difference to what bkp does.
    Ignored,
    /// Only these values ask for nothing that bkp cannot do.
    Only(&'static [&'static str]),
    /// libpq knows it, bkp does not, and it may not be passed over.
    Unsupported,
}

/// libpq's keywords, up to version 18.
const KEYWORDS: &[(&str, Treatment)] = &[
    ("application_name", Treatment::Ignored),
    ("channel_binding", Treatment::Obeyed),
    ("client_encoding", Treatment::Ignored),
    ("connect_timeout", Treatment::Obeyed),
    ("dbname", Treatment::Obeyed),
    ("fallback_application_name", Treatment::Ignored),
    ("gssdelegation", Treatment::Ignored),
    ("gssencmode", Treatment::Only(&["disable", "prefer"])),
    ("gsslib", Treatment::Ignored),
    ("host", Treatment::Obeyed),
    ("hostaddr", Treatment::Obeyed),
    ("keepalives", Treatment::Obeyed),
    ("keepalives_count", Treatment::Obeyed),
    ("keepalives_idle", Treatment::Obeyed),
    ("keepalives_interval", Treatment::Obeyed),
    ("krbsrvname", Treatment::Ignored),
    // One of them has to be the first; the order that is written is as random as any.
    ("load_balance_hosts", Treatment::Ignored),
    ("max_protocol_version", Treatment::Ignored),
    ("min_protocol_version", Treatment::Only(&["3.0"])),
    ("options", Treatment::Obeyed),
    ("passfile", Treatment::Obeyed),
    ("password", Treatment::Obeyed),
    ("port", Treatment::Obeyed),
    ("replication", Treatment::Ignored),
    ("require_auth", Treatment::Unsupported),
    ("requirepeer", Treatment::Unsupported),
    ("scram_client_key", Treatment::Unsupported),
    ("scram_server_key", Treatment::Unsupported),
    ("service", Treatment::Obeyed),
    ("servicefile", Treatment::Obeyed),
    ("ssl_max_protocol_version", Treatment::Obeyed),
    ("ssl_min_protocol_version", Treatment::Obeyed),
    ("sslcert", Treatment::Obeyed),
    ("sslcertmode", Treatment::Only(&["allow"])),
    ("sslcompression", Treatment::Only(&["0"])),
    ("sslcrl", Treatment::Unsupported),
    ("sslcrldir", Treatment::Unsupported),
    ("sslkey", Treatment::Obeyed),
    ("sslkeylogfile", Treatment::Unsupported),
    ("sslmode", Treatment::Obeyed),
    ("sslnegotiation", Treatment::Obeyed),
    ("sslpassword", Treatment::Unsupported),
    ("sslrootcert", Treatment::Obeyed),
    ("sslsni", Treatment::Obeyed),
    ("target_session_attrs", Treatment::Obeyed),
    ("tcp_user_timeout", Treatment::Obeyed),
    ("user", Treatment::Obeyed),
];

/// libpq's variables and the keywords they stand in for.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGDATABASE", "dbname"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGOPTIONS", "options"),
    ("PGPASSFILE", "passfile"),
    ("PGPASSWORD", "password"),
    ("PGPORT", "port"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLSNI", "sslsni"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGUSER", "user"),
];

/// What becomes of `keyword`; `None` for one that libpq does not know either.
pub(super) fn treatment(keyword: &str) -> Option<Treatment> {
    KEYWORDS.iter().find(|(name, _)| *name == keyword).map(|(_, treatment)| *treatment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_stand_in_for_keywords_that_exist() {
        for (variable, keyword) in VARIABLES {
            assert!(treatment(keyword).is_some(), "{variable}");
        }
        assert_eq!(treatment("hots"), None);
    }
}
