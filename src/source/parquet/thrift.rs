//! Thrift's compact protocol, as far as a footer needs it: fields are found or skipped, nothing is kept.

/// How deep what is skipped may be nested: a footer nests six deep.
const DEPTH_MAX: usize = 32;

/// Visits a field, or an element of a list, of a type.
pub(super) type Visit<'v, 'b> = dyn FnMut(&mut Compact<'b>, i64, u8) -> Result<(), String> + 'v;

/// Bytes that are still to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compact<'b>(pub(super) &'b [u8]);

impl<'b> Compact<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("its footer is cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("its footer has a number that is too long".to_owned())
    }

    fn zigzag(&mut self) -> Result<i64, String> {
        let number = self.varint()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// A number of 16, 32 or 64 bits.
    pub(super) fn integer(&mut self, kind: u8) -> Result<i64, String> {
        match kind {
            4..=6 => self.zigzag(),
            _ => Err("its footer has something else where a number should be".to_owned()),
        }
    }

    /// Visits every field of a structure: its number and its type. A visitor reads the field or skips it.
    pub(super) fn fields(&mut self, visit: &mut Visit<'_, 'b>) -> Result<(), String> {
        let mut id = 0_i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            id = match head >> 4 {
                0 => self.zigzag()?,
                more => id.saturating_add(i64::from(more)),
            };
            visit(self, id, head & 15)?;
        }
    }

    /// The same of an element or a field that should be a structure.
    pub(super) fn structure(&mut self, kind: u8, visit: &mut Visit<'_, 'b>) -> Result<(), String> {
        match kind {
            12 => self.fields(visit),
            _ => Err("its footer has something else where a structure should be".to_owned()),
        }
    }

    /// Visits every element of a list, with its type. Every element takes a byte at least, so a list that claims
    /// more of them than there are bytes ends with an error.
    pub(super) fn list(
        &mut self,
        kind: u8,
        visit: &mut dyn FnMut(&mut Compact<'b>, u8) -> Result<(), String>,
    ) -> Result<(), String> {
        if !matches!(kind, 9 | 10) {
            return Err("its footer has something else where a list should be".to_owned());
        }
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        (0..count).try_for_each(|_| visit(self, head & 15))
    }

    /// Skips a field of this type.
    pub(super) fn skip(&mut self, kind: u8) -> Result<(), String> {
        match kind {
            // The type of a field says what a boolean is.
            1 | 2 => Ok(()),
            _ => self.skip_at(kind, 0),
        }
    }

    fn skip_at(&mut self, kind: u8, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err("its footer is nested too deep".to_owned());
        }
        match kind {
            1..=3 => self.take(1).map(drop),
            4..=6 => self.varint().map(drop),
            7 => self.take(8).map(drop),
            8 => {
                let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                self.take(count).map(drop)
            }
            9 | 10 => self.list(kind, &mut |input, kind| input.skip_at(kind, depth + 1)),
            11 => {
                let count = self.varint()?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                (0..count).try_for_each(|_| {
                    self.skip_at(kinds >> 4, depth + 1)?;
                    self.skip_at(kinds & 15, depth + 1)
                })
            }
            12 => self.fields(&mut |input, _id, kind| match kind {
                1 | 2 => Ok(()),
                _ => input.skip_at(kind, depth + 1),
            }),
            13 => self.take(16).map(drop),
            _ => Err("its footer has a value of an unknown type".to_owned()),
        }
    }
}
