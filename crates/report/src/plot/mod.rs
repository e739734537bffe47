//! The plots of the report, each a function from numbers to an SVG.

pub(crate) mod curves;
pub(crate) mod forest;
pub(crate) mod matrix;
pub(crate) mod panel;
pub(crate) mod scatter;

use crate::{
    format::{interval, number},
    summary::Measure,
    svg::{Anchor, Scale, Svg},
};

/// Width of a plot, in the pixels of a phone, where it is shown as large as it is drawn.
pub(crate) const WIDTH: f64 = 356.0;

/// A number as plots say it when asked: the value and its interval.
pub(crate) fn said(m: Measure, unit: &str) -> String {
    let ends = interval(m.low, m.high, unit);
    let n = m.n.map(|n| format!(", n = {n}")).unwrap_or_default();
    let space = if ends.is_empty() { "" } else { " " };
    format!("{}{space}{ends}{n}", number(Some(m.value), unit))
}

/// A number at an axis: without decimals that say nothing.
pub(crate) fn tick(x: f64, unit: &str) -> String {
    match unit {
        "fraction" => {
            let percent = (1000.0 * x).round() / 10.0;
            format!("{}%", if percent == 0.0 { 0.0 } else { percent })
        }
        "seconds" | "bytes" => number(Some(x), unit),
        _ => {
            let rounded = (x * 1e6).round() / 1e6;
            format!("{}", if rounded == 0.0 { 0.0 } else { rounded })
        }
    }
}

/// A horizontal axis below a plot, with lines up through it.
pub(crate) fn axis_below(
    svg: &mut Svg,
    scale: Scale,
    (top, bottom): (f64, f64),
    about: usize,
    unit: &str,
) {
    for x in scale.ticks(about) {
        svg.line("grid", (scale.at(x), top), (scale.at(x), bottom));
        svg.text(
            "tick",
            Anchor::Middle,
            (scale.at(x), bottom + 15.0),
            &tick(x, unit),
        );
    }
}

/// A vertical axis left of a plot, with lines through it.
pub(crate) fn axis_left(
    svg: &mut Svg,
    scale: Scale,
    (left, right): (f64, f64),
    about: usize,
    unit: &str,
) {
    for y in scale.ticks(about) {
        svg.line("grid", (left, scale.at(y)), (right, scale.at(y)));
        svg.text(
            "tick",
            Anchor::End,
            (left - 6.0, scale.at(y) + 4.0),
            &tick(y, unit),
        );
    }
}
