//! The `parameters` text that A1111's web interface and its kin write into pictures and read back.

use std::fmt::Write as _;

/// How a picture was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// The prompt.
    pub prompt: String,
    /// The negative prompt; left out if empty.
    pub negative_prompt: String,
    /// Denoising steps.
    pub steps: usize,
    /// The sampler, by the name of its function (`ddim`, `euler-a`, ...) or any other name.
    pub sampler: String,
    /// Strength of classifier-free guidance.
    pub guidance_scale: f64,
    /// The seed.
    pub seed: u64,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// The first ten digits of the checkpoint file's SHA-256, if known.
    pub model_hash: Option<String>,
    /// The checkpoint's name, if it has one.
    pub model: Option<String>,
    /// Further fields, such as what was erased, in order.
    pub extra: Vec<(String, String)>,
}

impl Parameters {
    /// The keyword of the text chunk that holds this text.
    pub const KEYWORD: &str = "parameters";

    /// The text: the prompt, the negative prompt, and one line of `name: value` pairs.
    pub fn text(&self) -> String {
        let mut text = self.prompt.clone();
        if !self.negative_prompt.is_empty() {
            text += &format!("\nNegative prompt: {}", self.negative_prompt);
        }
        text += &format!("\nSteps: {}", self.steps);
        let mut field = |name: &str, value: &str| text += &format!(", {name}: {}", quoted(value));
        field("Sampler", sampler(&self.sampler));
        field("CFG scale", &self.guidance_scale.to_string());
        field("Seed", &self.seed.to_string());
        field("Size", &format!("{}x{}", self.width, self.height));
        if let Some(hash) = &self.model_hash {
            field("Model hash", hash);
        }
        if let Some(model) = &self.model {
            field("Model", model);
        }
        for (name, value) in &self.extra {
            field(name, value);
        }
        field("Version", concat!("scumble ", env!("CARGO_PKG_VERSION")));
        text
    }
}

/// The sampler's name in A1111's spelling; a name it does not know stays as it is.
pub(crate) fn sampler(name: &str) -> &str {
    match name {
        "ddim" => "DDIM",
        "ddpm" => "DDPM",
        "pndm" | "plms" => "PLMS",
        "lms" => "LMS",
        "euler" => "Euler",
        "euler-a" => "Euler a",
        "dpm++2m" => "DPM++ 2M",
        "dpm++2m-karras" => "DPM++ 2M Karras",
        "unipc" => "UniPC",
        other => other,
    }
}

/// A value that holds one of the line's own separators stands in quotes, as a JSON string.
fn quoted(value: &str) -> String {
    if !value.contains([',', ':', '\n', '"']) {
        return value.to_owned();
    }
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text += "\\n",
            c if c < ' ' => drop(write!(text, "\\u{:04x}", c as u32)),
            c => text.push(c),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn church() -> Parameters {
        Parameters {
            prompt: "a church in ink style".into(),
            steps: 20,
            sampler: "ddim".into(),
            guidance_scale: 4.0,
            seed: 7,
            width: 32,
            height: 32,
            model_hash: Some("abcdef1234".into()),
            model: Some("emoji-sd".into()),
            ..Parameters::default()
        }
    }

    #[test]
    fn is_the_text_that_a1111_reads() {
        let version = env!("CARGO_PKG_VERSION");
        let line = "Steps: 20, Sampler: DDIM, CFG scale: 4, Seed: 7, Size: 32x32, Model hash: abcdef1234, Model: emoji-sd";
        assert_eq!(
            church().text(),
            format!("a church in ink style\n{line}, Version: scumble {version}")
        );

        let mut other = church();
        other.negative_prompt = "blurry, grey".into();
        other.sampler = "euler-a".into();
        other.guidance_scale = 7.5;
        (other.model_hash, other.model) = (None, Some("a: b, \"c\"".into()));
        other.extra = vec![("Erased".into(), "church".into())];
        let line = r#"Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 7, Size: 32x32, Model: "a: b, \"c\"", Erased: church"#;
        let expected = format!(
            "a church in ink style\nNegative prompt: blurry, grey\n{line}, Version: scumble {version}"
        );
        assert_eq!(other.text(), expected);
    }

    #[test]
    fn samplers_are_spelt_as_a1111_does() {
        let ours = [
            "ddim",
            "ddpm",
            "pndm",
            "lms",
            "euler",
            "euler-a",
            "dpm++2m",
            "dpm++2m-karras",
            "unipc",
            "new",
        ];
        let theirs = [
            "DDIM",
            "DDPM",
            "PLMS",
            "LMS",
            "Euler",
            "Euler a",
            "DPM++ 2M",
            "DPM++ 2M Karras",
            "UniPC",
            "new",
        ];
        assert_eq!(ours.map(sampler), theirs);
    }

    #[test]
    fn control_characters_are_escaped_inside_quotes() {
        assert_eq!(quoted("plain \\ text"), "plain \\ text");
        assert_eq!(quoted("a\nb\t\\,\u{e9}"), "\"a\\nb\\u0009\\\\,\u{e9}\"");
    }
}
