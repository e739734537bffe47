//! The page of a training: losses, what was measured on the way, and the pictures of now. It asks
//! its file again every few seconds.

use std::fmt::Write as _;

use minijinja::HtmlEscape;

use crate::{
    plot::{WIDTH, axis_below, axis_left},
    style::style,
    svg::{Anchor, Scale, Svg, point, range},
};

/// Seconds after which a browser asks again, while something is trained.
const AGAIN: u32 = 10;

const PLOTS: &str = include_str!("template/plot.css");
const PAGE: &str = "\
main{max-width:76rem;margin:0 auto;padding:1rem}\
.plots{display:flex;flex-wrap:wrap;gap:1.5rem}\
figure{margin:0}figcaption{font-weight:600;margin-bottom:.25rem}\
img{max-width:100%;height:auto;image-rendering:pixelated}\
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .9rem .2rem 0;text-align:left}\
td+td,th+th{text-align:right}.wide{overflow-x:auto}";

/// Numbers over steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// What they are: `denoiser: loss`.
    pub name: String,
    /// `fraction` for shares, which are shown between 0 and 100%.
    pub unit: &'static str,
    /// What they are over: steps, or how sure a judge is, where a line says what is as it should be.
    pub over: Over,
    /// Each as (step, number).
    pub points: Vec<(f64, f64)>,
}

/// What a curve's numbers are over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Over {
    /// Steps of a training.
    #[default]
    Steps,
    /// A judge's confidence, from 0 to 1.
    Confidence,
}

/// How far a part is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The part.
    pub part: String,
    /// Steps done.
    pub done: usize,
    /// Steps that it takes.
    pub total: usize,
    /// The last loss.
    pub loss: Option<f64>,
    /// Time left, in words.
    pub left: Option<String>,
}

/// What is shown of a training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingPage {
    /// The model's name.
    pub title: String,
    /// What it is trained on, and without what.
    pub about: String,
    /// Whether something is still to be done.
    pub going: bool,
    /// The parts that have begun.
    pub progress: Vec<Progress>,
    /// What was measured.
    pub curves: Vec<Curve>,
    /// Picture files beside the page, each with what it shows.
    pub pictures: Vec<(String, String)>,
}

impl TrainingPage {
    /// The whole page: no script, nothing from elsewhere.
    pub fn render(&self) -> String {
        let title = HtmlEscape(&self.title);
        let mut out =
            String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
        let _ = write!(
            out,
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}: training</title>"
        );
        if self.going {
            let _ = write!(out, "<meta http-equiv=\"refresh\" content=\"{AGAIN}\">");
        }
        let _ = write!(out, "<style>{}{PLOTS}{PAGE}</style></head>", style());
        let state = if self.going { "in training" } else { "trained" };
        let _ = write!(
            out,
            "<body><main><h1>{title}</h1><p>{}: {state}</p>",
            HtmlEscape(&self.about)
        );
        self.table(&mut out);
        for (file, about) in &self.pictures {
            let (file, about) = (HtmlEscape(file), HtmlEscape(about));
            let _ = write!(
                out,
                "<figure><figcaption>{about}</figcaption><div class=\"wide\"><img src=\"{file}\" alt=\"{about}\"></div></figure>"
            );
        }
        out += "<h2>Numbers</h2><div class=\"plots\">";
        for curve in &self.curves {
            let _ = write!(
                out,
                "<figure><figcaption>{}</figcaption>{}</figure>",
                HtmlEscape(&curve.name),
                draw(curve)
            );
        }
        out += "</div></main></body></html>\n";
        out
    }

    fn table(&self, out: &mut String) {
        *out += "<div class=\"wide\"><table><tr><th>part</th><th>steps</th><th>loss</th><th>left</th></tr>";
        for one in &self.progress {
            let loss = one
                .loss
                .map(|loss| format!("{loss:.4}"))
                .unwrap_or_default();
            let left = one.left.clone().unwrap_or_default();
            let _ = write!(
                out,
                "<tr><td>{}</td><td>{} / {}</td><td>{loss}</td><td>{}</td></tr>",
                HtmlEscape(&one.part),
                one.done,
                one.total,
                HtmlEscape(&left)
            );
        }
        *out += "</table></div>";
    }
}

fn draw(curve: &Curve) -> String {
    let (left, right, top, bottom) = (50.0, WIDTH - 12.0, 12.0, 150.0);
    let mut svg = Svg::new(WIDTH, 178.0, "plot", &curve.name);
    let steps = curve.points.iter().map(|(step, _)| *step);
    let (end, unit, name) = match curve.over {
        Over::Steps => (steps.fold(1.0, f64::max), "", "step"),
        Over::Confidence => (1.0, "fraction", "confidence"),
    };
    let x = Scale::new((0.0, end), (left, right));
    let span = match curve.unit {
        "fraction" => (0.0, 1.0),
        // The first losses are many times the later ones, which are what is looked at.
        _ => {
            let mut values: Vec<f64> = curve.points.iter().map(|(_, y)| *y).collect();
            values.sort_by(f64::total_cmp);
            let high = values.get(values.len() * 19 / 20).copied();
            range(
                values
                    .iter()
                    .copied()
                    .filter(|y| high.is_none_or(|high| *y <= high)),
                None,
                1e-9,
            )
        }
    };
    let y = Scale::new(span, (bottom, top));
    axis_below(&mut svg, x, (top, bottom), 4, unit);
    axis_left(&mut svg, y, (left, right), 4, curve.unit);
    svg.line("axis", (left, bottom), (right, bottom));
    svg.text("name", Anchor::End, (right, 176.0), name);
    if curve.over == Over::Confidence {
        svg.line("axis", (left, bottom), (right, top));
    }
    svg.group(&point(1), &curve.name, |svg| {
        let points = curve.points.iter();
        svg.path(
            "curve",
            points.map(|(step, value)| Some((x.at(*step), y.at(*value)))),
        );
    });
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_every_part_and_refreshes_only_while_it_goes_on() {
        let mut page = TrainingPage {
            title: "<mine>".into(),
            going: true,
            progress: vec![Progress {
                part: "vae".into(),
                done: 3,
                total: 9,
                loss: Some(0.5),
                left: Some("4 s".into()),
            }],
            curves: vec![Curve {
                name: "vae: loss".into(),
                points: vec![(1.0, 0.9), (2.0, 0.4), (3.0, 0.3)],
                ..Curve::default()
            }],
            pictures: vec![("a.png".into(), "pictures".into())],
            ..TrainingPage::default()
        };
        let html = page.render();
        assert!(html.contains("&lt;mine&gt;") && !html.contains("<mine>"));
        assert!(html.contains("3 / 9") && html.contains("http-equiv=\"refresh\""));
        assert!(
            html.contains("<svg") && html.contains("src=\"a.png\"") && !html.contains("<script")
        );
        page.going = false;
        assert!(!page.render().contains("http-equiv=\"refresh\""));
    }
}
