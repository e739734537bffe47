//! Two numbers of every subject against each other, with the intervals of both.

use super::{WIDTH, axis_below, axis_left, said};
use crate::{
    summary::Measure,
    svg::{Anchor, Scale, Svg, point, range, shape, short},
};

/// A subject's place.
pub(crate) struct Point<'a> {
    pub(crate) label: &'a str,
    pub(crate) style: usize,
    pub(crate) x: Measure,
    pub(crate) y: Measure,
}

/// A place on the horizontal axis to compare with, such as the base's.
pub(crate) struct Reference<'a> {
    pub(crate) label: &'a str,
    pub(crate) x: f64,
}

const LEFT: f64 = 50.0;
const RIGHT: f64 = WIDTH - 10.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 292.0;
const HEIGHT: f64 = 334.0;

/// Width of a letter of a label, about.
const LETTER: f64 = 6.6;

/// Draws fractions against each other, better down and to the right; `names` are those of the axes.
pub(crate) fn draw(
    points: &[Point<'_>],
    reference: Option<&Reference<'_>>,
    names: (&str, &str),
    label: &str,
) -> String {
    // Where there are many, their intervals must not hide the marks.
    let class = if points.len() > 12 {
        "plot crowded"
    } else {
        "plot"
    };
    let mut svg = Svg::new(WIDTH, HEIGHT, class, label);
    let spread = |m: &Measure| {
        [Some(m.value), m.low, m.high]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    let unit = Some((0.0, 1.0));
    let across = points
        .iter()
        .flat_map(|p| spread(&p.x))
        .chain(reference.map(|r| r.x));
    let x = Scale::new(range(across, unit, 0.1), (LEFT + 8.0, RIGHT - 8.0));
    let y = Scale::new(
        range(points.iter().flat_map(|p| spread(&p.y)), unit, 0.1),
        (BOTTOM - 8.0, TOP + 8.0),
    );
    axis_below(&mut svg, x, (TOP, BOTTOM), 5, "fraction");
    axis_left(&mut svg, y, (LEFT, RIGHT), 5, "fraction");
    svg.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    svg.line("axis", (LEFT, TOP), (LEFT, BOTTOM));
    svg.text(
        "name",
        Anchor::End,
        (RIGHT, HEIGHT - 8.0),
        &format!("{} →", names.0),
    );
    svg.text(
        "name",
        Anchor::Start,
        (2.0, 14.0),
        &format!("↓ {}", names.1),
    );
    let mut labels = Labels::default();
    if let Some(r) = reference {
        let (at, name) = (x.at(r.x), short(r.label, 12));
        svg.line("reference", (at, TOP), (at, BOTTOM));
        let width = LETTER * name.chars().count() as f64;
        let left = if at + width + 6.0 > RIGHT {
            at - width - 5.0
        } else {
            at + 5.0
        };
        labels.block((left, BOTTOM - 17.0, width, 13.0));
        svg.text("name", Anchor::Start, (left, BOTTOM - 7.0), &name);
    }
    for p in points {
        labels.block((x.at(p.x.value) - 6.0, y.at(p.y.value) - 6.0, 12.0, 12.0));
    }
    for p in points {
        let about = format!(
            "{}: {} {}; {} {}",
            p.label,
            names.0,
            said(p.x, "fraction"),
            names.1,
            said(p.y, "fraction")
        );
        let (cx, cy) = (x.at(p.x.value), y.at(p.y.value));
        let class = point(p.style);
        svg.group(&class, &about, |svg| {
            if let (Some(low), Some(high)) = (p.x.low, p.x.high) {
                svg.line("whisker", (x.at(low), cy), (x.at(high), cy));
            }
            if let (Some(low), Some(high)) = (p.y.low, p.y.high) {
                svg.line("whisker", (cx, y.at(low)), (cx, y.at(high)));
            }
            svg.mark("dot", shape(p.style), (cx, cy), 5.0);
            let name = short(p.label, 18);
            if let Some((tx, ty)) = labels.place((cx, cy), LETTER * name.chars().count() as f64) {
                svg.text("label", Anchor::Start, (tx, ty), &name);
            }
        });
    }
    svg.finish()
}

/// Rectangles (left, top, width, height) that are taken.
#[derive(Default)]
struct Labels {
    taken: Vec<(f64, f64, f64, f64)>,
}

impl Labels {
    fn block(&mut self, area: (f64, f64, f64, f64)) {
        self.taken.push(area);
    }

    /// Where a label of this width begins, near its point and over nothing else; `None` where there
    /// is no room, and the legend has to do.
    fn place(&mut self, (x, y): (f64, f64), width: f64) -> Option<(f64, f64)> {
        let beside = [
            (9.0, -7.0),
            (9.0, 14.0),
            (-9.0 - width, -7.0),
            (-9.0 - width, 14.0),
            (9.0, -20.0),
            (-9.0 - width, -20.0),
        ];
        for (dx, dy) in beside
            .into_iter()
            .chain([(9.0, 27.0), (-9.0 - width, 27.0)])
        {
            let area = (x + dx, y + dy - 10.0, width, 13.0);
            let inside = area.0 >= LEFT + 2.0
                && area.0 + width <= WIDTH - 2.0
                && area.1 >= TOP - 6.0
                && area.1 + 13.0 <= BOTTOM;
            let free = self.taken.iter().all(|t| {
                area.0 + area.2 <= t.0
                    || t.0 + t.2 <= area.0
                    || area.1 + area.3 <= t.1
                    || t.1 + t.3 <= area.1
            });
            if inside && free {
                self.taken.push(area);
                return Some((x + dx, y + dy));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_lie_on_each_other() {
        let mut labels = Labels::default();
        let mut placed = Vec::new();
        for _ in 0..40 {
            if let Some(at) = labels.place((200.0, 150.0), 60.0) {
                assert!(!placed.contains(&at));
                placed.push(at);
            }
        }
        assert_eq!(placed.len(), 8);
        assert_eq!(labels.place((200.0, 150.0), 1e9), None);
    }

    #[test]
    fn nothing_to_draw_is_an_empty_plot() {
        let text = draw(&[], None, ("a", "b"), "nothing");
        assert!(text.starts_with("<svg") && !text.contains("point"));
        let m = Measure {
            value: 0.5,
            ..Measure::default()
        };
        assert!(
            draw(
                &[Point {
                    label: "<x>",
                    style: 3,
                    x: m,
                    y: m
                }],
                Some(&Reference {
                    label: "base",
                    x: 1.0
                }),
                ("a", "b"),
                ""
            )
            .contains("&lt;x&gt;")
        );
    }
}
