//! What `scumble evaluate` takes.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::erase::Kind;
use super::groups::{
    DetectorArgs, DrawingArgs, DtypeArgs, OutputArgs, PrintArgs, ReadingArgs, seed,
};

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct EvaluateArgs {
    /// A diffusers folder or a single .safetensors checkpoint; may repeat; the built-in miniature
    /// if absent
    #[arg(long = "model", value_name = "DIR|FILE", visible_aliases = ["pretrained-model-name-or-path", "base-model"])]
    pub(crate) models: Vec<PathBuf>,
    /// An edit to judge, optionally with a strength; may repeat
    #[arg(long, value_name = "E[:STRENGTH]")]
    pub(crate) edit: Vec<String>,
    /// A run-time guard to judge; against --concept, if it names none; may repeat
    #[arg(long, value_name = "ID[=TEXT]")]
    pub(crate) guard: Vec<String>,
    /// An attack to try on every edit, guard and oracle (see `scumble attacks`), with `:paper` or
    /// `:reference` in that variant; `,` separates, and the flag may repeat
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) attack: Vec<String>,
    /// What to ask about, of everything; what each edit says it erased, if absent; `;` separates
    #[arg(long, value_name = "CONCEPT")]
    pub(crate) concept: Vec<String>,
    /// What kind of things these are, which words them on a model whose captions nobody knows; what
    /// each edit says if absent
    #[arg(long, visible_aliases = ["concept-type"], value_enum, value_name = "KIND")]
    pub(crate) kind: Option<Kind>,
    /// A checkpoint that never saw the concept, or such an edit, as the gold standard; it is attacked
    /// too
    #[arg(long, value_name = "DIR|FILE")]
    pub(crate) oracle: Option<PathBuf>,
    /// Erase every concept (or each --concept) in turn, and map what depends on what
    #[arg(long)]
    pub(crate) impact: bool,
    /// The method that erases them for the map
    #[arg(long, default_value = "uce", value_name = "ID")]
    pub(crate) impact_method: String,
    /// Erase each --concept with these methods first, by their defaults, and judge the edits; `,`
    /// separates, and the flag may repeat
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) method: Vec<String>,
    /// Further pictures to judge: a CSV with case_number,prompt,evaluation_seed, a text file, JSON
    /// lines or a JSON list; may repeat
    #[arg(long, visible_aliases = ["prompts-path"], value_name = "FILE")]
    pub(crate) prompts: Vec<PathBuf>,
    /// The CLIPModel folder of CLIP scores; the miniature has its own
    #[arg(long, value_name = "DIR")]
    pub(crate) clip: Option<PathBuf>,
    /// Weights of FID's Inception, as safetensors (docs/metrics.md says how to make them)
    #[arg(long, value_name = "FILE")]
    pub(crate) inception: Option<PathBuf>,
    /// Weights of LPIPS, as safetensors: backbone and heads in one file or two
    #[arg(long, value_name = "FILE")]
    pub(crate) lpips: Vec<PathBuf>,
    /// What FID compares with: a folder of pictures, or statistics in pytorch-fid's .npz; the
    /// unedited model if absent
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
    /// The CLIPModel folder whose text tower the model uses, for attacks that compare words with
    /// pictures; the miniature has its own
    #[arg(long, value_name = "DIR")]
    pub(crate) attack_clip: Option<PathBuf>,
    /// The most steps of an attack; its own number if absent
    #[arg(long, value_name = "STEPS")]
    pub(crate) budget: Option<usize>,
    #[command(flatten)]
    pub(crate) drawing: DrawingArgs,
    /// Seed of attacks, and of pictures whose prompts have none; judged pictures have their own
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true, value_parser = seed)]
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
    /// Only make the edits that --method stands for; with --shard those of a part of the concepts
    #[arg(long, requires = "method")]
    pub(crate) edits_only: bool,
    /// Hand the work to a scheduler: an array of shards and a job that gathers, after one that makes
    /// the edits; with --edits-only that one alone. KEY is account, partition, qos, time, mem, cpus, gpu, constraint, exclude, nodelist
    /// or nice
    #[arg(long, value_name = "slurm[:KEY=VALUE,...]", conflicts_with_all = ["plan", "shard"])]
    pub(crate) submit: Option<String>,
    /// Tasks of the array
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) shards: u16,
    /// With --submit: print the scripts, and hand nothing over
    #[arg(long, requires = "submit")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Judge with the miniature's judges although another model was given
    #[arg(long)]
    pub(crate) judge: bool,
    #[command(flatten)]
    pub(crate) detectors: DetectorArgs,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    #[command(flatten)]
    pub(crate) dtype: DtypeArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}
