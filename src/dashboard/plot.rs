//! A plot of one or two series over the last hour, as SVG without text.
//!
//! Pure. The axis is written beside it in HTML, so that it stays readable at any width. Invariant:
//! the coordinates are numbers within the drawing, whatever the values are.

use std::fmt::Write as _;
use std::time::Duration;

use super::history::Series;
use super::html::escape;
use crate::human::bytes_per_second;

const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 100.0;
const SPAN: Duration = Duration::from_secs(3600);

/// How a value is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    BytesPerSecond,
    PerSecond,
    Share,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::BytesPerSecond => bytes_per_second(value),
            Self::PerSecond if value < 10.0 => format!("{value:.1}/s"),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Share => format!("{:.0} %", value * 100.0),
        }
    }
}

/// One line of a plot.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub name: &'static str,
    pub series: Series,
}

impl Line {
    /// The newest value.
    fn now(&self) -> f64 {
        self.series.last().map_or(0.0, |(_, value)| *value)
    }
}

/// A figure with its title, legend and axis. The top of the plot is the largest value, or all of a
/// share.
pub(super) fn figure(title: &str, lines: &[Line], unit: Unit) -> String {
    let values = lines.iter().flat_map(|line| &line.series);
    let largest = values.map(|(_, value)| *value).fold(0.0, f64::max);
    let top = match unit {
        Unit::Share => 1.0,
        _ => largest,
    };
    let title = escape(title);
    let now: Vec<String> = lines
        .iter()
        .map(|line| format!("{} {}", line.name, unit.show(line.now())))
        .collect();
    let label = format!("{title} over the last hour; now {}", now.join(", "));
    let mut html = format!(
        "<figure><h3>{title}</h3><div class=\"axis\"><span>{}</span></div>\
         <svg role=\"img\" aria-label=\"{label}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         preserveAspectRatio=\"none\"><line x1=\"0\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" \
         y2=\"{HEIGHT}\"/>",
        unit.show(top)
    );
    for (line, class) in lines.iter().zip(["one", "two"]) {
        let _ = write!(html, "<polyline class=\"{class}\" points=\"");
        for (age, value) in &line.series {
            let (x, y) = (x(*age), y(*value, top));
            let _ = write!(html, "{x:.1},{y:.1} ");
        }
        html.push_str("\"/>");
    }
    html.push_str("</svg><div class=\"axis\"><span>1 h ago</span><span>now</span></div>");
    html.push_str("<figcaption><ul class=\"legend\">");
    for (text, class) in now.iter().zip(["key1", "key2"]) {
        let _ = write!(html, "<li class=\"{class}\">{}</li>", escape(text));
    }
    html.push_str("</ul></figcaption></figure>");
    html
}

fn x(age: Duration) -> f64 {
    let share = age.as_secs_f64() / SPAN.as_secs_f64();
    WIDTH * (1.0 - share.clamp(0.0, 1.0))
}

fn y(value: f64, top: f64) -> f64 {
    let share = if top > 0.0 { value / top } else { 0.0 };
    // The stroke stays inside.
    1.0 + (HEIGHT - 2.0) * (1.0 - share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[(u64, f64)], unit: Unit) -> String {
        let series = values
            .iter()
            .map(|(age, v)| (Duration::from_secs(*age), *v));
        let line = Line {
            name: "in",
            series: series.collect(),
        };
        let html = figure("Traffic", &[line], unit);
        let points = html.split("points=\"").nth(1).unwrap();
        points.split('"').next().unwrap().trim().to_owned()
    }

    #[test]
    fn the_newest_value_is_at_the_right_and_the_largest_at_the_top() {
        let rates = points(&[(3600, 0.0), (0, 10.0)], Unit::PerSecond);
        assert_eq!(rates, "0.0,99.0 600.0,1.0");
        assert_eq!(points(&[(1800, 0.5)], Unit::Share), "300.0,50.0");
    }

    #[test]
    fn what_is_out_of_range_stays_in_the_drawing() {
        assert_eq!(points(&[(9999, 99.0)], Unit::Share), "0.0,1.0");
        assert_eq!(points(&[(0, 0.0)], Unit::PerSecond), "600.0,99.0");
        assert_eq!(points(&[], Unit::PerSecond), "");
        let largest = points(&[(0, f64::MAX), (10, f64::INFINITY)], Unit::Share);
        assert!(
            !largest.contains("NaN") && !largest.contains("inf"),
            "{largest}"
        );
    }

    #[test]
    fn a_reader_that_sees_no_plot_hears_its_newest_values() {
        let line = Line {
            name: "in",
            series: vec![(Duration::ZERO, 7.0)],
        };
        let html = figure("A & B", &[line], Unit::BytesPerSecond);
        let label = "aria-label=\"A &amp; B over the last hour; now in 7 B/s\"";
        assert!(html.contains(label), "{html}");
    }
}
