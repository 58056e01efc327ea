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
