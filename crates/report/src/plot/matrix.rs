//! Matrices as squares: the darker, the more. Only what differs from nothing is drawn, so that
//! large ones stay small.

use crate::svg::{Anchor, Svg, short};

/// A square.
pub(crate) struct Cell {
    pub(crate) row: usize,
    pub(crate) column: usize,
    /// The class of its colour.
    pub(crate) class: &'static str,
    /// How dark, 0 to 1.
    pub(crate) strength: f64,
    /// What it says when asked.
    pub(crate) about: String,
}

/// Most rows or columns that are drawn; beyond it nobody could tell them apart.
pub(crate) const MOST: usize = 200;

/// Side of a square.
const SIDE: f64 = 16.0;
/// Letters of a label.
const LETTERS: usize = 18;

/// Draws the squares between labels; `names` say what rows and columns are.
pub(crate) fn draw(
    rows: &[String],
    columns: &[String],
    cells: &[Cell],
    names: (&str, &str),
    label: &str,
) -> String {
    let longest = |labels: &[String]| {
        labels
            .iter()
            .map(|l| l.chars().count().min(LETTERS))
            .max()
            .unwrap_or(0) as f64
    };
    let left = 6.4 * longest(rows) + 30.0;
    let top = 6.4 * longest(columns) + 30.0;
    let (width, height) = (SIDE * columns.len() as f64, SIDE * rows.len() as f64);
    let mut svg = Svg::new(
        (left + width + 8.0).max(240.0),
        top + height + 8.0,
        "matrix",
        label,
    );
    svg.text(
        "name",
        Anchor::Start,
        (left, 12.0),
        &format!("{} →", names.1),
    );
    svg.turned(
        "name",
        Anchor::End,
        (12.0, top),
        -90.0,
        &format!("← {}", names.0),
    );
    svg.rect("paper", left, top, width, height);
    for (i, name) in rows.iter().enumerate() {
        let y = top + SIDE * i as f64;
        svg.text(
            "tick",
            Anchor::End,
            (left - 6.0, y + SIDE - 4.0),
            &short(name, LETTERS),
        );
        if i > 0 {
            svg.line("grid", (left, y), (left + width, y));
        }
    }
    for (j, name) in columns.iter().enumerate() {
        let x = left + SIDE * j as f64;
        svg.turned(
            "tick",
            Anchor::Start,
            (x + SIDE - 4.0, top - 6.0),
            -90.0,
            &short(name, LETTERS),
        );
        if j > 0 {
            svg.line("grid", (x, top), (x, top + height));
        }
    }
    for cell in cells {
        let at = (
            left + SIDE * cell.column as f64 + 0.5,
            top + SIDE * cell.row as f64 + 0.5,
        );
        svg.cell(
            cell.class,
            cell.strength.clamp(0.0, 1.0),
            at,
            SIDE - 1.0,
            &cell.about,
        );
    }
    svg.finish()
}
