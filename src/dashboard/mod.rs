//! The status page.
//!
//! Does: define its data ([`view`]) and render it ([`page`]), both pure. Does not: gather the data
//! (`api` does).

pub mod page;
pub mod view;
