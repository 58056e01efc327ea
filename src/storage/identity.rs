//! The identity of a base directory: the object that identifies it.
//!
//! Pure: an identity to text and back. Does not: store it (`attachment`). Invariant: what decodes
//! was encoded by this code; the first line never changes, and the rest only when keys are rotated.
//!
//! ```text
//! stopover base directory 0123456789abcdef, layout 2
//! {"name":"main","keys":[{"number":1,"secret":"…64 hexadecimal digits…"}]}
//! crc32c 1a2b3c4d
//! ```

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::checked_text::{self, TextError};
use crate::id::{BaseId, BaseName};

/// What the first line begins with.
const TITLE: &str = "stopover base directory";

/// Keys that remain after a rotation, the new one included.
const RETAINED_KEYS: usize = 2;

/// A key that seals source handles.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey {
    /// 1 for the first key, and one more for each rotation.
    pub number: u32,
    secret: [u8; 32],
}

impl SealKey {
    /// A key with this secret.
    pub fn new(number: u32, secret: [u8; 32]) -> Self {
        Self { number, secret }
    }

    /// The secret, for a message authentication code only.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

/// Without the secret.
impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.number)
    }
}

/// Which base directory it is, and the keys of the handles that are sealed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub id: BaseId,
    /// The name that footers refer to it by: all daemons must use this one.
    pub name: BaseName,
    /// Newest first; the newest seals, all open.
    pub keys: Vec<SealKey>,
}

/// Why an object is not the identity of a base directory.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Text(#[from] TextError),
    #[error("malformed: {what}")]
    Malformed { what: &'static str },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    name: String,
    keys: Vec<KeyContent>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyContent {
    number: u32,
    secret: String,
}

impl Identity {
    /// A new identity with one key.
    pub fn new(id: BaseId, name: BaseName, secret: [u8; 32]) -> Self {
        let keys = vec![SealKey::new(1, secret)];
        Self { id, name, keys }
    }

    /// The same identity with a new key. The newest key until now still opens handles; older ones
    /// do not.
    #[must_use]
    pub fn rotated(&self, secret: [u8; 32]) -> Self {
        let number = self.keys.first().map_or(1, |key| key.number + 1);
        let mut keys = vec![SealKey::new(number, secret)];
        keys.extend(self.keys.iter().take(RETAINED_KEYS - 1).cloned());
        Self {
            keys,
            ..self.clone()
        }
    }

    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let keys = self.keys.iter().map(|key| KeyContent {
            number: key.number,
            secret: key.secret.iter().map(|b| format!("{b:02x}")).collect(),
        });
        let content = Content {
            name: self.name.to_string(),
            keys: keys.collect(),
        };
        checked_text::encode(&format!("{TITLE} {}", self.id), &content)
    }

    /// Decodes the stored form.
    ///
    /// # Errors
    /// It is damaged, of another layout, or no identity.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let malformed = |what| IdentityError::Malformed { what };
        let (title, content) = checked_text::decode::<Content>(TITLE, bytes)?;
        let id = title.trim().parse().map_err(|_| malformed("id"))?;
        let name = content.name.parse().map_err(|_| malformed("name"))?;
        let keys = content.keys.iter().map(|key| {
            let secret = parse_secret(&key.secret).ok_or(malformed("secret"))?;
            Ok(SealKey::new(key.number, secret))
        });
        let keys = keys.collect::<Result<Vec<_>, IdentityError>>()?;
        match keys.is_empty() {
            true => Err(malformed("no key")),
            false => Ok(Self { id, name, keys }),
        }
    }
}

fn parse_secret(text: &str) -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    if !text.is_ascii() || text.len() != 2 * secret.len() {
        return None;
    }
    for (n, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::new(BaseId(0xFEED), "main".parse().unwrap(), [7; 32])
    }

    #[test]
    fn an_identity_decodes_as_encoded_and_the_stored_form_does_not_change() {
        let stored = identity().encode();
        let golden = include_str!("../../tests/golden/identity-v2.txt");
        assert_eq!(std::str::from_utf8(&stored).unwrap(), golden);
        assert_eq!(Identity::decode(&stored).unwrap(), identity());
    }

    #[test]
    fn any_flipped_bit_or_missing_byte_of_an_identity_is_detected() {
        let stored = identity().encode();
        for at in 0..stored.len() {
            for bit in 0..8 {
                let mut damaged = stored.to_vec();
                damaged[at] ^= 1 << bit;
                assert!(Identity::decode(&damaged).is_err(), "byte {at} bit {bit}");
            }
            assert!(Identity::decode(&stored[..at]).is_err());
        }
    }

    #[test]
    fn another_layout_is_named() {
        let stored = String::from_utf8(identity().encode().to_vec()).unwrap();
        let other = stored.replace("layout 2", "layout 3");
        let refused = Identity::decode(other.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains("its layout is 3"), "{refused}");
    }

    #[test]
    fn a_rotation_retains_the_previous_key_and_the_first_line() {
        let (one, two) = (identity(), identity().rotated([8; 32]));
        assert_eq!(
            two.keys.iter().map(|k| k.number).collect::<Vec<_>>(),
            [2, 1]
        );
        let three = two.rotated([9; 32]);
        assert_eq!(
            three.keys.iter().map(|k| k.number).collect::<Vec<_>>(),
            [3, 2]
        );
        let first = |identity: &Identity| {
            identity
                .encode()
                .split(|b| *b == b'\n')
                .next()
                .map(<[u8]>::to_vec)
        };
        assert_eq!(first(&one), first(&three));
    }

    #[test]
    fn an_identity_whose_secret_is_not_64_hexadecimal_digits_is_refused() {
        let stored = |secret: &str| {
            let (number, secret) = (1, secret.to_owned());
            let content = Content {
                name: "main".into(),
                keys: vec![KeyContent { number, secret }],
            };
            let bytes = checked_text::encode(&format!("{TITLE} {}", BaseId(1)), &content);
            Identity::decode(&bytes)
        };
        assert!(stored(&"0a".repeat(32)).is_ok());
        for secret in ["", &"0a".repeat(31), &"0a".repeat(33), &"0g".repeat(32)] {
            assert!(stored(secret).is_err(), "{secret}");
        }
        // 64 bytes, and not 64 characters.
        assert!(stored(&"0é0".repeat(16)).is_err());
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let shown = format!("{:?}", identity());
        assert!(!shown.contains("07") && shown.contains("key 1"), "{shown}");
    }
}
