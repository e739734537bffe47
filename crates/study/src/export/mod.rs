//! An edit in a form that other tools load.

mod card;
mod elsewhere;
mod esd;
mod lora;
mod measure;
mod target;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use scumble_erase::Edit;
use scumble_nn::files::{
    Diff, Dtype, HostTensor, Lora, Precision, Spec, Tensors, safetensors::write_as, write_delta,
    write_esd, write_folder, write_kohya, write_single,
};
use serde_json::Value;

use self::{
    card::{Card, Measured},
    target::Target,
};
use crate::{
    edits::{self, Loaded},
    failure::Failure,
    folder::write_file,
    host::Host,
    model::Model,
    request::{ExportRequest, Form},
};

/// How many names a message lists.
const LISTED: usize = 8;

/// What was written.
pub struct Exported {
    /// The file or folder.
    pub path: PathBuf,
    /// Its card.
    pub card: PathBuf,
    /// The edits that are in it, and how strongly.
    pub edits: Vec<(PathBuf, f64)>,
    /// Rank and relative error of a LoRA.
    pub low_rank: Option<(usize, f64)>,
    /// Changed tensors that it does not carry, each with its share of the squared change.
    pub left_out: Vec<(String, f64)>,
    /// What other programs do not read of it.
    pub limits: Vec<String>,
    /// The judges' numbers for what was written.
    pub measured: Option<Value>,
}

/// Writes edits in a form that other tools load, with a card.
///
/// # Errors
/// If an edit cannot be read or does not fit the model, the form cannot carry it, or the result
/// cannot be written.
pub fn perform(request: &ExportRequest, host: Host<'_>) -> Result<Exported, Failure> {
    if request.edits.is_empty() {
        return Err(Failure::new("no edit to export")
            .with_hint("name one, such as `scumble export scumble-out/esd-church-... --to lora`"));
    }
    let precision = precision(&request.dtype)?;
    let model = Model::open(&request.model, host)?;
    if request.judge && !model.builtin {
        return Err(Failure::new(
            "--judge: the judges know what the built-in miniature draws, and this is another model",
        ));
    }
    let mut notes = Vec::new();
    let loaded = edits::open_all(&request.edits, &[], &model, &mut notes)?;
    host.say(&notes);
    // One edit is written as it is, a tensor at a time; several have to be added up first.
    let combined;
    let whole = match &loaded[..] {
        [one] => Whole {
            edit: &one.edit,
            strength: one.strength,
        },
        several => {
            combined = edits::combined(&several.iter().collect::<Vec<_>>(), &model.checkpoint)?;
            Whole {
                edit: &combined,
                strength: 1.0,
            }
        }
    };
    host.say(&gates_lost(request.form, &loaded));
    let target = Target::new(request, &loaded, whole.edit)?;
    let written = write(request, precision, &model, &loaded, whole, &target, host)?;
    if let Some((rank, error)) = written.low_rank {
        let why = if lora::raised(request, &loaded, rank) {
            ", the lowest that misses no more than 1% of its square"
        } else {
            ""
        };
        host.listener.note(&format!(
            "rank {rank} misses {:.2}% of the change (norm){why}",
            100.0 * error
        ));
    }
    if !written.left_out.is_empty() {
        let names = listed(&shares(&written.left_out));
        host.listener.note(&format!("left out: {names}"));
    }
    host.say(&written.limits);
    Ok(Exported {
        path: target.path,
        card: target.card,
        edits: loaded
            .iter()
            .map(|one| (one.path.clone(), one.strength))
            .collect(),
        low_rank: written.low_rank,
        left_out: written.left_out,
        limits: written.limits,
        measured: written.measured,
    })
}

fn precision(text: &str) -> Result<Precision, Failure> {
    Ok(match text.to_lowercase().as_str() {
        "keep" => Precision::Keep,
        "f16" | "fp16" | "float16" | "half" => Precision::F16,
        "bf16" | "bfloat16" => Precision::BF16,
        "f32" | "fp32" | "float32" | "float" => Precision::F32,
        _ => {
            return Err(Failure::new(format!(
                "--dtype {text}: expected keep, f16, bf16 or f32"
            )));
        }
    })
}

/// All that is to be written, as one edit.
#[derive(Clone, Copy)]
struct Whole<'a> {
    edit: &'a Edit,
    strength: f64,
}

/// What is known of a result after it was written.
#[derive(Default)]
struct Written {
    /// Rank and relative error of a LoRA.
    low_rank: Option<(usize, f64)>,
    left_out: Vec<(String, f64)>,
    /// What other programs do not read of it.
    limits: Vec<String>,
    /// The judges' numbers for the file itself.
    measured: Option<Value>,
}

fn write(
    request: &ExportRequest,
    precision: Precision,
    model: &Model,
    loaded: &[Loaded],
    whole: Whole<'_>,
    target: &Target,
    host: Host<'_>,
) -> Result<Written, Failure> {
    let base = &model.checkpoint;
    let Whole { edit, strength } = whole;
    let misfit = |error: scumble_erase::Error| match loaded {
        [one] => one.misfit(error),
        _ => error.into(),
    };
    let (mut edited, mut tensors) = (None, Tensors::new());
    let mut written = Written::default();
    let mut lora = Lora::default();
    // Everything that can be refused is refused before anything is written.
    match request.form {
        Form::Lora => {
            let (rank, found) = lora::factors(request, base, whole, &misfit)?;
            written.low_rank = Some((rank, found.error));
            written.left_out = found.left_out;
            lora.low_rank = found.low_rank;
            for low in &mut lora.low_rank {
                let at = format!("{} {}", low.component, low.module);
                (low.down, low.up) = (
                    rounded(&at, &low.down, precision)?,
                    rounded(&at, &low.up, precision)?,
                );
            }
        }
        Form::Delta => {
            for moved in edit.new_values(base, strength) {
                let (component, name, old, new) = moved.map_err(misfit)?;
                let (old, new_values) = (
                    old.to_f32().unwrap_or_default(),
                    new.to_f32().unwrap_or_default(),
                );
                let diff: Vec<f32> = new_values.iter().zip(&old).map(|(n, o)| n - o).collect();
                if diff.iter().any(|d| *d != 0.0) {
                    let diff = rounded(
                        &format!("{component} {name}"),
                        &HostTensor::from_f32(new.shape(), &diff),
                        precision,
                    )?;
                    lora.diffs.push(Diff {
                        component,
                        name,
                        diff,
                    });
                }
            }
            if lora.diffs.is_empty() {
                return Err(Failure::new(
                    "the edit changes nothing, so there is no difference to write",
                ));
            }
        }
        Form::Partial | Form::Esd => {
            let others: BTreeSet<String> = edit
                .changes
                .keys()
                .filter(|(component, _)| component != model.family().denoiser())
                .map(|(c, name)| format!("{c} {name}"))
                .collect();
            if !others.is_empty() {
                let names: Vec<String> = others.into_iter().collect();
                return Err(Failure::new(format!(
                    "a partial U-Net cannot carry what the edit changes elsewhere: {}",
                    listed(&names)
                ))
                .with_hint("--to diffusers, single or delta carries it"));
            }
            for moved in edit.new_values(base, strength) {
                let (_, name, _, new) = moved.map_err(misfit)?;
                tensors.insert(name, new);
            }
        }
        Form::Diffusers | Form::Single => {
            edited = Some(edit.apply(base, strength).map_err(misfit)?);
        }
    }
    written.limits = elsewhere::limits(request.form, base, &lora);
    let card = |written: &Written| {
        Card {
            request,
            model,
            loaded,
            method: &edit.about.method,
            concepts: &edit.about.concepts,
            file: &target.path,
            low_rank: written.low_rank,
            left_out: &written.left_out,
            limits: &written.limits,
            measured: match &written.measured {
                Some(rates) => Measured::Itself(rates),
                None if carries_all(request, precision, model, loaded, written) => {
                    Measured::TheEdit
                }
                None => Measured::Not,
            },
        }
        .text()
    };
    let first = card(&written)?;
    if let Some(parent) = target.path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs_err::create_dir_all(parent)?;
    }
    let mut about = about(edit, loaded);
    match request.form {
        Form::Diffusers | Form::Single => match edited {
            Some(edited) if request.form == Form::Diffusers => target
                .replace_folder(|path| Ok(write_folder(&edited, path, precision, Some(&first))?))?,
            Some(edited) => write_single(&edited, &target.path, precision, &about)?,
            None => {}
        },
        Form::Lora | Form::Delta => {
            if let (Form::Lora, [one]) = (request.form, loaded) {
                let rank = lora
                    .low_rank
                    .iter()
                    .map(scumble_nn::files::LowRank::rank)
                    .max()
                    .unwrap_or(1);
                let alpha = lora.low_rank.first().map_or(1.0, |low| low.alpha);
                about.extend(edits::gate_metadata(&one.edit, rank, alpha));
                about.extend(lora::leco_metadata(&one.edit));
            }
            let title = target
                .path
                .file_stem()
                .map(|s| s.to_string_lossy().into_owned())
                .unwrap_or_default();
            let spec = Spec {
                title,
                extra: about,
                ..Spec::of(base)
            };
            match request.form {
                Form::Lora => write_kohya(&target.path, &lora, &spec)?,
                _ => write_delta(&target.path, &lora.diffs, base, &spec)?,
            }
        }
        Form::Partial | Form::Esd => {
            if request.form == Form::Esd {
                let said = esd::about(request, base, edit);
                write_esd(&target.path, tensors, precision.dtype(), &said, &about)?;
            } else {
                about.insert("format".into(), "pt".into());
                write_as(&target.path, tensors, precision.dtype(), &about)?;
            }
        }
    }
    if request.judge {
        written.measured = measure::rates(
            request.form,
            &target.path,
            model,
            &edit.about.concepts,
            host,
        )?;
    }
    if request.judge || request.form != Form::Diffusers {
        write_file(&target.card, card(&written)?.as_bytes())?;
    }
    Ok(written)
}

/// Whether what was measured of the edit holds for the file: it is one whole edit on its own model,
/// to the bit or nearly so.
fn carries_all(
    request: &ExportRequest,
    precision: Precision,
    model: &Model,
    loaded: &[Loaded],
    written: &Written,
) -> bool {
    let [one] = loaded else { return false };
    let exact = match request.form {
        Form::Lora => {
            written.left_out.is_empty() && written.low_rank.is_some_and(|(_, error)| error < 1e-5)
        }
        _ => true,
    };
    let at_home = one.strength == 1.0
        && one.edit.about.base_hash == model.hash
        && one.edit.about.gate.is_none();
    exact && at_home && matches!(precision, Precision::Keep | Precision::F32)
}

/// What is to be said of edits that look at the prompt: no other tool knows how.
fn gates_lost(form: Form, loaded: &[Loaded]) -> Vec<String> {
    let gated = loaded.iter().filter(|one| one.edit.about.gate.is_some());
    let alone = form == Form::Lora && loaded.len() == 1;
    let rest = if alone {
        "; scumble reads the gate back"
    } else {
        ""
    };
    gated
        .map(|one| {
            format!(
                "{}: acts as far as a prompt is close to its concept; exported it acts on every prompt{rest}",
                one.path.display()
            )
        })
        .collect()
}

/// A tensor in the dtype asked for.
fn rounded(name: &str, tensor: &HostTensor, precision: Precision) -> Result<HostTensor, Failure> {
    let dtype = precision.dtype().unwrap_or(Dtype::F32);
    tensor.rounded(dtype).map_err(|problem| {
        Failure::new(format!("{name}: {problem}")).with_hint("f32 and bf16 hold what f16 cannot")
    })
}

/// Our own metadata of a file: where it came from. Not the key that marks an edit of ours, which
/// this file is not.
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
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

fn shares(left_out: &[(String, f64)]) -> Vec<String> {
    let mut sorted: Vec<&(String, f64)> = left_out.iter().collect();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
    sorted
        .into_iter()
        .map(|(name, share)| format!("{name} ({:.2}%)", 100.0 * share))
        .collect()
}

fn listed(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(LISTED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > LISTED {
        format!("{shown} and {} more", names.len() - LISTED)
    } else {
        shown
    }
}
