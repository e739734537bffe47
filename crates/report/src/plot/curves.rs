//! The fraction of pictures at or above each threshold of a judge, a line for every subject.

use super::{WIDTH, axis_below, axis_left};
use crate::svg::{Anchor, Scale, Svg, point, range};

/// A subject's line.
pub(crate) struct Line<'a> {
    pub(crate) label: &'a str,
    pub(crate) style: usize,
    pub(crate) thresholds: &'a [Option<f64>],
    pub(crate) values: &'a [Option<f64>],
}

const LEFT: f64 = 50.0;
const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 216.0;

/// Most points of a line that are drawn; a plot of this width shows no more.
const MOST: usize = 400;

/// Draws the lines over one axis of thresholds.
pub(crate) fn draw(lines: &[Line<'_>], label: &str) -> String {
    let mut svg = Svg::new(WIDTH, 258.0, "plot", label);
    let all = lines
        .iter()
        .flat_map(|l| l.thresholds.iter().copied().flatten());
    let (low, high) = range(all, None, 1e-9);
    // Thresholds of probabilities are shown from 0 to 1.
    let span = if low >= -0.06 && high <= 1.06 {
        (0.0, 1.0)
    } else {
        (low, high)
    };
    let x = Scale::new(span, (LEFT, RIGHT));
    let y = Scale::new((0.0, 1.0), (BOTTOM, TOP));
    axis_below(&mut svg, x, (TOP, BOTTOM), 5, "");
    axis_left(&mut svg, y, (LEFT, RIGHT), 5, "fraction");
    svg.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    svg.text("name", Anchor::End, (RIGHT, 250.0), "threshold →");
    svg.text(
        "name",
        Anchor::Start,
        (2.0, 13.0),
        "pictures at or above it",
    );
    for line in lines {
        let every = line.thresholds.len().div_ceil(MOST).max(1);
        let points = line
            .thresholds
            .iter()
            .zip(line.values)
            .step_by(every)
            .map(|(t, v)| {
                let finite = |x: &Option<f64>| x.filter(|x| x.is_finite());
                Some((x.at(finite(t)?), y.at(finite(v)?)))
            });
        let points: Vec<_> = points.collect();
        svg.group(&point(line.style), line.label, |svg| {
            // After the palette's end the same colours come again, dashed.
            let class = if line.style > 6 {
                "curve dashed"
            } else {
                "curve"
            };
            svg.path(class, points);
        });
    }
    svg.finish()
}
