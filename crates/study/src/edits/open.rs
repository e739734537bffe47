//! Whatever changes a model, brought into the form of edits.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use scumble_erase::{About, Change, Edit};
use scumble_families::Part;
use scumble_nn::{
    config::ClipTextConfig,
    files::{
        EsdAbout, HostTensor, Kind, TensorFile, expect_names, identify, read_esd, read_lora,
        read_partial, read_text_encoder,
    },
};
use serde_json::json;

use super::{
    gate::{describe_gate, gate_of},
    loaded::Loaded,
    unread::Read,
    whole,
};
use crate::{
    failure::Failure,
    folder::{EDIT, RECORD},
    model::Model,
    request::listed,
};

/// Reads every `--edit` and then every `--lora`; notes worth telling go to `notes`.
///
/// # Errors
/// If one cannot be read or was made for another architecture.
pub fn open_all(
    edits: &[String],
    loras: &[String],
    model: &Model,
    notes: &mut Vec<String>,
) -> Result<Vec<Loaded>, Failure> {
    let edits = edits.iter().map(|text| ("--edit", text));
    let loras = loras.iter().map(|text| ("--lora", text));
    edits
        .chain(loras)
        .map(|(flag, text)| open(flag, text, model, notes))
        .collect()
}

/// The path and the strength of `E[:strength]`. A path may hold colons itself: one that exists is
/// taken whole.
pub fn split_strength(flag: &str, text: &str) -> Result<(PathBuf, f64), Failure> {
    let whole = PathBuf::from(text);
    if whole.exists() {
        return Ok((whole, 1.0));
    }
    match text
        .rsplit_once(':')
        .and_then(|(path, strength)| Some((path, strength.trim().parse::<f64>().ok()?)))
    {
        Some((_, strength)) if !strength.is_finite() => Err(Failure::new(format!(
            "{flag} {text}: the strength is {strength}, expected a finite number"
        ))),
        Some((path, strength)) => Ok((path.into(), strength)),
        None => Ok((whole, 1.0)),
    }
}

/// Reads one thing that changes a model; `flag` is what messages call the argument.
///
/// # Errors
/// If it cannot be read or does not fit the model.
pub fn open(
    flag: &str,
    text: &str,
    model: &Model,
    notes: &mut Vec<String>,
) -> Result<Loaded, Failure> {
    let (path, strength) = split_strength(flag, text)?;
    let failed = |problem: String| Failure::new(format!("{flag} {}: {problem}", path.display()));
    if !path.exists() {
        return Err(failed("there is no such file or folder".into())
            .with_hint("give the output folder of `scumble erase` or the edit.safetensors in it, optionally with `:STRENGTH`"));
    }
    let file = file_of(&path).map_err(failed)?;
    let kind = identify(&file)?.kind;
    let (edit, said) = read(&file, &kind, model, flag != "--lora").map_err(|f| match f {
        Read::Failed(failure) => failure,
        Read::Refused(problem, hint) => failed(problem).with_hint(hint),
    })?;
    let name = path.display();
    notes.extend(said.into_iter().map(|note| format!("{name}: {note}")));
    let about = &edit.about;
    let two_encoders = |family: &str| family.starts_with("stable-diffusion-xl");
    let own = model.checkpoint.family.name();
    if !about.family.is_empty() && two_encoders(&about.family) != two_encoders(own) {
        return Err(failed(format!(
            "was made on {} ({}), and this model is {own}: an edit stays within its family",
            about.base, about.family
        ))
        .with_hint("erase the concept from this model with the same command"));
    }
    if !about.base_hash.is_empty() && about.base_hash != model.hash {
        notes.push(format!(
            "{name}: made on {} ({}), not on {} ({}); it is transferred",
            about.base,
            &short(&about.base_hash),
            model.checkpoint.name,
            &short(&model.hash)
        ));
    }
    let at_home = about.base_hash == model.hash;
    let hash = edit.content_hash();
    Ok(Loaded {
        edit,
        strength,
        file,
        kind,
        hash,
        path,
        at_home,
    })
}

/// Whether a file could change a model, by what it holds.
///
/// # Errors
/// If it cannot; the error says what it is.
pub fn expect_change(file: &Path) -> Result<(), Failure> {
    let kind = identify(file)?.kind;
    match kind {
        Kind::ScumbleEdit
        | Kind::PartialUNet
        | Kind::LdmUNet
        | Kind::Esd
        | Kind::KohyaLora
        | Kind::ComfyLora
        | Kind::PeftLora
        | Kind::Delta => Ok(()),
        _ => Err(Failure::new(format!(
            "{}: is no change of a model, but {}",
            file.display(),
            kind.describe()
        ))
        .with_hint("an edit, a LoRA, a partial U-Net or an ESD file is one")),
    }
}

/// The file that a path stands for: the edit in a run's folder, the path itself otherwise.
pub fn file_of(path: &Path) -> Result<PathBuf, String> {
    let inside = path.join(EDIT);
    if !path.is_dir() || path.join("config.json").exists() || path.join("model_index.json").exists()
    {
        Ok(path.into())
    } else if inside.is_file() {
        Ok(inside)
    } else if identify(path).is_ok_and(|found| found.kind == Kind::DiffusersFolder) {
        Ok(path.into())
    } else if path.join(RECORD).is_file() {
        Err(format!(
            "holds a run, but no {EDIT}; if it is an erasure, it is not finished"
        ))
    } else {
        Err(format!(
            "is a folder without {EDIT} and without a text encoder's config.json"
        ))
    }
}

/// Reads a file of a known kind; with notes about its reading. Without `gated`, adapters act on
/// every prompt.
fn read(file: &Path, kind: &Kind, model: &Model, gated: bool) -> Result<(Edit, Vec<String>), Read> {
    let (base, family) = (&model.checkpoint, model.family());
    let mut edit = Edit::default();
    match kind {
        Kind::ScumbleEdit => Ok((Edit::open(file)?, Vec::new())),
        Kind::PartialUNet | Kind::LdmUNet => {
            for (name, tensor) in read_partial(TensorFile::open(file)?, base)? {
                edit.changes
                    .insert((family.denoiser().into(), name), Change::Value(tensor));
            }
            Ok((edit, Vec::new()))
        }
        Kind::Esd => {
            let read = TensorFile::open(file)?;
            let said = read.metadata.clone();
            let (about, tensors) = read_esd(read, base)?;
            edit.about = about_of_esd(&about, &said);
            for (name, tensor) in tensors {
                edit.changes
                    .insert((family.denoiser().into(), name), Change::Value(tensor));
            }
            Ok((edit, Vec::new()))
        }
        Kind::KohyaLora | Kind::ComfyLora | Kind::PeftLora | Kind::Delta => {
            let read = TensorFile::open(file)?;
            let mut lora = read_lora(&read, base)?;
            let ranks_one = lora.diffs.is_empty()
                && lora
                    .low_rank
                    .iter()
                    .all(|low| low.rank() == 1 && low.component == family.denoiser());
            if let Some(gate) = gate_of(&read, ranks_one) {
                if gated {
                    lora.notes.push(format!("an SPM: {}", describe_gate(&gate)));
                    edit.about.gate = Some(gate);
                } else {
                    lora.notes
                        .push("an SPM as a plain LoRA, which acts on every prompt; with --edit it looks at the prompt".into());
                }
            }
            for low in lora.low_rank {
                edit.changes.insert(
                    (low.component.clone(), format!("{}.weight", low.module)),
                    Change::LowRank(low),
                );
            }
            for diff in lora.diffs {
                let key = (diff.component, diff.name);
                let change = match edit.changes.remove(&key) {
                    Some(Change::LowRank(low)) => {
                        both(&low.delta().unwrap_or_default(), &diff.diff)
                    }
                    _ => Change::Difference(diff.diff),
                };
                edit.changes.insert(key, change);
            }
            Ok((edit, lora.notes))
        }
        Kind::TextEncoderFolder => {
            let (part, notes) = read_text_encoder(file)?;
            let place = file.join("config.json");
            let theirs = ClipTextConfig::read(&place, &part.config)?;
            let encoder = family.id_of(Part::TextEncoder);
            let ours = ClipTextConfig::read(
                &Path::new(&base.name).join(encoder).join("config.json"),
                &base.component(encoder)?.config,
            )?;
            if theirs
                != (ClipTextConfig {
                    eos_token_id: theirs.eos_token_id,
                    ..ours.clone()
                })
            {
                let problem = format!(
                    "is another text encoder than the model's: {theirs:?}, expected {ours:?}"
                );
                return Err(Read::Refused(
                    problem,
                    "give the model it belongs to with --model",
                ));
            }
            let wanted = base
                .component(encoder)?
                .tensors
                .iter()
                .map(|(name, t)| (name.clone(), t.shape().to_vec()))
                .collect();
            expect_names(&file.display().to_string(), &part.tensors, &wanted)?;
            for (name, tensor) in part.tensors {
                edit.changes
                    .insert((encoder.into(), name), Change::Value(tensor));
            }
            Ok((edit, notes))
        }
        Kind::Pickle => {
            // Opening it says what is to be said of pickles.
            TensorFile::open(file)?;
            Err(Read::Refused(
                "is a pickle, which is never read".into(),
                "convert it to safetensors where you trust it",
            ))
        }
        Kind::TextualInversion => Err(Read::Refused(
            "is a textual inversion, which changes no weight".into(),
            "give it with --embedding",
        )),
        Kind::DiffusersFolder | Kind::SingleFile(_) => {
            whole::difference(file, base, &model.options)
        }
        Kind::OtherAdapter(name) => Err(Read::Refused(
            format!("is {name}, which is not read"),
            "read are LoRA, LoCon, LoHa, LoKr, DoRA and whole differences",
        )),
        Kind::OtherFamily(_) | Kind::Unknown => Err(Read::Refused(
            format!(
                "expected an edit, a partial U-Net, a LoRA or a text encoder, found: {}",
                kind.describe()
            ),
            "`scumble inspect` says what a file holds",
        )),
    }
}

/// What a file of ESD's own format says of its edit. One that scumble wrote also says with which
/// method and on which model.
fn about_of_esd(about: &EsdAbout, metadata: &BTreeMap<String, String>) -> About {
    let ours = |key: &str| metadata.get(&format!("scumble.{key}")).cloned();
    let mut options = json!({ "train_method": about.train_method, "erase_from": about.erase_from });
    for (key, value) in [
        ("num_inference_steps", json!(about.num_inference_steps)),
        ("guidance_scale", json!(about.guidance_scale)),
        ("negative_guidance", json!(about.negative_guidance)),
        ("batch_size", json!(about.batch_size)),
        ("resolution", json!(about.resolution)),
    ] {
        if !value.is_null() {
            options[key] = value;
        }
    }
    About {
        method: ours("method").unwrap_or_else(|| "esd".into()),
        concepts: listed(&about.erase_concept),
        base: about.base_model_id.clone(),
        base_hash: ours("base_hash").unwrap_or_default(),
        options,
        ..About::default()
    }
}

/// A product of factors and a whole difference, added.
fn both(delta: &[f32], diff: &HostTensor) -> Change {
    let sum: Vec<f32> = diff
        .to_f32()
        .unwrap_or_default()
        .iter()
        .zip(delta)
        .map(|(a, b)| a + b)
        .collect();
    if sum.len() == diff.len() {
        Change::Difference(HostTensor::from_f32(diff.shape(), &sum))
    } else {
        Change::Difference(diff.clone())
    }
}

/// The beginning of a hash, for people.
pub fn short(hash: &str) -> String {
    hash.chars().take(10).collect()
}
