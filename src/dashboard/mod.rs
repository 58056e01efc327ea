//! The pages for people: overview, exchanges, base directories.
//!
//! Does: define their data ([`view`]) and render them, purely. Does not: gather the data (`api`
//! does). Invariant: a page is one document without scripts or external resources, and what came
//! from outside is text in it.

pub mod advice;
pub mod base_page;
pub mod exchange_pages;
pub mod findings;
pub mod history;
pub mod html;
pub mod overview;
mod plot;
pub mod view;
