//! Drawing plots as SVG: elements, axes with round numbers, whiskers, marks that differ in shape as
//! well as in colour.
//!
//! Colours are classes, not values, so that one drawing serves a light page, a dark one and paper:
//! `s0` to `s7` set the colour of a subject, and the page's style sheet says what it is.

use std::fmt::Write as _;

use minijinja::HtmlEscape;

/// Colours of subjects that the style sheet knows; `s0` is the base's.
pub(crate) const COLOURS: usize = 7;

/// A drawing that grows.
pub(crate) struct Svg {
    width: f64,
    height: f64,
    label: String,
    class: &'static str,
    body: String,
}

/// Where a text is held.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    /// An empty drawing. The label is what is read out in its place.
    pub(crate) fn new(width: f64, height: f64, class: &'static str, label: &str) -> Self {
        Self {
            width,
            height,
            label: label.to_owned(),
            class,
            body: String::new(),
        }
    }

    pub(crate) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = write!(
            self.body,
            r#"<line class="{class}" x1="{}" y1="{}" x2="{}" y2="{}"/>"#,
            r(x1),
            r(y1),
            r(x2),
            r(y2)
        );
    }

    pub(crate) fn rect(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        let (w, h) = (r(width.max(0.0)), r(height.max(0.0)));
        let _ = write!(
            self.body,
            r#"<rect class="{class}" x="{}" y="{}" width="{w}" height="{h}"/>"#,
            r(x),
            r(y)
        );
    }

    /// A text whose baseline begins, is centred or ends at a point.
    pub(crate) fn text(&mut self, class: &str, anchor: Anchor, (x, y): (f64, f64), text: &str) {
        self.turned(class, anchor, (x, y), 0.0, text);
    }

    /// The same, turned about that point by an angle in degrees.
    pub(crate) fn turned(
        &mut self,
        class: &str,
        anchor: Anchor,
        (x, y): (f64, f64),
        angle: f64,
        text: &str,
    ) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let turn = if angle == 0.0 {
            String::new()
        } else {
            format!(r#" transform="rotate({} {} {})""#, r(angle), r(x), r(y))
        };
        let text = HtmlEscape(text);
        let _ = write!(
            self.body,
            r#"<text class="{class}" x="{}" y="{}"{anchor}{turn}>{text}</text>"#,
            r(x),
            r(y)
        );
    }

    /// A line through points; where one is missing, the line is interrupted.
    pub(crate) fn path(
        &mut self,
        class: &str,
        points: impl IntoIterator<Item = Option<(f64, f64)>>,
    ) {
        let (mut d, mut down) = (String::new(), false);
        for point in points {
            match point {
                Some((x, y)) => {
                    let _ = write!(d, "{}{} {}", if down { 'L' } else { 'M' }, r(x), r(y));
                    down = true;
                }
                None => down = false,
            }
        }
        let _ = write!(self.body, r#"<path class="{class}" d="{d}"/>"#);
    }

    /// A group with a text that shows when the pointer rests on it.
    pub(crate) fn group(&mut self, class: &str, about: &str, content: impl FnOnce(&mut Self)) {
        let _ = write!(
            self.body,
            r#"<g class="{class}"><title>{}</title>"#,
            HtmlEscape(about)
        );
        content(self);
        self.body += "</g>";
    }

    /// A subject's mark: of one area, in eight shapes.
    pub(crate) fn mark(&mut self, class: &str, shape: usize, (x, y): (f64, f64), size: f64) {
        let _ = write!(
            self.body,
            r#"<path class="{class}" d="{}"/>"#,
            mark(shape, (x, y), size)
        );
    }

    /// A rectangle that a script or a pointer can ask about.
    pub(crate) fn cell(
        &mut self,
        class: &str,
        opacity: f64,
        (x, y): (f64, f64),
        side: f64,
        about: &str,
    ) {
        let _ = write!(
            self.body,
            r#"<rect class="{class}" x="{}" y="{}" width="{}" height="{}" fill-opacity="{}"><title>{}</title></rect>"#,
            r(x),
            r(y),
            r(side),
            r(side),
            r(opacity),
            HtmlEscape(about)
        );
    }

    /// The drawing, to be put into a page.
    pub(crate) fn finish(self) -> String {
        let (w, h) = (r(self.width), r(self.height));
        format!(
            r#"<svg class="{}" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{}">{}</svg>"#,
            self.class,
            HtmlEscape(&self.label),
            self.body
        )
    }
}

/// A coordinate with two decimals at most; what is no number becomes 0, as a drawing can do nothing
/// else with it.
fn r(x: f64) -> String {
    let rounded = (x * 100.0).round() / 100.0;
    if rounded.is_finite() && rounded != 0.0 {
        format!("{rounded}")
    } else {
        "0".into()
    }
}

/// The outline of a mark.
fn mark(shape: usize, (x, y): (f64, f64), s: f64) -> String {
    let polygon = |points: &[(f64, f64)]| {
        let corners = points
            .iter()
            .map(|(dx, dy)| format!("{} {}", r(x + dx * s), r(y + dy * s)));
        format!("M{}Z", corners.collect::<Vec<_>>().join("L"))
    };
    match shape % 8 {
        0 => format!(
            "M{0} {1}a{2} {2} 0 1 0 {3} 0a{2} {2} 0 1 0 -{3} 0Z",
            r(x - s),
            r(y),
            r(s),
            r(2.0 * s)
        ),
        1 => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
        2 => polygon(&[(0.0, -1.15), (1.1, 0.85), (-1.1, 0.85)]),
        3 => polygon(&[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)]),
        4 => polygon(&[(0.0, 1.15), (1.1, -0.85), (-1.1, -0.85)]),
        5 => polygon(&[
            (-0.4, -1.2),
            (0.4, -1.2),
            (0.4, -0.4),
            (1.2, -0.4),
            (1.2, 0.4),
            (0.4, 0.4),
            (0.4, 1.2),
            (-0.4, 1.2),
            (-0.4, 0.4),
            (-1.2, 0.4),
            (-1.2, -0.4),
            (-0.4, -0.4),
        ]),
        6 => polygon(&[
            (0.0, -1.2),
            (1.14, -0.37),
            (0.7, 0.97),
            (-0.7, 0.97),
            (-1.14, -0.37),
        ]),
        _ => polygon(&[(-1.2, -0.5), (1.2, -0.5), (1.2, 0.5), (-1.2, 0.5)]),
    }
}

/// A subject's mark alone, for legends and tables.
pub(crate) fn legend(style: usize) -> String {
    format!(
        r#"<svg class="mark" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true"><path class="dot {}" d="{}"/></svg>"#,
        colour(style),
        mark(shape(style), (7.0, 7.0), 4.6)
    )
}

/// The class of a subject's colour; the base has number 0, and beyond the palette the colours come
/// again with other shapes.
pub(crate) fn colour(style: usize) -> &'static str {
    const CLASSES: [&str; COLOURS] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6"];
    CLASSES[if style == 0 {
        0
    } else {
        1 + (style - 1) % (COLOURS - 1)
    }]
}

/// The classes of a subject's point in a plot: its colour, and its own number for scripts.
pub(crate) fn point(style: usize) -> String {
    format!("point {} u{style}", colour(style))
}

/// The shape of a subject's mark.
pub(crate) fn shape(style: usize) -> usize {
    // 6 colours and 7 shapes: 42 subjects before a pair comes again.
    if style == 0 { 0 } else { 1 + (style - 1) % 7 }
}

/// A line from one number to another, on which numbers find their place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) low: f64,
    pub(crate) high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// `low` is drawn at `from`, `high` at `to`.
    pub(crate) fn new((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        Self {
            low,
            high,
            from,
            to,
        }
    }

    /// Where a number is drawn; what lies outside is drawn at the end.
    pub(crate) fn at(&self, x: f64) -> f64 {
        let share = (x - self.low) / (self.high - self.low);
        self.from
            + (self.to - self.from)
                * if share.is_finite() {
                    share.clamp(0.0, 1.0)
                } else {
                    0.0
                }
    }

    /// Round numbers within the scale, about as many as asked for.
    pub(crate) fn ticks(&self, about: usize) -> Vec<f64> {
        let step = step((self.high - self.low) / about.max(1) as f64);
        if !(step > 0.0 && step.is_finite()) {
            return Vec::new();
        }
        let first = (self.low / step - 1e-9).ceil() as i64;
        (first..first.saturating_add(50))
            .map(|i| i as f64 * step)
            .take_while(|x| *x <= self.high + 1e-9 * step)
            .collect()
    }
}

/// The round number (1, 2 or 5 times a power of ten) next above.
fn step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|m| m * power)
        .find(|s| *s >= rough * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

/// The range of some numbers with a little room, held within `bounds`, and at least `least` wide.
pub(crate) fn range(
    values: impl IntoIterator<Item = f64>,
    bounds: Option<(f64, f64)>,
    least: f64,
) -> (f64, f64) {
    let finite = values.into_iter().filter(|x| x.is_finite());
    let Some((low, high)) = finite.fold(None, |seen: Option<(f64, f64)>, x| match seen {
        None => Some((x, x)),
        Some((low, high)) => Some((low.min(x), high.max(x))),
    }) else {
        return bounds.unwrap_or((0.0, 1.0));
    };
    let spread = (high - low).max(least);
    let (middle, half) = ((low + high) / 2.0, spread * 0.54);
    let (mut a, mut b) = (middle - half, middle + half);
    if let Some((floor, ceiling)) = bounds {
        // Pushed back inside rather than cut, so that it keeps its width.
        if a < floor {
            (a, b) = (floor, (b + floor - a).min(ceiling));
        }
        if b > ceiling {
            (a, b) = ((a - (b - ceiling)).max(floor), ceiling);
        }
    }
    if a < b { (a, b) } else { (a - 0.5, a + 0.5) }
}

/// A text cut to a number of characters.
pub(crate) fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let ticks = |low, high| Scale::new((low, high), (0.0, 100.0)).ticks(5);
        assert_eq!(
            ticks(0.0, 1.0),
            [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
        );
        assert_eq!(ticks(0.83, 1.0).len(), 4, "0.85, 0.9, 0.95, 1");
        assert_eq!(ticks(-3.0, 12.0), [0.0, 5.0, 10.0]);
        assert!(ticks(f64::NAN, 1.0).is_empty() && ticks(1.0, 1.0).is_empty());
        assert!(ticks(0.0, 1e-300).len() < 10 && ticks(-1e300, 1e300).len() < 60);
    }

    #[test]
    fn ranges_stay_inside_their_bounds() {
        let unit = Some((0.0, 1.0));
        assert_eq!(range([], unit, 0.1), (0.0, 1.0));
        let (a, b) = range([1.0], unit, 0.2);
        assert!(b == 1.0 && a > 0.75 && a < 0.8, "{a} {b}");
        assert_eq!(range([0.0, 1.0, f64::NAN], unit, 0.1), (0.0, 1.0));
        let (a, b) = range([5.0, 5.0], None, 0.0);
        assert!(a < 5.0 && b > 5.0 || a < b);
        assert_eq!(Scale::new((0.0, 1.0), (0.0, 10.0)).at(7.0), 10.0);
        assert_eq!(Scale::new((0.0, 0.0), (0.0, 10.0)).at(0.0), 0.0);
    }

    #[test]
    fn texts_cannot_leave_their_place() {
        let mut svg = Svg::new(10.0, f64::NAN, "plot", "a \"label\" <b>");
        svg.text("t", Anchor::End, (f64::INFINITY, 1.0), "</text><script>");
        svg.group("g", "]]> & '", |svg| svg.mark("dot", 9, (1.0, 2.0), 3.0));
        svg.path(
            "p",
            [
                Some((0.0, 1.0)),
                None,
                Some((1.0, 1.0)),
                Some((2.0, 0.123456)),
            ],
        );
        let text = svg.finish();
        assert!(
            !text.contains("<script") && !text.contains("<b>") && !text.contains("\"label\""),
            "{text}"
        );
        assert!(text.contains("d=\"M0 1M1 1L2 0.12\""), "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"));
        for style in 0..100 {
            assert!(legend(style).contains(colour(style)));
        }
        assert_eq!(short("église", 4), "égl…");
    }
}
