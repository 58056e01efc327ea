//! The descriptor of an exchange: all that a daemon needs to know about it, sealed, opaque to
//! clients.
//!
//! Pure: a descriptor to text and back. Does not: store it (`marker`) or determine whether the
//! exchange is open (`lookup`). Invariant: a decoded descriptor was issued by a daemon that has the
//! same base directory; anything else is refused, with memory in proportion to its text. A
//! descriptor never changes: every daemon writes the same bytes of the marker.

use std::time::Duration;

use crate::id::{BaseId, ExchangeId};
use crate::segment::error::DecodeError;
use crate::segment::varint::{Cursor, put, put_all, put_text};
use crate::storage::seals::{SealError, SealedText, Seals, sealed_text, sealing_key};

/// The encoding that this code writes, and the only one that it reads. No source handle begins
/// with it.
pub const VERSION: u8 = 0x81;

/// The longest text of a descriptor, in characters: it is sent as a header.
pub const MAX_ENCODED: usize = 4096;

/// The properties of an exchange, fixed when it is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeSpec {
    /// Number of output partitions.
    pub partitions: u32,
    /// Whether the pages of a partition are read in the order in which their sink added them.
    pub ordered: bool,
}

/// What was announced. The lease is the exchange's own: daemons with other settings judge by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub exchange: ExchangeId,
    pub spec: ExchangeSpec,
    /// How long the exchange stays open without a renewal, in whole milliseconds.
    pub lease: Duration,
    /// For how long, after it was announced, its marker may still be missing, in whole
    /// milliseconds.
    pub announcement: Duration,
    /// Drawn for each announcement.
    pub number: u64,
    /// The set: the base directories that were in order. The marker is first put
    /// into the first one.
    pub set: Vec<BaseId>,
}

/// Why a text is not a descriptor, or not one that this daemon can open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    #[error("more than {MAX_ENCODED} characters")]
    TooLong,
    #[error("version {version}, but this daemon reads version {VERSION}")]
    UnknownVersion { version: u8 },
    #[error("it names no base directory")]
    NoBase,
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The seal is valid, but the content is not.
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
}

impl Descriptor {
    /// Encodes it as text, base64url without padding, under a seal of a base directory of its set.
    ///
    /// # Errors
    /// None of them was identified by this daemon, or there are too many.
    pub fn seal(&self, seals: &Seals) -> Result<String, DescriptorError> {
        let mut reason = DescriptorError::NoBase;
        for (index, id) in self.set.iter().enumerate() {
            let (base, identity) = match seals.by_id(*id) {
                Ok(found) => found,
                Err(error) => {
                    reason = error.into();
                    continue;
                }
            };
            let key = sealing_key(base, identity)?;
            let mut out = vec![VERSION];
            put_all(&mut out, [u64::from(key.number), index as u64]);
            put(&mut out, self.set.len() as u64);
            for id in &self.set {
                out.extend_from_slice(&id.0.to_le_bytes());
            }
            self.encode_fields(&mut out);
            let text = sealed_text(&out, key.secret());
            return match text.len() <= MAX_ENCODED {
                true => Ok(text),
                false => Err(DescriptorError::TooLong),
            };
        }
        Err(reason)
    }

    fn encode_fields(&self, out: &mut Vec<u8>) {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let ExchangeSpec {
            partitions,
            ordered,
        } = self.spec;
        put_text(out, self.exchange.as_str());
        put_all(out, [u64::from(partitions), u64::from(ordered)]);
        put_all(out, [millis(self.lease), millis(self.announcement)]);
        out.extend_from_slice(&self.number.to_le_bytes());
    }

    /// Decodes the text of a descriptor that a daemon of the fleet has sealed.
    ///
    /// # Errors
    /// [`DescriptorError`] if it was not returned by [`Descriptor::seal`], or this daemon lacks the
    /// base directory or the key.
    pub fn open(text: &str, seals: &Seals) -> Result<Self, DescriptorError> {
        if text.len() > MAX_ENCODED {
            return Err(DescriptorError::TooLong);
        }
        let sealed = SealedText::decode(text)?;
        let fields = match sealed.body().split_first() {
            Some((&VERSION, fields)) => fields,
            Some((&version, _)) => return Err(DescriptorError::UnknownVersion { version }),
            None => return Err(SealError::TooShort.into()),
        };
        let mut cursor = Cursor::new(fields);
        let (number, index) = (cursor.u32()?, cursor.u64()?);
        let set = cursor.list(8, |cursor| cursor.fixed_u64().map(BaseId))?;
        let sealing = usize::try_from(index).ok().and_then(|at| set.get(at));
        let sealing = sealing.ok_or(DescriptorError::NoBase)?;
        sealed.check(seals.by_id(*sealing)?, number)?;
        Ok(decode_fields(cursor, set)?)
    }
}

fn decode_fields(mut cursor: Cursor<'_>, set: Vec<BaseId>) -> Result<Descriptor, DecodeError> {
    let exchange = cursor.parsed("exchange id")?;
    let partitions = cursor.u32()?;
    let ordered = match cursor.u64()? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::Invalid { field: "ordered" }),
    };
    let lease = Duration::from_millis(cursor.u64()?);
    let announcement = Duration::from_millis(cursor.u64()?);
    let number = cursor.fixed_u64()?;
    cursor.finish()?;
    Ok(Descriptor {
        exchange,
        spec: ExchangeSpec {
            partitions,
            ordered,
        },
        lease,
        announcement,
        number,
        set,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::seals::testing::{identity, seals};
    use proptest::prelude::*;

    fn example(set: &[u64]) -> Descriptor {
        Descriptor {
            exchange: "20261123_1_0_ab-67e55044-10b1-426f-9247-bb680e5fe0c8"
                .parse()
                .unwrap(),
            spec: ExchangeSpec {
                partitions: 50,
                ordered: true,
            },
            lease: Duration::from_millis(900_001),
            announcement: Duration::from_secs(60),
            number: 0xFEED,
            set: set.iter().copied().map(BaseId).collect(),
        }
    }

    #[test]
    fn a_descriptor_is_opened_as_sealed_and_its_text_does_not_change() {
        let text = example(&[2, 1]).seal(&seals()).unwrap();
        assert_eq!(Descriptor::open(&text, &seals()).unwrap(), example(&[2, 1]));
        let golden = include_str!("../../tests/golden/descriptor-v1.txt");
        assert_eq!(text, golden.trim());
        assert!(text.len() < 200, "{} characters", text.len());
    }

    #[test]
    fn the_longest_descriptor_of_a_hundred_base_directories_fits_into_a_header() {
        let names = (0..100).map(|n| identity(n, &format!("base-{n}")));
        let mut descriptor = example(&(0..100).collect::<Vec<_>>());
        descriptor.exchange = "q".repeat(crate::id::MAX_EXCHANGE_ID).parse().unwrap();
        let text = descriptor.seal(&Seals::new(names.collect())).unwrap();
        assert!(text.len() < MAX_ENCODED, "{} characters", text.len());
    }

    #[test]
    fn a_descriptor_as_long_as_the_limit_is_sealed_and_a_longer_one_refused() {
        let names = (0..380).map(|n| identity(n, &format!("base-{n}")));
        let seals = Seals::new(names.collect());
        let mut lengths = Vec::new();
        for length in 1..=64 {
            let mut descriptor = example(&(0..372).collect::<Vec<_>>());
            descriptor.exchange = "q".repeat(length).parse().unwrap();
            match descriptor.seal(&seals) {
                Ok(text) => {
                    assert_eq!(Descriptor::open(&text, &seals).unwrap(), descriptor);
                    lengths.push(text.len());
                }
                Err(error) => assert_eq!(error, DescriptorError::TooLong),
            }
        }
        assert_eq!(lengths.last(), Some(&MAX_ENCODED));
        assert!(lengths.len() < 64, "some are longer");
        for length in [MAX_ENCODED + 1, 2 * MAX_ENCODED] {
            let refused = Descriptor::open(&"A".repeat(length), &seals);
            assert_eq!(refused, Err(DescriptorError::TooLong));
        }
    }

    #[test]
    fn an_exchange_without_order_is_opened_as_sealed_and_a_third_kind_refused() {
        let mut descriptor = example(&[1]);
        descriptor.spec.ordered = false;
        let text = descriptor.seal(&seals()).unwrap();
        assert_eq!(Descriptor::open(&text, &seals()).unwrap(), descriptor);
        let with_order = |ordered| {
            let mut fields = Vec::new();
            put_text(&mut fields, "q");
            put_all(&mut fields, [1, ordered, 1000, 1000]);
            fields.extend_from_slice(&[0; 8]);
            with_fields(&fields)
        };
        assert!(with_order(1).unwrap().spec.ordered);
        let refused = with_order(2).unwrap_err();
        let field = "ordered";
        assert_eq!(refused, DecodeError::Invalid { field }.into());
    }

    #[test]
    fn a_daemon_that_lacks_a_part_of_the_set_seals_and_opens_with_the_rest() {
        let lacks = Seals::new(vec![identity(1, "a")]);
        let text = example(&[7, 1]).seal(&lacks).unwrap();
        assert_eq!(Descriptor::open(&text, &lacks).unwrap(), example(&[7, 1]));
        let id = BaseId(7);
        let refused = example(&[7]).seal(&lacks);
        assert_eq!(refused, Err(SealError::UnknownBase { id }.into()));
        assert_eq!(example(&[]).seal(&lacks), Err(DescriptorError::NoBase));
    }

    #[test]
    fn a_descriptor_that_no_daemon_of_the_fleet_sealed_is_refused() {
        let text = example(&[1]).seal(&seals()).unwrap();
        let body = SealedText::decode(&text).unwrap();
        let forged = sealed_text(body.body(), &[9; 32]);
        let refused = Descriptor::open(&forged, &seals());
        assert_eq!(refused, Err(SealError::WrongSeal.into()));
    }

    /// The fields of a descriptor after its version, key and set.
    fn with_fields(fields: &[u8]) -> Result<Descriptor, DescriptorError> {
        let mut body = vec![VERSION, 1, 0, 1];
        body.extend_from_slice(&1_u64.to_le_bytes());
        body.extend_from_slice(fields);
        Descriptor::open(&sealed_text(&body, &[1; 32]), &seals())
    }

    proptest! {
        #[test]
        fn a_damaged_descriptor_is_refused(position: prop::sample::Index, bit in 0u8..8) {
            let text = example(&[1, 2]).seal(&seals()).unwrap();
            let sealed = SealedText::decode(&text).unwrap();
            let mut body = sealed.body().to_vec();
            let position = position.index(body.len());
            body[position] ^= 1 << bit;
            let (head, tail) = text.split_at(position % text.len());
            let flipped = match tail.as_bytes()[0] { b'A' => "B", _ => "A" };
            let damaged = format!("{head}{flipped}{}", &tail[1..]);
            prop_assert!(Descriptor::open(&damaged, &seals()).is_err());
            // Sealed with a foreign key.
            let forged = sealed_text(&body, &[200; 32]);
            prop_assert!(Descriptor::open(&forged, &seals()).is_err());
        }

        #[test]
        fn decoding_any_bytes_does_not_panic(body: Vec<u8>) {
            let _ = with_fields(&body);
        }
    }
}
