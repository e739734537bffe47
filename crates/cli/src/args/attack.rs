//! What `scumble attack` takes.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::erase::Kind;
use super::groups::{
    CostArgs, DetectorArgs, DrawingArgs, DtypeArgs, EditsArgs, ModelArgs, OutputArgs, PrintArgs,
    seed,
};

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct AttackArgs {
    /// Which attack (see `scumble attacks`)
    #[arg(value_name = "ATTACK")]
    pub(crate) attack: String,
    #[command(flatten)]
    pub(crate) edits: EditsArgs,
    /// A run-time guard to attack, alone or beside an edit (see `scumble guards`); may repeat
    #[arg(long, value_name = "ID[=TEXT]")]
    pub(crate) guard: Vec<String>,
    /// What to bring back; what the edit says it erased, if absent
    #[arg(long, value_name = "CONCEPT")]
    pub(crate) concept: Option<String>,
    /// What kind of thing it is, which words it on a model whose captions nobody knows; what the edit
    /// says if absent
    #[arg(long, visible_aliases = ["concept-type"], value_enum, value_name = "KIND")]
    pub(crate) kind: Option<Kind>,
    /// The concept's word in the prompts, where an attack replaces it; the concept's name if absent
    #[arg(long, value_name = "WORD")]
    pub(crate) word: Option<String>,
    /// Pictures to bring it back in: a CSV with case_number,prompt,evaluation_seed, a text file,
    /// JSON lines or a JSON list
    #[arg(long, visible_aliases = ["prompts-path"], value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
    /// How many pictures; the attack's own number if absent
    #[arg(long, visible_aliases = ["num-samples"], value_name = "N", allow_negative_numbers = true)]
    pub(crate) n: Option<usize>,
    /// The most steps of the search (`scumble attacks` says what a step is); the attack's default
    /// if absent
    #[arg(long, visible_aliases = ["iterations"], value_name = "STEPS", allow_negative_numbers = true)]
    pub(crate) budget: Option<usize>,
    /// The CLIPModel folder whose text tower the model uses, for attacks that compare words with
    /// pictures; the miniature has its own
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
    #[command(flatten)]
    pub(crate) drawing: DrawingArgs,
    /// Seed of everything that the attack draws
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true, value_parser = seed)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Judge with the miniature's judges although another model was given
    #[arg(long)]
    pub(crate) judge: bool,
    #[command(flatten)]
    pub(crate) detectors: DetectorArgs,
    #[command(flatten)]
    pub(crate) cost: CostArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) dtype: DtypeArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}
