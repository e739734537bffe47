//! What every page has: templates, a style, a script, and a policy that lets nothing else in.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minijinja::{
    AutoEscape, Environment, UndefinedBehavior, Value, context, syntax::SyntaxConfig, value::Serde,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::error::Result;

/// The files of the pages.
const FILES: [(&str, &str); 14] = [
    ("report.html", include_str!("template/report.html")),
    ("macros.html", include_str!("template/macros.html")),
    ("head.html", include_str!("template/head.html")),
    ("pictures.html", include_str!("template/pictures.html")),
    ("plots.html", include_str!("template/plots.html")),
    ("numbers.html", include_str!("template/numbers.html")),
    ("rating.html", include_str!("template/rating.html")),
    ("light.css", include_str!("template/light.css")),
    ("plot.css", include_str!("template/plot.css")),
    ("base.css", include_str!("template/base.css")),
    ("report.css", include_str!("template/report.css")),
    ("rating.css", include_str!("template/rating.css")),
    ("report.js", include_str!("template/report.js")),
    ("rating.js", include_str!("template/rating.js")),
];

/// A file of [`FILES`].
fn text(name: &str) -> &'static str {
    FILES
        .iter()
        .find(|(n, _)| *n == name)
        .map_or("", |(_, text)| text)
}

/// A plot of the page as a file of its own, in the light colours.
pub(crate) fn standalone(svg: &str) -> String {
    let Some((head, body)) = svg.split_once('>') else {
        return String::new();
    };
    let head = head.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1);
    let style = format!(
        "{}{}svg {{ background: var(--bg); }}",
        text("light.css"),
        text("plot.css")
    );
    format!("{head}><style>{style}</style>{body}\n")
}

/// A text as HTML: escaped, and what stands between two backticks as code.
fn prose(text: String) -> Value {
    let mut out = String::with_capacity(text.len());
    let parts: Vec<&str> = text.split('`').collect();
    for (i, part) in parts.iter().enumerate() {
        let escaped = minijinja::HtmlEscape(part).to_string();
        // A backtick without a fellow stays one.
        match (i % 2, i + 1 == parts.len()) {
            (1, false) => out += &format!("<code>{escaped}</code>"),
            (1, true) => out += &format!("`{escaped}"),
            _ => out += &escaped,
        }
    }
    Value::from_safe_string(out)
}

/// A value as templates take it.
pub(crate) fn value<T: Serialize>(x: &T) -> Value {
    Value::from(Serde(x))
}

/// A page's style and script.
pub(crate) struct Shell {
    css: String,
    js: &'static str,
}

impl Shell {
    /// The shell with a script and a style of those in [`FILES`].
    pub(crate) fn new(js: &str, css: &str) -> Self {
        let css = ["light.css", "base.css", "plot.css", css]
            .map(text)
            .concat();
        Self { css, js: text(js) }
    }

    /// What the page may do: run this script, use this style, show pictures that lie in it. Nothing
    /// is fetched from anywhere, and text that came from outside cannot become a script even if it
    /// were not escaped.
    fn policy(&self) -> String {
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
        format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'",
            hash(self.js),
            hash(&self.css)
        )
    }

    /// Renders a template of [`FILES`]. All values are escaped but those that templates call safe:
    /// drawings, style and script.
    ///
    /// # Errors
    /// If a template does not fit its values, which is a bug.
    pub(crate) fn render(&self, template: &str, values: Value) -> Result<String> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|name| {
            if name.ends_with(".html") {
                AutoEscape::Html
            } else {
                AutoEscape::None
            }
        });
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.add_filter("prose", prose);
        let mut syntax = SyntaxConfig::builder();
        environment.set_syntax(syntax.trim_blocks(true).lstrip_blocks(true).build()?);
        for (name, text) in FILES.iter().filter(|(name, _)| name.ends_with(".html")) {
            environment.add_template(name, text)?;
        }
        let shell = context! { policy => self.policy(), css => self.css.as_str(), js => self.js };
        Ok(environment
            .get_template(template)?
            .render(context! { ..shell, ..values })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_in_texts_is_code_and_nothing_else_is() {
        let said = |text: &str| prose(text.to_owned()).to_string();
        assert_eq!(
            said("as for `others`, `a<b`"),
            "as for <code>others</code>, <code>a&lt;b</code>"
        );
        assert_eq!(said("a ` alone <script>"), "a ` alone &lt;script&gt;");
        assert_eq!(
            said("`<img onerror=x>`"),
            "<code>&lt;img onerror=x&gt;</code>"
        );
    }
}
