//! What a token allows, as a set.
//!
//! Does: name, combine and parse scopes. Does not: know routes (`api::authorization`) or tokens.

use std::fmt;

/// A set of what a token may do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// None of it.
    pub const NONE: Self = Self(0);
    /// Read what exchanges hold.
    pub const READ: Self = Self(1);
    /// Announce, renew and close exchanges, and write into them.
    pub const WRITE: Self = Self(2);
    /// See which exchanges there are, and close them.
    pub const ADMIN: Self = Self(4);
    /// All of it.
    pub const ALL: Self = Self(7);

    const NAMES: [(&'static str, Self); 3] = [
        ("read", Self::READ),
        ("write", Self::WRITE),
        ("admin", Self::ADMIN),
    ];

    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `wanted` is among them.
    pub fn any_of(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }

    /// The scopes of a list such as `read,write`; `None` if one of them is unknown.
    pub fn parse(list: &str) -> Option<Self> {
        list.split(',').try_fold(Self::NONE, |all, word| {
            let (_, scope) = Self::NAMES.iter().find(|(name, _)| *name == word)?;
            Some(all.and(*scope))
        })
    }

    fn names(self) -> Vec<&'static str> {
        let mine = Self::NAMES.iter().filter(|(_, scope)| self.any_of(*scope));
        mine.map(|(name, _)| *name).collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(" or "))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.names().join(","))
    }
}
