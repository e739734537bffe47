//! Templates, style and script: compiled in, nothing from elsewhere.

use std::sync::LazyLock;

use minijinja::{AutoEscape, Environment, Value as Shown, value::Serde};
use scumble_study::Failure;
use serde_json::{Value, json};

use crate::app::App;

const TEMPLATES: [(&str, &str); 12] = [
    ("layout.html", include_str!("../templates/layout.html")),
    ("erase.html", include_str!("../templates/erase.html")),
    ("method.html", include_str!("../templates/method.html")),
    ("jobs.html", include_str!("../templates/jobs.html")),
    ("look.html", include_str!("../templates/look.html")),
    ("compare.html", include_str!("../templates/compare.html")),
    ("attack.html", include_str!("../templates/attack.html")),
    (
        "attack_about.html",
        include_str!("../templates/attack_about.html"),
    ),
    (
        "detectors.html",
        include_str!("../templates/detectors.html"),
    ),
    ("library.html", include_str!("../templates/library.html")),
    ("models.html", include_str!("../templates/models.html")),
    ("rate.html", include_str!("../templates/rate.html")),
];
const STYLE: &str = include_str!("../templates/studio.css");
const SCRIPT: &str = include_str!("../templates/studio.js");

/// The templates, read once.
static PAGES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut pages = Environment::new();
    pages.set_auto_escape_callback(|_| AutoEscape::Html);
    for (name, text) in TEMPLATES {
        // A test fills every one of them.
        let _ = pages.add_template(name, text);
    }
    pages
});

/// A tab of the studio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tab {
    Models,
    Erase,
    Look,
    Compare,
    Attack,
    Library,
}

impl Tab {
    const ALL: [Self; 6] = [
        Self::Models,
        Self::Erase,
        Self::Look,
        Self::Compare,
        Self::Attack,
        Self::Library,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Models => "Models",
            Self::Erase => "Erase",
            Self::Look => "Look",
            Self::Compare => "Compare",
            Self::Attack => "Attack",
            Self::Library => "Library",
        }
    }

    fn address(self) -> String {
        format!("/{}", self.name().to_lowercase())
    }
}

/// A whole page.
pub(super) fn fill(app: &App, tab: Tab, template: &str, mut data: Value) -> String {
    let tabs: Vec<Value> = Tab::ALL
        .into_iter()
        .map(|one| json!({"name": one.name(), "address": one.address(), "here": one == tab}))
        .collect();
    data["tabs"] = json!(tabs);
    data["title"] = tab.name().into();
    data["folder_name"] = json!(app.folder);
    data["version"] = env!("CARGO_PKG_VERSION").into();
    part(template, data)
}

/// A part of one.
pub(super) fn part(template: &str, data: Value) -> String {
    // What comes of parts is HTML already.
    let safe = |key: &str, value: Value| match (key, value) {
        ("jobs" | "chosen", Value::String(html)) => Shown::from_safe_string(html),
        (_, value) => Shown::from(Serde(value)),
    };
    let data: std::collections::BTreeMap<String, Shown> = match data {
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| (key.clone(), safe(&key, value)))
            .collect(),
        _ => std::collections::BTreeMap::new(),
    };
    let filled = PAGES
        .get_template(template)
        .and_then(|page| page.render(&data));
    filled.unwrap_or_else(|e| {
        format!(
            "<p>this is a bug in scumble: {}</p>",
            minijinja::HtmlEscape(&e.to_string())
        )
    })
}

/// A page that says what is wrong.
pub(crate) fn error(app: &App, failure: &Failure) -> String {
    let data = json!({"problem": {"error": failure.to_string(), "hint": failure.hint()}, "tabs": [], "about": null, "model": "",
        "built_in": app.place.built_in.name, "others": [], "cached": [], "roots": []});
    fill(app, Tab::Models, "models.html", data)
}

/// A file of the pages, with its type.
pub(crate) fn asset(name: &str) -> Option<(&'static str, String)> {
    match name {
        "studio.css" => Some((
            "text/css; charset=utf-8",
            [scumble_report::style(), STYLE.to_owned()].concat(),
        )),
        "studio.js" => Some(("text/javascript; charset=utf-8", SCRIPT.to_owned())),
        _ => None,
    }
}
