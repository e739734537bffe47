//! Every subject a line, what is asked of it a column each: numbers with their intervals, which
//! still read where points would crowd.

use super::{WIDTH, said, tick};
use crate::{
    summary::Measure,
    svg::{Anchor, Scale, Svg, point, shape, short},
};

/// A question: its name, and which way is better.
pub(crate) struct Column<'a> {
    pub(crate) name: &'a str,
    pub(crate) higher: bool,
    /// What the base has, for the others to be held against.
    pub(crate) reference: Option<f64>,
}

/// A subject's line: a number for each column, or none.
pub(crate) struct Line<'a> {
    pub(crate) label: &'a str,
    pub(crate) style: usize,
    pub(crate) measures: Vec<Option<Measure>>,
}

const LEFT: f64 = 98.0;
/// Between two columns: wide enough that one's `100%` and the next's `0%` stand apart.
const GAP: f64 = 28.0;
const RIGHT: f64 = 16.0;
const ROW: f64 = 17.0;
const TOP: f64 = 22.0;
/// Letters of a label.
const LETTERS: usize = 14;

/// Draws the lines in their order, all columns from 0 to 1.
pub(crate) fn draw(columns: &[Column<'_>], lines: &[Line<'_>], label: &str) -> String {
    let bottom = TOP + ROW * lines.len() as f64 + 4.0;
    let mut svg = Svg::new(WIDTH, bottom + 20.0, "plot", label);
    let count = columns.len().max(1) as f64;
    let width = (WIDTH - LEFT - RIGHT - GAP * (count - 1.0)) / count;
    let scale = |i: usize| {
        let left = LEFT + (width + GAP) * i as f64;
        Scale::new((0.0, 1.0), (left, left + width))
    };
    for (i, column) in columns.iter().enumerate() {
        let x = scale(i);
        // The ends alone have numbers, within their column: those of three columns would run
        // together.
        for (at, anchor) in [
            (0.0, Some(Anchor::Start)),
            (0.5, None),
            (1.0, Some(Anchor::End)),
        ] {
            svg.line("grid", (x.at(at), TOP), (x.at(at), bottom));
            if let Some(anchor) = anchor {
                svg.text(
                    "tick",
                    anchor,
                    (x.at(at), bottom + 14.0),
                    &tick(at, "fraction"),
                );
            }
        }
        let name = if column.higher {
            format!("{} →", column.name)
        } else {
            format!("← {}", column.name)
        };
        svg.text("name", Anchor::Middle, (x.at(0.5), 13.0), &name);
        if let Some(reference) = column.reference {
            svg.line(
                "reference",
                (x.at(reference), TOP),
                (x.at(reference), bottom),
            );
        }
    }
    for (i, line) in lines.iter().enumerate() {
        let y = TOP + ROW * (i as f64 + 0.5) + 2.0;
        let said: Vec<_> = columns
            .iter()
            .zip(&line.measures)
            .map(|(c, m)| about(c.name, *m))
            .collect();
        svg.group(
            &point(line.style),
            &format!("{}: {}", line.label, said.join("; ")),
            |svg| {
                svg.rect("hit", 0.0, y - ROW / 2.0, WIDTH, ROW);
                svg.text(
                    "row",
                    Anchor::End,
                    (LEFT - 10.0, y + 4.0),
                    &short(line.label, LETTERS),
                );
                for (j, m) in line.measures.iter().enumerate() {
                    let Some(m) = m else { continue };
                    let x = scale(j);
                    if let (Some(low), Some(high)) = (m.low, m.high) {
                        svg.line("whisker", (x.at(low), y), (x.at(high), y));
                    }
                    svg.mark("dot", shape(line.style), (x.at(m.value), y), 4.2);
                }
            },
        );
    }
    svg.finish()
}

fn about(name: &str, m: Option<Measure>) -> String {
    m.map_or_else(
        || format!("{name} has not run"),
        |m| format!("{name} {}", said(m, "fraction")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_run_has_no_mark_and_says_so() {
        let m = Measure {
            value: 0.5,
            low: Some(0.25),
            high: Some(0.75),
            n: Some(4),
        };
        let column = |name, higher| Column {
            name,
            higher,
            reference: None,
        };
        let columns = [column("others kept", true), column("worst by words", false)];
        let line = Line {
            label: "esd",
            style: 1,
            measures: vec![Some(m), None],
        };
        let text = draw(&columns, &[line], "two questions");
        assert_eq!(
            (
                text.matches("class=\"dot\"").count(),
                text.matches("class=\"whisker\"").count()
            ),
            (1, 1)
        );
        assert!(
            text.contains("others kept 50.0% [25.0, 75.0%], n = 4; worst by words has not run"),
            "{text}"
        );
        assert!(text.contains("others kept →") && text.contains("← worst by words"));
    }
}
