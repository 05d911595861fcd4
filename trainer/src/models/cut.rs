//! A model: frozen base and trained adapter, run whole or cut after any block.
//! Must not compute the whole in another way than the parts: the same operations in the same order, the same bits.

use tch::{Device, Kind, Tensor};

use super::{
    base::{Base, Context, Purpose},
    cache::KeyValues,
    head::Head,
    linear,
    lora::{Adapter, LoraSettings, ModelError},
    residual::Residual,
    shape::ModelShape,
    tokens::Tokens,
};
use crate::{low_rank::LowRank, random::Key};

/// A part of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// Embedding and the blocks below this cut layer.
    Front(usize),
    /// The blocks from this cut layer on, and the head.
    Back(usize),
    /// Embedding, the blocks below this cut layer, and what follows the last block: head and all that it reads through.
    Ends(usize),
    /// The blocks from this cut layer on, without what follows the last.
    Middle(usize),
}

impl Part {
    /// Whether this part holds what belongs to `block`; none stands for what follows the last block.
    pub fn holds(self, block: Option<usize>) -> bool {
        match (self, block) {
            (Self::Whole, _) | (Self::Back(_) | Self::Ends(_), None) => true,
            (Self::Front(_) | Self::Middle(_), None) => false,
            (Self::Front(cut_layer) | Self::Ends(cut_layer), Some(block)) => block < cut_layer,
            (Self::Back(cut_layer) | Self::Middle(cut_layer), Some(block)) => block >= cut_layer,
        }
    }

    /// Its blocks, out of `blocks`.
    pub fn blocks(self, blocks: usize) -> std::ops::Range<usize> {
        match self {
            Self::Whole => 0..blocks,
            Self::Front(cut_layer) | Self::Ends(cut_layer) => 0..cut_layer.min(blocks),
            Self::Back(cut_layer) | Self::Middle(cut_layer) => cut_layer.min(blocks)..blocks,
        }
    }

    /// Whether it begins with tokens; else with a hidden state that came from elsewhere.
    pub fn embeds(self) -> bool {
        match self {
            Self::Whole | Self::Front(_) | Self::Ends(_) => true,
            Self::Back(_) | Self::Middle(_) => false,
        }
    }

    /// Where the model is cut; the whole is not.
    pub fn cut_layer(self) -> Option<usize> {
        match self {
            Self::Whole => None,
            Self::Front(cut_layer) | Self::Back(cut_layer) | Self::Ends(cut_layer) | Self::Middle(cut_layer) => {
                Some(cut_layer)
            }
        }
    }
}

/// A frozen base with its own adapter.
#[derive(Debug)]
pub struct Model {
    base: Base,
    adapter: Adapter,
    head: Head,
    /// Beside the weight of each target, in the adapter's order.
    residuals: Vec<Option<Residual>>,
}

impl Model {
    /// Puts a fresh adapter and head on `base`: A uniform in ±1/sqrt(inputs) (Kaiming with a = sqrt 5), B zero, a
    /// classifier normal with deviation 0.02, all from the streams of `seed`; the same for every client.
    ///
    /// # Errors
    /// Where `lora` or `head` asks for what the model does not have.
    pub fn new(mut base: Base, lora: &LoraSettings, head: Head, seed: u64) -> Result<Self, ModelError> {
        base.check_head(head)?;
        let adapter = Adapter::new(&base.shape, lora, head, seed, base.options.device)?;
        adapter.attach(&mut base.body.linears_mut(), lora);
        let residuals = adapter.targets().iter().map(|_| None).collect();
        Ok(Self { base, adapter, head, residuals })
    }

    /// What earlier rounds left beside the weight of each target, in the adapter's order.
    pub fn residuals(&self) -> &[Option<Residual>] {
        &self.residuals
    }

    /// Adds a product, F32, to what is beside the weight of each target; `products` are in the adapter's order.
    pub fn fold(&mut self, products: &[LowRank]) {
        let grown = self.residuals.iter().zip(products);
        let grown = grown.map(|(earlier, more)| Some(Residual::add(earlier.as_ref(), more))).collect();
        self.set_residuals(grown);
    }

    /// Puts these beside the weights of the targets, in the adapter's order.
    pub fn set_residuals(&mut self, residuals: Vec<Option<Residual>>) {
        self.residuals = residuals;
        let of = |name: &str| self.adapter.targets().iter().position(|target| target == name);
        for linear in self.base.body.linears_mut() {
            if let Some(residual) = of(&linear.shape.name).and_then(|index| self.residuals.get(index)) {
                linear.set_residual(residual.as_ref().map(Residual::share));
            }
        }
    }

    /// The same base and head with these pairs, F32, at the scale of `lora` and with nothing else beside the base: B as
    /// `up`, A as `down`, in the adapter's order.
    #[must_use]
    pub fn with_pairs(&self, lora: &LoraSettings, pairs: Vec<LowRank>) -> Self {
        let (mut base, adapter) = (self.base.share(), self.adapter.with_pairs(pairs));
        adapter.attach(&mut base.body.linears_mut(), lora);
        let residuals = adapter.targets().iter().map(|_| None).collect();
        Self { base, adapter, head: self.head, residuals }
    }

    /// Freezes every A at what it is: only B, and a classifier, are trained and sent.
    pub fn freeze_a(&mut self) {
        self.adapter.freeze_a();
    }

    /// Begins new pairs: A drawn from the streams of `key`, B zero. With the key of no round, as they were at first.
    pub fn renew(&self, key: Key) {
        self.adapter.renew(key);
    }

    /// What is trained.
    pub fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// What is frozen.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// What it ends in.
    pub fn head(&self) -> Head {
        self.head
    }

    /// How large the model is.
    pub fn shape(&self) -> &ModelShape {
        &self.base.shape
    }

    /// Where it lives.
    pub fn device(&self) -> Device {
        self.base.options.device
    }

    /// Logits, F32: `[batch, labels]` of a classifier, `[reads, vocab]` of a language model at the tokens that are read.
    /// `dropout` keys the masks of this step; none leaves LoRA dropout out.
    pub fn forward(&self, tokens: &Tokens, dropout: Option<Key>) -> Tensor {
        let hidden = self.front(0, tokens, dropout);
        self.back(0, &hidden, &tokens.mask, tokens.places.as_ref(), dropout)
    }

    /// Embedding and the blocks below `cut_layer`: `[batch, seq, hidden]` in the base's precision.
    pub fn front(&self, cut_layer: usize, tokens: &Tokens, dropout: Option<Key>) -> Tensor {
        self.blocks(Part::Front(cut_layer), self.embed(tokens), &tokens.mask, dropout, Purpose::Inference)
    }

    /// The blocks from `cut_layer` on and the head: a hidden state `[batch, seq, hidden]` to logits as
    /// [`Model::forward`] gives them. `places` are [`Tokens::places`].
    pub fn back(
        &self,
        cut_layer: usize,
        hidden: &Tensor,
        mask: &Tensor,
        places: Option<&Tensor>,
        dropout: Option<Key>,
    ) -> Tensor {
        let hidden = self.blocks(Part::Back(cut_layer), hidden.shallow_clone(), mask, dropout, Purpose::Inference);
        self.read(&hidden, mask, places, dropout)
    }

    /// What follows the last block: its hidden state `[batch, seq, hidden]` to logits as [`Model::forward`] gives them.
    pub fn read(&self, hidden: &Tensor, mask: &Tensor, places: Option<&Tensor>, dropout: Option<Key>) -> Tensor {
        match self.head {
            Head::Classifier(_) => {
                let pooled = self.base.body.pool(hidden, mask, dropout);
                let (weight, bias) = self.adapter.head();
                linear::head(&pooled, weight, bias)
            }
            Head::Language => self.say(&self.before_vocabulary(hidden, places)),
        }
    }

    /// What the layer over the vocabulary reads of the last block's `[batch, seq, hidden]`: `[reads, hidden]`, normed.
    pub(super) fn before_vocabulary(&self, hidden: &Tensor, places: Option<&Tensor>) -> Tensor {
        let states = hidden.flatten(0, 1); // [batch * seq, hidden]
        let states = places.map_or_else(|| states.shallow_clone(), |places| states.index_select(0, places));
        self.base.body.last_norm(&states)
    }

    /// The layer over the vocabulary, `[vocab, hidden]`.
    pub(super) fn vocabulary(&self) -> &Tensor {
        self.base.body.vocabulary().expect("a model is not given a head that its base does not have")
    }

    /// Normed states `[.., hidden]` to logits over the vocabulary, F32.
    fn say(&self, normed: &Tensor) -> Tensor {
        normed.linear(self.vocabulary(), None::<&Tensor>).to_kind(Kind::Float)
    }

    /// What the head reads, `[batch, hidden]` in the base's precision, without LoRA dropout.
    pub fn pooled(&self, tokens: &Tokens) -> Tensor {
        let hidden = self.front(self.shape().blocks, tokens, None);
        self.base.body.pool(&hidden, &tokens.mask, None)
    }

    /// The blocks of a part, without the head: `[batch, seq, hidden]` to the same.
    pub(super) fn blocks(
        &self,
        part: Part,
        hidden: Tensor,
        mask: &Tensor,
        dropout: Option<Key>,
        purpose: Purpose,
    ) -> Tensor {
        let context = self.context(mask, purpose);
        part.blocks(self.shape().blocks).fold(hidden, |hidden, block| self.block(block, &hidden, &context, dropout))
    }

    /// Token ids to the first hidden state, `[batch, seq, hidden]`.
    pub(super) fn embed(&self, tokens: &Tokens) -> Tensor {
        self.base.body.embed(&tokens.ids, &tokens.mask)
    }

    /// What the blocks need to know of the mask `[batch, seq]`.
    pub(super) fn context(&self, mask: &Tensor, purpose: Purpose) -> Context {
        self.base.body.context(mask, mask.size()[1], purpose)
    }

    /// One block: `[batch, seq, hidden]` to the same.
    pub(super) fn block(&self, block: usize, hidden: &Tensor, context: &Context, dropout: Option<Key>) -> Tensor {
        self.base.body.block(block, hidden, context, dropout, None)
    }

    /// All blocks over new tokens `[batch, new]`, the last of rows with this mask `[batch, seen]`: `[batch, new, hidden]`.
    pub(super) fn pass(&self, ids: &Tensor, mask: &Tensor, past: &mut [KeyValues]) -> Tensor {
        let body = &self.base.body;
        let context = body.context(mask, ids.size()[1], Purpose::Inference);
        let blocks = past.iter_mut().enumerate();
        blocks
            .fold(body.embed(ids, mask), |hidden, (block, past)| body.block(block, &hidden, &context, None, Some(past)))
    }

    /// A last hidden state `[batch, hidden]` to logits of the token that follows, `[batch, vocab]`, F32.
    pub(super) fn read_next(&self, hidden: &Tensor) -> Tensor {
        self.say(&self.base.body.last_norm(hidden))
    }
}
