//! Lists of exchanges, for people.
//!
//! Does: find the exchanges of the base directories, page by page, and what each holds. Does not:
//! judge them. Invariant: a list names every exchange that existed while it was made, or fails.

use std::ops::Bound;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::error::ExchangeError;
use super::exchanges::Exchanges;
use super::overview::{ExchangeOverview, MarkerView};
use crate::id::ExchangeId;
use crate::storage::{Digest, ListedExchange, Storage, StorageError};

/// Exchanges inspected at a time.
const CONCURRENCY: usize = 16;

/// Which exchanges a list is for.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Only those of this query.
    pub query: Option<String>,
    /// Only those after this one, in the order of their ids.
    pub after: Option<ExchangeId>,
    /// At most so many.
    pub limit: usize,
}

/// A part of a list.
#[derive(Debug, Clone)]
pub struct ExchangePage {
    pub exchanges: Vec<ExchangeOverview>,
    /// Whether there are more after the last one.
    pub more: bool,
}

impl Exchanges {
    /// Exchanges of which any object exists, in the order of their ids. Two lists of each base
    /// directory for every 1,000 exchanges that there are, and for each that is in the answer a
    /// read of its marker and a list of its segments.
    ///
    /// # Errors
    /// [`ExchangeError::Storage`].
    pub async fn list(&self, filter: &ListFilter) -> Result<ExchangePage, ExchangeError> {
        let storage = &self.shared.deps.storage;
        let found = storage.survey().await?;
        let from = filter
            .after
            .as_ref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let after = found.range::<ExchangeId, _>((from, Bound::Unbounded));
        let mut chosen = after.filter(|(id, _)| {
            let query = filter.query.as_deref();
            query.is_none_or(|query| id.query() == query)
        });
        let page = chosen.by_ref().take(filter.limit);
        let page: Vec<_> = page
            .map(|(id, listed)| (id.clone(), listed.clone()))
            .collect();
        let more = chosen.next().is_some();
        let digest = match page.is_empty() {
            true => None,
            false => storage.current_digest().await,
        };
        let exchanges = stream::iter(page)
            .map(async |(id, listed)| self.listed(&id, &listed, digest.as_ref()).await)
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(ExchangePage { exchanges, more })
    }

    async fn listed(
        &self,
        exchange: &ExchangeId,
        listed: &ListedExchange,
        digest: Option<&Digest>,
    ) -> Result<ExchangeOverview, StorageError> {
        let storage = &self.shared.deps.storage;
        let segments = match listed.has_segments() {
            true => storage.list_segments(exchange).await?,
            false => Vec::new(),
        };
        let marker = MarkerView {
            bases: listed.marker_bases().map(|base| base.as_str()).collect(),
            claimed: listed.is_claimed(),
            contents: storage.read_listed(exchange, listed).await?,
        };
        Ok(ExchangeOverview::new(exchange, &marker, &segments, digest))
    }
}

/// What the base directories hold of one exchange: a read of its marker in each, and a list of its
/// segments.
///
/// # Errors
/// A base directory cannot be read or listed.
pub async fn overview_of(
    storage: &Storage,
    exchange: &ExchangeId,
) -> Result<ExchangeOverview, StorageError> {
    let observed = storage.observe_markers(exchange).await;
    observed.marker()?;
    let segments = storage.list_segments(exchange).await?;
    let digest = storage.current_digest().await;
    let marker = MarkerView {
        bases: observed.marker_bases().collect(),
        claimed: observed.is_claimed(),
        contents: observed.contents().collect(),
    };
    Ok(ExchangeOverview::new(
        exchange,
        &marker,
        &segments,
        digest.as_ref(),
    ))
}
