//! Authentication of small JSON files: HMAC-SHA256 under a key derived from the data key of a backup, in
//! the last field of the file, over the file with that field's digits replaced by zeros.

use ring::hmac;

use super::DataKey;
use crate::domain::hex::{hex, unhex};

/// Digits of a MAC.
pub const DIGITS: usize = 64;

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
    let tag = hmac::sign(&derived(key, of), &[context, bytes].concat());
    let cell = place(bytes, of.closing).and_then(|range| bytes.get_mut(range));
    cell.map(|cell| cell.copy_from_slice(hex(tag.as_ref()).as_bytes())).is_some()
}

/// Whether `bytes` carry the MAC of `context` and themselves.
#[must_use]
pub fn is_right(bytes: &[u8], of: MacPurpose, context: &[u8], key: &DataKey) -> bool {
    let Some(range) = place(bytes, of.closing) else { return false };
    let Some(claimed) = bytes.get(range.clone()).and_then(unhex) else { return false };
    let mut text = [context, bytes].concat();
    let range = context.len() + range.start..context.len() + range.end;
    let Some(cell) = text.get_mut(range) else { return false };
    cell.fill(b'0');
    hmac::verify(&derived(key, of), &text, &claimed).is_ok()
}

fn derived(key: &DataKey, of: MacPurpose) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*key.derive(&[], &[of.info]))
}

/// Where the digits stand: they are the value of the last field, and nothing but `closing` and white
/// space follows them.
pub(super) fn place(bytes: &[u8], closing: &[u8]) -> Option<std::ops::Range<usize>> {
    const FIELD: &[u8] = b"\"mac\":";
    let field = bytes.windows(FIELD.len()).rposition(|window| window == FIELD)?;
    let value = field + FIELD.len();
    let open = value + bytes.get(value..)?.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let start = open + 1;
    let tail = bytes.get(start + DIGITS..)?.iter().filter(|byte| !byte.is_ascii_whitespace());
    (bytes.get(open) == Some(&b'"') && tail.eq(closing)).then_some(start..start + DIGITS)
}
