//! Tables and values in readable form.
//!
//! Pure. Does: align columns, round sizes and times. Does not: print. Invariant: a table has one
//! line for each row, whatever its cells contain.

use std::time::{Duration, UNIX_EPOCH};

use crate::config::units::format_duration;

/// A table with a heading for each column. Columns of numbers are aligned to the right.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Clone, Copy)]
struct Column {
    heading: &'static str,
    right: bool,
}

impl Table {
    /// A table; a heading that begins with `>` is one of a column of numbers.
    pub(super) fn new(headings: &[&'static str]) -> Self {
        let columns = headings.iter().map(|heading| Column {
            heading: heading.trim_start_matches('>'),
            right: heading.starts_with('>'),
        });
        Self {
            columns: columns.collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with a cell for each column.
    pub(super) fn add<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The text, each line with its end.
    pub(super) fn render(&self) -> String {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let cells = self.rows.iter().map(|row| row[index].chars().count());
                cells.fold(column.heading.chars().count(), usize::max)
            })
            .collect();
        let headings = self.columns.iter().map(|column| column.heading);
        let mut text = self.line(headings, &widths);
        for row in &self.rows {
            text.push_str(&self.line(row.iter().map(String::as_str), &widths));
        }
        text
    }

    fn line<'a>(&self, cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
        let cells = cells.zip(&self.columns).zip(widths);
        let cells = cells.map(|((cell, column), width)| match column.right {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end().replace('\n', " "))
    }
}

/// Whole seconds; `-` if unknown.
pub(super) fn seconds(seconds: Option<u64>) -> String {
    let shown = |seconds| format_duration(Duration::from_secs(seconds));
    seconds.map_or_else(|| "-".to_owned(), shown)
}

/// RFC 3339, which ends with the year 9999; the footer of a segment may claim more.
pub(super) fn utc(millis: u64) -> String {
    const END_OF_9999: u64 = 253_402_300_799_999;
    match millis {
        0..=END_OF_9999 => {
            let time = UNIX_EPOCH + Duration::from_millis(millis);
            humantime::format_rfc3339_millis(time).to_string()
        }
        _ => format!("{millis} ms after 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_numbers_are_to_the_right() {
        let mut table = Table::new(&["name", ">size", "rest"]);
        table.add(["a-long-name".into(), "7".into(), "x\ny".into()]);
        table.add(["b".into(), "123456".into(), String::new()]);
        let text = table.render();
        let expected = "\
name           size  rest
a-long-name       7  x y
b            123456
";
        assert_eq!(text, expected);
        assert_eq!(seconds(None), "-");
        assert_eq!(seconds(Some(90)), "1m 30s");
    }
}
