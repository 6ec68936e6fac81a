//! The two forms of libpq's connection strings, taken apart into keywords and values. What the keywords say is
//! of no matter here.

use percent_encoding::percent_decode_str;

/// Keywords and values in the order in which they stand.
pub(super) type Pairs = Vec<(String, String)>;

/// Why a text is no connection string. It shows no part of the text: that may be a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Takes a connection string of either form apart.
pub(super) fn split(text: &str) -> Result<Pairs, Malformed> {
    let rest = ["postgresql://", "postgres://"].iter().find_map(|head| text.strip_prefix(head));
    rest.map_or_else(|| split_plain(text), split_uri)
}

/// `host=a user='b c'`: values with blanks stand in quotes, in which and outside of which a backslash takes the
/// next character as it is.
fn split_plain(text: &str) -> Result<Pairs, Malformed> {
    let mut pairs = Pairs::new();
    let mut rest = text.trim_ascii_start();
    while !rest.is_empty() {
        let (keyword, after) = rest
            .split_once('=')
            .ok_or(Malformed("a keyword without `=`; write keyword=value pairs"))?;
        let keyword = keyword.trim_ascii();
        if keyword.is_empty() || keyword.contains(|c: char| c.is_ascii_whitespace()) {
            return Err(Malformed("a keyword without `=`; write keyword=value pairs"));
        }
        let (value, after) = plain_value(after.trim_ascii_start())?;
        pairs.push((keyword.to_owned(), value));
        rest = after.trim_ascii_start();
    }
    Ok(pairs)
}

/// The value that `text` begins with, and what follows it.
fn plain_value(text: &str) -> Result<(String, &str), Malformed> {
    let quoted = text.strip_prefix('\'');
    let body = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut chars = body.chars();
    loop {
        let before = chars.as_str();
        match chars.next() {
            Some('\'') if quoted.is_some() => return Ok((value, chars.as_str())),
            Some(blank) if quoted.is_none() && blank.is_ascii_whitespace() => {
                return Ok((value, before));
            }
            Some('\\') => value.extend(chars.next()),
            Some(other) => value.push(other),
            None if quoted.is_some() => return Err(Malformed("a quote that is not closed")),
            None => return Ok((value, "")),
        }
    }
}

/// What follows `postgresql://`: `user:password@host:port,host:port/database?keyword=value&...`.
fn split_uri(text: &str) -> Result<Pairs, Malformed> {
    let (front, parameters) =
        text.split_once('?').map_or((text, None), |(front, rest)| (front, Some(rest)));
    let (place, database) =
        front.split_once('/').map_or((front, None), |(place, name)| (place, Some(name)));
    let (login, hosts) =
        place.rsplit_once('@').map_or((None, place), |(login, hosts)| (Some(login), hosts));
    let mut pairs = Pairs::new();
    let mut add = |keyword: &str, value: &str| -> Result<(), Malformed> {
        if !value.is_empty() {
            pairs.push((keyword.to_owned(), decode(value)?));
        }
        Ok(())
    };
    if let Some(login) = login {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        add("user", user)?;
        add("password", password)?;
    }
    let (names, ports) = hosts_and_ports(hosts)?;
    add("host", &names)?;
    add("port", &ports)?;
    add("dbname", database.unwrap_or_default())?;
    for parameter in parameters.into_iter().flat_map(|all| all.split('&')) {
        let pair = parameter.split_once('=').filter(|(_, value)| !value.contains('='));
        let (keyword, value) = pair.ok_or(Malformed("a parameter that is not keyword=value"))?;
        match (&*decode(keyword)?, value) {
            ("ssl", "true") => pairs.push(("sslmode".to_owned(), "require".to_owned())),
            (keyword, value) => pairs.push((keyword.to_owned(), decode(value)?)),
        }
    }
    Ok(pairs)
}

/// Two lists with commas; the second is empty where no port is named.
fn hosts_and_ports(hosts: &str) -> Result<(String, String), Malformed> {
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, rest) = match host.strip_prefix('[') {
            Some(bracketed) => {
                bracketed.split_once(']').ok_or(Malformed("a `[` without `]` in a host"))?
            }
            None => host.find(':').and_then(|at| host.split_at_checked(at)).unwrap_or((host, "")),
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => port,
            None if rest.is_empty() => "",
            None => return Err(Malformed("something else than a port after a host in brackets")),
        };
        names.push(name);
        ports.push(port);
    }
    let has_port = ports.iter().any(|port| !port.is_empty());
    Ok((names.join(","), if has_port { ports.join(",") } else { String::new() }))
}

/// Resolves `%XX`. libpq refuses what is no such pair, and a zero.
fn decode(text: &str) -> Result<String, Malformed> {
    let mut rest = text.split('%');
    let _before = rest.next();
    let is_pair = |part: &str| {
        let digits = part.as_bytes().get(..2);
        digits.is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit) && two != b"00")
    };
    if !rest.all(is_pair) {
        return Err(Malformed("a `%` that two hexadecimal digits other than 00 do not follow"));
    }
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_not_text| Malformed("percent-encoded bytes that are no UTF-8"))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn owned(pairs: &[(&str, &str)]) -> Pairs {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn the_plain_form() {
        let text = r" host = 'a b' port=1 user=a\'b\\c  options='-c x=\'y\'' dbname='' ";
        let found = split(text).unwrap();
        let expected = [
            ("host", "a b"),
            ("port", "1"),
            ("user", r"a'b\c"),
            ("options", "-c x='y'"),
            ("dbname", ""),
        ];
        assert_eq!(found, owned(&expected));
        assert_eq!(split("").unwrap(), []);
        for wrong in ["host", "host='a", "=1", "a b=1"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_uri_form() {
        let text =
            "postgresql://us%20er:pa%3Ass@h1:1,[::1]:2,h3/d%2Fb?sslmode=require&options=-c%20a%3Db";
        let expected = [
            ("user", "us er"),
            ("password", "pa:ss"),
            ("host", "h1,::1,h3"),
            ("port", "1,2,"),
            ("dbname", "d/b"),
            ("sslmode", "require"),
            ("options", "-c a=b"),
        ];
        assert_eq!(split(text).unwrap(), owned(&expected));
        assert_eq!(split("postgres://").unwrap(), []);
        assert_eq!(split("postgres://%2Frun").unwrap(), owned(&[("host", "/run")]));
        assert_eq!(split("postgres:///db?ssl=true").unwrap()[1].1, "require");
        for wrong in ["a%", "a%0", "a%00", "[::1", "[::1]x", "a?b", "a?b=c=d", "%ff"] {
            assert!(split(&format!("postgresql://{wrong}")).is_err(), "{wrong}");
        }
    }

    fn quoted(value: &str) -> String {
        format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
    }

    proptest! {
        #[test]
        fn quoted_values_come_back(pairs in vec(("[a-z_]{1,12}", "\\PC*"), 0..5)) {
            let text: Vec<String> =
                pairs.iter().map(|(word, value)| format!("{word}={}", quoted(value))).collect();
            prop_assert_eq!(split(&text.join(" ")).unwrap(), pairs);
        }

        #[test]
        fn encoded_values_come_back(
            user in "\\PC+", password in "\\PC+", name in "\\PC+", other in "\\PC*",
        ) {
            let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let text = format!(
                "postgresql://{}:{}@h/{}?options={}",
                encode(&user), encode(&password), encode(&name), encode(&other),
            );
            let expected = [
                ("user", &*user),
                ("password", &*password),
                ("host", "h"),
                ("dbname", &*name),
                ("options", &*other),
            ];
            prop_assert_eq!(split(&text).unwrap(), owned(&expected));
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC*") {
            let _any = split(&text);
            let _uri = split(&format!("postgres://{text}"));
        }
    }
}
