//! `scumble inspect`: what a file or folder is, and what is worth knowing about it.

mod lines;

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
};

use scumble_diffusion::Schedule;
use scumble_families as families;
use scumble_nn::files::{
    Checkpoint, EsdAbout, Kind, TensorFile, Tensors, algorithms, identify, reaches,
    source::parse_object,
};
use scumble_report::png;
use scumble_study::{
    Host, Model, Silently,
    edits::{self, Loaded, file_of},
    folder::RECORD,
    guards, hub,
    request::ModelRequest,
};
use serde_json::{Map, Value, json};

use crate::{
    args::InspectArgs,
    failure::{Failure, Outcome},
    host, miniature, output,
    progress::Progress,
};

/// Most bytes of a picture that are read for its texts.
const LONGEST_PICTURE: u64 = 256 << 20;

/// Most layers listed.
const LAYERS: usize = 10;

/// Longest metadata value shown; tools put whole word lists there.
const LONGEST_VALUE: usize = 2000;

pub(crate) fn run(args: &InspectArgs) -> Result<Outcome, Failure> {
    let (around, progress) = (host::here(), Progress::new(args.print.quiet));
    let host = around.heard_by(&progress);
    let sheet = match args.path.as_deref() {
        Some(path) if path.as_os_str() != miniature::NAME || path.exists() => {
            of_path(&hub::located(path, "", host.hub)?, args, host)?
        }
        _ => of_model(None, args, host)?,
    };
    if args.print.json {
        output::json(&Value::Object(sheet))?;
    } else {
        for line in lines::lines(&sheet) {
            output::data(&line)?;
        }
    }
    Ok(Outcome::Done)
}

type Sheet = Map<String, Value>;

fn of_path(path: &Path, args: &InspectArgs, host: Host<'_>) -> Result<Sheet, Failure> {
    if path.is_dir() {
        let record = path.join(RECORD);
        return match file_of(path) {
            Ok(file) if file != path => {
                let mut sheet = of_file(&file, args, host)?;
                if record.is_file() {
                    sheet.insert("run".into(), of_record(&record)?);
                }
                Ok(sheet)
            }
            Ok(_) => of_file(path, args, host),
            Err(_) if record.is_file() => {
                let mut sheet = named(path, "run of scumble");
                sheet.insert("run".into(), of_record(&record)?);
                Ok(sheet)
            }
            Err(_) => of_shelf(path),
        };
    }
    let mut start = [0; 8];
    let picture = fs_err::metadata(path)?.is_file()
        && fs_err::File::open(path)?.read(&mut start)? == start.len()
        && start == *b"\x89PNG\r\n\x1a\n";
    if picture {
        of_picture(path)
    } else {
        of_file(path, args, host)
    }
}

/// Most things listed of a folder.
const SHELF: usize = 50;

/// A folder that is nothing itself and may hold something: what lies one level down.
fn of_shelf(path: &Path) -> Result<Sheet, Failure> {
    let mut below: Vec<PathBuf> = fs_err::read_dir(path)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    below.sort();
    let named = |p: &Path| {
        p.file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let known = |inside: &PathBuf| {
        let tensors = inside.extension().is_some_and(|e| e == "safetensors");
        let kind = if inside.is_dir() && inside.join(RECORD).is_file() {
            "run of scumble".to_owned()
        } else if inside.is_dir() || tensors {
            match identify(inside).ok()?.kind {
                Kind::Unknown => return None,
                kind => kind.describe(),
            }
        } else {
            return None;
        };
        Some(json!({"name": named(inside), "kind": kind}))
    };
    let mut found: Vec<Value> = below
        .iter()
        .filter(|p| !named(p).starts_with('.'))
        .filter_map(known)
        .collect();
    if found.is_empty() {
        return Err(Failure::new(format!(
            "{}: is a folder that holds nothing known",
            path.display()
        ))
        .with_hint(
            "known are diffusers folders, text encoder folders and the output folders of scumble",
        ));
    }
    let mut sheet = self::named(path, "folder of other things");
    let more = found.len().saturating_sub(SHELF);
    found.truncate(SHELF);
    sheet.insert("holds".into(), found.into());
    let mut notes = vec!["`scumble inspect PATH/NAME` looks at one of them".to_owned()];
    if more > 0 {
        notes.push(format!("{more} more are not listed"));
    }
    sheet.insert("notes".into(), notes.into());
    Ok(sheet)
}

/// What every sheet begins with.
fn named(path: &Path, kind: &str) -> Sheet {
    Map::from_iter([
        ("path".to_owned(), path.display().to_string().into()),
        ("kind".to_owned(), kind.into()),
    ])
}

fn of_picture(path: &Path) -> Result<Sheet, Failure> {
    let bytes = scumble_nn::files::source::read_file(path, LONGEST_PICTURE)?;
    let texts =
        png::read_text(&bytes).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let mut sheet = named(path, "picture");
    let value = |text: String| {
        serde_json::from_str::<Value>(&text)
            .ok()
            .filter(Value::is_object)
            .unwrap_or(Value::String(text))
    };
    let texts: Map<String, Value> = texts
        .into_iter()
        .map(|(key, text)| (key, value(text)))
        .collect();
    if texts.is_empty() {
        sheet.insert(
            "notes".into(),
            vec!["it carries no text that says how it was made"].into(),
        );
    } else {
        sheet.insert("text".into(), texts.into());
    }
    Ok(sheet)
}

/// The part of a run's record that people ask for.
fn of_record(path: &Path) -> Result<Value, Failure> {
    let bytes = scumble_nn::files::source::read_file(path, 1 << 30)?;
    let mut record = parse_object(path, &bytes)?;
    if let Some(map) = record.as_object_mut() {
        let count = map.get("pictures").and_then(Value::as_array).map(Vec::len);
        map.retain(|key, _| !matches!(key.as_str(), "pictures" | "details"));
        if let Some(count) = count {
            map.insert("pictures".into(), count.into());
        }
    }
    Ok(record)
}

/// A checkpoint: from disk, or the miniature.
fn of_model(path: Option<&Path>, args: &InspectArgs, host: Host<'_>) -> Result<Sheet, Failure> {
    let mut request = ModelRequest::from(&args.model);
    request.model = path.map(Path::to_owned).or(request.model);
    let model = Model::open(request, host)?;
    let name = path.map_or_else(|| PathBuf::from(&model.checkpoint.name), Path::to_owned);
    let kind = if model.builtin {
        "built-in miniature".to_owned()
    } else {
        identify(&name)?.kind.describe()
    };
    let mut sheet = named(&name, &kind);
    about_checkpoint(&model.checkpoint, &mut sheet);
    let mut list = Tensors::new();
    let mut parts = Vec::new();
    for component in model.checkpoint.component_names() {
        let tensors = &model.checkpoint.component(component)?.tensors;
        parts.push(part(component, tensors));
        list.extend(
            tensors
                .iter()
                .map(|(name, tensor)| (format!("{component}.{name}"), tensor.clone())),
        );
    }
    sheet.insert("parts".into(), parts.into());
    sheet.insert("hash".into(), model.hash.clone().into());
    let mut notes = model.checkpoint.notes.clone();
    notes.extend(Schedule::passed_over(&model.checkpoint.scheduler));
    // Opening reads names; whether a network can be made of them is seen when one is.
    match model.pipeline() {
        Ok(pipeline) => {
            let drawn = pipeline.own_sampler();
            notes.extend(
                drawn
                    .err()
                    .map(|why| format!("cannot draw with its own scheduler: {why}")),
            );
        }
        Err(why) => notes.push(format!("cannot be drawn with: {why}")),
    }
    sheet.insert("notes".into(), notes.into());
    if args.tensors {
        sheet.insert("tensors".into(), tensor_list(&list));
    }
    Ok(sheet)
}

fn about_checkpoint(checkpoint: &Checkpoint, sheet: &mut Sheet) {
    let family = families::of_files(checkpoint.family);
    let get = |config: &Value, key: &str| config.get(key).cloned().unwrap_or(Value::Null);
    let config = |id: &str| {
        let component = checkpoint.component(id);
        component.map_or(&Value::Null, |c| &c.config)
    };
    let predicts = checkpoint
        .scheduler
        .get("prediction_type")
        .and_then(Value::as_str)
        .unwrap_or("epsilon");
    let checker = checkpoint
        .passengers
        .iter()
        .any(|(rel, _)| rel.starts_with("safety_checker/"));
    sheet.insert("family".into(), checkpoint.family.name().into());
    let mut about = Sheet::new();
    about.insert("predicts".into(), predicts.into());
    let class = get(&checkpoint.scheduler, "_class_name");
    about.insert("scheduler".into(), class);
    about.insert("pixels".into(), (family.side)(checkpoint).into());
    for name in family.described_by {
        let (id, key) = name.split_once('.').unwrap_or((name, ""));
        about.insert((*name).into(), get(config(id), key));
    }
    let checker = if checker {
        "travels along, off"
    } else {
        "none"
    };
    about.insert("safety_checker".into(), checker.into());
    if family.text_encoders().len() > 1 {
        about.insert(
            "force_zeros_for_empty_prompt".into(),
            checkpoint.zeros_for_empty_prompt().into(),
        );
    }
    sheet.insert("config".into(), about.into());
}

fn of_file(path: &Path, args: &InspectArgs, host: Host<'_>) -> Result<Sheet, Failure> {
    let found = identify(path)?;
    let kind = found.kind.describe();
    match found.kind {
        // Opening it says why it is not read.
        Kind::Pickle => {
            TensorFile::open(path)?;
            Err(Failure::new(format!(
                "{}: is a pickle, which is never read",
                path.display()
            )))
        }
        Kind::DiffusersFolder | Kind::SingleFile(_) => match of_model(Some(path), args, host) {
            Ok(sheet) => Ok(sheet),
            // A single file of unusual widths, or with a number that is none, is still what it is.
            Err(why) if path.is_file() && args.model.reading.config.is_none() => {
                let mut sheet = named(path, &kind);
                sheet.insert("parts".into(), found.parts.iter().map(of_part).collect());
                sheet.insert(
                    "notes".into(),
                    vec![format!("cannot be opened as a model: {why}")].into(),
                );
                Ok(sheet)
            }
            Err(why) => Err(why),
        },
        _ => {
            let mut sheet = named(path, &kind);
            sheet.insert("parts".into(), found.parts.iter().map(of_part).collect());
            let tensors = if path.is_file() {
                TensorFile::open(path)?.tensors
            } else {
                Tensors::new()
            };
            match found.kind {
                Kind::KohyaLora | Kind::ComfyLora | Kind::PeftLora | Kind::Delta => {
                    sheet.insert("lora".into(), of_lora(&tensors));
                    let file = TensorFile {
                        path: path.into(),
                        tensors: tensors.clone(),
                        metadata: found.metadata.clone(),
                    };
                    if let Some(gate) = edits::described_gate(&file) {
                        sheet.insert("gate".into(), edits::describe_gate(&gate).into());
                    }
                }
                // Damaged metadata are no matter of the model at hand.
                Kind::Esd => drop(
                    EsdAbout::parse(&found.metadata)
                        .map_err(|problem| Failure::new(problem).of(&path.display().to_string()))?,
                ),
                Kind::TextualInversion => drop(sheet.insert(
                    "embedding".into(),
                    of_embedding(path, &tensors, &found.metadata),
                )),
                _ => {}
            }
            // Nobody can measure a change that holds no numbers, and nobody else would say so.
            let broken: Vec<String> = tensors
                .iter()
                .filter_map(|(name, t)| Some(format!("not finite: {name}: {}", t.not_finite()?)))
                .collect();
            let unread: std::collections::BTreeSet<String> = tensors
                .values()
                .filter(|t| !t.is_float() && t.to_i64().is_none())
                .map(|t| format!("{:?}", t.dtype()))
                .collect();
            if !broken.is_empty() {
                sheet.insert("hash".into(), file_hash(path)?.into());
                sheet.insert("notes".into(), broken.into());
            } else if matches!(
                found.kind,
                Kind::ScumbleEdit
                    | Kind::PartialUNet
                    | Kind::Esd
                    | Kind::LdmUNet
                    | Kind::KohyaLora
                    | Kind::ComfyLora
                    | Kind::PeftLora
                    | Kind::Delta
                    | Kind::TextEncoderFolder
            ) {
                of_change(path, args, &mut sheet, host)?;
            } else if path.is_file() {
                sheet.insert("hash".into(), file_hash(path)?.into());
            }
            let metadata: Map<String, Value> = found
                .metadata
                .iter()
                .filter(|(key, _)| key.as_str() != scumble_erase::edit::METADATA)
                .map(|(key, value)| {
                    (
                        key.clone(),
                        if value.len() > LONGEST_VALUE {
                            json!(format!("{} bytes", value.len()))
                        } else {
                            json!(value)
                        },
                    )
                })
                .collect();
            if !metadata.is_empty() {
                sheet.insert("metadata".into(), metadata.into());
            }
            if !unread.is_empty() {
                let note = json!(format!(
                    "dtypes that are not read: {}",
                    unread.into_iter().collect::<Vec<_>>().join(", ")
                ));
                match sheet.get_mut("notes").and_then(Value::as_array_mut) {
                    Some(notes) => notes.push(note),
                    None => drop(sheet.insert("notes".into(), vec![note].into())),
                }
            }
            if args.tensors {
                sheet.insert("tensors".into(), tensor_list(&tensors));
            }
            Ok(sheet)
        }
    }
}

/// What a change of a model does to it, layer by layer, if the model is at hand: by --model, or
/// because it is the miniature.
fn of_change(
    path: &Path,
    args: &InspectArgs,
    sheet: &mut Sheet,
    host: Host<'_>,
) -> Result<(), Failure> {
    let silent = Silently(host.listener);
    let model = Model::open(&args.model, host.heard_by(&silent))?;
    let mut notes = Vec::new();
    let about = if TensorFile::open(path)
        .is_ok_and(|f| f.metadata.contains_key(scumble_erase::edit::METADATA))
    {
        Some(scumble_erase::Edit::open(path)?.about)
    } else {
        None
    };
    if let Some(about) = &about {
        sheet.insert("edit".into(), json!(about));
    }
    let text = path.display().to_string();
    if let Some(gate) = about.as_ref().and_then(|about| about.gate.as_ref()) {
        sheet.insert("gate".into(), edits::describe_gate(gate).into());
    }
    if let Some(guard) = about.as_ref().and_then(|about| about.guard.as_ref()) {
        sheet.insert("guard".into(), guards::describe(guard).into());
        sheet.insert(
            "hash".into(),
            edits::open("PATH", &text, &model, &mut notes)?.hash.into(),
        );
        sheet.insert("notes".into(), notes.into());
        return Ok(());
    }
    let measured = edits::open("PATH", &text, &model, &mut notes).and_then(|loaded| {
        if let Some(gate) = &loaded.edit.about.gate {
            sheet.insert("gate".into(), edits::describe_gate(gate).into());
        }
        Ok((layers(&loaded, &model.checkpoint)?, loaded.hash))
    });
    match measured {
        Ok(((total, layers), hash)) => {
            sheet.insert("hash".into(), hash.into());
            sheet.insert("measured_on".into(), model.checkpoint.name.clone().into());
            sheet.insert("relative_change".into(), json!(total));
            sheet.insert("changed_tensors".into(), layers.len().into());
            let top = layers
                .iter()
                .filter(|(_, relative)| *relative > 0.0)
                .take(LAYERS)
                .map(|(name, relative)| json!({"name": name, "relative_change": relative}));
            sheet.insert("strongest".into(), top.collect());
            sheet.insert("notes".into(), notes.into());
            Ok(())
        }
        Err(why) if args.model.model.is_some() => Err(why),
        Err(_) => {
            let note = "the strength of the change is not measured: give the model it was made for with --model";
            sheet.insert("notes".into(), vec![note].into());
            if path.is_file() {
                sheet.insert("hash".into(), file_hash(path)?.into());
            }
            Ok(())
        }
    }
}

/// |new - old| / |old| over all changed tensors, and of each, the strongest first.
fn layers(loaded: &Loaded, base: &Checkpoint) -> Result<(f64, Vec<(String, f64)>), Failure> {
    let (mut moved, mut whole, mut list) = (0.0, 0.0, Vec::new());
    for value in loaded.edit.new_values(base, 1.0) {
        let (component, name, old, new) = value?;
        let (old, new) = (
            old.to_f32().unwrap_or_default(),
            new.to_f32().unwrap_or_default(),
        );
        let change: f64 = old
            .iter()
            .zip(&new)
            .map(|(o, n)| (f64::from(*n) - f64::from(*o)).powi(2))
            .sum();
        let size: f64 = old.iter().map(|o| f64::from(*o).powi(2)).sum();
        moved += change;
        whole += size;
        list.push((format!("{component}.{name}"), ratio(change, size)));
    }
    list.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    Ok((ratio(moved, whole), list))
}

/// The root of a quotient; of a change to what was zero, the change itself.
fn ratio(change: f64, size: f64) -> f64 {
    if size > 0.0 {
        (change / size).sqrt()
    } else {
        change.sqrt()
    }
}

fn of_lora(tensors: &Tensors) -> Value {
    let downs = [
        ".lora_down.weight",
        ".lora_A.weight",
        ".lora.down.weight",
        "_lora.down.weight",
        ".lora_A.default.weight",
        ".lora_linear_layer.down.weight",
        ".hada_w1_b",
    ];
    let mut ranks: BTreeMap<usize, usize> = BTreeMap::new();
    for (name, tensor) in tensors {
        if downs.iter().any(|end| name.ends_with(end)) {
            *ranks
                .entry(tensor.shape().first().copied().unwrap_or(0))
                .or_default() += 1;
        }
    }
    let modules: usize = ranks.values().sum();
    let ranks: Vec<usize> = ranks.into_keys().collect();
    let kinds = algorithms(tensors.keys());
    let reaches = reaches(tensors.keys());
    json!({"algorithms": kinds, "modules": modules, "ranks": ranks, "reaches": reaches})
}

fn of_embedding(path: &Path, tensors: &Tensors, metadata: &BTreeMap<String, String>) -> Value {
    let sizes: Vec<(usize, usize)> = tensors
        .values()
        .map(|tensor| match *tensor.shape() {
            [n, width] => (n, width),
            _ => (1, tensor.len()),
        })
        .collect();
    // Keys are sorted: `clip_g`, of the second text encoder, comes first.
    let (vectors, of_each) = match sizes[..] {
        [(n, width)] => (n, vec![width]),
        [(n, second), (_, first)] => (n, vec![first, second]),
        _ => return Value::Null,
    };
    let mut encoders = families::FAMILIES.iter().map(|f| f.text_encoders());
    let ids = encoders.find(|ids| ids.len() == of_each.len());
    let widths: Vec<(&str, usize)> = ids.into_iter().flatten().zip(of_each).collect();
    let file = TensorFile {
        path: path.into(),
        tensors: tensors.clone(),
        metadata: metadata.clone(),
    };
    let token = scumble_nn::files::read_embedding(&file, &widths)
        .map(|embedding| embedding.token)
        .ok();
    match widths[..] {
        [(_, width)] => json!({"token": token, "vectors": vectors, "width": width}),
        _ => {
            let widths: Vec<usize> = widths.iter().map(|(_, width)| *width).collect();
            json!({"token": token, "vectors": vectors, "widths": widths})
        }
    }
}

fn file_hash(path: &Path) -> Result<String, Failure> {
    let mut hash = blake3::Hasher::new();
    hash.update_reader(fs_err::File::open(path)?)?;
    Ok(hash.finalize().to_hex().to_string())
}

fn part(name: &str, tensors: &Tensors) -> Value {
    let mut dtypes: BTreeMap<String, usize> = BTreeMap::new();
    for tensor in tensors.values() {
        *dtypes.entry(format!("{:?}", tensor.dtype())).or_default() += 1;
    }
    let (numbers, bytes): (usize, usize) = tensors
        .values()
        .fold((0, 0), |(n, b), t| (n + t.len(), b + t.bytes().len()));
    json!({"name": name, "tensors": tensors.len(), "parameters": numbers, "bytes": bytes, "dtypes": dtypes})
}

fn of_part(part: &scumble_nn::files::identify::Part) -> Value {
    json!({"name": part.name, "tensors": part.tensors, "parameters": part.numbers, "bytes": part.bytes, "dtypes": part.dtypes})
}

fn tensor_list(tensors: &Tensors) -> Value {
    let one = |(name, tensor): (&String, &scumble_nn::files::HostTensor)| json!({"name": name, "dtype": format!("{:?}", tensor.dtype()), "shape": tensor.shape()});
    tensors.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_zeros_is_measured_by_itself() {
        assert_eq!(ratio(4.0, 0.0), 2.0);
        assert_eq!(ratio(4.0, 16.0), 0.5);
    }
}
