//! Query parameters: unknown ones and repeated ones are refused, numbers are decimal.

use std::borrow::Cow;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::number::decimal;
use crate::api::problem::Problem;

/// The parameters that a route takes.
pub trait QueryParameters: Sized {
    /// Their names.
    const NAMES: &'static [&'static str];

    /// Takes them from what was given; the names have been checked.
    fn from_values(values: &Values<'_>) -> Result<Self, Problem>;
}

/// What was given, each name at most once.
pub struct Values<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Values<'a> {
    fn parse(query: &'a str, names: &[&str]) -> Result<Self, Problem> {
        let mut values: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if !names.contains(&name.as_ref()) {
                return Err(unknown(&name, names));
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

    /// The number called `name`, up to `max`, if it was given.
    pub fn number(&self, name: &str, max: u64) -> Result<Option<u64>, Problem> {
        let value = self.0.iter().find(|(known, _)| known == name);
        value.map(|(_, text)| decimal(name, text, max)).transpose()
    }

    /// The same for numbers of 32 bits.
    pub fn number_u32(&self, name: &str, max: u32) -> Result<Option<u32>, Problem> {
        let number = self.number(name, u64::from(max))?;
        Ok(number.map(|n| u32::try_from(n).expect("it is at most a u32")))
    }
}

fn unknown(name: &str, names: &[&str]) -> Problem {
    let shown: String = name.chars().take(64).collect();
    let taken = if names.is_empty() {
        "this route takes none".to_owned()
    } else {
        format!("this route takes {}", names.join(", "))
    };
    Problem::invalid(format!("query parameter {shown:?} is not known: {taken}"))
}

/// The route's query parameters, and nothing else.
pub struct StrictQuery<T>(pub T);

impl<S: Send + Sync, T: QueryParameters> FromRequestParts<S> for StrictQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let values = Values::parse(parts.uri.query().unwrap_or_default(), T::NAMES)?;
        T::from_values(&values).map(Self)
    }
}

/// Says that a route takes no query parameters.
pub struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Values::parse(parts.uri.query().unwrap_or_default(), &[]).map(|_| Self)
    }
}
