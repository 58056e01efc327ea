//! Variable-length integers (LEB128) and a bounds-checked cursor for the footer and the handle.
//!
//! Does: encode and decode single values. Does not: interpret them. Invariant: decoding never
//! panics, never reads past the end, and never allocates for a count that the remaining bytes could
//! not hold.

use super::error::DecodeError;

/// Appends `value`.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.push(low_bits(value));
}

/// The 7 bits of a value that are encoded in one byte.
fn low_bits(value: u64) -> u8 {
    (value & 0x7f) as u8
}

/// Appends a text with its length.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends several values.
pub fn put_all<const N: usize>(out: &mut Vec<u8>, values: [u64; N]) {
    values.into_iter().for_each(|value| put(out, value));
}

/// The distinct items in ascending order: a table whose entries are referenced by index.
pub fn table<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut table: Vec<T> = items.collect();
    table.sort_unstable();
    table.dedup();
    table
}

/// The index of an item in its [`table`].
///
/// # Panics
/// If the item is not in the table.
pub fn index_in<T: Ord>(table: &[T], item: &T) -> u64 {
    let index = table.binary_search(item);
    index.expect("the table was made of all items") as u64
}

/// Decodes values from the front of some bytes.
#[derive(Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// A cursor at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes that have not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .rest
            .split_at_checked(n)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// One integer.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] or [`DecodeError::NumberTooLarge`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::NumberTooLarge { bits: 64 })
    }

    /// One integer of at most 32 bits.
    ///
    /// # Errors
    /// As [`Cursor::u64`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.u64()?).map_err(|_| DecodeError::NumberTooLarge { bits: 32 })
    }

    /// An index into `table`, which holds what `field` names.
    ///
    /// # Errors
    /// As [`Cursor::u64`], or [`DecodeError::UnknownReference`].
    pub fn entry<'t, T>(
        &mut self,
        table: &'t [T],
        field: &'static str,
    ) -> Result<&'t T, DecodeError> {
        let index = usize::try_from(self.u64()?).ok();
        let entry = index.and_then(|index| table.get(index));
        entry.ok_or(DecodeError::UnknownReference { field })
    }

    /// A fixed-size little-endian u32.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn fixed_u32(&mut self) -> Result<u32, DecodeError> {
        let bytes = self.bytes(size_of::<u32>())?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    /// A fixed-size little-endian u64.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn fixed_u64(&mut self) -> Result<u64, DecodeError> {
        let bytes = self.bytes(size_of::<u64>())?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    /// A count of items that have at least `item_length` bytes each.
    ///
    /// # Errors
    /// As [`Cursor::u64`], or [`DecodeError::CountTooLarge`] if so many items cannot follow.
    pub fn count(&mut self, item_length: usize) -> Result<usize, DecodeError> {
        let count = self.u64()?;
        let most = self.rest.len() / item_length.max(1);
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= most)
            .ok_or(DecodeError::CountTooLarge { count })
    }

    /// A list: its count, then items that have at least `item_length` bytes each.
    ///
    /// # Errors
    /// As [`Cursor::count`], or those of `item`.
    pub fn list<T>(
        &mut self,
        item_length: usize,
        item: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(item_length)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// A text with its length.
    ///
    /// # Errors
    /// As [`Cursor::count`], or [`DecodeError::NotUtf8`].
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.count(1)?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| DecodeError::NotUtf8)
    }

    /// A text that is parsed into what `field` names.
    ///
    /// # Errors
    /// As [`Cursor::text`], or [`DecodeError::Invalid`].
    pub fn parsed<T: std::str::FromStr>(&mut self, field: &'static str) -> Result<T, DecodeError> {
        let text = self.text()?;
        text.parse().map_err(|_| DecodeError::Invalid { field })
    }

    /// Ends decoding.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`] unless all bytes have been read.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_is_decoded_as_it_was_encoded(value: u64) {
            let mut out = Vec::new();
            put(&mut out, value);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.u64().unwrap(), value);
            cursor.finish().unwrap();
        }

        #[test]
        fn decoding_any_bytes_does_not_panic(bytes: Vec<u8>) {
            let mut cursor = Cursor::new(&bytes);
            while cursor.u64().is_ok() {}
            let mut cursor = Cursor::new(&bytes);
            let _ = cursor.text();
            let _ = cursor.count(3);
        }
    }

    #[test]
    fn a_count_beyond_the_remaining_bytes_is_refused_before_anything_is_allocated() {
        let mut out = Vec::new();
        put(&mut out, u64::MAX);
        assert!(Cursor::new(&out).count(1).is_err());
    }
}
