//! Draws handles from a seed: a planned one, changed in one of the ways that a client could try if
//! it had the key.

use stopover::runtime::Random;

use super::read::sealed::{Fields, RECORD, Range};

/// The most ranges that a handle of 2 MiB has room for are a few more than this.
const VERY_MANY: u64 = 90_000;
/// Numbers at which something may overflow.
const NUMBERS: [u64; 14] = [
    0,
    1,
    15,
    16,
    31,
    32,
    33,
    4096,
    1 << 20,
    (1 << 32) - 1,
    1 << 32,
    1 << 48,
    u64::MAX - 1,
    u64::MAX,
];

/// One input.
pub struct Drawn {
    /// Which shape and which input it is.
    pub shape: &'static str,
    pub number: usize,
    pub text: String,
    pub skip: u64,
    /// Pages that a complete read would send.
    pub pages: Option<u64>,
}

impl std::fmt::Debug for Drawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            shape,
            number,
            text,
            skip,
            pages,
        } = self;
        let text = &text[..text.len().min(200)];
        write!(
            f,
            "input {number} ({shape}), skip {skip}, {pages:?} pages: {text}"
        )
    }
}

pub struct Mutation {
    random: Random,
    secret: [u8; 32],
}

type Shape = (&'static str, fn(&Mutation, &mut Fields));

const SHAPES: [Shape; 14] = [
    ("as planned", |_, _| {}),
    ("equal ranges", Mutation::equal_ranges),
    ("very many ranges", Mutation::very_many_ranges),
    ("overlapping ranges", Mutation::overlapping_ranges),
    ("ranges in any order", Mutation::any_order),
    ("beyond the segment", Mutation::beyond_the_segment),
    ("without length", Mutation::without_length),
    ("longest", Mutation::longest),
    ("another exchange", Mutation::another_exchange),
    ("another partition", Mutation::another_partition),
    ("unknown segment", Mutation::unknown_segment),
    ("other counts", Mutation::other_counts),
    ("odd numbers", Mutation::odd_numbers),
    ("no ranges", Mutation::no_ranges),
];

impl Mutation {
    pub fn new(random: Random, secret: [u8; 32]) -> Self {
        Self { random, secret }
    }

    fn below(&self, n: u64) -> u64 {
        self.random.next_u64() % n
    }

    fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn number(&self) -> u64 {
        match self.below(4) {
            0 => self.below(1 << 20),
            1 => self.random.next_u64(),
            _ => NUMBERS[self.below(NUMBERS.len() as u64) as usize],
        }
    }

    fn pick<'a>(&self, fields: &'a mut Fields) -> &'a mut Range {
        let n = self.below(fields.ranges.len() as u64);
        &mut fields.ranges[n as usize]
    }

    /// A planned handle in the shape of this input, with some pages skipped, now and then with
    /// bytes changed before it is sealed.
    pub fn draw(&mut self, number: usize, mut fields: Fields) -> Drawn {
        let (shape, mutate) = SHAPES[number % SHAPES.len()];
        mutate(self, &mut fields);
        if !self.one_in(4) {
            fields.agree();
        }
        let pages = fields.pages();
        let skip = match self.below(6) {
            0 => 1,
            1 => pages.unwrap_or(0),
            2 => pages.unwrap_or(0).saturating_add(1),
            3 => self.below(pages.unwrap_or(0).clamp(1, 1 << 20)),
            _ => 0,
        };
        let text = fields.seal(&self.secret);
        Drawn {
            shape,
            number,
            text,
            skip,
            pages: pages.and_then(|pages| pages.checked_sub(skip)),
        }
    }

    /// The ranges of the handle, again and again.
    fn repeat(&self, fields: &mut Fields, count: u64) {
        let cycle = fields.ranges.clone();
        let count = count as usize / cycle.len().max(1) * cycle.len();
        fields.ranges = cycle
            .iter()
            .cycle()
            .take(count.max(cycle.len()))
            .cloned()
            .collect();
    }

    fn equal_ranges(&self, fields: &mut Fields) {
        let one = self.pick(fields).clone();
        fields.ranges = vec![one; 2 + self.below(4000) as usize];
    }

    fn very_many_ranges(&self, fields: &mut Fields) {
        self.repeat(fields, VERY_MANY - self.below(VERY_MANY / 2));
        if self.one_in(2) {
            for (n, range) in fields.ranges.iter_mut().enumerate() {
                range.sequence += n as u64;
            }
        }
    }

    fn overlapping_ranges(&self, fields: &mut Fields) {
        self.repeat(fields, 50);
        for n in 0..fields.ranges.len() {
            let (by, range) = (self.below(100), &mut fields.ranges[n]);
            if self.one_in(3) {
                range.offset += by;
                range.length -= by.min(range.length);
            } else if range.gap >= by && self.one_in(2) {
                range.length += by;
                range.gap -= by;
            }
        }
    }

    fn any_order(&self, fields: &mut Fields) {
        self.repeat(fields, 400);
        for n in (1..fields.ranges.len()).rev() {
            fields.ranges.swap(n, self.below(n as u64 + 1) as usize);
        }
    }

    fn beyond_the_segment(&self, fields: &mut Fields) {
        let by = self.number() % (1 << 32);
        let at_once = self.one_in(2);
        let range = self.pick(fields);
        match at_once {
            true => range.offset += by,
            false => range.length += by,
        }
    }

    fn without_length(&self, fields: &mut Fields) {
        let length = self.below(2 * RECORD);
        self.pick(fields).length = length;
    }

    fn longest(&self, fields: &mut Fields) {
        if self.one_in(2) {
            self.repeat(fields, 2000);
        }
        for range in &mut fields.ranges {
            range.length = (1 << 32) - range.offset;
            range.gap = 0;
        }
    }

    fn another_exchange(&self, fields: &mut Fields) {
        let names = ["w", "other", "never", "", "..", "%2e", "w/", "é"];
        fields.exchange = names[self.below(names.len() as u64) as usize].to_owned();
    }

    fn another_partition(&self, fields: &mut Fields) {
        fields.partition = match self.below(2) {
            0 => 1 - fields.partition.min(1),
            _ => self.number(),
        };
    }

    fn unknown_segment(&self, fields: &mut Fields) {
        match self.below(4) {
            0 => self.pick(fields).sequence = self.number(),
            1 => self.pick(fields).daemon = self.number(),
            2 => self.pick(fields).base = self.number(),
            _ => fields.daemons[0] = self.number(),
        }
    }

    fn other_counts(&self, fields: &mut Fields) {
        let (pages, checksum) = (self.number(), self.random.next_u64() as u32);
        let kind = self.below(3);
        let range = self.pick(fields);
        match kind {
            0 => range.pages = pages,
            1 => range.pages += 1,
            _ => range.checksum = checksum,
        }
    }

    fn odd_numbers(&self, fields: &mut Fields) {
        for _ in 0..=self.below(3) {
            let number = self.number();
            let what = self.below(9);
            let range = self.pick(fields);
            match what {
                0 => range.offset = number,
                1 => range.length = number,
                2 => range.gap = number,
                3 => range.pages = number,
                4 => range.sequence = number,
                5 => fields.partition = number,
                6 => fields.bytes = number,
                7 => fields.key = number,
                _ => fields.bases.push(number),
            }
        }
    }

    fn no_ranges(&self, fields: &mut Fields) {
        fields.ranges.clear();
    }
}
