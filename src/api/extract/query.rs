//! Query parameters: unknown and repeated ones are refused, values are decimal numbers.
//!
//! Invariant: a parameter has exactly one accepted spelling. Neither names nor values are
//! percent-decoded, as no accepted name or value needs encoding.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::number::decimal;
use crate::api::problem::Problem;
use crate::id::ExchangeId;

/// The query parameters of a route.
pub(crate) trait QueryParameters: Sized {
    const NAMES: &'static [&'static str];

    /// Parses the values; their names have been checked.
    fn from_values(values: &Values<'_>) -> Result<Self, Problem>;
}

/// The parameters of the request, each name at most once.
pub(crate) struct Values<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Values<'a> {
    fn parse(query: &'a str, names: &[&str]) -> Result<Self, Problem> {
        let mut values: Vec<(&str, &str)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !names.contains(&name) {
                return Err(unknown(name, names));
            }
            if values.iter().any(|(known, _)| *known == name) {
                return Err(Problem::invalid(format!(
                    "query parameter {name} is given more than once: give it once"
                )));
            }
            values.push((name, value));
        }
        Ok(Self(values))
    }

    /// The value of the parameter `name` as a number, at most `max`, if it is present.
    pub(crate) fn number<N>(&self, name: &str, max: N) -> Result<Option<N>, Problem>
    where
        N: FromStr + PartialOrd + Display,
    {
        let value = self.0.iter().find(|(known, _)| *known == name);
        value.map(|(_, text)| decimal(name, text, max)).transpose()
    }

    /// The value of the parameter `name` as an id, if it is present: text that is safe to compare
    /// and to print.
    pub(crate) fn id(&self, name: &str) -> Result<Option<String>, Problem> {
        let value = self.0.iter().find(|(known, _)| *known == name);
        let id = value.map(|(_, text)| text.parse::<ExchangeId>());
        Ok(id.transpose()?.map(|id| id.to_string()))
    }
}

fn unknown(name: &str, names: &[&str]) -> Problem {
    let shown: String = name.chars().take(64).collect();
    let accepted = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    Problem::invalid(format!(
        "unknown query parameter {shown:?}: this route accepts {accepted}"
    ))
}

/// The query parameters of a route; refuses any other.
pub(crate) struct StrictQuery<T>(pub T);

impl<S: Send + Sync, T: QueryParameters> FromRequestParts<S> for StrictQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let values = Values::parse(parts.uri.query().unwrap_or_default(), T::NAMES)?;
        T::from_values(&values).map(Self)
    }
}

/// Refuses all query parameters.
pub(crate) struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Values::parse(parts.uri.query().unwrap_or_default(), &[]).map(|_| Self)
    }
}
