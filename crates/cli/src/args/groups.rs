//! Flags that several commands have, defined once.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use scumble_study::request::RUNS;

/// A seed: `-1`, by which other tools mean a random one, is refused in words.
pub(crate) fn seed(text: &str) -> Result<u64, String> {
    text.trim().parse::<u64>().map_err(|_| {
        let random = if text.trim() == "-1" {
            "; there is no random seed, so that every result can be had again"
        } else {
            ""
        };
        format!("expected a whole number from 0{random}")
    })
}

/// A size in bytes: `8G`, `8GiB`, `900M`, or bytes alone. A letter is a power of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    let unit = text[digits.len()..].to_lowercase();
    let power = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => {
            return Err(format!(
                "`{unit}` is no unit; expected a size such as 8G or 900M"
            ));
        }
    };
    match digits.trim().parse::<f64>() {
        Ok(n) if n > 0.0 && n < 1e9 * 1024f64.powi(4 - power) => {
            Ok((n * 1024f64.powi(power)) as u64)
        }
        _ => Err("expected a size such as 8G or 900M".into()),
    }
}

/// Which model, and where it runs.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// A diffusers folder, a single .safetensors checkpoint, or ORG/NAME in the local Hugging Face
    /// cache; the built-in miniature if absent
    #[arg(long, value_name = "DIR|FILE|NAME", visible_aliases = ["pretrained-model-name-or-path", "model-id", "base-model"])]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
}

/// How a model is read, and where it runs.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub(crate) struct ReadingArgs {
    /// A diffusers folder whose configurations and tokenizer describe a single file
    #[arg(long, value_name = "DIR")]
    pub(crate) config: Option<PathBuf>,
    /// What the U-Net predicts, where a single file cannot say it: epsilon or v_prediction
    #[arg(long, value_name = "TYPE")]
    pub(crate) prediction_type: Option<String>,
    /// Where a sampler's timesteps lie, where a single file cannot say it: few-step models (turbo,
    /// lightning) want trailing
    #[arg(long, value_name = "SPACING", value_parser = ["leading", "trailing", "linspace"])]
    pub(crate) timestep_spacing: Option<String>,
    /// Variant of a folder's weight files, such as fp16
    #[arg(long, value_name = "NAME")]
    pub(crate) variant_files: Option<String>,
    /// cpu, cuda[:N], vulkan[:N], metal[:N] or rocm[:N]; all but cpu are cargo features
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub(crate) device: String,
    /// Number of CPU threads; all cores if absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

/// How to print.
#[derive(ClapArgs, Clone, Copy, Debug)]
#[command(next_help_heading = "Printing")]
pub(crate) struct PrintArgs {
    /// Print the result as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
    /// Print no progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// What lies over the model.
#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct EditsArgs {
    /// An edit, a partial U-Net, a LoRA or a text-encoder folder, optionally with a strength; may
    /// repeat
    #[arg(long, value_name = "E[:STRENGTH]")]
    pub(crate) edit: Vec<String>,
    /// A LoRA in kohya's or PEFT's names, optionally with a weight; may repeat
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    pub(crate) lora: Vec<String>,
}

/// Who looks at pictures beside the miniature's judges, and what counts.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Detectors")]
pub(crate) struct DetectorArgs {
    /// Who looks, whatever the model: a detector's manifest, or a network that needs none (see
    /// `scumble detectors`); may repeat
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) detector: Vec<PathBuf>,
    /// Count this label of the detectors in place of the manifest's hits; may repeat
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Vec<String>,
    /// How probable a judge must find what counts, 0 to 1; what the manifest says, or 0.5 for the
    /// miniature's judges, if absent
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) threshold: Option<f32>,
}

/// What a run may take.
#[derive(ClapArgs, Clone, Copy, Debug)]
#[command(next_help_heading = "Cost")]
pub(crate) struct CostArgs {
    /// Say what it will take on this machine (seconds, memory, evaluations, disk) and do nothing
    #[arg(long)]
    pub(crate) estimate: bool,
    /// The most memory that it may take, such as 8G; more is an error before anything is done
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = bytes)]
    pub(crate) memory: Option<u64>,
}

/// Where a run's result lies.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Where to write; a folder named after the plan, in --runs-dir, if absent
    #[arg(long, visible_aliases = ["out", "save-path", "save-dir"], value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Where folders lie that are named after their plan, such as a studio's
    #[arg(long, value_name = "DIR", default_value = RUNS, conflicts_with = "output_dir")]
    pub(crate) runs_dir: PathBuf,
    /// Replace another plan's result in that folder
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// For scripts that ask for it: an unfinished run continues where it stopped, with or without
    /// this flag
    #[arg(long)]
    pub(crate) resume: bool,
}

/// In what numbers is computed.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub(crate) struct DtypeArgs {
    /// Dtype of the computation; f32 is the only one so far
    #[arg(long, default_value = "f32", value_parser = ["f32", "float32"], value_name = "DTYPE")]
    pub(crate) dtype: String,
}

/// How pictures are drawn that are then judged.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Drawing")]
pub(crate) struct DrawingArgs {
    /// Denoising steps; 50, or 20 for the miniature, if absent
    #[arg(
        long,
        visible_alias = "num-inference-steps",
        value_name = "N",
        allow_negative_numbers = true
    )]
    pub(crate) steps: Option<usize>,
    /// Strength of classifier-free guidance; 7.5, 5 for SDXL, or 4 for the miniature, if absent
    #[arg(
        long,
        visible_alias = "cfg-scale",
        value_name = "X",
        allow_negative_numbers = true
    )]
    pub(crate) guidance_scale: Option<f64>,
    /// The sampler, as for `scumble generate`; the checkpoint's own, or ddim for the miniature, if
    /// absent
    #[arg(long, visible_alias = "scheduler", value_name = "NAME")]
    pub(crate) sampler: Option<String>,
}

#[derive(ClapArgs, Clone, Copy, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct CatalogueArgs {
    /// One of them, with every option: meaning, range and defaults
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}
