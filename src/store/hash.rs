//! A stable hash: names and preference orders are derived from it.
//!
//! Does: hash byte strings. Does not: resist attackers. Invariant: the same parts have the same
//! hash in every build and on every machine.

/// Hashes the parts (FNV-1a with a final mix). A separator follows each part, so that
/// `["ab", "c"]` and `["a", "bc"]` differ.
pub fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hash: u64 = 0xCBF2_9CE4_8422_2325;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    for part in parts {
        part.iter().copied().for_each(&mut add);
        add(0xFF);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys and preference orders of all daemons of a fleet depend on these numbers.
    #[test]
    fn hashes_never_change() {
        assert_eq!(stable_hash(&[b"q"]), 0x78CC_6101_DAED_537B);
        assert_eq!(stable_hash(&[b"ab", b"c"]), 0xD969_45E1_DDB4_9622);
        assert_eq!(stable_hash(&[b"a", b"bc"]), 0x5C69_137A_20FF_E7FF);
    }
}
