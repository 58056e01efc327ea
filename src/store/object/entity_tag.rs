//! Entity tags.

/// An entity tag as it is compared: without quotes, which some servers omit in lists; `None` if the
/// store has none.
pub(super) fn normalized(e_tag: Option<&str>) -> Option<String> {
    let tag = e_tag?;
    let tag = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
    (!tag.is_empty()).then(|| tag.to_owned())
}
