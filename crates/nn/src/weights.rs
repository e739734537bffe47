//! The tensors of one network on a device, by name, and how a network picks them up.
//!
//! A network is a function of its tensors: building one is a walk over names that clones handles, so an edited model
//! is the same map with a few entries replaced, and training builds the network anew around the tensors that move.

use std::{cell::RefCell, collections::BTreeMap};

use burn::tensor::{Device, Tensor, TensorData};
use scumble_kernels::{self as kernels, Layouts};

use crate::{
    error::{Error, Result},
    files::{HostTensor, Tensors, expect_names},
};

/// The names and shapes that a network asks for.
pub type Manifest = BTreeMap<String, Vec<usize>>;

/// One tensor on a device: flat, with its shape beside it, so that tensors of every rank share one type.
#[derive(Clone, Debug)]
pub struct Weight {
    /// The numbers, row-major.
    pub flat: Tensor<1>,
    /// The shape they stand for.
    pub shape: Vec<usize>,
    /// What kernels keep of these numbers.
    layouts: Layouts,
}

/// All tensors of one network on a device. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct Weights {
    device: Device,
    map: BTreeMap<String, Weight>,
}

impl Weights {
    /// Moves the tensors that `manifest` asks for to a device, as f32.
    ///
    /// The component must hold exactly those tensors, in those shapes, as floats; otherwise the error lists what is
    /// missing, left over or different, under the name `component`.
    pub fn load(component: &str, tensors: &Tensors, manifest: &Manifest, device: &Device) -> Result<Self> {
        expect_names(component, tensors, manifest)?;
        let map = tensors.iter().map(|(name, t)| Ok((name.clone(), weight(component, name, t, device)?)));
        Ok(Self { device: device.clone(), map: map.collect::<Result<_>>()? })
    }

    /// Tensors that no file holds: `make` is given each name and shape of the manifest, and returns the numbers, row-major.
    ///
    /// # Panics
    /// If `make` returns another number of elements.
    pub fn generate(manifest: &Manifest, device: &Device, make: impl Fn(&str, &[usize]) -> Vec<f32>) -> Self {
        let one = |(name, shape): (&String, &Vec<usize>)| {
            let count = shape.iter().product::<usize>();
            let flat = Tensor::from_data(TensorData::new(make(name, shape), [count]), device);
            (name.clone(), Weight { flat, shape: shape.clone(), layouts: Layouts::kept() })
        };
        Self { device: device.clone(), map: manifest.iter().map(one).collect() }
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

    /// Drops every tensor's association with gradients.
    pub fn untrack(&mut self) {
        for weight in self.map.values_mut() {
            if weight.flat.is_autodiff() {
                weight.flat = weight.flat.clone().inner();
            }
        }
    }

    /// Puts other numbers in the place of a tensor: an edited value, or one that is being trained.
    ///
    /// # Errors
    /// If there is no such tensor or it has another number of elements.
    pub fn replace(&mut self, name: &str, flat: Tensor<1>) -> Result<()> {
        let Some(weight) = self.map.get_mut(name) else {
            return Err(Error::input(format!("there is no tensor `{name}` to replace")));
        };
        let (expected, found) = (weight.shape.iter().product::<usize>(), flat.dims()[0]);
        if expected != found {
            return Err(Error::input(format!("tensor `{name}` has {expected} numbers, its replacement has {found}")));
        }
        weight.flat = flat;
        weight.layouts = Layouts::kept();
        Ok(())
    }

    /// Puts `rows` after the first `keep` rows of a matrix, in place of whatever stood there: new words of an embedding table.
    ///
    /// # Shapes
    /// - the tensor: `[n, width]` with n at least `keep`; it becomes `[keep + rows, width]`
    /// - rows: `width` numbers each
    ///
    /// # Errors
    /// If there is no such matrix, it has fewer rows, or a row has another width.
    pub fn extend_rows(&mut self, name: &str, keep: usize, rows: &[Vec<f32>]) -> Result<()> {
        let Some(weight) = self.map.get_mut(name) else {
            return Err(Error::input(format!("there is no tensor `{name}` to extend")));
        };
        let (&[count, width], true) = (&weight.shape[..], rows.iter().all(|row| Some(&row.len()) == weight.shape.get(1))) else {
            return Err(Error::input(format!("tensor `{name}` is {:?}, the rows to add do not fit it", weight.shape)));
        };
        if keep > count {
            return Err(Error::input(format!("tensor `{name}` has {count} rows, expected at least {keep}")));
        }
        let new = Tensor::<1>::from_data(TensorData::new(rows.concat(), [rows.len() * width]), &self.device);
        weight.flat = Tensor::cat(vec![weight.flat.clone().narrow(0, 0, keep * width), new], 0);
        weight.shape = vec![keep + rows.len(), width];
        weight.layouts = Layouts::kept();
        Ok(())
    }
}

fn weight(component: &str, name: &str, tensor: &HostTensor, device: &Device) -> Result<Weight> {
    let values = tensor.to_f32().ok_or_else(|| Error::Tensors {
        component: component.into(),
        problems: vec![format!("dtype: {name} is {:?}, expected F16, BF16 or F32", tensor.dtype())],
    })?;
    let count = values.len();
    let flat = Tensor::from_data(TensorData::new(values, [count]), device);
    Ok(Weight { flat, shape: tensor.shape().to_vec(), layouts: Layouts::kept() })
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
        Self { source: Source::Weights(weights), prefix: String::new() }
    }

    /// The names and shapes that `build` asks for, without a single number.
    pub(crate) fn manifest<T>(build: impl FnOnce(Params<'_>) -> T) -> Manifest {
        let wanted = RefCell::default();
        build(Params { source: Source::Manifest(&wanted), prefix: String::new() });
        wanted.into_inner()
    }

    /// The place `name` below this one.
    pub(crate) fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { source: self.source, prefix: format!("{}{name}.", self.prefix) }
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
    pub(crate) fn weight<const D: usize>(&self, name: &str, shape: [usize; D]) -> kernels::Weight<D> {
        let name = format!("{}{name}", self.prefix);
        match self.source {
            Source::Weights(weights) => match weights.map.get(&name) {
                Some(weight) if weight.shape == shape => {
                    kernels::Weight { tensor: weight.flat.clone().reshape(shape), layouts: weight.layouts.clone() }
                }
                _ => panic!("weights were loaded for another network: {name} {shape:?}"),
            },
            Source::Manifest(wanted) => {
                wanted.borrow_mut().insert(name, shape.to_vec());
                Tensor::empty([1; D], &Device::flex()).into()
            }
        }
    }
}
