//! An erasure as data: new values for named tensors of named components, and where they came from.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Adapter, Gate, Guard, Pipeline};
use scumble_families::{self as families, Role};
use scumble_nn::{
    LORA_DOWN, LORA_UP, Weights,
    files::{
        Checkpoint, HostTensor, NotFinite, TensorFile, Tensors, finite::expect_finite,
        lora::LowRank, write,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    concepts::kind::ConceptKind,
    error::{Error, Result},
    host::to_host,
};

/// The metadata key under which a file says that it is an edit, and what about.
pub const METADATA: &str = "scumble.edit";

/// Version of the file format.
pub const FORMAT: u32 = 1;

/// What an edit says about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Version of the file format.
    pub format: u32,
    /// The method that made it.
    pub method: String,
    /// What was erased.
    pub concepts: Vec<String>,
    /// Name of the checkpoint it was made on.
    pub base: String,
    /// Content hash of that checkpoint.
    pub base_hash: String,
    /// Family of that checkpoint, such as `stable-diffusion-v1`.
    pub family: String,
    /// What kind of thing that is, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ConceptKind>,
    /// Every option of the method, defaults included.
    pub options: Value,
    /// The seed.
    pub seed: u64,
    /// The version of scumble.
    pub version: String,
    /// When its adapters act; always, without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// What keeps the model from the concepts while it draws.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
}

/// Component, name, old and new value of a tensor.
type NewValue = (String, String, HostTensor, HostTensor);

/// What happens to one tensor.
#[derive(Clone, Debug)]
pub enum Change {
    /// It gets these values.
    Value(HostTensor),
    /// This is added to it.
    Difference(HostTensor),
    /// `alpha / rank * up down` is added to it, as far as the edit's gate is open.
    LowRank(LowRank),
    /// The model gets this tensor beside its own: a part of a layer that the plain model does not
    /// have.
    Added(HostTensor),
}

/// How the keys of added tensors begin in a file.
const ADDED: &str = "added.";
/// How the keys of low-rank factors end.
const FACTORS: [&str; 3] = [LORA_DOWN, LORA_UP, "alpha"];

/// A sparse set of changes to a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// What it is and where it came from.
    pub about: About,
    /// The changes, by component and tensor name.
    pub changes: BTreeMap<(String, String), Change>,
}

impl Edit {
    /// An edit from trained values of one component.
    pub(crate) fn of_values(
        about: About,
        component: &str,
        pipeline: &Pipeline,
        values: BTreeMap<String, Tensor<1>>,
    ) -> Self {
        let values = values.into_iter().map(|(name, flat)| (name, to_host(flat)));
        Self::of_host_values(about, component, pipeline, values)
    }

    /// The same of flat tensors that left the device, or were never there.
    pub(crate) fn of_host_values(
        about: About,
        component: &str,
        pipeline: &Pipeline,
        values: impl IntoIterator<Item = (String, HostTensor)>,
    ) -> Self {
        let shape = |name: &str| {
            pipeline
                .weights(component)
                .and_then(|w| w.get(name))
                .map(|w| w.shape.clone())
        };
        let changes = values.into_iter().filter_map(|(name, flat)| {
            let value = flat.reshaped(shape(&name)?)?;
            Some(((component.to_owned(), name), Change::Value(value)))
        });
        Self {
            about,
            changes: changes.collect(),
        }
    }

    /// Reads an edit file.
    ///
    /// # Errors
    /// If it is not one, from a later version, or holds numbers that are not finite.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let about = file
            .metadata
            .get(METADATA)
            .ok_or_else(|| scumble_nn::Error::file(path, "is not an edit of scumble"))?;
        let about: About = serde_json::from_str(about).map_err(|e| {
            scumble_nn::Error::file(
                path,
                format!("its `{METADATA}` metadata is not what it should be: {e}"),
            )
        })?;
        if about.format != FORMAT {
            let problem = format!(
                "is an edit of format {}, this version reads format {FORMAT}",
                about.format
            );
            return Err(scumble_nn::Error::file(path, problem).into());
        }
        expect_finite(&path.display().to_string(), "", &file.tensors)?;
        let mut changes = BTreeMap::new();
        let mut factors: BTreeMap<(String, String), [Option<HostTensor>; 3]> = BTreeMap::new();
        for (key, tensor) in file.tensors {
            let (plain, added) = key
                .strip_prefix(ADDED)
                .map_or((key.as_str(), false), |rest| (rest, true));
            let Some((component, name)) = plain.split_once('.') else {
                return Err(scumble_nn::Error::file(
                    path,
                    format!("tensor `{key}` names no component"),
                )
                .into());
            };
            let factor = FACTORS
                .iter()
                .position(|end| name.ends_with(&format!(".{end}")))
                .filter(|_| !added);
            if let Some(k) = factor {
                let module = &name[..name.len() - FACTORS[k].len() - 1];
                factors
                    .entry((component.to_owned(), module.to_owned()))
                    .or_default()[k] = Some(tensor);
            } else {
                let change = if added {
                    Change::Added(tensor)
                } else {
                    Change::Value(tensor)
                };
                changes.insert((component.to_owned(), name.to_owned()), change);
            }
        }
        for ((component, module), parts) in factors {
            let [Some(down), Some(up), alpha] = parts else {
                return Err(scumble_nn::Error::file(
                    path,
                    format!("{component}.{module} has one factor of a low-rank change"),
                )
                .into());
            };
            let alpha = alpha
                .and_then(|a| a.to_f32()?.first().copied())
                .unwrap_or(down.shape().first().map_or(1.0, |&r| r as f32));
            let low = LowRank {
                component: component.clone(),
                module: module.clone(),
                down,
                up,
                alpha,
            };
            changes.insert(
                (component, format!("{module}.weight")),
                Change::LowRank(low),
            );
        }
        Ok(Self { about, changes })
    }

    /// The hash of what it changes: blake3 over the gate, the guard, and the component, name, kind,
    /// dtype, shape and bytes of every change, each field behind its length. Two edits that make
    /// the same model of the same base have the same, whatever they say of themselves.
    pub fn content_hash(&self) -> String {
        let mut hash = blake3::Hasher::new();
        // A field cannot run over into the next one.
        let mut field = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        let (gate, guard) = (self.about.gate.as_ref(), self.about.guard.as_ref());
        for part in [
            gate.map(serde_json::to_string),
            guard.map(serde_json::to_string),
        ] {
            field(part.and_then(Result::ok).unwrap_or_default().as_bytes());
        }
        for ((component, name), change) in &self.changes {
            field(component.as_bytes());
            field(name.as_bytes());
            let tensors = match change {
                Change::Value(tensor) => vec![("value", tensor)],
                Change::Difference(tensor) => vec![("difference", tensor)],
                Change::Added(tensor) => vec![("added", tensor)],
                Change::LowRank(low) => {
                    field(&low.alpha.to_le_bytes());
                    vec![("down", &low.down), ("up", &low.up)]
                }
            };
            for (kind, tensor) in tensors {
                field(kind.as_bytes());
                field(format!("{:?} {:?}", tensor.dtype(), tensor.shape()).as_bytes());
                field(tensor.bytes());
            }
        }
        hash.finalize().to_hex().to_string()
    }

    /// Writes it beside `path` and renames.
    ///
    /// # Errors
    /// If the file cannot be written, or a change is a difference, which edit files do not hold.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = Tensors::new();
        for ((component, name), change) in &self.changes {
            match change {
                Change::Value(value) => {
                    drop(tensors.insert(format!("{component}.{name}"), value.clone()))
                }
                Change::Added(value) => {
                    drop(tensors.insert(format!("{ADDED}{component}.{name}"), value.clone()))
                }
                Change::LowRank(low) => {
                    let parts = [
                        low.down.clone(),
                        low.up.clone(),
                        HostTensor::from_f32([1], &[low.alpha]),
                    ];
                    for (end, part) in FACTORS.iter().zip(parts) {
                        tensors.insert(format!("{component}.{}.{end}", low.module), part);
                    }
                }
                Change::Difference(_) => {
                    return Err(Error::input(format!(
                        "{component}.{name} is a difference; apply the edit first"
                    )));
                }
            }
        }
        let about = serde_json::to_string(&self.about)
            .map_err(|e| Error::input(format!("cannot describe the edit: {e}")))?;
        let metadata = BTreeMap::from([
            (METADATA.to_owned(), about),
            ("format".to_owned(), "pt".to_owned()),
        ]);
        Ok(write(path, tensors, &metadata)?)
    }

    /// The edited model: `base + strength (new - base)` for every changed tensor. All other tensors
    /// are shared.
    ///
    /// # Errors
    /// If it names a tensor the model does not have, or of another shape: it was made for another architecture. If the strength
    /// is not finite.
    pub fn apply_to(&self, pipeline: &Pipeline, strength: f64) -> Result<Pipeline> {
        if !strength.is_finite() {
            return Err(Error::input(format!(
                "the strength is {strength}, expected a finite number"
            )));
        }
        let mut edited = pipeline.clone();
        let mut adapters = Vec::new();
        for ((component, name), change) in &self.changes {
            match change {
                Change::Added(value) => {
                    self.add(&mut edited, component, name, value, strength)?;
                    continue;
                }
                Change::LowRank(low) if self.about.gate.is_some() => {
                    adapters.push(self.adapter(&edited, low, strength)?);
                    continue;
                }
                _ => {}
            }
            let weight = pipeline
                .weights(component)
                .and_then(|w| w.get(name))
                .cloned();
            let weight =
                weight.ok_or_else(|| self.foreign(component, name, "is not in the model"))?;
            let base: Vec<f32> = weight.flat().into_data().iter::<f32>().collect();
            let new = change
                .over(&base, &weight.shape)
                .map_err(|problem| self.foreign(component, name, &problem))?;
            let values = blend(&base, new, strength)?;
            if let Some(found) = HostTensor::from_f32(weight.shape.clone(), &values).not_finite() {
                return Err(beyond(component, name, strength, &found));
            }
            let count = values.len();
            let flat = Tensor::from_data(TensorData::new(values, [count]), pipeline.device());
            if let Some(weights) = edited.weights_mut(component) {
                weights.replace(name, flat)?;
            }
        }
        if let Some(gate) = self.about.gate.as_ref().filter(|_| !adapters.is_empty()) {
            edited
                .attach(&adapters, Some(gate.clone()))
                .map_err(|e| Error::input(format!("the edit does not fit this model: {e}")))?;
        }
        if let Some(guard) = &self.about.guard {
            edited.guards.push(Guard {
                strength: guard.strength * strength,
                ..guard.clone()
            });
        }
        Ok(edited)
    }

    /// Lays an added tensor beside the model's own. What a path adds is proportional to its last
    /// layer.
    fn add(
        &self,
        edited: &mut Pipeline,
        component: &str,
        name: &str,
        value: &HostTensor,
        strength: f64,
    ) -> Result<()> {
        let values = value
            .to_f32()
            .ok_or_else(|| self.foreign(component, name, "does not hold floats"))?;
        let count = values.len();
        let flat = Tensor::from_data(TensorData::new(values, [count]), edited.device());
        let flat = if name.contains(".up.") {
            flat * strength
        } else {
            flat
        };
        let family = families::of(edited);
        let attention = family.place(component, name);
        let attention = attention.filter(|place| place.role == Role::Bottleneck);
        let has_it = |weights: &Weights| {
            attention.is_some_and(|beside| {
                let near = weights
                    .iter()
                    .filter(|(name, _)| name.starts_with(beside.module));
                near.filter_map(|(name, _)| family.place(component, name))
                    .any(|place| {
                        place.module == beside.module
                            && (place.role.is_context() || place.role.is_self_attention())
                    })
            })
        };
        let weights = edited.weights_mut(component).filter(|w| has_it(w));
        weights
            .ok_or_else(|| self.foreign(component, name, "has no layer to lie beside"))?
            .add(name, value.shape().to_vec(), flat);
        Ok(())
    }

    /// Whether a plain checkpoint can hold what it does: not a path that looks at the prompt, nor
    /// one through new layers, nor a rule of drawing.
    pub fn merges(&self) -> bool {
        self.about.gate.is_none()
            && self.about.guard.is_none()
            && !self
                .changes
                .values()
                .any(|change| matches!(change, Change::Added(_)))
    }

    fn adapter(&self, pipeline: &Pipeline, low: &LowRank, strength: f64) -> Result<Adapter> {
        let matrix = |factor: &HostTensor, scale: f64| -> Option<Tensor<2>> {
            let [rows, columns] = [*factor.shape().first()?, *factor.shape().get(1)?];
            let values = factor
                .to_f32()
                .filter(|values| values.len() == rows * columns)?;
            Some(
                Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), pipeline.device())
                    * scale,
            )
        };
        let scale = f64::from(low.scale()) * strength;
        let (Some(down), Some(up)) = (matrix(&low.down, 1.0), matrix(&low.up, scale)) else {
            return Err(self.foreign(
                &low.component,
                &low.module,
                "has factors that are no matrices",
            ));
        };
        Ok(Adapter {
            module: low.module.clone(),
            down,
            up,
        })
    }

    /// The edited checkpoint, for export. Changed tensors are f32, so that nothing is lost; the
    /// others stay as they are.
    ///
    /// # Errors
    /// As [`apply_to`](Self::apply_to).
    pub fn apply(&self, base: &Checkpoint, strength: f64) -> Result<Checkpoint> {
        let mut edited = base.clone();
        for moved in self.new_values(base, strength) {
            let (component, name, _, new) = moved?;
            edited.component_mut(&component)?.tensors.insert(name, new);
        }
        Ok(edited)
    }

    /// Component, name, old and new value of every changed tensor, each made when it is asked for:
    /// together they may be a whole model in f32.
    ///
    /// # Errors
    /// Each as [`apply_to`](Self::apply_to).
    pub fn new_values<'a>(
        &'a self,
        base: &'a Checkpoint,
        strength: f64,
    ) -> impl Iterator<Item = Result<NewValue>> + 'a {
        let refused = self.unmergeable().map(Err);
        let each = move |((component, name), change): (&(String, String), &Change)| {
            let old = base.component(component)?.tensors.get(name);
            let old = old.ok_or_else(|| self.foreign(component, name, "is not in the model"))?;
            let values = old.to_f32().ok_or_else(|| {
                self.foreign(component, name, "does not hold floats in the model")
            })?;
            let new = change
                .over(&values, old.shape())
                .map_err(|problem| self.foreign(component, name, &problem))?;
            let new = HostTensor::from_f32(old.shape(), &blend(&values, new, strength)?);
            if let Some(found) = new.not_finite() {
                return Err(beyond(component, name, strength, &found));
            }
            Ok((component.clone(), name.clone(), old.clone(), new))
        };
        // What no checkpoint can hold has no values.
        let changes = match refused {
            Some(_) => None,
            None => Some(self.changes.iter().map(each)),
        };
        refused.into_iter().chain(changes.into_iter().flatten())
    }

    /// What of it no plain checkpoint can hold.
    fn unmergeable(&self) -> Option<Error> {
        if let Some(guard) = &self.about.guard {
            let error = Error::input(format!(
                "it is the run-time guard `{}`, which no checkpoint can hold",
                guard.id
            ));
            return Some(error.with_hint(
                "use it with --edit, or erase the concept with a method (`scumble methods`)",
            ));
        }
        let added = |(_, change): &(_, &Change)| matches!(change, Change::Added(_));
        let ((component, name), _) = self.changes.iter().find(added)?;
        let error = Error::input(format!(
            "{component} {name} belongs to a layer that plain checkpoints do not have"
        ));
        Some(error.with_hint("use it with --edit; it cannot be exported"))
    }

    /// Several edits at their strengths as one of plain values: where two change a tensor, their
    /// differences to `base` are added, so that none undoes another. It keeps no gate: merged,
    /// adapters act on every prompt.
    ///
    /// # Errors
    /// As [`apply_to`](Self::apply_to); the position of the edit that does not fit stands before the error.
    pub fn combined(
        edits: &[(&Self, f64)],
        base: &Checkpoint,
    ) -> std::result::Result<Self, (usize, Error)> {
        let mut values: BTreeMap<(String, String), (HostTensor, Vec<f32>)> = BTreeMap::new();
        for (i, (edit, strength)) in edits.iter().enumerate() {
            for moved in edit.new_values(base, *strength) {
                let (component, name, old, new) = moved.map_err(|error| (i, error))?;
                let new = new.to_f32().unwrap_or_default();
                match values.get_mut(&(component.clone(), name.clone())) {
                    None => drop(values.insert((component, name), (old, new))),
                    Some((old, sum)) => {
                        let old = old.to_f32().unwrap_or_default();
                        for ((sum, new), old) in sum.iter_mut().zip(new).zip(old) {
                            *sum += new - old;
                        }
                    }
                }
            }
        }
        let changes = values
            .into_iter()
            .map(|(key, (old, new))| (key, Change::Value(HostTensor::from_f32(old.shape(), &new))));
        let mut about = edits
            .first()
            .map(|(edit, _)| edit.about.clone())
            .unwrap_or_default();
        for (other, _) in edits.iter().skip(1) {
            about.concepts.extend(other.about.concepts.iter().cloned());
            if other.about.method != about.method {
                about.method = format!("{} + {}", about.method, other.about.method);
            }
        }
        Ok(Self {
            about: About {
                gate: None,
                ..about
            },
            changes: changes.collect(),
        })
    }

    fn foreign(&self, component: &str, name: &str, problem: &str) -> Error {
        let about = &self.about;
        let made = if about.base.is_empty() {
            String::new()
        } else {
            format!("; it was made on {} ({})", about.base, about.family)
        };
        Error::input(format!(
            "the edit does not fit this model: {component} {name} {problem}{made}"
        ))
        .with_hint("give the model it was made for with --model")
    }
}

impl Change {
    /// The new values of a tensor whose old values are `base`; what does not fit, if it does not.
    fn over(&self, base: &[f32], shape: &[usize]) -> std::result::Result<Vec<f32>, String> {
        let misfit =
            |found: &[usize]| format!("has shape {found:?} in the edit and {shape:?} in the model");
        let floats = |tensor: &HostTensor| {
            if tensor.shape() != shape {
                return Err(misfit(tensor.shape()));
            }
            tensor.to_f32().ok_or_else(|| {
                format!(
                    "is {:?} in the edit, expected F16, BF16 or F32",
                    tensor.dtype()
                )
            })
        };
        let plus = |delta: Vec<f32>| base.iter().zip(delta).map(|(b, d)| b + d).collect();
        match self {
            Self::Value(value) => floats(value),
            Self::Added(_) => Err("is not a part of a plain model".into()),
            Self::Difference(diff) => floats(diff).map(plus),
            Self::LowRank(low) => {
                let delta = low.delta().ok_or_else(|| {
                    format!(
                        "has factors that do not fit: {:?} and {:?}",
                        low.up, low.down
                    )
                })?;
                if delta.len() == base.len() && low.up.shape().first() == shape.first() {
                    Ok(plus(delta))
                } else {
                    Err(misfit(
                        &[
                            &low.up.shape()[..1],
                            low.down.shape().get(1..).unwrap_or_default(),
                        ]
                        .concat(),
                    ))
                }
            }
        }
    }
}

/// An edit whose numbers are finite and whose result is not.
fn beyond(component: &str, name: &str, strength: f64, found: &NotFinite) -> Error {
    Error::input(format!(
        "{component} {name} at strength {strength}: {found}"
    ))
    .with_hint("try a smaller strength")
}

/// `base + strength (new - base)`: the base's own bits at 0, the new ones' at 1.
fn blend(base: &[f32], new: Vec<f32>, strength: f64) -> Result<Vec<f32>> {
    if !strength.is_finite() {
        return Err(Error::input(format!(
            "the strength is {strength}, expected a finite number"
        )));
    }
    Ok(if strength == 0.0 {
        base.to_vec()
    } else if strength == 1.0 {
        new
    } else {
        let between =
            |b: f32, n: f32| (f64::from(b) + strength * (f64::from(n) - f64::from(b))) as f32;
        base.iter().zip(new).map(|(&b, n)| between(b, n)).collect()
    })
}
