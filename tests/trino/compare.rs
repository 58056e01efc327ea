//! Whether two results are the same, and where they differ first.

use anyhow::{Result, bail, ensure};

use crate::query::Row;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The query orders all rows: they must come in the same order.
    Total,
    /// Equal as multisets.
    Any,
}

/// An error that shows the first difference if `actual` is not what was `expected`.
pub fn same(expected: &[Row], actual: &[Row], order: Order) -> Result<()> {
    ensure!(
        expected.len() == actual.len(),
        "{} rows were expected, {} came",
        expected.len(),
        actual.len()
    );
    let lines = |rows: &[Row]| -> Vec<String> {
        let mut lines: Vec<_> = rows
            .iter()
            .map(|row| serde_json::json!(row).to_string())
            .collect();
        if order == Order::Any {
            lines.sort_unstable();
        }
        lines
    };
    for (index, (e, a)) in lines(expected).into_iter().zip(lines(actual)).enumerate() {
        if e != a {
            bail!("row {index} differs: expected {e}, got {a}");
        }
    }
    Ok(())
}
