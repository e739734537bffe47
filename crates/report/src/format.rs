//! Numbers as people read them.

use crate::evaluation::Metric;

/// What stands where there is no number.
pub(crate) const NONE: &str = "–";

/// A number in its unit: fractions as per cent, seconds and bytes with the unit that suits their
/// size.
pub(crate) fn number(value: Option<f64>, unit: &str) -> String {
    let Some(x) = value.filter(|x| x.is_finite()) else {
        return NONE.into();
    };
    let text = plain(x, unit);
    match text.strip_prefix('-') {
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

fn plain(x: f64, unit: &str) -> String {
    match unit {
        "fraction" => percent(x),
        "seconds" => seconds(x),
        "bytes" => bytes(x),
        "cosine" => format!("{x:.3}"),
        "count" if x.fract() == 0.0 && x.abs() < 1e15 => format!("{x:.0}"),
        _ => significant(x),
    }
}

/// A fraction as per cent with one decimal.
pub(crate) fn percent(x: f64) -> String {
    // Never `-0.0%`.
    let tenths = (1000.0 * x).round();
    format!("{:.1}%", if tenths == 0.0 { 0.0 } else { tenths / 10.0 })
}

/// The ends of an interval in square brackets; empty where an end is not known.
pub(crate) fn interval(low: Option<f64>, high: Option<f64>, unit: &str) -> String {
    match (
        low.filter(|x| x.is_finite()),
        high.filter(|x| x.is_finite()),
    ) {
        (Some(low), Some(high)) => {
            let (low, high) = (number(Some(low), unit), number(Some(high), unit));
            // The sign is said once.
            let low = if unit == "fraction" {
                low.trim_end_matches('%').to_owned()
            } else {
                low
            };
            format!("[{low}, {high}]")
        }
        _ => String::new(),
    }
}

/// A time in seconds, minutes or hours.
pub(crate) fn seconds(x: f64) -> String {
    let whole = x.round();
    if x < 0.0 {
        format!("{x} s")
    } else if x < 0.995 && x > 0.0 {
        format!("{x:.2} s")
    } else if x < 9.95 {
        format!("{x:.1} s")
    } else if whole < 60.0 {
        format!("{whole:.0} s")
    } else if whole < 3600.0 {
        format!("{:.0} min {:02.0} s", (whole / 60.0).floor(), whole % 60.0)
    } else {
        format!(
            "{:.0} h {:02.0} min",
            (whole / 3600.0).floor(),
            (whole % 3600.0 / 60.0).floor()
        )
    }
}

/// A size in powers of a thousand.
pub(crate) fn bytes(x: f64) -> String {
    match x.abs() {
        a if a < 1e3 => format!("{x:.0} B"),
        a if a < 1e6 => format!("{:.0} kB", x / 1e3),
        a if a < 1e9 => format!("{:.1} MB", x / 1e6),
        _ => format!("{:.1} GB", x / 1e9),
    }
}

/// Four significant digits, without an exponent for numbers of ordinary size.
pub(crate) fn significant(x: f64) -> String {
    if x == 0.0 {
        return "0".into();
    }
    let digits = x.abs().log10().floor();
    if !(-5.0..9.0).contains(&digits) {
        return format!("{x:.3e}");
    }
    format!("{x:.*}", (3.0 - digits).max(0.0) as usize)
}

/// A probability: small ones by their bound.
pub(crate) fn probability(p: Option<f64>) -> String {
    match p.filter(|p| p.is_finite()) {
        None => NONE.into(),
        Some(p) if p < 0.001 => "< 0.001".into(),
        Some(p) => format!("{p:.3}"),
    }
}

/// A count, or what stands for none.
pub(crate) fn count(n: Option<u64>) -> String {
    n.map_or_else(|| NONE.into(), |n| n.to_string())
}

/// A number with its noun in the right form.
pub(crate) fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Names joined as in a sentence.
pub(crate) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [first @ .., last] => {
            format!(
                "{} and {}",
                first
                    .iter()
                    .map(AsRef::as_ref)
                    .collect::<Vec<_>>()
                    .join(", "),
                last.as_ref()
            )
        }
    }
}

/// Seeds as runs, such as `1000–1047, 7`, of which at most `most` are said.
pub(crate) fn seeds(seeds: &[u64], most: usize) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &seed in seeds {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(seed) => *last = seed,
            _ => runs.push((seed, seed)),
        }
    }
    let said = runs.iter().take(most).map(|(a, b)| {
        if a == b {
            a.to_string()
        } else {
            format!("{a}–{b}")
        }
    });
    let mut text = said.collect::<Vec<_>>().join(", ");
    if runs.len() > most {
        text += ", …";
    }
    text
}

/// The unit of a metric; a number without a description is a plain one.
pub(crate) fn unit(metric: Option<&Metric>) -> &str {
    metric.map_or("", |m| m.unit.as_str())
}

/// A name that is safe in a path, whatever the text.
pub(crate) fn slug(text: &str) -> String {
    slug_or(text, "x")
}

/// A name that is safe in a path: lower case, words joined by hyphens, not too long; `nothing`
/// where no letter or digit is left.
pub fn slug_or(text: &str, nothing: &str) -> String {
    let mut slug = String::new();
    for c in text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
    {
        if c != '-' || !(slug.is_empty() || slug.ends_with('-')) {
            slug.push(c);
        }
        if slug.len() >= 40 {
            break;
        }
    }
    let slug = slug.trim_matches('-');
    if slug.is_empty() {
        nothing.into()
    } else {
        slug.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_carry_their_unit() {
        for (value, unit, text) in [
            (0.0625, "fraction", "6.3%"),
            (-0.0001, "fraction", "0.0%"),
            (1.0, "fraction", "100.0%"),
            (16.14, "seconds", "16 s"),
            (0.52, "seconds", "0.52 s"),
            (-0.0625, "fraction", "−6.3%"),
            (59.7, "seconds", "1 min 00 s"),
            (3725.0, "seconds", "1 h 02 min"),
            (1_500_000.0, "bytes", "1.5 MB"),
            (12.0, "count", "12"),
            (0.27345, "cosine", "0.273"),
            (123.456, "distance", "123.5"),
            (0.00001234, "distance", "0.00001234"),
            (1e12, "distance", "1.000e12"),
            (f64::NAN, "fraction", NONE),
        ] {
            assert_eq!(number(Some(value), unit), text, "{value} {unit}");
        }
        assert_eq!(interval(Some(0.1), Some(0.25), "fraction"), "[10.0, 25.0%]");
        assert_eq!(interval(Some(f64::NAN), Some(0.25), "fraction"), "");
        assert_eq!(probability(Some(0.0002)), "< 0.001");
    }

    #[test]
    fn seeds_are_said_in_runs() {
        assert_eq!(
            seeds(&[1, 2, 3, 7, u64::MAX], 8),
            "1–3, 7, 18446744073709551615"
        );
        assert_eq!(seeds(&[1, 3, 5], 2), "1, 3, …");
        assert_eq!(seeds(&[], 2), "");
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
        assert_eq!(
            (slug("../ESD u!"), slug("教会")),
            ("esd-u".into(), "x".into())
        );
    }
}
