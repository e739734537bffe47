//! One number of every subject, a line each: a bar from nought or a dot, with its interval, and
//! what it was before.

use super::{WIDTH, axis_below, said};
use crate::{
    summary::Measure,
    svg::{Anchor, Scale, Svg, point, range, shape, short},
};

/// A subject's line.
pub(crate) struct Line<'a> {
    pub(crate) label: &'a str,
    pub(crate) style: usize,
    pub(crate) measure: Option<Measure>,
    /// What it was before, drawn hollow: a rate without an attack.
    pub(crate) before: Option<f64>,
}

/// What the numbers are drawn as.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum As {
    Bars,
    Dots,
}

const LEFT: f64 = 116.0;
const ROW: f64 = 20.0;
const TOP: f64 = 6.0;

/// Draws the lines in their order.
pub(crate) fn draw(lines: &[Line<'_>], unit: &str, form: As, label: &str) -> String {
    let bottom = TOP + ROW * lines.len() as f64 + 4.0;
    let mut svg = Svg::new(WIDTH, bottom + 24.0, "plot", label);
    let ends = |line: &Line<'_>| {
        let m = line.measure;
        [
            m.map(|m| m.value),
            m.and_then(|m| m.low),
            m.and_then(|m| m.high),
            line.before,
        ]
    };
    let values = lines.iter().flat_map(ends).flatten();
    // A fraction has the same axis everywhere; a bar begins at nought.
    let span = match (unit, form) {
        ("fraction", _) => (0.0, 1.0),
        (_, As::Bars) => range(values.chain([0.0]), None, 1e-9),
        (_, As::Dots) => range(values, None, 1e-9),
    };
    let x = Scale::new(span, (LEFT, WIDTH - 16.0));
    axis_below(&mut svg, x, (TOP, bottom), 4, unit);
    for (i, line) in lines.iter().enumerate() {
        let y = TOP + ROW * (i as f64 + 0.5) + 2.0;
        let about = match (line.measure, line.before) {
            (None, _) => format!("{}: has not run", line.label),
            (Some(m), None) => format!("{}: {}", line.label, said(m, unit)),
            (Some(m), Some(before)) => format!(
                "{}: {} without the attack, {} with it",
                line.label,
                crate::format::number(Some(before), unit),
                said(m, unit)
            ),
        };
        svg.group(&point(line.style), &about, |svg| {
            svg.rect("hit", 0.0, y - ROW / 2.0, WIDTH, ROW);
            svg.text(
                "row",
                Anchor::End,
                (LEFT - 10.0, y + 4.0),
                &short(line.label, 16),
            );
            let Some(m) = line.measure else {
                svg.text("none", Anchor::Start, (LEFT + 4.0, y + 4.0), "has not run");
                return;
            };
            if form == As::Bars {
                let (a, b) = (x.at(0.0_f64.max(x.low)), x.at(m.value));
                svg.rect("bar-fill", a.min(b), y - 5.0, (b - a).abs(), 10.0);
            }
            if let (Some(low), Some(high)) = (m.low, m.high) {
                svg.line("whisker", (x.at(low), y), (x.at(high), y));
            }
            if let Some(before) = line.before.filter(|b| b.is_finite()) {
                svg.line("from", (x.at(before), y), (x.at(m.value), y));
                svg.mark("hollow", 0, (x.at(before), y), 3.6);
            }
            if form == As::Dots {
                svg.mark("dot", shape(line.style), (x.at(m.value), y), 4.6);
            }
        });
    }
    svg.finish()
}

/// An interval small enough for a cell of a table: a track, the interval, the value.
pub(crate) fn spark(m: Measure, span: (f64, f64)) -> String {
    let x = Scale::new(span, (4.0, 84.0));
    let mut svg = Svg::new(88.0, 12.0, "spark", "");
    svg.line("track", (4.0, 6.0), (84.0, 6.0));
    if span.0 < 0.0 && span.1 > 0.0 {
        svg.line("zero", (x.at(0.0), 1.0), (x.at(0.0), 11.0));
    }
    if let (Some(low), Some(high)) = (m.low, m.high) {
        svg.line("span", (x.at(low), 6.0), (x.at(high), 6.0));
    }
    svg.mark("value", 0, (x.at(m.value), 6.0), 3.4);
    // The number stands beside it, so there is nothing to read out.
    svg.finish()
        .replace("role=\"img\" aria-label=\"\"", "aria-hidden=\"true\"")
}
