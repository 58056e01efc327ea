//! Scopes of tokens: sets of permitted kinds of operations.
//!
//! Does: name, combine and parse scopes. Does not: know routes (`api::authorization` does) or
//! tokens.

use std::fmt;

/// A set of scopes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    pub const NONE: Self = Self(0);
    /// Read what a source handle names.
    pub const READ: Self = Self(1);
    /// Write to exchanges.
    pub const WRITE: Self = Self(2);
    /// Announce, renew, plan and close exchanges.
    pub const COORDINATE: Self = Self(4);
    /// List, inspect and close exchanges, and read them without a handle.
    pub const ADMIN: Self = Self(8);
    pub const ALL: Self = Self(15);

    const NAMES: [(&'static str, Self); 4] = [
        ("read", Self::READ),
        ("write", Self::WRITE),
        ("coordinate", Self::COORDINATE),
        ("admin", Self::ADMIN),
    ];

    /// The union of both sets.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the sets intersect.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Parses a list such as `read,write`; `None` if a name is unknown.
    pub fn parse(list: &str) -> Option<Self> {
        list.split(',').try_fold(Self::NONE, |all, word| {
            let (_, scope) = Self::NAMES.iter().find(|(name, _)| *name == word)?;
            Some(all.or(*scope))
        })
    }

    fn names(self) -> Vec<&'static str> {
        let mine = Self::NAMES
            .iter()
            .filter(|(_, scope)| self.intersects(*scope));
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
