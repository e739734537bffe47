//! The tensors of one network on a device, by name, and how a network picks them up.
//!
//! A network is a function of its tensors: building one is a walk over names that clones handles,
//! so an edited model is the same map with a few entries replaced, and training builds the network
//! anew around the tensors that move.
//!
//! A tensor of a file moves to the device when it is first asked for: whoever edits 32 matrices of
//! a U-Net never pays for the others. On the CPU large matrices and kernels of halves stay halves,
//! and become f32 piece by piece inside the products: they stay in the mapped file itself.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use burn::tensor::{DType, Device, Tensor, TensorData};
use scumble_kernels::{self as kernels, Layouts};

use crate::{
    error::{Error, Result},
    evaluations::Evaluations,
    files::{
        Dtype, HostTensor, Tensors, expect_names,
        safetensors::{fetch, release},
    },
};

/// The names and shapes that a network asks for.
pub type Manifest = BTreeMap<String, Vec<usize>>;

/// One tensor on a device: flat, with its shape beside it, so that tensors of every rank share one
/// type.
#[derive(Clone, Debug)]
pub struct Weight {
    /// The shape that the numbers stand for.
    pub shape: Vec<usize>,
    numbers: Numbers,
    /// What kernels keep of these numbers.
    layouts: Layouts,
}

/// The numbers of a tensor, on the device or still in the file.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a tensor handle in place, as everywhere else; there are a few hundred"
)]
enum Numbers {
    Here(Tensor<1>),
    /// Moved at first use, once for all clones.
    Filed(Arc<Filed>),
}

/// A tensor of a file that has been checked to hold floats, and what was made of it.
#[derive(Debug)]
struct Filed {
    host: HostTensor,
    device: Device,
    wide: OnceLock<Tensor<1>>,
    halves: OnceLock<Tensor<1>>,
}

impl Filed {
    /// As f32 for the processor. The file's copy need not stay in memory then.
    fn read(&self) -> Vec<f32> {
        fetch(self.host.storage());
        let numbers = self.host.to_f32().expect("checked to hold floats");
        release(self.host.storage());
        numbers
    }

    /// As f32 on the device, from now on.
    fn wide(&self) -> Tensor<1> {
        kept(&self.wide, || {
            on_device(
                TensorData::new(self.read(), [self.host.len()]),
                &self.device,
            )
        })
    }

    /// As the file has them, if that is halves and a kernel takes them: on the CPU alone.
    fn halves(&self) -> Option<Tensor<1>> {
        let dtype = match self.host.dtype() {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            _ => return None,
        };
        if self.wide.get().is_some() || self.device != Device::flex() {
            return None;
        }
        Some(kept(&self.halves, || {
            let host = &self.host;
            fetch(host.storage());
            // Where the file put them at an odd place, no processor reads them as they lie.
            let aligned = host.bytes().as_ptr().addr().is_multiple_of(dtype.size());
            let bytes = if aligned {
                host.storage().shared()
            } else {
                burn::tensor::Bytes::from_bytes_vec(host.bytes().to_vec())
            };
            on_device(
                TensorData::from_bytes(bytes, [host.len()], dtype),
                &self.device,
            )
        }))
    }
}

/// What is kept, or made and kept. It is made before the lock is taken: that takes many threads, and
/// one of them may come to want the same.
fn kept(place: &OnceLock<Tensor<1>>, make: impl FnOnce() -> Tensor<1>) -> Tensor<1> {
    if let Some(found) = place.get() {
        return found.clone();
    }
    let made = make();
    place.get_or_init(|| made).clone()
}

/// Data on a device as the kind of number that it has.
fn on_device(data: TensorData, device: &Device) -> Tensor<1> {
    let dtype = data.dtype();
    Tensor::from_data(data, (device, dtype))
}

impl Weight {
    fn new(shape: Vec<usize>, flat: Tensor<1>) -> Self {
        Self {
            shape,
            numbers: Numbers::Here(flat),
            layouts: Layouts::kept(),
        }
    }

    /// A tensor of a file that has been checked to hold floats.
    fn filed(tensor: &HostTensor, device: &Device) -> Self {
        Self {
            shape: tensor.shape().to_vec(),
            numbers: Numbers::Filed(Arc::new(Filed {
                host: tensor.clone(),
                device: device.clone(),
                wide: OnceLock::new(),
                halves: OnceLock::new(),
            })),
            layouts: Layouts::kept(),
        }
    }

    /// A copy of the numbers for the processor, row-major. Those that still lie in a file are read
    /// there and go nowhere else.
    pub fn numbers(&self) -> Vec<f32> {
        let flat = match &self.numbers {
            Numbers::Filed(filed) => match filed.wide.get() {
                Some(flat) => flat.clone(),
                None => return filed.read(),
            },
            Numbers::Here(flat) => flat.clone(),
        };
        let numbers = flat.into_data();
        match numbers.as_slice() {
            Ok(numbers) => numbers.to_vec(),
            Err(_) => numbers.iter().collect(),
        }
    }

    /// The bytes that a network takes for it: the numbers as they are kept, and on the CPU those that
    /// small matrices are laid out in.
    pub fn bytes(&self) -> u64 {
        let count = self.shape.iter().product::<usize>();
        let size = match &self.numbers {
            Numbers::Filed(filed) if self.shape.len() > 1 => filed.host.dtype().bitsize() / 8,
            _ => 4,
        };
        let laid_out = self.shape.len() > 1 && self.layouts.fit(count);
        (count * (size + if laid_out { 4 } else { 0 })) as u64
    }

    /// The numbers, row-major, as f32. Of a file of halves they are widened anew each time: whoever
    /// wants them is about to change them, and networks go on with the halves.
    pub fn flat(&self) -> Tensor<1> {
        match &self.numbers {
            Numbers::Here(flat) => flat.clone(),
            Numbers::Filed(filed) if filed.halves.get().is_some() => {
                let numbers = filed.read();
                on_device(TensorData::new(numbers, [filed.host.len()]), &filed.device)
            }
            Numbers::Filed(filed) => filed.wide(),
        }
    }

    /// The numbers as a network keeps them: f32.
    fn wide(&self) -> Tensor<1> {
        match &self.numbers {
            Numbers::Here(flat) => flat.clone(),
            Numbers::Filed(filed) => filed.wide(),
        }
    }

    /// The numbers as a product may take them: halves, if that is what the file has.
    fn stored(&self) -> Tensor<1> {
        match &self.numbers {
            Numbers::Here(flat) => flat.clone(),
            Numbers::Filed(filed) => filed.halves().unwrap_or_else(|| filed.wide()),
        }
    }
}

/// All tensors of one network on a device. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct Weights {
    device: Device,
    map: BTreeMap<String, Weight>,
    evaluations: Evaluations,
    recomputes: Option<usize>,
    outlines: bool,
}

impl Weights {
    /// The tensors that `manifest` asks for, to be moved to a device as f32, each at its first use.
    ///
    /// The component must hold exactly those tensors, in those shapes, as floats; otherwise the
    /// error lists what is missing, left over or different, under the name `component`.
    pub fn load(
        component: &str,
        tensors: &Tensors,
        manifest: &Manifest,
        device: &Device,
    ) -> Result<Self> {
        expect_names(component, tensors, manifest)?;
        let map = tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), Weight::filed(tensor, device)));
        Ok(Self {
            device: device.clone(),
            map: map.collect(),
            evaluations: Evaluations::default(),
            recomputes: None,
            outlines: false,
        })
    }

    /// Tensors that no file holds: `make` is given each name and shape of the manifest, and returns
    /// the numbers, row-major.
    ///
    /// # Panics
    /// If `make` returns another number of elements.
    pub fn generate(
        manifest: &Manifest,
        device: &Device,
        make: impl Fn(&str, &[usize]) -> Vec<f32>,
    ) -> Self {
        let one = |(name, shape): (&String, &Vec<usize>)| {
            let count = shape.iter().product::<usize>();
            let flat = Tensor::from_data(TensorData::new(make(name, shape), [count]), device);
            (name.clone(), Weight::new(shape.clone(), flat))
        };
        Self {
            device: device.clone(),
            map: manifest.iter().map(one).collect(),
            evaluations: Evaluations::default(),
            recomputes: None,
            outlines: false,
        }
    }

    /// Whether networks over these tensors compute their parts again on the way back of a gradient,
    /// rather than keep what happened in them (gradient checkpointing), and so many numbers of a map
    /// at a time: pictures of larger maps go through a part one by one.
    pub fn set_recomputing(&mut self, at_once: Option<usize>) {
        self.recomputes = at_once;
    }

    /// The same, of a U-Net that answers without computing: with a share of its sample and of its
    /// prompt, through which gradients pass. It counts what it is asked like any other, so a method
    /// that is run on it says what it costs.
    #[must_use]
    pub fn as_outline(mut self) -> Self {
        self.outlines = true;
        self
    }

    /// Whether a U-Net over these tensors answers without computing.
    pub(crate) fn outlines(&self) -> bool {
        self.outlines
    }

    /// The tensors that take part in a gradient.
    pub(crate) fn moving(&self) -> Vec<(String, Tensor<1>)> {
        let moving = self
            .map
            .iter()
            .filter_map(|(name, weight)| match &weight.numbers {
                Numbers::Here(flat) if flat.is_autodiff() => Some((name.clone(), flat.clone())),
                _ => None,
            });
        moving.collect()
    }

    /// The same tensors, none of which takes part in a gradient.
    pub(crate) fn untracked(mut self) -> Self {
        self.untrack();
        self
    }

    /// Another tensor of the same size in the place of one that is there.
    pub(crate) fn put(&mut self, name: &str, flat: Tensor<1>) {
        if let Some(weight) = self.map.get_mut(name) {
            *weight = Weight::new(std::mem::take(&mut weight.shape), flat);
        }
    }

    /// The device the tensors live on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Weight> {
        self.map.get(name)
    }

    /// All names and tensors, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Weight)> {
        self.map.iter()
    }

    /// Lets go of the memory of tensors that stay in their file: another network is about to need it,
    /// and they come back when they are asked for.
    pub fn rest(&self) {
        for weight in self.map.values() {
            if let Numbers::Filed(filed) = &weight.numbers
                && filed.halves.get().is_some()
            {
                release(filed.host.storage());
            }
        }
    }

    /// The count of what networks over these tensors were asked, clones included.
    pub fn evaluations(&self) -> &Evaluations {
        &self.evaluations
    }

    /// Whether any tensor takes part in a gradient.
    pub fn tracked(&self) -> bool {
        self.map
            .values()
            .any(|weight| matches!(&weight.numbers, Numbers::Here(flat) if flat.is_autodiff()))
    }

    /// Adds a tensor that the network's own manifest does not know: a part of an adapter. What
    /// stood there goes.
    pub fn add(&mut self, name: impl Into<String>, shape: Vec<usize>, flat: Tensor<1>) {
        self.map.insert(name.into(), Weight::new(shape, flat));
    }

    /// Drops every tensor's association with gradients.
    pub fn untrack(&mut self) {
        for weight in self.map.values_mut() {
            // What still lies in a file was never tracked.
            if let Numbers::Here(flat) = &mut weight.numbers
                && flat.is_autodiff()
            {
                *flat = flat.clone().inner();
            }
        }
    }

    /// Counts what it is asked by itself from now on, no longer together with what it was cloned
    /// from.
    pub fn count_apart(&mut self) {
        self.evaluations = Evaluations::default();
    }

    /// Puts other numbers in the place of a tensor: an edited value, or one that is being trained.
    ///
    /// # Errors
    /// If there is no such tensor or it has another number of elements.
    pub fn replace(&mut self, name: &str, flat: Tensor<1>) -> Result<()> {
        let Some(weight) = self.map.get_mut(name) else {
            return Err(Error::input(format!(
                "there is no tensor `{name}` to replace"
            )));
        };
        let (expected, found) = (weight.shape.iter().product::<usize>(), flat.dims()[0]);
        if expected != found {
            return Err(Error::input(format!(
                "tensor `{name}` has {expected} numbers, its replacement has {found}"
            )));
        }
        *weight = Weight::new(std::mem::take(&mut weight.shape), flat);
        Ok(())
    }

    /// Puts `rows` after the first `keep` rows of a matrix, in place of whatever stood there: new
    /// words of an embedding table.
    ///
    /// # Shapes
    /// - the tensor: `[n, width]` with n at least `keep`; it becomes `[keep + rows, width]`
    /// - rows: `width` numbers each
    ///
    /// # Errors
    /// If there is no such matrix, it has fewer rows, or a row has another width.
    pub fn extend_rows(&mut self, name: &str, keep: usize, rows: &[Vec<f32>]) -> Result<()> {
        let Some(weight) = self.map.get_mut(name) else {
            return Err(Error::input(format!(
                "there is no tensor `{name}` to extend"
            )));
        };
        let (&[count, width], true) = (
            &weight.shape[..],
            rows.iter()
                .all(|row| Some(&row.len()) == weight.shape.get(1)),
        ) else {
            return Err(Error::input(format!(
                "tensor `{name}` is {:?}, the rows to add do not fit it",
                weight.shape
            )));
        };
        if keep > count {
            return Err(Error::input(format!(
                "tensor `{name}` has {count} rows, expected at least {keep}"
            )));
        }
        let new = Tensor::<1>::from_data(
            TensorData::new(rows.concat(), [rows.len() * width]),
            &self.device,
        );
        let flat = Tensor::cat(vec![weight.flat().narrow(0, 0, keep * width), new], 0);
        *weight = Weight::new(vec![keep + rows.len(), width], flat);
        Ok(())
    }
}

/// A place in the tree of names, from which a network's parts pick their tensors.
#[derive(Clone)]
pub(crate) struct Params<'a> {
    source: Source<'a>,
    prefix: String,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Weights(&'a Weights),
    Manifest(&'a RefCell<Manifest>),
}

impl<'a> Params<'a> {
    /// The root, for a network that is to compute.
    pub(crate) fn new(weights: &'a Weights) -> Self {
        Self {
            source: Source::Weights(weights),
            prefix: String::new(),
        }
    }

    /// The names and shapes that `build` asks for, without a single number.
    pub(crate) fn manifest<T>(build: impl FnOnce(Params<'_>) -> T) -> Manifest {
        let wanted = RefCell::default();
        build(Params {
            source: Source::Manifest(&wanted),
            prefix: String::new(),
        });
        wanted.into_inner()
    }

    /// The place `name` below this one.
    pub(crate) fn at(&self, name: impl std::fmt::Display) -> Self {
        Self {
            source: self.source,
            prefix: format!("{}{name}.", self.prefix),
        }
    }

    /// What the names of all tensors below this place begin with.
    pub(crate) fn place(&self) -> &str {
        &self.prefix
    }

    /// The shape of the tensor `name` here, if the weights hold one; none for a manifest.
    pub(crate) fn shape(&self, name: &str) -> Option<&'a [usize]> {
        match self.source {
            Source::Weights(weights) => {
                Some(&weights.map.get(&format!("{}{name}", self.prefix))?.shape)
            }
            Source::Manifest(_) => None,
        }
    }

    /// The count of what the network was asked; one of its own where this is a walk for the manifest.
    pub(crate) fn evaluations(&self) -> Evaluations {
        match self.source {
            Source::Weights(weights) => weights.evaluations.clone(),
            Source::Manifest(_) => Evaluations::default(),
        }
    }

    /// What lies below this place, for a part that is built again, the place itself, and how many
    /// numbers of a map go through it at a time; none where nothing is to be computed again.
    pub(crate) fn alone(&self) -> Option<(Weights, String, usize)> {
        let Source::Weights(weights) = self.source else {
            return None;
        };
        let below = weights.map.range(self.prefix.clone()..);
        let below = below.take_while(|(name, _)| name.starts_with(&self.prefix));
        weights.recomputes.map(|at_once| {
            let part = Weights {
                device: weights.device.clone(),
                map: below
                    .map(|(name, weight)| (name.clone(), weight.clone()))
                    .collect(),
                evaluations: Evaluations::default(),
                recomputes: None,
                outlines: false,
            };
            (part, self.prefix.clone(), at_once)
        })
    }

    /// The tensor `name` here, as f32.
    ///
    /// # Panics
    /// If the weights do not fit the network, which `Weights::load` has excluded.
    pub(crate) fn get<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        match self.found(name, shape) {
            Some(weight) => weight.wide().reshape(shape),
            None => nothing(),
        }
    }

    /// The matrix or kernel `name` here, with what is kept of it; halves where the file has them and
    /// the device takes them.
    ///
    /// # Panics
    /// As [`get`](Self::get).
    pub(crate) fn weight<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
    ) -> kernels::Weight<D> {
        match self.found(name, shape) {
            Some(weight) => kernels::Weight {
                tensor: weight.stored().reshape(shape),
                layouts: weight.layouts.clone(),
            },
            None => nothing().into(),
        }
    }

    /// The tensor `name` of that shape; none where this is a walk for the manifest, which notes it.
    fn found<const D: usize>(&self, name: &str, shape: [usize; D]) -> Option<&'a Weight> {
        let name = format!("{}{name}", self.prefix);
        match self.source {
            Source::Weights(weights) => match weights.map.get(&name) {
                Some(weight) if weight.shape == shape => Some(weight),
                _ => panic!("weights were loaded for another network: {name} {shape:?}"),
            },
            Source::Manifest(wanted) => {
                wanted.borrow_mut().insert(name, shape.to_vec());
                None
            }
        }
    }
}

/// In place of a tensor, where only names and shapes are asked for.
fn nothing<const D: usize>() -> Tensor<D> {
    Tensor::empty([1; D], &Device::flex())
}
