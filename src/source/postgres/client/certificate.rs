//! The two things that have to be known of a server's certificate besides what rustls checks: the hash that its
//! signature is made with, for channel binding, and the name of a certificate that has it in its subject only.

use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const PSS_HASH: u8 = 0xa0;

const PSS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
const COMMON_NAME: &[u8] = b"\x55\x04\x03";
const ALTERNATIVE_NAMES: &[u8] = b"\x55\x1d\x11";

/// How bytes are hashed.
type Hash = fn(&[u8]) -> Vec<u8>;

/// Algorithms of signatures, by object identifier, and the hash that channel binding has with them. What is
/// older than SHA-2 is replaced by SHA-256 (RFC 5929).
const HASHES: &[(&[u8], Hash)] = &[
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", sha256), // md5WithRSA
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", sha256), // sha1WithRSA
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", sha384),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", sha512),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0e", sha224),
    (b"\x2a\x86\x48\xce\x3d\x04\x01", sha256), // ecdsa-with-SHA1
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x01", sha224),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", sha256),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x03", sha384),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x04", sha512),
    // Hashes by themselves, as the parameters of RSA-PSS name them.
    (b"\x60\x86\x48\x01\x65\x03\x04\x02\x01", sha256),
    (b"\x60\x86\x48\x01\x65\x03\x04\x02\x02", sha384),
    (b"\x60\x86\x48\x01\x65\x03\x04\x02\x03", sha512),
];

fn sha224(bytes: &[u8]) -> Vec<u8> {
    Sha224::digest(bytes).to_vec()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

fn sha384(bytes: &[u8]) -> Vec<u8> {
    Sha384::digest(bytes).to_vec()
}

fn sha512(bytes: &[u8]) -> Vec<u8> {
    Sha512::digest(bytes).to_vec()
}

/// The value at the beginning of some DER: its tag, its content, and what follows it.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, length, rest @ ..] = der else { return None };
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            let length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// The content of a value with this tag, and what follows it.
fn tagged(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    value(der).filter(|(tag, ..)| *tag == wanted).map(|(_, content, rest)| (content, rest))
}

/// The contents of all values with this tag, one after the other.
fn each(mut der: &[u8], wanted: u8) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (content, rest) = tagged(der, wanted)?;
        der = rest;
        Some(content)
    })
}

/// What a server and a client that see the same certificate agree on (`tls-server-end-point`); `None` for
/// signatures that no hash belongs to, such as Ed25519.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (inside, _) = tagged(certificate, SEQUENCE)?;
    let (_, after_body) = tagged(inside, SEQUENCE)?;
    let (algorithm, _) = tagged(after_body, SEQUENCE)?;
    let (mut oid, parameters) = tagged(algorithm, OID)?;
    if oid == PSS {
        let (fields, _) = tagged(parameters, SEQUENCE)?;
        let (hash, _) = tagged(fields, PSS_HASH)?;
        let (hash, _) = tagged(hash, SEQUENCE)?;
        (oid, _) = tagged(hash, OID)?;
    }
    let hash = HASHES.iter().find(|(of, _)| *of == oid).map(|(_, hash)| hash)?;
    Some(hash(certificate))
}

/// The common name of a certificate that has no alternative names: libpq looks there then.
pub(super) fn lone_common_name(certificate: &[u8]) -> Option<&str> {
    let (inside, _) = tagged(certificate, SEQUENCE)?;
    let (body, _) = tagged(inside, SEQUENCE)?;
    let rest = tagged(body, VERSION).map_or(body, |(_, rest)| rest);
    // Serial number, algorithm, issuer and validity stand before the subject, its key after it.
    let rest = (0..4).try_fold(rest, |rest, _| value(rest).map(|(.., rest)| rest))?;
    let (subject, rest) = tagged(rest, SEQUENCE)?;
    let (_, rest) = tagged(rest, SEQUENCE)?;
    let extensions = tagged(rest, EXTENSIONS).and_then(|(all, _)| tagged(all, SEQUENCE));
    let mut extensions = extensions.into_iter().flat_map(|(all, _)| each(all, SEQUENCE));
    let is_names = |one: &[u8]| tagged(one, OID).is_some_and(|(oid, _)| oid == ALTERNATIVE_NAMES);
    if extensions.any(is_names) {
        return None;
    }
    let attributes = each(subject, SET).flat_map(|set| each(set, SEQUENCE));
    let mut names = attributes.filter_map(|attribute| {
        let (oid, rest) = tagged(attribute, OID)?;
        let (_, name, _) = value(rest)?;
        (oid == COMMON_NAME).then_some(name)
    });
    str::from_utf8(names.next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = content.len();
        let mut found = vec![tag];
        if length < 0x80 {
            found.push(u8::try_from(length).unwrap());
        } else {
            found.push(0x82);
            found.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        found.extend(content);
        found
    }

    fn certificate(algorithm: &[u8], extension: &[u8]) -> Vec<u8> {
        let attribute = der(SEQUENCE, &[&der(OID, &[COMMON_NAME]), &der(0x0c, &[b"db.example"])]);
        let subject = der(SEQUENCE, &[&der(SET, &[&attribute])]);
        let extension = der(SEQUENCE, &[&der(OID, &[extension]), &der(4, &[b"x"])]);
        let extensions = der(EXTENSIONS, &[&der(SEQUENCE, &[&extension])]);
        let version = der(VERSION, &[&der(2, &[b"\x02"])]);
        let empty = der(SEQUENCE, &[]);
        let serial = der(2, &[b"\x01"]);
        let body =
            [&*version, &serial, &empty, &empty, &empty, &subject, &empty, &extensions].concat();
        let algorithm = der(SEQUENCE, &[&der(OID, &[algorithm]), b"\x05\0"]);
        der(SEQUENCE, &[&der(SEQUENCE, &[&body]), &algorithm, &der(3, &[&[0; 200]])])
    }

    #[test]
    fn the_hash_follows_the_signature() {
        for (oid, hash) in HASHES {
            let certificate = certificate(oid, b"\x55\x1d\x13");
            assert_eq!(end_point(&certificate), Some(hash(&certificate)));
        }
        assert_eq!(end_point(&certificate(b"\x2b\x65\x70", b"")), None);
    }

    #[test]
    fn the_common_name_counts_only_alone() {
        assert_eq!(lone_common_name(&certificate(b"x", b"\x55\x1d\x13")), Some("db.example"));
        assert_eq!(lone_common_name(&certificate(b"x", ALTERNATIVE_NAMES)), None);
    }

    proptest! {
        #[test]
        fn no_certificate_is_too_strange(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
            let mut certificate = certificate(PSS, b"\x55\x1d\x13");
            let at = at.index(certificate.len());
            certificate.splice(at..at, bytes.iter().copied());
            let _any = (end_point(&certificate), lone_common_name(&certificate));
            let _bytes = (end_point(&bytes), lone_common_name(&bytes));
        }
    }
}
