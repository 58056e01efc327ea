//! Variable-length integers (LEB128) and a bounds-checked cursor for the footer and the handle.
//!
//! Invariant: decoding never panics, never reads past the end and never allocates by a length that
//! the remaining bytes could not hold.

/// Appends `value`.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a short text with its length.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads what [`put`] and its kin wrote.
#[derive(Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

/// The bytes ended early or held an impossible number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub &'static str);

impl<'a> Cursor<'a> {
    /// Reads from the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .rest
            .split_at_checked(n)
            .ok_or(DecodeError("it ends too early"))?;
        self.rest = rest;
        Ok(head)
    }

    /// One integer.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError("a number has more than 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError("a number has more than 64 bits"))
    }

    /// One integer that must fit 32 bits.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.u64()?).map_err(|_| DecodeError("a number has more than 32 bits"))
    }

    /// A fixed-size little-endian u32.
    pub fn fixed_u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(
            self.take(4)?.try_into().expect("four bytes"),
        ))
    }

    /// A fixed-size little-endian u64.
    pub fn fixed_u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(
            self.take(8)?.try_into().expect("eight bytes"),
        ))
    }

    /// A count of things that take at least `each` bytes apiece.
    pub fn count(&mut self, each: usize) -> Result<usize, DecodeError> {
        let count = self.u64()?;
        let room = (self.rest.len() / each.max(1)) as u64;
        if count > room {
            return Err(DecodeError("a count is larger than the bytes that follow"));
        }
        Ok(count as usize)
    }

    /// A text.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.count(1)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError("a name is not text"))
    }

    /// Fails unless all bytes were read.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError("bytes follow its end"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_comes_back(value: u64) {
            let mut out = Vec::new();
            put(&mut out, value);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.u64().unwrap(), value);
            cursor.finish().unwrap();
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut cursor = Cursor::new(&bytes);
            while cursor.u64().is_ok() {}
            let mut cursor = Cursor::new(&bytes);
            let _ = cursor.text();
            let _ = cursor.count(3);
        }
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused_before_anything_is_allocated() {
        let mut out = Vec::new();
        put(&mut out, u64::MAX);
        assert!(Cursor::new(&out).count(1).is_err());
    }
}
