//! Positions in the log: bytes since its beginning, written as two hexadecimal numbers.

/// A position as PostgreSQL writes it, as `1F/A0000028`.
#[must_use]
pub fn text(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & u64::from(u32::MAX))
}

/// Reads a position: two numbers of one to eight hexadecimal digits.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from(half(high)?) << 32 | u64::from(half(low)?))
}

/// Signs and prefixes, which the standard library would take, are none.
fn half(digits: &str) -> Option<u32> {
    let is_number =
        (1..=8).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_hexdigit());
    is_number.then(|| u32::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_written() {
        for (written, lsn) in [
            ("0/0", 0),
            ("0/C00090", 0xc0_0090),
            ("1F/A0000028", 0x1f_a000_0028),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!(text(lsn), written);
            assert_eq!(parse(written), Some(lsn));
        }
        // 18 writes all digits of the second number, and people write small letters.
        assert_eq!(parse("1f/000000a0"), Some(0x1f_0000_00a0));
        for none in
            ["", "/", "0", "0/", "/0", "0/0/0", "+1/0", "0x1/0", "1/000000001", "1/-1", " 1/0"]
        {
            assert_eq!(parse(none), None, "{none}");
        }
    }
}
