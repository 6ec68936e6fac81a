//! Bytes as lower-case hex.

use data_encoding::HEXLOWER;

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Reads lower-case hex: what is read is written the same way again.
#[must_use]
pub fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    HEXLOWER.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_is_read() {
        assert_eq!(hex(&[0, 0x9a, 0xff]), "009aff");
        assert_eq!(unhex(b"009aff"), Some(vec![0, 0x9a, 0xff]));
        assert_eq!(unhex(b""), Some(vec![]));
        for text in ["0", "0A", "0g", " 00", "00\n", "0x00", "+1"] {
            assert_eq!(unhex(text.as_bytes()), None, "{text}");
        }
    }
}
