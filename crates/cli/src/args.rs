//! What a user can type: one definition for parsing, help and the list of flags.
//!
//! Hyphen and underscore are the same in every flag, and the flag names of the published tools are aliases.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Erase concepts from text-to-image diffusion models, and try to bring them back.
#[derive(Debug, Parser)]
#[command(name = "scumble", version, long_version = crate::device::version(), max_term_width = 110)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Erase concepts from a model; without --model from the built-in miniature
    Erase(EraseArgs),
    /// Draw pictures
    Generate(GenerateArgs),
    /// Try to bring back what an edit erased
    Attack(AttackArgs),
    /// Judge models, edits, guards and attacks on the same pictures
    Evaluate(EvaluateArgs),
    /// Make a page, tables and a rating page of what `scumble evaluate` found
    Report(ReportArgs),
    /// Write an edited model, or the edit alone, in a form that other tools load
    Export(ExportArgs),
    /// Say what a file or folder is
    Inspect(InspectArgs),
    /// Compare a model with reference tensors made elsewhere
    Verify(VerifyArgs),
    /// List the methods
    Methods(ListArgs),
    /// List the attacks
    Attacks(ListArgs),
    /// List the guards
    Guards(ListArgs),
    /// List the metrics
    Metrics(ListArgs),
}

/// Which model, and where it runs.
#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct ModelArgs {
    /// A diffusers folder or a single .safetensors checkpoint; the built-in miniature if absent
    #[arg(long, value_name = "DIR|FILE", visible_aliases = ["pretrained-model-name-or-path", "model-id", "base-model"])]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
}

/// How a model is read, and where it runs.
#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct ReadingArgs {
    /// A diffusers folder whose configurations and tokenizer describe a single file
    #[arg(long, value_name = "DIR")]
    pub(crate) config: Option<PathBuf>,
    /// What the U-Net predicts, where a single file cannot say it: epsilon or v_prediction
    #[arg(long, value_name = "TYPE")]
    pub(crate) prediction_type: Option<String>,
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
pub(crate) struct PrintArgs {
    /// Print the result as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
    /// Print no progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct EraseArgs {
    /// What to erase; `;` separates several concepts, and the argument may repeat
    #[arg(value_name = "CONCEPT")]
    pub(crate) concepts: Vec<String>,
    /// The same as a flag
    #[arg(long = "erase", value_name = "CONCEPT", visible_aliases = ["erase-concept", "edit-concepts", "concept"])]
    pub(crate) erase: Vec<String>,
    /// Which method (see `scumble methods`), or a guard (see `scumble guards`)
    #[arg(long, default_value = "esd", value_name = "ID")]
    pub(crate) method: String,
    /// Which tensors move, for methods that let one choose: esd-x, esd-x-strict, esd-u, esd-all, selfattn, text-encoder, ...
    #[arg(long, value_name = "NAME")]
    pub(crate) train_method: Option<String>,
    /// Training steps
    #[arg(long, visible_alias = "steps", value_name = "N")]
    pub(crate) iterations: Option<u64>,
    /// Step size of the optimiser
    #[arg(long, visible_aliases = ["learning-rate"], value_name = "X", allow_negative_numbers = true)]
    pub(crate) lr: Option<f64>,
    /// How far past the neutral prediction to go, in the paper's counting
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) eta: Option<f64>,
    /// The same in the counting of ESD's present code: eta + 1
    #[arg(long, value_name = "X", conflicts_with = "eta", allow_negative_numbers = true)]
    pub(crate) negative_guidance: Option<f64>,
    /// Guidance on the trajectories that are trained on
    #[arg(long, visible_alias = "guidance-scale", value_name = "X", allow_negative_numbers = true)]
    pub(crate) start_guidance: Option<f64>,
    /// Examples in a training step
    #[arg(long, visible_aliases = ["batch-size", "train-batch-size"], value_name = "N")]
    pub(crate) batch: Option<u64>,
    /// Erase the concept from this prompt only ({object} and {concept} are filled in)
    #[arg(long, visible_alias = "erase-from", value_name = "PROMPT")]
    pub(crate) from: Option<String>,
    /// What to draw instead of the concept ({object} and {concept} are filled in)
    #[arg(long, visible_aliases = ["guide", "guide-concepts", "mapping-concept"], value_name = "PROMPT")]
    pub(crate) anchor: Option<String>,
    /// Concepts to keep; `;` separates
    #[arg(long, visible_aliases = ["preserve-concepts"], value_name = "CONCEPTS")]
    pub(crate) preserve: Vec<String>,
    /// What the model should go on drawing: a file of prompts (CSV, JSON lines or text) in place of the built-in ones
    #[arg(long, visible_aliases = ["retain", "prior"], value_name = "FILE")]
    pub(crate) captions: Option<PathBuf>,
    /// Pictures of the concept for methods that learn from some; the model draws them itself if absent
    #[arg(long, visible_aliases = ["images", "instance-data-dir", "train-data-dir"], value_name = "DIR")]
    pub(crate) pictures: Option<PathBuf>,
    /// The concept's prompts, with the places {concept} and {object}
    #[arg(long, value_name = "TEXT")]
    pub(crate) template: Option<String>,
    /// What {object} stands for; `;` separates
    #[arg(long, value_name = "OBJECTS")]
    pub(crate) objects: Vec<String>,
    /// Where paper and published code disagree: paper, reference or fixed
    #[arg(long, default_value = "fixed", value_name = "NAME")]
    pub(crate) variant: String,
    /// Any option of the method
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Seed of everything that is drawn for training
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Where to write; a folder in ./scumble-out named after the plan if absent
    #[arg(long, visible_aliases = ["out", "save-path", "save-dir"], value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Replace another plan's result in that folder
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Continue an unfinished run; this happens anyway
    #[arg(long)]
    pub(crate) resume: bool,
    /// Erase only: draw no pictures, judge nothing
    #[arg(long)]
    pub(crate) no_judge: bool,
    /// Judge with the miniature's judges although another model was given
    #[arg(long, conflicts_with = "no_judge")]
    pub(crate) judge: bool,
    /// Dtype of the computation; f32 is the only one so far
    #[arg(long, default_value = "f32", value_parser = ["f32", "float32"], value_name = "DTYPE")]
    pub(crate) dtype: String,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct GenerateArgs {
    /// What to draw; `;` does not separate here, but the argument may repeat
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: Vec<String>,
    /// A CSV with case_number,prompt,evaluation_seed[,evaluation_guidance], a text file (a prompt a line) or JSON lines
    #[arg(long, visible_aliases = ["prompts-path"], value_name = "FILE", conflicts_with = "prompt")]
    pub(crate) prompts: Option<PathBuf>,
    /// An edit, a partial U-Net, a LoRA or a text-encoder folder, optionally with a strength; may repeat
    #[arg(long, value_name = "E[:STRENGTH]")]
    pub(crate) edit: Vec<String>,
    /// A LoRA in kohya's or PEFT's names, optionally with a weight; may repeat
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    pub(crate) lora: Vec<String>,
    /// Keep the model from a concept while it draws (see `scumble guards`); `;` separates concepts, the edit's own if absent; may repeat
    #[arg(long, value_name = "ID[=CONCEPTS]")]
    pub(crate) guard: Vec<String>,
    /// Any number of the guards
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// A textual-inversion embedding; its token can then be used in prompts
    #[arg(long, value_name = "FILE")]
    pub(crate) embedding: Vec<PathBuf>,
    /// Denoising steps
    #[arg(long, visible_alias = "num-inference-steps", default_value_t = 30, value_name = "N", allow_negative_numbers = true)]
    pub(crate) steps: usize,
    /// Strength of classifier-free guidance; 7.5, or 4 for the miniature, if absent
    #[arg(long, visible_alias = "cfg-scale", value_name = "X", allow_negative_numbers = true)]
    pub(crate) guidance_scale: Option<f64>,
    /// ddim, ddpm, pndm, lms, euler, euler-a, dpm++2m, dpm++2m-karras or unipc; the checkpoint's own if absent
    #[arg(long, visible_alias = "scheduler", value_name = "NAME")]
    pub(crate) sampler: Option<String>,
    /// DDIM's share of fresh noise, 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "X", allow_negative_numbers = true)]
    pub(crate) eta: f64,
    /// What to steer away from
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) negative_prompt: String,
    /// Width in pixels
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) width: Option<usize>,
    /// Height in pixels
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) height: Option<usize>,
    /// Pictures of each prompt
    #[arg(long, visible_aliases = ["num-samples", "num-images-per-prompt"], default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    pub(crate) n: usize,
    /// Seed of the first picture; picture i of a prompt uses seed + i
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: u64,
    /// Where to write; ./scumble-out/generate-... if absent
    #[arg(long, visible_aliases = ["out", "save-path", "save-dir"], value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Replace another plan's pictures in that folder
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Continue an unfinished run; this happens anyway
    #[arg(long)]
    pub(crate) resume: bool,
    /// Pictures drawn at once; chosen by their size if absent
    #[arg(long, visible_alias = "batch-size", value_name = "N", allow_negative_numbers = true)]
    pub(crate) batch: Option<usize>,
    /// Dtype of the computation; f32 is the only one so far
    #[arg(long, default_value = "f32", value_parser = ["f32", "float32"], value_name = "DTYPE")]
    pub(crate) dtype: String,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct AttackArgs {
    /// Which attack (see `scumble attacks`)
    #[arg(value_name = "ATTACK")]
    pub(crate) attack: String,
    /// The edit to attack: an edit, a partial U-Net, a LoRA or a text-encoder folder, optionally with a strength; may repeat
    #[arg(long, value_name = "E[:STRENGTH]")]
    pub(crate) edit: Vec<String>,
    /// A LoRA in kohya's or PEFT's names, optionally with a weight; may repeat
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    pub(crate) lora: Vec<String>,
    /// A run-time guard to attack, alone or beside an edit (see `scumble guards`); may repeat
    #[arg(long, value_name = "ID[=TEXT]")]
    pub(crate) guard: Vec<String>,
    /// What to bring back; what the edit says it erased, if absent
    #[arg(long, value_name = "CONCEPT")]
    pub(crate) concept: Option<String>,
    /// The concept's word in the prompts, where an attack replaces it; the concept's name if absent
    #[arg(long, value_name = "WORD")]
    pub(crate) word: Option<String>,
    /// Pictures to bring it back in: a CSV with case_number,prompt,evaluation_seed, a text file or JSON lines
    #[arg(long, visible_aliases = ["prompts-path"], value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
    /// How many pictures; the attack's own number if absent
    #[arg(long, visible_aliases = ["num-samples"], value_name = "N", allow_negative_numbers = true)]
    pub(crate) n: Option<usize>,
    /// The most steps of the search (`scumble attacks` says what a step is); the attack's default if absent
    #[arg(long, visible_aliases = ["iterations"], value_name = "STEPS", allow_negative_numbers = true)]
    pub(crate) budget: Option<usize>,
    /// The CLIPModel folder whose text tower the model uses, for attacks that compare words with pictures; the miniature has its own
    #[arg(long, value_name = "DIR")]
    pub(crate) clip: Option<PathBuf>,
    /// Try what an earlier attack found (its folder or file) instead of searching
    #[arg(long, value_name = "DIR|FILE")]
    pub(crate) transfer: Option<PathBuf>,
    /// Where paper and published code disagree: paper, reference or fixed
    #[arg(long, default_value = "fixed", value_name = "NAME")]
    pub(crate) variant: String,
    /// Any option of the attack
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Denoising steps of the pictures; 50, or 20 for the miniature, if absent
    #[arg(long, visible_alias = "num-inference-steps", value_name = "N", allow_negative_numbers = true)]
    pub(crate) steps: Option<usize>,
    /// Strength of classifier-free guidance; 7.5, or 4 for the miniature, if absent
    #[arg(long, visible_alias = "cfg-scale", value_name = "X", allow_negative_numbers = true)]
    pub(crate) guidance_scale: Option<f64>,
    /// The sampler, as for `scumble generate`; the checkpoint's own, or ddim for the miniature, if absent
    #[arg(long, visible_alias = "scheduler", value_name = "NAME")]
    pub(crate) sampler: Option<String>,
    /// Seed of everything that the attack draws
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Where to write; ./scumble-out/attack-... if absent
    #[arg(long, visible_aliases = ["out", "save-path", "save-dir"], value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Replace another plan's result in that folder
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Continue an unfinished run; this happens anyway
    #[arg(long)]
    pub(crate) resume: bool,
    /// Judge with the miniature's judges although another model was given
    #[arg(long)]
    pub(crate) judge: bool,
    /// How probable the judge must find the concept for a picture to count, 0 to 1; 0.5 if absent
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) threshold: Option<f32>,
    /// Dtype of the computation; f32 is the only one so far
    #[arg(long, default_value = "f32", value_parser = ["f32", "float32"], value_name = "DTYPE")]
    pub(crate) dtype: String,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct EvaluateArgs {
    /// A diffusers folder or a single .safetensors checkpoint; may repeat; the built-in miniature if absent
    #[arg(long = "model", value_name = "DIR|FILE", visible_aliases = ["pretrained-model-name-or-path", "base-model"])]
    pub(crate) models: Vec<PathBuf>,
    /// An edit to judge, optionally with a strength; may repeat
    #[arg(long, value_name = "E[:STRENGTH]")]
    pub(crate) edit: Vec<String>,
    /// A run-time guard to judge; against --concept, if it names none; may repeat
    #[arg(long, value_name = "ID[=TEXT]")]
    pub(crate) guard: Vec<String>,
    /// An attack to try on every edit and guard (see `scumble attacks`); `,` separates, and the flag may repeat
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) attack: Vec<String>,
    /// What to ask about, of everything; what each edit says it erased, if absent; `;` separates
    #[arg(long, value_name = "CONCEPT")]
    pub(crate) concept: Vec<String>,
    /// A checkpoint that never saw the concept, as the gold standard
    #[arg(long, value_name = "DIR|FILE")]
    pub(crate) oracle: Option<PathBuf>,
    /// Erase every concept (or each --concept) in turn, and map what depends on what
    #[arg(long)]
    pub(crate) impact: bool,
    /// The method that erases them for the map
    #[arg(long, default_value = "uce", value_name = "ID")]
    pub(crate) impact_method: String,
    /// Erase each --concept with these methods first, by their defaults, and judge the edits; `,` separates, and the flag may repeat
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) method: Vec<String>,
    /// Further pictures to judge: a CSV with case_number,prompt,evaluation_seed, a text file or JSON lines; may repeat
    #[arg(long, visible_aliases = ["prompts-path"], value_name = "FILE")]
    pub(crate) prompts: Vec<PathBuf>,
    /// A detector: its manifest (docs/detectors.md); may repeat
    #[arg(long, value_name = "FILE")]
    pub(crate) detector: Vec<PathBuf>,
    /// The CLIPModel folder of CLIP scores; the miniature has its own
    #[arg(long, value_name = "DIR")]
    pub(crate) clip: Option<PathBuf>,
    /// Weights of FID's Inception, as safetensors (docs/metrics.md says how to make them)
    #[arg(long, value_name = "FILE")]
    pub(crate) inception: Option<PathBuf>,
    /// Weights of LPIPS, as safetensors: backbone and heads in one file or two
    #[arg(long, value_name = "FILE")]
    pub(crate) lpips: Vec<PathBuf>,
    /// What FID compares with: a folder of pictures, or statistics in pytorch-fid's .npz; the unedited model if absent
    #[arg(long, value_name = "DIR|NPZ")]
    pub(crate) reference: Option<PathBuf>,
    /// Write each subject's statistics as .npz, for pytorch-fid and clean-fid
    #[arg(long)]
    pub(crate) save_stats: bool,
    /// Only these sets: target, others, paraphrase, implicit, pairs, background, prompts
    #[arg(long, value_name = "SETS")]
    pub(crate) sets: Vec<String>,
    /// Pictures of a concept that no judge knows, and of each prompt file; 24 and all if absent
    #[arg(long, visible_aliases = ["num-samples"], value_name = "N")]
    pub(crate) n: Option<usize>,
    /// Pictures of an attack; its own number if absent
    #[arg(long, value_name = "N")]
    pub(crate) attack_n: Option<usize>,
    /// The most steps of an attack; its own number if absent
    #[arg(long, value_name = "STEPS")]
    pub(crate) budget: Option<usize>,
    /// Denoising steps; 50, or 20 for the miniature, if absent
    #[arg(long, visible_alias = "num-inference-steps", value_name = "N")]
    pub(crate) steps: Option<usize>,
    /// Strength of classifier-free guidance; 7.5, or 4 for the miniature, if absent
    #[arg(long, visible_alias = "cfg-scale", value_name = "X", allow_negative_numbers = true)]
    pub(crate) guidance_scale: Option<f64>,
    /// The sampler, as for `scumble generate`
    #[arg(long, visible_alias = "scheduler", value_name = "NAME")]
    pub(crate) sampler: Option<String>,
    /// Seed of attacks, and of pictures whose prompts have none; judged pictures have their own
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Write a report too, into the same folder (see `scumble report`)
    #[arg(long)]
    pub(crate) report: bool,
    /// Only list the work: what there is to draw and to attack, and what has been done
    #[arg(long)]
    pub(crate) plan: bool,
    /// Only part I of N, such as 2/4; parts write into one folder and the last one gathers
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<String>,
    /// Where to write; ./scumble-out/evaluate-... if absent
    #[arg(long, visible_aliases = ["out", "save-path", "save-dir"], value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Replace another plan's result in that folder; pictures that both plans have are kept
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Continue an unfinished run; this happens anyway
    #[arg(long)]
    pub(crate) resume: bool,
    /// Judge with the miniature's judges although another model was given
    #[arg(long)]
    pub(crate) judge: bool,
    /// Dtype of the computation; f32 is the only one so far
    #[arg(long, default_value = "f32", value_parser = ["f32", "float32"], value_name = "DTYPE")]
    pub(crate) dtype: String,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

impl EvaluateArgs {
    /// The arguments of one of its models; the miniature without a path.
    pub(crate) fn model(&self, path: Option<&PathBuf>) -> ModelArgs {
        ModelArgs { model: path.cloned(), reading: self.reading.clone() }
    }
}

/// Which pictures of a report are blurred until asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Blurred {
    /// All
    On,
    /// None
    Off,
    /// Those that the evaluation marks as sensitive
    Sensitive,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct ReportArgs {
    /// The folder that `scumble evaluate` wrote
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Where to write; DIR/report if absent
    #[arg(long, visible_alias = "out", value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// The page's title; made of the concepts and the model if absent
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// Put no pictures in, and write no rating page
    #[arg(long)]
    pub(crate) no_pictures: bool,
    /// Which pictures are blurred until asked for
    #[arg(long, value_enum, default_value = "sensitive", value_name = "WHICH")]
    pub(crate) blur: Blurred,
    /// Files that raters saved from rating.html; their means go into the report
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) ratings: Vec<PathBuf>,
    /// Seed of the order of the rating page
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

/// The forms an edit can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A whole diffusers folder
    Diffusers,
    /// One .safetensors file in the original (LDM) layout
    Single,
    /// A LoRA in kohya's names
    Lora,
    /// The changed tensors of the U-Net, as ESD and UCE publish them
    Partial,
    /// The exact difference (.diff / .diff_b), which ComfyUI loads as a LoRA
    Delta,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct ExportArgs {
    /// An edit, optionally with a strength
    #[arg(value_name = "E[:STRENGTH]")]
    pub(crate) edit: Option<String>,
    /// The same as a flag; several are put on top of each other
    #[arg(long = "edit", value_name = "E[:STRENGTH]")]
    pub(crate) edits: Vec<String>,
    /// The form to write
    #[arg(long, value_enum)]
    pub(crate) to: Form,
    /// Where to write; beside the edit if absent
    #[arg(long, visible_alias = "out", short, value_name = "DIR|FILE")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Rank of a LoRA
    #[arg(long, visible_aliases = ["dim", "network-dim"], default_value_t = 16, value_name = "N", allow_negative_numbers = true)]
    pub(crate) rank: usize,
    /// Write a LoRA although it cannot carry more than 1% of the change
    #[arg(long)]
    pub(crate) allow_partial: bool,
    /// Dtype of what is written: keep, f16, bf16 or f32
    #[arg(long, default_value = "keep", visible_alias = "save-precision", value_name = "DTYPE")]
    pub(crate) dtype: String,
    /// Replace what is there
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct InspectArgs {
    /// A checkpoint, an edit, a LoRA, an embedding, a picture; the built-in miniature if absent
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,
    /// List every tensor
    #[arg(long)]
    pub(crate) tensors: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct VerifyArgs {
    /// A diffusers folder or a single file; the built-in miniature if absent
    #[arg(value_name = "MODEL")]
    pub(crate) path: Option<PathBuf>,
    /// Reference tensors made elsewhere
    #[arg(long, value_name = "FILE")]
    pub(crate) reference: PathBuf,
    /// Largest max|a-b| / max|b| that passes
    #[arg(long, default_value_t = 1e-4, value_name = "X", allow_negative_numbers = true)]
    pub(crate) tolerance: f64,
    /// Dtype of the computation; f32 is the only one so far
    #[arg(long, default_value = "f32", value_parser = ["f32", "float32"], value_name = "DTYPE")]
    pub(crate) dtype: String,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

#[derive(ClapArgs, Clone, Copy, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

/// Arguments with every long flag in hyphens: `--erase_concept` and `--erase-concept` are the same.
pub(crate) fn normalised(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut rest = false;
    args.map(|arg| {
        rest |= arg == "--";
        match arg.to_str() {
            Some(text) if text.starts_with("--") && !rest => {
                let (flag, value) = text.split_once('=').map_or((text, None), |(f, v)| (f, Some(v)));
                let flag = flag.replace('_', "-");
                value.map_or(flag.clone(), |v| format!("{flag}={v}")).into()
            }
            _ => arg,
        }
    })
    .collect()
}
