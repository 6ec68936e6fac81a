//! What stands in the bodies of the server's messages. The bytes are not trusted: what does not fit is
//! [`Garbled`], and nothing here panics.

use super::error::PgError;

/// A body that is not what its tag says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbled;

/// The rest of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body<'b>(pub(super) &'b [u8]);

impl<'b> Body<'b> {
    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Garbled)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Garbled> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(super) fn i16(&mut self) -> Result<i16, Garbled> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, Garbled> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Garbled> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn bytes(&mut self, count: usize) -> Result<&'b [u8], Garbled> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Garbled)?;
        self.0 = rest;
        Ok(head)
    }

    /// A text up to its zero.
    pub(super) fn text(&mut self) -> Result<&'b str, Garbled> {
        let length = self.0.iter().position(|byte| *byte == 0).ok_or(Garbled)?;
        let text = self.bytes(length)?;
        let _zero = self.byte()?;
        str::from_utf8(text).map_err(|_no_text| Garbled)
    }

    /// The same where the server may not know our encoding yet.
    fn lossy_text(&mut self) -> Result<String, Garbled> {
        let length = self.0.iter().position(|byte| *byte == 0).ok_or(Garbled)?;
        let text = String::from_utf8_lossy(self.bytes(length)?).into_owned();
        let _zero = self.byte()?;
        Ok(text)
    }
}

/// An error or a notice; `host` and `user` are not in it.
pub(super) fn server_error(body: &[u8]) -> Result<PgError, Garbled> {
    let mut body = Body(body);
    let mut error = PgError::default();
    loop {
        let field = match body.byte()? {
            0 => return Ok(error),
            field => field,
        };
        let text = body.lossy_text()?;
        match field {
            b'V' => error.severity = text,
            b'S' if error.severity.is_empty() => error.severity = text,
            b'C' => error.sqlstate = text,
            b'M' => error.message = text,
            b'D' => error.detail = Some(text),
            b'H' => error.server_hint = Some(text),
            _ => {}
        }
    }
}

/// The names of the columns that follow.
pub(super) fn columns(body: &[u8]) -> Result<Vec<String>, Garbled> {
    let mut body = Body(body);
    let count = body.i16()?;
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(body.text()?.to_owned());
        let _type_and_format: [u8; 18] = body.array()?;
    }
    Ok(names)
}

/// The values of a row, as text.
pub(super) fn row(body: &[u8]) -> Result<Vec<Option<Vec<u8>>>, Garbled> {
    let mut body = Body(body);
    let count = body.i16()?;
    let mut values = Vec::new();
    for _ in 0..count {
        let length = body.i32()?;
        let value = match usize::try_from(length) {
            Ok(length) => Some(body.bytes(length)?.to_vec()),
            Err(_null) => None,
        };
        values.push(value);
    }
    Ok(values)
}

/// What the server asks for before it lets anybody in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge<'b> {
    /// Nothing more.
    Done,
    Cleartext,
    Md5([u8; 4]),
    /// One of these mechanisms.
    Sasl(Vec<&'b str>),
    SaslContinue(&'b [u8]),
    SaslFinal(&'b [u8]),
    /// What bkp does not know, by number.
    Other(i32),
}

/// Reads a request for authentication.
pub(super) fn challenge(body: &[u8]) -> Result<Challenge<'_>, Garbled> {
    let mut body = Body(body);
    Ok(match body.i32()? {
        0 => Challenge::Done,
        3 => Challenge::Cleartext,
        5 => Challenge::Md5(body.array()?),
        10 => {
            let mut mechanisms = Vec::new();
            loop {
                match body.text()? {
                    "" => break Challenge::Sasl(mechanisms),
                    name => mechanisms.push(name),
                }
            }
        }
        11 => Challenge::SaslContinue(body.0),
        12 => Challenge::SaslFinal(body.0),
        other => Challenge::Other(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_of_an_error() {
        let body = b"SFEHLER\0VERROR\0C28P01\0Mno\xff\0Dd\0Hh\0Ff.c\0\0";
        let error = server_error(body).unwrap();
        assert_eq!((&*error.severity, &*error.sqlstate), ("ERROR", "28P01"));
        assert_eq!(error.message, "no\u{fffd}");
        assert_eq!(error.detail.as_deref(), Some("d"));
        assert_eq!(server_error(b"Mx\0"), Err(Garbled));
    }

    #[test]
    fn values_and_nulls() {
        let body = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(row(body), Ok(vec![Some(b"ab".to_vec()), None, Some(Vec::new())]));
        assert_eq!(row(b"\0\x01\0\0\0\x02a"), Err(Garbled));
        assert_eq!(columns(b"\0\x01a\0abcdefghijklmnopqr"), Ok(vec!["a".to_owned()]));
    }

    #[test]
    fn challenges() {
        assert_eq!(challenge(b"\0\0\0\0"), Ok(Challenge::Done));
        assert_eq!(challenge(b"\0\0\0\x05abcd"), Ok(Challenge::Md5(*b"abcd")));
        assert_eq!(challenge(b"\0\0\0\x0aA\0B\0\0"), Ok(Challenge::Sasl(vec!["A", "B"])));
        assert_eq!(challenge(b"\0\0\0\x0aA\0B\0"), Err(Garbled));
        assert_eq!(challenge(b"\0\0\0\x07"), Ok(Challenge::Other(7)));
    }

    proptest! {
        #[test]
        fn no_body_is_too_strange(body in any::<Vec<u8>>()) {
            let _any = (server_error(&body), columns(&body), row(&body), challenge(&body));
        }
    }
}
