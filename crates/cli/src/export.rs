//! `scumble export`: an edit in a form that other tools load.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use scumble_erase::{Change, Edit};
use scumble_nn::files::{
    Diff, Dtype, HostTensor, Lora, Precision, Spec, Tensors, safetensors::write_as, write_folder, write_kohya, write_single,
};
use serde_json::json;

use crate::{
    args::{ExportArgs, Form},
    card::Card,
    edits::{self, Loaded},
    failure::{Failure, Outcome},
    model::Model,
    output,
    store::write_file,
};

/// The share of the squared change that a LoRA may leave out unasked.
const MOST_LEFT_OUT: f64 = 0.01;

/// How many names a message lists.
const LISTED: usize = 8;

pub(crate) fn run(args: &ExportArgs) -> Result<Outcome, Failure> {
    let named: Vec<String> = args.edit.iter().chain(&args.edits).cloned().collect();
    if named.is_empty() {
        return Err(Failure::new("no edit to export")
            .with_hint("name one, such as `scumble export scumble-out/esd-church-... --to lora`"));
    }
    let precision = precision(&args.dtype)?;
    let quiet = args.print.quiet;
    let model = Model::open(&args.model, None, quiet)?;
    let mut notes = Vec::new();
    let loaded = edits::open_all(&named, &[], &model, &mut notes)?;
    edits::say(&notes, quiet);
    let edit = edits::combined(&loaded.iter().collect::<Vec<_>>(), &model.checkpoint)?;
    edits::say(&gates_lost(args.to, &loaded), quiet);
    let target = Target::new(args, &loaded, &edit)?;
    let written = write(args, precision, &model, &loaded, &edit, &target)?;

    let mut result = json!({"form": args.to.name(), "path": target.path, "edit": loaded[0].path});
    if loaded.len() > 1 {
        result["edits"] = loaded.iter().map(|one| json!({"edit": one.path, "strength": one.strength})).collect();
    }
    if let Some((rank, error)) = written.low_rank {
        result["rank"] = rank.into();
        result["reconstruction_error"] = error.into();
        if !quiet {
            output::note(&format!("rank {rank} misses {:.2}% of the change (norm)", 100.0 * error));
        }
    }
    if !written.left_out.is_empty() {
        result["left_out"] = written.left_out.iter().map(|(name, share)| json!({"tensor": name, "share": share})).collect();
        if !quiet {
            output::note(&format!("left out: {}", listed(&shares(&written.left_out))));
        }
    }
    result["card"] = json!(target.card);
    if args.print.json {
        output::json(&result)?;
    } else {
        output::data(&target.path.display().to_string())?;
    }
    Ok(Outcome::Done)
}

impl Form {
    /// What it is called on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Diffusers => "diffusers",
            Self::Single => "single",
            Self::Lora => "lora",
            Self::Partial => "partial",
            Self::Delta => "delta",
        }
    }
}

fn precision(text: &str) -> Result<Precision, Failure> {
    Ok(match text.to_lowercase().as_str() {
        "keep" => Precision::Keep,
        "f16" | "fp16" | "float16" | "half" => Precision::F16,
        "bf16" | "bfloat16" => Precision::BF16,
        "f32" | "fp32" | "float32" | "float" => Precision::F32,
        _ => return Err(Failure::new(format!("--dtype {text}: expected keep, f16, bf16 or f32"))),
    })
}

/// Where the result goes.
struct Target {
    /// The file, or the folder of a diffusers model.
    path: PathBuf,
    /// Its model card.
    card: PathBuf,
    /// What is there already and will be replaced.
    old: Option<PathBuf>,
}

impl Target {
    fn new(args: &ExportArgs, loaded: &[Loaded], edit: &Edit) -> Result<Self, Failure> {
        let form = args.to.name();
        let folder = args.to == Form::Diffusers;
        let path = match &args.output_dir {
            Some(path) if folder || path.extension().is_some_and(|e| e == "safetensors") => path.clone(),
            Some(path) if path.is_file() => {
                return Err(Failure::new(format!(
                    "--output-dir {}: expected a folder or a name ending in .safetensors",
                    path.display()
                )));
            }
            Some(path) => {
                let name = output::slug(&format!("{} {}", edit.about.method, edit.about.concepts.join(" ")));
                path.join(format!("{}-{form}.safetensors", if name == "concept" { "edit".into() } else { name }))
            }
            None => beside(&loaded[0], folder, form),
        };
        if folder && path.is_file() {
            return Err(Failure::new(format!("--output-dir {}: expected a folder, found a file", path.display())));
        }
        if !folder && path.is_dir() {
            return Err(Failure::new(format!("--output-dir {}: expected a file, found a folder", path.display())));
        }
        let card = if folder { path.join("README.md") } else { path.with_extension("md") };
        let there =
            if folder { path.is_dir() && fs_err::read_dir(&path)?.next().is_some() } else { path.exists() || card.exists() };
        let same =
            |one: &Loaded| path.canonicalize().is_ok_and(|p| one.file.canonicalize().is_ok_and(|file| file.starts_with(&p)));
        if loaded.iter().any(same) {
            return Err(
                Failure::new(format!("{}: would replace the edit itself", path.display())).with_hint("give another --output-dir")
            );
        }
        if there && !args.overwrite {
            return Err(Failure::new(format!("{}: is there already", path.display()))
                .with_hint("give another --output-dir, or --overwrite to replace it"));
        }
        if there && folder && !path.join("model_index.json").is_file() {
            return Err(Failure::new(format!("{}: is not a model's folder, so it is not replaced", path.display()))
                .with_hint("give another --output-dir"));
        }
        Ok(Self { old: there.then(|| path.clone()), path, card })
    }
}

/// `export-FORM` in the folder of a run; `NAME-export-FORM` beside any other edit.
fn beside(loaded: &Loaded, folder: bool, form: &str) -> PathBuf {
    let name = if loaded.file.file_name().is_some_and(|n| n == crate::erase::EDIT) {
        format!("export-{form}")
    } else {
        let stem = loaded.file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        format!("{stem}-export-{form}")
    };
    let parent = loaded.file.parent().unwrap_or(Path::new(""));
    parent.join(if folder { name } else { format!("{name}.safetensors") })
}

/// What is known of a result after it was written.
#[derive(Default)]
struct Written {
    low_rank: Option<(usize, f64)>,
    left_out: Vec<(String, f64)>,
}

fn write(
    args: &ExportArgs,
    precision: Precision,
    model: &Model,
    loaded: &[Loaded],
    edit: &Edit,
    target: &Target,
) -> Result<Written, Failure> {
    let base = &model.checkpoint;
    let mut written = Written::default();
    let mut lora = Lora::default();
    // Everything that can be refused is refused before anything is written.
    match args.to {
        Form::Lora => {
            // Alone, an edit of factors is written as it is.
            let found = match loaded {
                [one] => one.edit.low_rank(base, args.rank, one.strength)?,
                _ => edit.low_rank(base, args.rank, 1.0)?,
            };
            let share = found.left_out_share();
            written.low_rank = Some((args.rank, found.error));
            written.left_out = found.left_out;
            lora.low_rank = found.low_rank.into_iter().filter(|low| moves(&low.up) && moves(&low.down)).collect();
            if lora.low_rank.is_empty() {
                let problem =
                    format!("a LoRA can carry nothing of this edit, which changes {}", listed(&shares(&written.left_out)));
                return Err(Failure::new(problem).with_hint("--to delta carries every change exactly"));
            }
            if share > MOST_LEFT_OUT && !args.allow_partial {
                let list = listed(&shares(&written.left_out));
                return Err(Failure::new(format!("a LoRA cannot carry {:.1}% of the change (squared): {list}", 100.0 * share))
                    .with_hint("--allow-partial writes the rest; --to delta carries every change exactly"));
            }
            for low in &mut lora.low_rank {
                (low.down, low.up) = (rounded(&low.down, precision), rounded(&low.up, precision));
            }
        }
        Form::Delta => {
            for (component, name, old, new) in edit.new_values(base, 1.0)? {
                let (old, new_values) = (old.to_f32().unwrap_or_default(), new.to_f32().unwrap_or_default());
                let diff: Vec<f32> = new_values.iter().zip(&old).map(|(n, o)| n - o).collect();
                let diff = HostTensor::from_f32(new.shape(), &diff);
                if moves(&diff) {
                    lora.diffs.push(Diff { component, name, diff: rounded(&diff, precision) });
                }
            }
            if lora.diffs.is_empty() {
                return Err(Failure::new("the edit changes nothing, so there is no difference to write"));
            }
        }
        Form::Partial => {
            let others: BTreeSet<String> =
                edit.changes.keys().filter(|(component, _)| component != "unet").map(|(c, name)| format!("{c} {name}")).collect();
            if !others.is_empty() {
                let names: Vec<String> = others.into_iter().collect();
                return Err(Failure::new(format!(
                    "a partial U-Net cannot carry what the edit changes elsewhere: {}",
                    listed(&names)
                ))
                .with_hint("--to diffusers, single or delta carries it"));
            }
        }
        Form::Diffusers | Form::Single => {}
    }
    let card = Card {
        form: args.to,
        model,
        loaded,
        method: &edit.about.method,
        concepts: &edit.about.concepts,
        low_rank: written.low_rank,
        left_out: &written.left_out,
        dtype: &args.dtype,
    };
    let card = card.text();
    if let Some(parent) = target.path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs_err::create_dir_all(parent)?;
    }
    let about = about(edit, loaded);
    match args.to {
        Form::Diffusers => {
            let edited = edit.apply(base, 1.0)?;
            replace_folder(target, |path| Ok(write_folder(&edited, path, precision, Some(&card))?))?;
            return Ok(written);
        }
        Form::Single => write_single(&edit.apply(base, 1.0)?, &target.path, precision, &about)?,
        Form::Lora | Form::Delta => {
            let mut about = about;
            if let (Form::Lora, [one]) = (args.to, loaded) {
                about.extend(edits::gate_metadata(&one.edit));
            }
            let title = target.path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            let spec = Spec { title, extra: about, ..Spec::of(base) };
            write_kohya(&target.path, &lora, &spec)?;
        }
        Form::Partial => {
            let value = |change: &Change| match change {
                Change::Value(value) => Some(value.clone()),
                _ => None,
            };
            let tensors: Tensors = edit.changes.iter().filter_map(|((_, name), c)| Some((name.clone(), value(c)?))).collect();
            let mut metadata = about;
            metadata.insert("format".into(), "pt".into());
            write_as(&target.path, tensors, precision.dtype(), &metadata)?;
        }
    }
    write_file(&target.card, card.as_bytes())?;
    Ok(written)
}

/// What is to be said of edits that look at the prompt: no other tool knows how.
fn gates_lost(form: Form, loaded: &[Loaded]) -> Vec<String> {
    let gated = loaded.iter().filter(|one| one.edit.about.gate.is_some());
    let alone = form == Form::Lora && loaded.len() == 1;
    let rest = if alone { "; scumble reads the gate back" } else { "" };
    gated
        .map(|one| {
            format!(
                "{}: acts as far as a prompt is close to its concept; exported it acts on every prompt{rest}",
                one.path.display()
            )
        })
        .collect()
}

/// Whether any number in it is not zero.
fn moves(tensor: &HostTensor) -> bool {
    tensor.to_f32().is_some_and(|values| values.iter().any(|v| *v != 0.0))
}

fn rounded(tensor: &HostTensor, precision: Precision) -> HostTensor {
    let dtype = precision.dtype().unwrap_or(Dtype::F32);
    tensor.cast(dtype).unwrap_or_else(|| tensor.clone())
}

/// Our own metadata of a file: where it came from. Not the key that marks an edit of ours, which this file is not.
fn about(edit: &Edit, loaded: &[Loaded]) -> BTreeMap<String, String> {
    let hashes: Vec<&str> = loaded.iter().map(|one| one.hash.as_str()).collect();
    let about = &edit.about;
    let pairs = [
        ("scumble.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("scumble.method", about.method.clone()),
        ("scumble.concepts", about.concepts.join("; ")),
        ("scumble.base", about.base.clone()),
        ("scumble.base_hash", about.base_hash.clone()),
        ("scumble.edit_hash", hashes.join(" ")),
    ];
    pairs.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Writes a folder; one that is replaced comes back if that fails.
fn replace_folder(target: &Target, write: impl FnOnce(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    let Some(old) = &target.old else { return write(&target.path) };
    let name = old.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let aside = old.with_file_name(format!(".{name}.{}.old", std::process::id()));
    fs_err::rename(old, &aside)?;
    match write(&target.path) {
        Ok(()) => Ok(fs_err::remove_dir_all(&aside)?),
        Err(failure) => {
            fs_err::rename(&aside, old)?;
            Err(failure)
        }
    }
}

fn shares(left_out: &[(String, f64)]) -> Vec<String> {
    let mut sorted: Vec<&(String, f64)> = left_out.iter().collect();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
    sorted.into_iter().map(|(name, share)| format!("{name} ({:.2}%)", 100.0 * share)).collect()
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > LISTED { format!("{shown} and {} more", names.len() - LISTED) } else { shown }
}
