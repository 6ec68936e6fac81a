//! Authentication of small JSON files: HMAC-SHA256 under a key derived from the data key of a backup, in
//! the last field of the file, `mac`, over the file with that field's digits replaced by zeros, and with those
//! of the field `signature` before it, if there is one.
//!
//! So a signature covers the MAC and not the other way round: a MAC that anybody could replace would leave it
//! open which data key it was that the signer meant.

use ring::hmac;

use super::DataKey;
use crate::domain::hex::{hex, unhex};

/// Digits of a MAC.
pub const DIGITS: usize = 64;

/// Digits of a signature.
pub(super) const SIGNATURE_DIGITS: usize = 128;

/// What a MAC is for, so that one use cannot be taken for another.
#[derive(Debug, Clone, Copy)]
pub struct MacPurpose {
    /// What the key is derived with.
    pub info: &'static [u8],
    /// What closes the file behind the digits, without white space.
    pub closing: &'static [u8],
}

/// Puts the MAC of `context` and `bytes` in the place of the zeros in `bytes`. Returns whether there is
/// such a place.
#[must_use]
pub fn sign(bytes: &mut [u8], of: MacPurpose, context: &[u8], key: &DataKey) -> bool {
    let Some(text) = authenticated(bytes, of, context) else { return false };
    let tag = hmac::sign(&derived(key, of), &text);
    let cell = place(bytes, of.closing).and_then(|range| bytes.get_mut(range));
    cell.map(|cell| cell.copy_from_slice(hex(tag.as_ref()).as_bytes())).is_some()
}

/// Whether `bytes` carry the MAC of `context` and themselves.
#[must_use]
pub fn is_right(bytes: &[u8], of: MacPurpose, context: &[u8], key: &DataKey) -> bool {
    let Some(text) = authenticated(bytes, of, context) else { return false };
    let digits = place(bytes, of.closing).and_then(|range| bytes.get(range));
    let claimed = digits.and_then(unhex);
    claimed.is_some_and(|claimed| hmac::verify(&derived(key, of), &text, &claimed).is_ok())
}

/// What the MAC is of; `None` if `bytes` have no place for one.
fn authenticated(bytes: &[u8], of: MacPurpose, context: &[u8]) -> Option<Vec<u8>> {
    let mut text = bytes.to_vec();
    text.get_mut(place(bytes, of.closing)?)?.fill(b'0');
    if let Some(signature) = signature_place(bytes, of.closing) {
        text.get_mut(signature)?.fill(b'0');
    }
    Some([context, &text].concat())
}

fn derived(key: &DataKey, of: MacPurpose) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*key.derive(&[], &[of.info]))
}

/// Where the digits stand: they are the value of the last field, and nothing but `closing` and white
/// space follows them.
fn place(bytes: &[u8], closing: &[u8]) -> Option<std::ops::Range<usize>> {
    const FIELD: &[u8] = b"\"mac\":";
    let field = bytes.windows(FIELD.len()).rposition(|window| window == FIELD)?;
    let value = field + FIELD.len();
    let open = value + bytes.get(value..)?.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let start = open + 1;
    let tail = bytes.get(start + DIGITS..)?.iter().filter(|byte| !byte.is_ascii_whitespace());
    (bytes.get(open) == Some(&b'"') && tail.eq(closing)).then_some(start..start + DIGITS)
}

/// Where the digits of the signature stand: they are the value of the field before the MAC.
pub(super) fn signature_place(bytes: &[u8], closing: &[u8]) -> Option<std::ops::Range<usize>> {
    let trimmed = |end: usize| Some(bytes.get(..end)?.trim_ascii_end());
    let mac = place(bytes, closing)?.start;
    // Back over the opening quote of the MAC, its colon and its name.
    let before = trimmed(mac.checked_sub(1)?)?.strip_suffix(b":")?.trim_ascii_end();
    let before = before.strip_suffix(b"\"mac\"")?.trim_ascii_end();
    let before = before.strip_suffix(b",")?.trim_ascii_end();
    let end = before.strip_suffix(b"\"")?.len();
    let start = end.checked_sub(SIGNATURE_DIGITS)?;
    let name = bytes.get(..start)?.strip_suffix(b"\"")?.trim_ascii_end().strip_suffix(b":")?;
    name.trim_ascii_end().ends_with(b"\"signature\"").then_some(start..end)
}
