//! What a tensor does in its network, whatever a family calls it.

/// What a tensor does. Weight and bias of a layer have the same role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A projection of the attention to the prompt (cross-attention).
    Context(Projection),
    /// A projection of the attention within a sequence: places of a latent, tokens of a prompt.
    SelfAttention(Projection),
    /// A layer of a feed-forward part (MLP).
    FeedForward,
    /// The way into and out of a transformer between convolutions.
    TransformerProjection,
    /// A normalisation's scale or shift.
    Norm,
    /// A convolution, a shortcut's among them.
    Convolution,
    /// The embedding of the timestep.
    TimeEmbedding,
    /// What a block makes of the timestep's embedding for itself.
    TimeProjection,
    /// The embedding of added conditioning: pooled prompt, sizes.
    AddedEmbedding,
    /// The first layer, which takes the latents or pixels.
    Input,
    /// The last layer, which gives the prediction, the latents or pixels.
    Output,
    /// The table of tokens.
    TokenEmbedding,
    /// The table of positions.
    PositionEmbedding,
    /// The projection of a prompt's pooled state.
    PooledProjection,
    /// A factor of a low-rank path that an edit has laid beside a layer (LoRA).
    LowRank,
    /// A layer of a bottleneck that an edit has laid behind an attention (Receler).
    Bottleneck,
}

/// The four linear layers of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projection {
    /// What asks.
    Queries,
    /// What is compared with the queries.
    Keys,
    /// What is found.
    Values,
    /// What is made of what was found.
    Output,
}

impl Projection {
    /// Its short name in messages.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Queries => "q",
            Self::Keys => "k",
            Self::Values => "v",
            Self::Output => "out",
        }
    }
}

impl Role {
    /// Whether it belongs to the attention to the prompt.
    pub fn is_context(self) -> bool {
        matches!(self, Self::Context(_))
    }

    /// Whether it belongs to the attention within a sequence.
    pub fn is_self_attention(self) -> bool {
        matches!(self, Self::SelfAttention(_))
    }

    /// Whether it belongs to a transformer's layers, its way in and out included; norms do not.
    pub fn is_of_transformer(self) -> bool {
        matches!(
            self,
            Self::Context(_)
                | Self::SelfAttention(_)
                | Self::FeedForward
                | Self::TransformerProjection
        )
    }

    /// Whether an edit has laid it beside the network's own layers.
    pub fn is_beside(self) -> bool {
        matches!(self, Self::LowRank | Self::Bottleneck)
    }

    /// Whether it is a table in which rows are looked up.
    pub fn is_table(self) -> bool {
        matches!(self, Self::TokenEmbedding | Self::PositionEmbedding)
    }
}

/// Where a tensor stands in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// What it does.
    pub role: Role,
    /// The number of its layer, in a network that is a stack of equal layers.
    pub layer: Option<usize>,
    /// The module that it is a part of, by name: of an attention's projections the attention, else
    /// the layer itself.
    pub module: &'a str,
}

impl<'a> Place<'a> {
    /// A place in no numbered layer.
    pub(crate) fn new(role: Role, module: &'a str) -> Self {
        Self {
            role,
            layer: None,
            module,
        }
    }
}
