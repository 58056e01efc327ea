//! Readers and printers of the settings of `[tracing]`.
//!
//! Does: read URLs of collectors, headers and attributes in the form of the variables `OTEL_…`.
//! Does not: read those variables (`otel_variables`). Invariant: no message and no printer shows
//! the value of a header.

use url::Url;

use super::problem::InvalidValue;
use super::raw::Raw;
use super::secret::Secret;
use super::sections::OTLP_PROTOCOL;
use super::values::text;

/// Where collectors receive traces over HTTP.
pub(super) const TRACES_PATH: &str = "/v1/traces";
/// Most headers, and most resource attributes.
const MAX_PAIRS: usize = 64;

/// The URL of a collector, or none if the text is empty. One without a path gets the usual one.
pub(super) fn collector_url(raw: &Raw) -> Result<Option<Url>, InvalidValue> {
    let text = text(raw)?;
    if text.is_empty() {
        return Ok(None);
    }
    let form = "not the URL of a collector: write http://host:4318 or https://host:4318, \
                optionally with a path, without user, query and fragment";
    let mut url = Url::parse(&text).map_err(|_| InvalidValue::from(form))?;
    let plain = url.username().is_empty() && url.password().is_none();
    let bare = url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !plain || !bare || !url.has_host() {
        return Err(form.into());
    }
    if url.path() == "/" {
        url.set_path(TRACES_PATH);
    }
    Ok(Some(url))
}

pub(super) fn show_url(url: &Option<Url>) -> String {
    url.as_ref().map_or_else(String::new, Url::to_string)
}

/// The one form of OTLP that is spoken.
pub(super) fn otlp_protocol(raw: &Raw) -> Result<String, InvalidValue> {
    match text(raw)? {
        protocol if protocol == OTLP_PROTOCOL => Ok(protocol),
        _ => Err("write \"http/protobuf\", which collectors accept on port 4318".into()),
    }
}

pub(super) fn service_name(raw: &Raw) -> Result<String, InvalidValue> {
    let name = text(raw)?;
    match (1..=255).contains(&name.len()) {
        true => Ok(name),
        false => Err("write a name of 1 to 255 bytes".into()),
    }
}

/// `name=value` pairs, separated by commas; values are percent-encoded.
fn pairs(raw: &Raw, example: &str) -> Result<Vec<(String, String)>, InvalidValue> {
    let text = text(raw)?;
    let mut found: Vec<(String, String)> = Vec::new();
    for pair in text
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
    {
        let name_value = pair.split_once('=');
        let decoded = name_value.and_then(|(name, value)| {
            let name = name.trim();
            Some((name.to_owned(), decode(value.trim())?)).filter(|_| !name.is_empty())
        });
        let (name, value) = decoded.ok_or_else(|| {
            let form = "write name=value, separated by commas, values percent-encoded, such as";
            InvalidValue::from(format!("{form} \"{example}\""))
        })?;
        found.retain(|(known, _)| *known != name);
        found.push((name, value));
        if found.len() > MAX_PAIRS {
            return Err(format!("write at most {MAX_PAIRS} pairs").into());
        }
    }
    Ok(found)
}

/// Percent-decodes; `None` if it is not encoded text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Headers of an export.
pub(super) fn headers(raw: &Raw) -> Result<Vec<(String, Secret)>, InvalidValue> {
    let headers = pairs(raw, "authorization=Bearer%20TOKEN")?;
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let is_text = |c: char| !c.is_control() && c.is_ascii();
    for (name, value) in &headers {
        if !name.bytes().all(is_token) {
            return Err("a name of a header has letters, digits and hyphens".into());
        }
        if !value.chars().all(is_text) {
            return Err("the value of a header is printable ASCII".into());
        }
    }
    let headers = headers.into_iter();
    Ok(headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value.into()))
        .collect())
}

pub(super) fn show_headers(headers: &[(String, Secret)]) -> String {
    let shown = headers.iter().map(|(name, _)| format!("{name}=***"));
    shown.collect::<Vec<_>>().join(",")
}

/// Attributes of the resource.
pub(super) fn attributes(raw: &Raw) -> Result<Vec<(String, String)>, InvalidValue> {
    pairs(raw, "deployment.environment.name=production")
}

pub(super) fn show_attributes(attributes: &[(String, String)]) -> String {
    let shown = attributes
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)));
    shown.collect::<Vec<_>>().join(",")
}

/// Percent-encodes characters that would not be read back.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '%' | ',' | ' ' => encoded.push_str(&format!("%{:02X}", u32::from(c))),
            c => encoded.push(c),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Raw {
        Raw::Text(text.into())
    }

    #[test]
    fn the_url_of_a_collector_gets_the_usual_path_unless_it_has_one() {
        for (given, posted) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("https://c.example/", "https://c.example/v1/traces"),
            ("https://c.example/otlp/x", "https://c.example/otlp/x"),
        ] {
            assert_eq!(show_url(&collector_url(&raw(given)).unwrap()), posted);
        }
        assert_eq!(collector_url(&raw("")).unwrap(), None);
        for bad in [
            "localhost:4318",
            "grpc://c:4317",
            "http://u:p@c",
            "http://c?x",
            "http://",
        ] {
            assert!(collector_url(&raw(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn pairs_are_read_as_they_are_printed_and_headers_are_printed_without_values() {
        let given = "a=1,b=with%20space%2C%25, c = x=y ,a=2";
        let read = attributes(&raw(given)).unwrap();
        let expected = [("b", "with space,%"), ("c", "x=y"), ("a", "2")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read, expected);
        assert_eq!(attributes(&raw(&show_attributes(&read))).unwrap(), read);
        let read = headers(&raw("Authorization=Bearer%20hush")).unwrap();
        assert_eq!(show_headers(&read), "authorization=***");
        assert_eq!(read[0].1.expose(), "Bearer hush");
    }

    #[test]
    fn what_is_no_pair_or_no_header_is_refused() {
        for bad in ["a", "=b", "a=%2", "a=%zz", "a=%ff"] {
            assert!(attributes(&raw(bad)).is_err(), "{bad}");
        }
        for bad in ["a b=c", "a=%0Ahush", "a=\u{e4}hush"] {
            let refused = headers(&raw(bad)).unwrap_err().to_string();
            assert!(!refused.contains("hush"), "{refused}");
        }
        let many: Vec<String> = (0..=MAX_PAIRS).map(|n| format!("a{n}=b")).collect();
        assert!(attributes(&raw(&many.join(","))).is_err());
    }
}
