//! Compares two results and reports the first difference.

use anyhow::{Result, bail, ensure};

use crate::query::Row;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The query orders all rows: the order must be the same.
    Total,
    /// The query leaves the order open: compared as multisets.
    Any,
}

/// Fails with the first difference if `actual` is not `expected`.
pub fn same(expected: &[Row], actual: &[Row], order: Order) -> Result<()> {
    ensure!(
        expected.len() == actual.len(),
        "expected {} rows, got {}",
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
