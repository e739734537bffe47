//! The colours and the type that all pages share, whoever serves them.

const LIGHT: &str = include_str!("template/light.css");
const BASE: &str = include_str!("template/base.css");

/// Style sheets for a page: light colours, dark ones where the reader's system is dark or
/// `data-theme` on the root says so, and how plain elements look.
pub fn style() -> String {
    [LIGHT, BASE].concat()
}
