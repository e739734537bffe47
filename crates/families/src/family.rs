//! What is to be said of a family, as data.

use std::fmt;

use burn::tensor::Device;
use scumble_diffusion::{Model, Result};
use scumble_nn::{BOTTLENECK, LORA_DOWN, LORA_UP, files::Checkpoint};

use crate::role::{Place, Role};

/// A family of models. What is not said here is the same for all, or stands where files are read.
#[derive(Debug)]
pub struct Family {
    /// What users and `methods --json` call it.
    pub id: &'static str,
    /// The class of diffusers that opens its folders.
    pub pipeline_class: &'static str,
    /// Its networks, in the order in which a prompt passes them.
    pub components: &'static [Component],
    /// How diffusers' pipeline draws where nobody says how.
    pub drawing: Drawing,
    /// The published settings of ESD.
    pub esd: Esd,
    /// The blocks whose self-attention the published code of ScissorHands draws anew.
    pub scissorhands: &'static [&'static str],
    /// What describes a checkpoint: keys of its configurations, as `component.key`.
    pub described_by: &'static [&'static str],
    /// The side of its own pictures in pixels, from the configurations of a checkpoint; `None` if
    /// they do not say.
    pub side: fn(&Checkpoint) -> Option<u64>,
    /// Makes a model of a checkpoint of this family, on a device.
    pub load: fn(&Family, &Checkpoint, &Device) -> Result<Model>,
}

/// A network of a family.
#[derive(Clone, Copy, Debug)]
pub struct Component {
    /// The name of its diffusers folder.
    pub id: &'static str,
    /// What it is for.
    pub part: Part,
    /// Where a tensor of that name stands in the network; `None` for a name that it has not.
    pub place: fn(&str) -> Option<Place<'_>>,
}

/// What a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Makes hidden states of a prompt.
    TextEncoder,
    /// Predicts the noise, or what stands for it.
    Denoiser,
    /// Makes latents of pictures, and pictures of latents.
    Autoencoder,
}

impl Part {
    /// How it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::TextEncoder => "text_encoder",
            Self::Denoiser => "denoiser",
            Self::Autoencoder => "autoencoder",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Drawing where nobody says how; the sampler is the checkpoint's own, and so is the size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawing {
    /// Denoising steps.
    pub steps: usize,
    /// The strength of classifier-free guidance.
    pub guidance: f64,
}

/// The settings of ESD's published trainers (Gandikota et al. 2023, arXiv 2303.07345; the code of
/// 2025 has one for each family).
#[derive(Clone, Copy, Debug)]
pub struct Esd {
    /// The step size for context attention alone.
    pub lr_context: f64,
    /// The step size for any other choice of tensors.
    pub lr_others: f64,
    /// How far past the neutral prediction to go, in the paper's counting: the negative guidance of
    /// the code less 1.
    pub eta: f64,
    /// Guidance on the trajectories.
    pub start_guidance: f64,
    /// Roles that stay where a choice is of the whole denoiser, and not of a kind of layers.
    pub spared: &'static [Role],
}

impl Family {
    /// The ids of its components of a part, in the order in which a prompt passes them.
    pub fn ids(&self, part: Part) -> impl Iterator<Item = &'static str> {
        let components = self.components.iter();
        components
            .filter(move |component| component.part == part)
            .map(|component| component.id)
    }

    /// The id of its only or first component of a part. Where a family has none it is the part's
    /// name, which no component has.
    pub fn id_of(&self, part: Part) -> &'static str {
        self.ids(part).next().unwrap_or(part.name())
    }

    /// The id of its denoiser.
    pub fn denoiser(&self) -> &'static str {
        self.id_of(Part::Denoiser)
    }

    /// The ids of its text encoders.
    pub fn text_encoders(&self) -> Vec<&'static str> {
        self.ids(Part::TextEncoder).collect()
    }

    /// Where a tensor stands in a component; `None` for a name that it has not. Paths that an edit
    /// has laid beside the layers have a place too.
    pub fn place<'a>(&self, component: &str, tensor: &'a str) -> Option<Place<'a>> {
        let place = self.components.iter().find(|c| c.id == component)?.place;
        beside(tensor).or_else(|| place(tensor))
    }

    /// The role of a tensor of a component; `None` for a name that it has not.
    pub fn role(&self, component: &str, tensor: &str) -> Option<Role> {
        self.place(component, tensor).map(|place| place.role)
    }
}

/// The place of a path beside a layer, if it is one.
fn beside(tensor: &str) -> Option<Place<'_>> {
    let low_rank = [LORA_DOWN, LORA_UP].into_iter().find_map(|end| {
        let module = tensor.strip_suffix(end)?.strip_suffix('.')?;
        Some(Place::new(Role::LowRank, module))
    });
    let bottleneck = || {
        let (module, rest) = tensor.split_once(BOTTLENECK)?;
        let module = module.strip_suffix('.')?;
        rest.starts_with('.')
            .then(|| Place::new(Role::Bottleneck, module))
    };
    low_rank.or_else(bottleneck)
}
