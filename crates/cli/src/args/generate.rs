//! What `scumble generate` takes.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use scumble_study::request::SizeCondition;

use super::groups::{DtypeArgs, EditsArgs, ModelArgs, OutputArgs, PrintArgs, seed};

/// Shown below the help.
const EXAMPLES: &str = "\
Examples:
  scumble generate \"a church in ink style\" --n 4
  scumble generate \"a church\" --edit scumble-out/esd-church-1c2bd848:0.5
  scumble generate --prompts prompts.csv --model sd15 --lora style.safetensors:0.8
  scumble generate \"a church\" --guard sld-strong=church";

#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    /// What to draw; `;` does not separate here, but the argument may repeat
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: Vec<String>,
    /// A CSV with case_number,prompt,evaluation_seed[,evaluation_guidance], a text file (a prompt a
    /// line), JSON lines or a JSON list
    #[arg(long, visible_aliases = ["prompts-path"], value_name = "FILE", conflicts_with = "prompt")]
    pub(crate) prompts: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) edits: EditsArgs,
    /// Keep the model from a concept while it draws (see `scumble guards`); `;` separates concepts,
    /// the edit's own if absent; may repeat
    #[arg(long, value_name = "ID[=CONCEPTS]")]
    pub(crate) guard: Vec<String>,
    /// Any number of the guards
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// A textual-inversion embedding; its token can then be used in prompts
    #[arg(long, value_name = "FILE")]
    pub(crate) embedding: Vec<PathBuf>,
    /// Denoising steps
    #[arg(
        help_heading = "Drawing",
        long,
        visible_alias = "num-inference-steps",
        default_value_t = 30,
        value_name = "N",
        allow_negative_numbers = true
    )]
    pub(crate) steps: usize,
    /// Strength of classifier-free guidance; 7.5, 5 for SDXL, or 4 for the miniature, if absent
    #[arg(
        help_heading = "Drawing",
        long,
        visible_alias = "cfg-scale",
        value_name = "X",
        allow_negative_numbers = true
    )]
    pub(crate) guidance_scale: Option<f64>,
    /// ddim, ddpm, pndm, lms, euler, euler-a, dpm++2m, dpm++2m-karras or unipc; the checkpoint's
    /// own if absent
    #[arg(
        help_heading = "Drawing",
        long,
        visible_alias = "scheduler",
        value_name = "NAME"
    )]
    pub(crate) sampler: Option<String>,
    /// DDIM's share of fresh noise, 0 to 1
    #[arg(
        help_heading = "Drawing",
        long,
        default_value_t = 0.0,
        value_name = "X",
        allow_negative_numbers = true
    )]
    pub(crate) eta: f64,
    /// What to steer away from
    #[arg(
        help_heading = "Drawing",
        long,
        default_value = "",
        value_name = "TEXT"
    )]
    pub(crate) negative_prompt: String,
    /// Width in pixels
    #[arg(
        help_heading = "Drawing",
        long,
        value_name = "N",
        allow_negative_numbers = true
    )]
    pub(crate) width: Option<usize>,
    /// Height in pixels
    #[arg(
        help_heading = "Drawing",
        long,
        value_name = "N",
        allow_negative_numbers = true
    )]
    pub(crate) height: Option<usize>,
    /// Size that pictures are said to have had before they were cropped (SDXL), in pixels, and
    /// where the crop began; the size that is drawn, from the corner, if absent
    #[arg(help_heading = "Drawing", long, value_name = "HxW[+TOP+LEFT]", value_parser = size_condition)]
    pub(crate) size_condition: Option<SizeCondition>,
    /// Pictures of each prompt
    #[arg(help_heading = "Drawing", long, visible_aliases = ["num-samples", "num-images-per-prompt"], default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    pub(crate) n: usize,
    /// Seed of the first picture; picture i of a prompt uses seed + i
    #[arg(help_heading = "Drawing", long, default_value_t = 0, value_name = "N", allow_negative_numbers = true, value_parser = seed)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Pictures drawn at once; chosen by their size if absent
    #[arg(
        help_heading = "Drawing",
        long,
        visible_alias = "batch-size",
        value_name = "N",
        allow_negative_numbers = true
    )]
    pub(crate) batch: Option<usize>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) dtype: DtypeArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

fn size_condition(text: &str) -> Result<SizeCondition, String> {
    const MOST: usize = 1 << 16;
    let number = |text: &str| text.parse::<usize>().ok().filter(|&n| n <= MOST);
    let read = || {
        let mut parts = text.split('+');
        let (height, width) = parts.next()?.split_once('x')?;
        let original = [number(height)?, number(width)?];
        let crop = match (parts.next(), parts.next(), parts.next()) {
            (None, None, None) => [0, 0],
            (Some(top), Some(left), None) => [number(top)?, number(left)?],
            _ => return None,
        };
        (!original.contains(&0)).then_some(SizeCondition { original, crop })
    };
    read().ok_or_else(|| {
        format!("expected HEIGHTxWIDTH or HEIGHTxWIDTH+TOP+LEFT in pixels, such as 1024x1024+0+0, up to {MOST}")
    })
}
