//! `scumble inspect`: what a file or folder is, and what is worth knowing about it.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
};

use scumble_nn::files::{Checkpoint, Kind, TensorFile, Tensors, identify, source::parse_object};
use scumble_report::png;
use serde_json::{Map, Value, json};

use crate::{
    args::InspectArgs,
    edits::{self, Loaded, file_of},
    failure::{Failure, Outcome},
    guards, miniature,
    model::Model,
    output,
    store::RECORD,
};

/// Most bytes of a picture that are read for its texts.
const LONGEST_PICTURE: u64 = 256 << 20;

/// Most layers listed.
const LAYERS: usize = 10;

/// Longest metadata value shown; tools put whole word lists there.
const LONGEST_VALUE: usize = 2000;

pub(crate) fn run(args: &InspectArgs) -> Result<Outcome, Failure> {
    let sheet = match args.path.as_deref() {
        Some(path) if path.as_os_str() != miniature::NAME || path.exists() => of_path(path, args)?,
        _ => of_model(None, args)?,
    };
    if args.print.json {
        output::json(&Value::Object(sheet))?;
    } else {
        for line in lines(&sheet) {
            output::data(&line)?;
        }
    }
    Ok(Outcome::Done)
}

type Sheet = Map<String, Value>;

fn of_path(path: &Path, args: &InspectArgs) -> Result<Sheet, Failure> {
    if !path.exists() {
        return Err(Failure::new(format!("{}: there is no such file or folder", path.display())));
    }
    if path.is_dir() {
        let record = path.join(RECORD);
        return match file_of(path) {
            Ok(file) if file != path => {
                let mut sheet = of_file(&file, args)?;
                if record.is_file() {
                    sheet.insert("run".into(), of_record(&record)?);
                }
                Ok(sheet)
            }
            Ok(_) => of_file(path, args),
            Err(_) if record.is_file() => {
                let mut sheet = named(path, "run of scumble");
                sheet.insert("run".into(), of_record(&record)?);
                Ok(sheet)
            }
            Err(_) => Err(Failure::new(format!("{}: is a folder that holds nothing known", path.display()))
                .with_hint("known are diffusers folders, text encoder folders and the output folders of scumble")),
        };
    }
    let mut start = [0; 8];
    let picture = fs_err::metadata(path)?.is_file()
        && fs_err::File::open(path)?.read(&mut start)? == start.len()
        && start == *b"\x89PNG\r\n\x1a\n";
    if picture { of_picture(path) } else { of_file(path, args) }
}

/// What every sheet begins with.
fn named(path: &Path, kind: &str) -> Sheet {
    Map::from_iter([("path".to_owned(), path.display().to_string().into()), ("kind".to_owned(), kind.into())])
}

fn of_picture(path: &Path) -> Result<Sheet, Failure> {
    let bytes = scumble_nn::files::source::read_file(path, LONGEST_PICTURE)?;
    let texts = png::read_text(&bytes).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let mut sheet = named(path, "picture");
    let value = |text: String| serde_json::from_str::<Value>(&text).ok().filter(Value::is_object).unwrap_or(Value::String(text));
    let texts: Map<String, Value> = texts.into_iter().map(|(key, text)| (key, value(text))).collect();
    sheet.insert("text".into(), texts.into());
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
fn of_model(path: Option<&Path>, args: &InspectArgs) -> Result<Sheet, Failure> {
    let model = Model::open(&args.model, path, args.print.quiet)?;
    let name = path.map_or_else(|| PathBuf::from(&model.checkpoint.name), Path::to_owned);
    let kind = if model.builtin { "built-in miniature".to_owned() } else { identify(&name)?.kind.describe() };
    let mut sheet = named(&name, &kind);
    about_checkpoint(&model.checkpoint, &mut sheet);
    let mut list = Tensors::new();
    let mut parts = Vec::new();
    for component in model.checkpoint.component_names() {
        let tensors = &model.checkpoint.component(component)?.tensors;
        parts.push(part(component, tensors));
        list.extend(tensors.iter().map(|(name, tensor)| (format!("{component}.{name}"), tensor.clone())));
    }
    sheet.insert("parts".into(), parts.into());
    sheet.insert("hash".into(), model.hash.clone().into());
    sheet.insert("notes".into(), model.checkpoint.notes.clone().into());
    if args.tensors {
        sheet.insert("tensors".into(), tensor_list(&list));
    }
    Ok(sheet)
}

fn about_checkpoint(checkpoint: &Checkpoint, sheet: &mut Sheet) {
    let get = |config: &Value, key: &str| config.get(key).cloned().unwrap_or(Value::Null);
    let (text, unet, vae) = (&checkpoint.text_encoder.config, &checkpoint.unet.config, &checkpoint.vae.config);
    let levels = vae.get("block_out_channels").and_then(Value::as_array).map_or(0, Vec::len);
    let factor = 1u64.checked_shl(levels.saturating_sub(1) as u32).unwrap_or(0);
    let side = unet.get("sample_size").and_then(Value::as_u64).and_then(|side| side.checked_mul(factor));
    let predicts = checkpoint.scheduler.get("prediction_type").and_then(Value::as_str).unwrap_or("epsilon");
    let checker = checkpoint.passengers.iter().any(|(rel, _)| rel.starts_with("safety_checker/"));
    sheet.insert("family".into(), checkpoint.family.name().into());
    let config = json!({
        "predicts": predicts, "scheduler": get(&checkpoint.scheduler, "_class_name"), "pixels": side,
        "unet.block_out_channels": get(unet, "block_out_channels"), "unet.attention_head_dim": get(unet, "attention_head_dim"),
        "unet.cross_attention_dim": get(unet, "cross_attention_dim"), "text_encoder.hidden_size": get(text, "hidden_size"),
        "text_encoder.num_hidden_layers": get(text, "num_hidden_layers"),
        "text_encoder.max_position_embeddings": get(text, "max_position_embeddings"), "text_encoder.vocab_size": get(text, "vocab_size"),
        "vae.scaling_factor": get(vae, "scaling_factor"), "vae.latent_channels": get(vae, "latent_channels"),
        "safety_checker": if checker { "travels along, off" } else { "none" },
    });
    sheet.insert("config".into(), config);
}

fn of_file(path: &Path, args: &InspectArgs) -> Result<Sheet, Failure> {
    let found = identify(path)?;
    let kind = found.kind.describe();
    match found.kind {
        // Opening it says why it is not read.
        Kind::Pickle => {
            TensorFile::open(path)?;
            Err(Failure::new(format!("{}: is a pickle, which is never read", path.display())))
        }
        Kind::DiffusersFolder | Kind::SingleFile(_) => match of_model(Some(path), args) {
            Ok(sheet) => Ok(sheet),
            // A single file of unusual widths is still what it is.
            Err(why) if path.is_file() && args.model.reading.config.is_none() => {
                let mut sheet = named(path, &kind);
                sheet.insert("parts".into(), found.parts.iter().map(of_part).collect());
                sheet.insert("notes".into(), vec![format!("cannot be opened as a model: {why}")].into());
                Ok(sheet)
            }
            Err(why) => Err(why),
        },
        _ => {
            let mut sheet = named(path, &kind);
            sheet.insert("parts".into(), found.parts.iter().map(of_part).collect());
            let tensors = if path.is_file() { TensorFile::open(path)?.tensors } else { Tensors::new() };
            match found.kind {
                Kind::KohyaLora | Kind::PeftLora => drop(sheet.insert("lora".into(), of_lora(&tensors))),
                Kind::TextualInversion => drop(sheet.insert("embedding".into(), of_embedding(&tensors, &found.metadata))),
                _ => {}
            }
            if matches!(
                found.kind,
                Kind::ScumbleEdit | Kind::PartialUNet | Kind::KohyaLora | Kind::PeftLora | Kind::Delta | Kind::TextEncoderFolder
            ) {
                of_change(path, args, &mut sheet)?;
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
                        if value.len() > LONGEST_VALUE { json!(format!("{} bytes", value.len())) } else { json!(value) },
                    )
                })
                .collect();
            if !metadata.is_empty() {
                sheet.insert("metadata".into(), metadata.into());
            }
            if args.tensors {
                sheet.insert("tensors".into(), tensor_list(&tensors));
            }
            Ok(sheet)
        }
    }
}

/// What a change of a model does to it, layer by layer, if the model is at hand: by --model, or because it is the miniature.
fn of_change(path: &Path, args: &InspectArgs, sheet: &mut Sheet) -> Result<(), Failure> {
    let model = Model::open(&args.model, None, true)?;
    let mut notes = Vec::new();
    let about = if TensorFile::open(path).is_ok_and(|f| f.metadata.contains_key(scumble_erase::edit::METADATA)) {
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
        sheet.insert("hash".into(), edits::open("PATH", &text, &model, &mut notes)?.hash.into());
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
    for (component, name, old, new) in loaded.edit.new_values(base, 1.0)? {
        let (old, new) = (old.to_f32().unwrap_or_default(), new.to_f32().unwrap_or_default());
        let change: f64 = old.iter().zip(&new).map(|(o, n)| (f64::from(*n) - f64::from(*o)).powi(2)).sum();
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
    if size > 0.0 { (change / size).sqrt() } else { change.sqrt() }
}

fn of_lora(tensors: &Tensors) -> Value {
    let downs = [
        ".lora_down.weight",
        ".lora_A.weight",
        ".lora.down.weight",
        "_lora.down.weight",
        ".lora_A.default.weight",
        ".lora_linear_layer.down.weight",
    ];
    let mut ranks: BTreeMap<usize, usize> = BTreeMap::new();
    for (name, tensor) in tensors {
        if downs.iter().any(|end| name.ends_with(end)) {
            *ranks.entry(tensor.shape().first().copied().unwrap_or(0)).or_default() += 1;
        }
    }
    let modules: usize = ranks.values().sum();
    let text = tensors.keys().filter(|name| name.starts_with("lora_te") || name.starts_with("text_encoder")).count();
    let ranks: Vec<usize> = ranks.into_keys().collect();
    json!({"modules": modules, "ranks": ranks, "reaches": if text > 0 { "unet and text encoder" } else { "unet" }})
}

fn of_embedding(tensors: &Tensors, metadata: &BTreeMap<String, String>) -> Value {
    let Some((key, tensor)) = tensors.iter().next() else { return Value::Null };
    let token = if key == "emb_params" { metadata.get("name") } else { Some(key) };
    let (vectors, width) = match *tensor.shape() {
        [n, width] => (n, width),
        _ => (1, tensor.len()),
    };
    json!({"token": token, "vectors": vectors, "width": width})
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
    let (numbers, bytes): (usize, usize) = tensors.values().fold((0, 0), |(n, b), t| (n + t.len(), b + t.bytes().len()));
    json!({"name": name, "tensors": tensors.len(), "parameters": numbers, "bytes": bytes, "dtypes": dtypes})
}

fn of_part(part: &scumble_nn::files::identify::Part) -> Value {
    json!({"name": part.name, "tensors": part.tensors, "parameters": part.numbers, "bytes": part.bytes, "dtypes": part.dtypes})
}

fn tensor_list(tensors: &Tensors) -> Value {
    let one = |(name, tensor): (&String, &scumble_nn::files::HostTensor)| json!({"name": name, "dtype": format!("{:?}", tensor.dtype()), "shape": tensor.shape()});
    tensors.iter().map(one).collect()
}

/// A sheet for people.
fn lines(sheet: &Sheet) -> Vec<String> {
    let mut out = Vec::new();
    for (key, value) in sheet {
        match (key.as_str(), value) {
            ("parts", Value::Array(parts)) => {
                for part in parts {
                    let dtypes = part["dtypes"].as_object().into_iter().flatten().map(|(dtype, n)| format!("{n} {dtype}"));
                    let dtypes: Vec<String> = dtypes.collect();
                    let (name, count) = (plain(&part["name"]), plain(&part["tensors"]));
                    let numbers = plain(&part["parameters"]);
                    out.push(format!("{name:<18} {count} tensors ({}), {numbers} parameters", dtypes.join(", ")));
                }
            }
            ("strongest", Value::Array(layers)) => {
                out.push("strongest changes, |new - old| / |old|:".into());
                for layer in layers {
                    out.push(format!("  {:>10.3e}  {}", layer["relative_change"].as_f64().unwrap_or(0.0), plain(&layer["name"])));
                }
            }
            ("tensors", Value::Array(tensors)) => {
                out.extend(tensors.iter().map(|t| format!("  {} {} {}", plain(&t["name"]), plain(&t["dtype"]), t["shape"])));
            }
            ("notes", Value::Array(notes)) => out.extend(notes.iter().map(|note| format!("note: {}", plain(note)))),
            (_, Value::Object(map)) => {
                out.push(format!("{key}:"));
                out.extend(map.iter().filter(|(_, v)| !v.is_null()).map(|(name, v)| format!("  {name}: {}", plain(v))));
            }
            (_, Value::Null) => {}
            _ => out.push(format!("{key:<18} {}", plain(value))),
        }
    }
    out
}

/// A value without the quotes of a string.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
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
