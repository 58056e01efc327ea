//! A hash that never changes: names and places are derived from it.
//!
//! Does: hash byte strings. Does not: resist attackers. Invariant: the same parts give the same
//! value in every build and on every machine.

/// A hash that is the same in every build and on every machine for ever (FNV-1a with a final mix);
/// parts are told apart.
pub fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hash: u64 = 0xCBF2_9CE4_8422_2325;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    for part in parts {
        part.iter().copied().for_each(&mut eat);
        eat(0xFF);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    hash ^ (hash >> 32)
}
