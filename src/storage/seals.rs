//! Seals: message authentication codes that only daemons of the fleet can create and verify.
//!
//! Does: seal a text with a key of a base directory, and verify such a seal. Does not: interpret
//! the text (`catalog::handle`, `exchange::descriptor`). Invariant: a text whose seal was verified
//! was sealed by a daemon that has the same base directory.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

use super::identity::{Identity, SealKey};
use crate::id::{BaseId, BaseName};

/// Bytes of the seal: the beginning of an HMAC-SHA256.
const SEAL_LEN: usize = 16;

/// The base directories of a daemon, whose keys create and verify seals.
#[derive(Debug, Clone, Default)]
pub struct Seals(Arc<[(BaseName, Option<Arc<Identity>>)]>);

/// Why a text cannot be sealed, or its seal cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("not base64url: {0}")]
    NotBase64(#[from] base64::DecodeError),
    #[error("too short")]
    TooShort,
    #[error(
        "it was made for base directory {id}, which this daemon does not have; every daemon needs \
         the same base directories"
    )]
    UnknownBase { id: BaseId },
    /// The base directory may be one of these.
    #[error("the identity of base directory {bases} could not be read yet")]
    Unidentified { bases: String },
    #[error("it was sealed with key {number} of base directory {base}, which this daemon lacks")]
    UnknownKey { base: BaseName, number: u32 },
    #[error("the seal does not match: it was not made by this fleet, or was changed")]
    WrongSeal,
}

impl Seals {
    /// The base directories by name, with the identities that were read.
    pub fn new(bases: Vec<(BaseName, Option<Arc<Identity>>)>) -> Self {
        Self(bases.into())
    }

    fn identified(&self) -> impl Iterator<Item = (&BaseName, &Identity)> {
        let bases = self.0.iter();
        bases.filter_map(|(name, identity)| Some((name, identity.as_deref()?)))
    }

    /// The name of some identified base directory.
    ///
    /// # Errors
    /// None was identified.
    pub fn any(&self) -> Result<&BaseName, SealError> {
        let first = self.identified().next().map(|(name, _)| name);
        first.ok_or_else(|| SealError::Unidentified {
            bases: "none".into(),
        })
    }

    /// The identity of a base directory.
    ///
    /// # Errors
    /// It was not read yet.
    pub fn by_name(&self, name: &BaseName) -> Result<&Identity, SealError> {
        let found = self.identified().find(|(known, _)| *known == name);
        found
            .map(|(_, identity)| identity)
            .ok_or_else(|| SealError::Unidentified {
                bases: name.to_string(),
            })
    }

    /// The name and the identity of a base directory.
    ///
    /// # Errors
    /// This daemon does not have it, or has not identified it yet.
    pub fn by_id(&self, id: BaseId) -> Result<(&BaseName, &Identity), SealError> {
        if let Some(found) = self.identified().find(|(_, identity)| identity.id == id) {
            return Ok(found);
        }
        let unread = self.0.iter().filter(|(_, identity)| identity.is_none());
        let unread: Vec<&str> = unread.map(|(name, _)| name.as_str()).collect();
        match unread.is_empty() {
            true => Err(SealError::UnknownBase { id }),
            false => Err(SealError::Unidentified {
                bases: unread.join(", "),
            }),
        }
    }
}

/// The key that seals with this identity.
///
/// # Errors
/// It has none.
pub fn sealing_key<'a>(base: &BaseName, identity: &'a Identity) -> Result<&'a SealKey, SealError> {
    identity.keys.first().ok_or_else(|| SealError::UnknownKey {
        base: base.clone(),
        number: 0,
    })
}

fn seal(secret: &[u8; 32], body: &[u8]) -> [u8; SEAL_LEN] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, body);
    let (head, _) = tag.as_ref().split_at(SEAL_LEN);
    head.try_into().expect("the tag is longer")
}

/// A body under its seal, in base64url without padding.
pub fn sealed_text(body: &[u8], secret: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode([body, &seal(secret, body)].concat())
}

/// A text that claims to be sealed.
#[derive(Debug)]
pub struct SealedText {
    bytes: Vec<u8>,
}

impl SealedText {
    /// Decodes the text without checking the seal.
    ///
    /// # Errors
    /// [`SealError::NotBase64`] or [`SealError::TooShort`].
    pub fn decode(text: &str) -> Result<Self, SealError> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim())?;
        match bytes.len() > SEAL_LEN {
            true => Ok(Self { bytes }),
            false => Err(SealError::TooShort),
        }
    }

    /// The sealed bytes, not verified yet.
    pub fn body(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - SEAL_LEN]
    }

    /// Checks the seal with a key of a base directory.
    ///
    /// # Errors
    /// [`SealError::UnknownKey`] or [`SealError::WrongSeal`].
    pub fn check(
        &self,
        (base, identity): (&BaseName, &Identity),
        number: u32,
    ) -> Result<(), SealError> {
        let key = identity.keys.iter().find(|key| key.number == number);
        let key = key.ok_or_else(|| SealError::UnknownKey {
            base: base.clone(),
            number,
        })?;
        let expected = seal(key.secret(), self.body());
        match bool::from(expected.ct_eq(&self.bytes[self.body().len()..])) {
            true => Ok(()),
            false => Err(SealError::WrongSeal),
        }
    }
}

/// Base directories for tests, whose keys are derived from their ids.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn identity(id: u64, name: &str) -> (BaseName, Option<Arc<Identity>>) {
        let name: BaseName = name.parse().unwrap();
        let secret = [id.to_le_bytes()[0]; 32];
        let identity = Identity::new(BaseId(id), name.clone(), secret);
        (name, Some(Arc::new(identity)))
    }

    /// Two base directories: 1, named "a", and 2, named "b".
    pub(crate) fn seals() -> Seals {
        Seals::new(vec![identity(1, "a"), identity(2, "b")])
    }
}

#[cfg(test)]
mod tests {
    use super::testing::seals;
    use super::*;

    #[test]
    fn a_text_that_is_no_longer_than_a_seal_is_too_short() {
        let text = |length| URL_SAFE_NO_PAD.encode(vec![0; length]);
        for length in [0, 1, SEAL_LEN] {
            let refused = SealedText::decode(&text(length)).unwrap_err();
            assert_eq!(refused, SealError::TooShort, "{length}");
        }
        assert_eq!(SealedText::decode(&text(SEAL_LEN + 1)).unwrap().body(), [0]);
    }

    #[test]
    fn only_the_key_of_the_base_directory_verifies_its_seal() {
        let seals = seals();
        let text = sealed_text(b"body", &[1; 32]);
        let sealed = SealedText::decode(&text).unwrap();
        assert_eq!(sealed.body(), b"body");
        let check = |id, number| sealed.check(seals.by_id(BaseId(id)).unwrap(), number);
        assert_eq!(check(1, 1), Ok(()));
        assert_eq!(check(2, 1), Err(SealError::WrongSeal));
        let base = "a".parse().unwrap();
        assert_eq!(check(1, 2), Err(SealError::UnknownKey { base, number: 2 }));
    }

    #[test]
    fn a_base_directory_is_found_by_its_name_once_it_was_identified() {
        let b: BaseName = "b".parse().unwrap();
        assert_eq!(seals().by_name(&b).unwrap().id, BaseId(2));
        let unread = Seals::new(vec![(b.clone(), None), testing::identity(1, "a")]);
        assert_eq!(unread.any().unwrap().as_str(), "a");
        let bases = "b".to_owned();
        let refused = unread.by_name(&b).unwrap_err();
        assert_eq!(refused, SealError::Unidentified { bases });
        assert!(Seals::default().any().is_err());
    }
}
