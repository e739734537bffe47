//! The tensors of one network on a device, by name, and how a network picks them up.
//!
//! A network is a function of its tensors: building one is a walk over names that clones handles,
//! so an edited model is the same map with a few entries replaced, and training builds the network
//! anew around the tensors that move.
//!
//! A tensor of a file moves to the device when it is first asked for: whoever edits 32 matrices of
//! a U-Net never pays for the others.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use burn::tensor::{Device, Tensor, TensorData};
use scumble_kernels::{self as kernels, Layouts};

use crate::{
    error::{Error, Result},
    evaluations::Evaluations,
    files::{HostTensor, Tensors, expect_names, safetensors::release},
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
    Filed(Arc<LazyLock<Tensor<1>, Moving>>),
}

type Moving = Box<dyn FnOnce() -> Tensor<1> + Send>;

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
        let (host, device) = (tensor.clone(), device.clone());
        let moving: Moving = Box::new(move || {
            let values = host.to_f32().expect("checked to hold floats");
            // The numbers are here now; the file's copy of them need not stay in memory.
            release(host.storage());
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), &device)
        });
        let numbers = Numbers::Filed(Arc::new(LazyLock::new(moving)));
        Self {
            shape: tensor.shape().to_vec(),
            numbers,
            layouts: Layouts::kept(),
        }
    }

    /// The numbers, row-major.
    pub fn flat(&self) -> Tensor<1> {
        match &self.numbers {
            Numbers::Here(flat) => flat.clone(),
            Numbers::Filed(flat) => (***flat).clone(),
        }
    }
}

/// All tensors of one network on a device. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct Weights {
    device: Device,
    map: BTreeMap<String, Weight>,
    evaluations: Evaluations,
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

    /// The shape of the tensor `name` here, if the weights hold one; none for a manifest.
    pub(crate) fn shape(&self, name: &str) -> Option<&'a [usize]> {
        match self.source {
            Source::Weights(weights) => {
                Some(&weights.map.get(&format!("{}{name}", self.prefix))?.shape)
            }
            Source::Manifest(_) => None,
        }
    }

    /// The tensor `name` here.
    ///
    /// # Panics
    /// If the weights do not fit the network, which `Weights::load` has excluded.
    pub(crate) fn get<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        self.weight(name, shape).tensor
    }

    /// The matrix or kernel `name` here, with what is kept of it.
    ///
    /// # Panics
    /// As [`get`](Self::get).
    pub(crate) fn weight<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
    ) -> kernels::Weight<D> {
        let name = format!("{}{name}", self.prefix);
        match self.source {
            Source::Weights(weights) => match weights.map.get(&name) {
                Some(weight) if weight.shape == shape => kernels::Weight {
                    tensor: weight.flat().reshape(shape),
                    layouts: weight.layouts.clone(),
                },
                _ => panic!("weights were loaded for another network: {name} {shape:?}"),
            },
            Source::Manifest(wanted) => {
                wanted.borrow_mut().insert(name, shape.to_vec());
                Tensor::empty([1; D], &Device::flex()).into()
            }
        }
    }
}
