//! A page for people: what the daemon holds and does now.
//!
//! Does: say what is shown ([`view`]) and how ([`page`]), both pure. Does not: gather it (`api`
//! does).

pub mod page;
pub mod view;
