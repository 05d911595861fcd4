//! Floating point operations of a forward pass and of a training step, and a model of the memory they need, by shape.
//! Must not run anything: what autograd really does with a frozen base follows from the shape and the LoRA targets.
//!
//! A product of m x k by k x n is 2mkn; attention counts, element-wise work does not; padding counts like any token.
//! A language model's head is counted at the tokens that it reads. Backward, a product costs its forward again for each
//! operand that needs a gradient: frozen weights never do, and activations only above the first trained layer. Gradient
//! checkpointing runs the forward pass of those blocks once more.

use crate::models::{Head, LinearShape, LoraSettings, Model, ModelShape, Part, Precision, Residual};

/// How large a padded batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSize {
    /// Rows.
    pub rows: usize,
    /// Tokens of each row, padding included.
    pub seq: usize,
    /// States that the head reads: one of each row by a classifier, those of the tokens that count by a language model.
    pub reads: usize,
}

impl BatchSize {
    /// A batch that a classifier reads.
    pub fn of_rows(rows: usize, seq: usize) -> Self {
        Self { rows, seq, reads: rows }
    }

    /// Tokens, padding included.
    pub fn tokens(self) -> usize {
        self.rows * self.seq
    }
}

/// FLOPs of one forward pass.
pub fn forward(shape: &ModelShape, part: Part, lora: &LoraSettings, head: Head, batch: BatchSize) -> f64 {
    count(shape, part, lora, head, batch, Beside::Rank(0)).forward
}

/// FLOPs of one forward pass of this very model, with what earlier rounds left beside its weights.
pub fn forward_of(model: &Model, part: Part, lora: &LoraSettings, batch: BatchSize) -> f64 {
    count(model.shape(), part, lora, model.head(), batch, Beside::Of(model)).forward
}

/// FLOPs of one forward and backward pass.
///
/// The front's backward starts from the gradient of its activations; the back, and a head that is apart from it, also
/// computes the gradient of what it was sent. `beside` is the rank of what earlier rounds left beside each target.
pub fn train(shape: &ModelShape, part: Part, lora: &LoraSettings, head: Head, batch: BatchSize, beside: usize) -> f64 {
    let count = count(shape, part, lora, head, batch, Beside::Rank(beside));
    count.forward + count.backward
}

/// [`train`] of this very model, with what earlier rounds left beside its weights, and without the gradients of what
/// is frozen.
pub fn train_of(model: &Model, part: Part, lora: &LoraSettings, batch: BatchSize) -> f64 {
    let count = count(model.shape(), part, lora, model.head(), batch, Beside::Of(model));
    count.forward + count.backward
}

/// FLOPs of running blocks again in backward (gradient checkpointing): those from which a gradient is asked. `beside` as
/// in [`train`].
pub fn recompute(shape: &ModelShape, part: Part, lora: &LoraSettings, batch: BatchSize, beside: usize) -> f64 {
    again(shape, part, lora, batch, Beside::Rank(beside))
}

/// [`recompute`] of this very model.
pub fn recompute_of(model: &Model, part: Part, lora: &LoraSettings, batch: BatchSize) -> f64 {
    again(model.shape(), part, lora, batch, Beside::Of(model))
}

fn again(shape: &ModelShape, part: Part, lora: &LoraSettings, batch: BatchSize, beside: Beside<'_>) -> f64 {
    let (rows, seq) = (batch.rows as f64, batch.seq as f64);
    let mut count = Count { lora, shape, beside, rows, seq, forward: 0.0, backward: 0.0 };
    let mut needs_gradient = !part.embeds();
    let again = part.blocks(shape.blocks).map(|block| {
        let before = count.forward;
        needs_gradient = count.block(&shape.block_linears(block), needs_gradient);
        if needs_gradient { count.forward - before } else { 0.0 }
    });
    again.sum()
}

fn count<'a>(
    shape: &'a ModelShape,
    part: Part,
    lora: &'a LoraSettings,
    head: Head,
    batch: BatchSize,
    beside: Beside<'a>,
) -> Count<'a> {
    let (rows, seq) = (batch.rows as f64, batch.seq as f64);
    let mut count = Count { lora, shape, beside, rows, seq, forward: 0.0, backward: 0.0 };
    // An embedding is a look-up in a frozen table; activations that came over the network need a gradient.
    let mut needs_gradient = !part.embeds();
    for block in part.blocks(shape.blocks) {
        needs_gradient = count.block(&shape.block_linears(block), needs_gradient);
    }
    if part.holds(None) {
        // The head at the client reads what came over the network, too.
        let from_elsewhere = matches!(part, Part::Ends(_));
        count.head(head, batch.reads as f64, needs_gradient || from_elsewhere);
    }
    count
}

/// What earlier rounds left beside the weights of the targets.
#[derive(Clone, Copy)]
enum Beside<'a> {
    /// Products of this rank, all together, beside any model of a shape.
    Rank(usize),
    /// What is there in one model; what is frozen in it has no gradient either.
    Of(&'a Model),
}

impl Beside<'_> {
    /// Multiplications for one vector at this target.
    fn size(self, target: &LinearShape) -> usize {
        match self {
            Self::Rank(rank) => Residual::size_of(rank, target.outputs, target.inputs),
            Self::Of(model) => {
                let index = model.adapter().targets().iter().position(|name| *name == target.name);
                index.and_then(|index| model.residuals()[index].as_ref()).map_or(0, Residual::size)
            }
        }
    }

    fn trains_a(self) -> bool {
        match self {
            Self::Rank(_) => true,
            Self::Of(model) => model.adapter().pairs().all(|[a, _]| !a.frozen),
        }
    }
}

/// Adds up products while it follows which activations need a gradient.
struct Count<'a> {
    lora: &'a LoraSettings,
    shape: &'a ModelShape,
    beside: Beside<'a>,
    rows: f64,
    seq: f64,
    forward: f64,
    backward: f64,
}

impl Count<'_> {
    /// One product, and which of its operands need a gradient. Gives whether its result does.
    fn product(&mut self, flops: f64, operands: [bool; 2]) -> bool {
        self.forward += flops;
        self.backward += flops * operands.iter().filter(|needed| **needed).count() as f64;
        operands[0] || operands[1]
    }

    /// A linear layer over `rows` vectors, with its LoRA pair where it has one.
    fn linear(&mut self, linear: &LinearShape, rows: f64, input: bool) -> bool {
        let base = self.product(2.0 * rows * (linear.inputs * linear.outputs) as f64, [input, false]);
        if !self.lora.targets(&linear.name) {
            return base;
        }
        let rank = self.lora.rank;
        self.product(2.0 * rows * self.beside.size(linear) as f64, [input, false]);
        let low = self.product(2.0 * rows * (linear.inputs * rank) as f64, [input, self.beside.trains_a()]);
        self.product(2.0 * rows * (rank * linear.outputs) as f64, [low, true])
    }

    /// What follows the last block. A classifier and what it pools with are trained or may be; a vocabulary is frozen.
    fn head(&mut self, head: Head, reads: f64, mut input: bool) {
        let trained = match head {
            Head::Classifier(_) => {
                for linear in self.shape.tail_linears() {
                    input = self.linear(&linear, reads, input);
                }
                true
            }
            Head::Language => false,
        };
        self.product(2.0 * reads * (self.shape.hidden * head.classes(self.shape)) as f64, [input, trained]);
    }

    /// What makes queries, keys and values, attention, its output, then the feed-forward layers; the last one reads the
    /// others.
    fn block(&mut self, linears: &[LinearShape], input: bool) -> bool {
        let Some((inputs, [output, wide @ .., narrow])) = linears.split_at_checked(self.shape.attention_inputs())
        else {
            return input;
        };
        let tokens = self.rows * self.seq;
        let needed: Vec<bool> = inputs.iter().map(|linear| self.linear(linear, tokens, input)).collect();
        // One layer that makes all three makes all three need a gradient, or none.
        let [q, k, v] = <[bool; 3]>::try_from(&needed[..]).unwrap_or([needed.contains(&true); 3]);
        let every_pair = 2.0 * tokens * self.seq * (self.shape.heads * self.shape.head_dim) as f64;
        let weights = self.product(every_pair, [q, k]);
        let attended = self.product(every_pair, [weights, v]);
        let attended = self.linear(output, tokens, attended) || input;
        let inner = wide.iter().fold(attended, |needed, linear| self.linear(linear, tokens, attended) || needed);
        self.linear(narrow, tokens, inner) || attended
    }
}

/// Bytes of what rounds have left beside the targets' weights, F32, where its rank is `beside`.
pub fn beside_bytes(shape: &ModelShape, lora: &LoraSettings, beside: usize) -> u64 {
    let targets = shape.linears().into_iter().filter(|linear| lora.targets(&linear.name));
    targets.map(|target| 4 * Residual::size_of(beside, target.outputs, target.inputs) as u64).sum()
}

/// What one client holds in memory while it trains a part, in bytes. A model of it, not a measurement.
///
/// Counted are the frozen weights of the part, four F32 copies of what is trained (value, gradient, two moments of
/// AdamW), and the activations that autograd keeps: inputs and outputs of each linear layer in the base's precision,
/// attention weights in F32 and in the base's precision, two F32 copies of the hidden state for each norm, and a language model's logits
/// with their softmax. Left out are libtorch itself,
/// the allocator's slack and what a kernel needs while it runs.
pub fn modelled_memory(
    shape: &ModelShape,
    part: Part,
    lora: &LoraSettings,
    head: Head,
    batch: BatchSize,
    precision: Precision,
) -> u64 {
    let activations =
        batch.tokens() as u64 * kept_of_a_token(shape, part, part.blocks(shape.blocks).len(), batch.seq, precision);
    memory_without_activations(shape, part, lora, head, batch, precision) + activations
}

/// [`modelled_memory`] under gradient checkpointing: of each block its input, and all of one block at a time.
pub fn modelled_checkpointed_memory(
    shape: &ModelShape,
    part: Part,
    lora: &LoraSettings,
    head: Head,
    batch: BatchSize,
    precision: Precision,
) -> u64 {
    let blocks = part.blocks(shape.blocks).len();
    let inputs = (blocks * shape.hidden * precision.bytes()) as u64;
    let activations =
        batch.tokens() as u64 * (inputs + kept_of_a_token(shape, part, blocks.min(1), batch.seq, precision));
    memory_without_activations(shape, part, lora, head, batch, precision) + activations
}

/// Bytes that autograd keeps of one token in so many blocks of a part, in rows of `seq` tokens, and in what follows its
/// last block.
fn kept_of_a_token(shape: &ModelShape, part: Part, blocks: usize, seq: usize, precision: Precision) -> u64 {
    let element = precision.bytes();
    let sizes = |linears: Vec<LinearShape>| linears.iter().map(|linear| linear.inputs + linear.outputs).sum::<usize>();
    let tail = if part.holds(None) { sizes(shape.tail_linears()) } else { 0 };
    let linears = (blocks * sizes(shape.block_linears(0)) + tail) * element;
    // Softmax is F32; what the values are multiplied with is a copy of it where the base's precision is another.
    let weight = if element == 4 { 4 } else { element + 4 };
    let attention = blocks * shape.heads * seq * weight;
    let norms = 2 * blocks * shape.hidden * 2 * 4;
    (linears + attention + norms) as u64
}

fn memory_without_activations(
    shape: &ModelShape,
    part: Part,
    lora: &LoraSettings,
    head: Head,
    batch: BatchSize,
    precision: Precision,
) -> u64 {
    let element = precision.bytes() as u64;
    let linears: Vec<_> = shape.linears().into_iter().filter(|linear| part.holds(linear.block)).collect();
    let weights: usize = linears.iter().map(|linear| linear.inputs * linear.outputs).sum();
    let pairs = linears.iter().filter(|linear| lora.targets(&linear.name));
    let trained: usize = pairs.map(|linear| lora.rank * (linear.inputs + linear.outputs)).sum();
    let embedding = if part.embeds() { shape.vocab * shape.hidden } else { 0 };
    let (head, logits) = if part.holds(None) { head_memory(shape, head, batch, element) } else { (0, 0) };
    (weights + embedding) as u64 * element + (trained + head) as u64 * 4 * 4 + logits
}

/// Numbers of the head that are trained, and bytes that a language model's logits take.
fn head_memory(shape: &ModelShape, head: Head, batch: BatchSize, element: u64) -> (usize, u64) {
    let logits = match head {
        Head::Classifier(_) => 0,
        // As they are computed, in F32, and the softmax of them.
        Head::Language => (batch.reads * shape.vocab) as u64 * (element + 4 + 4),
    };
    (head.trained(shape), logits)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::models::golden::{file, json, load, real_model};

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Figures {
        model: String,
        batch: usize,
        seq: usize,
        rank: usize,
        labels: usize,
        targets: Vec<String>,
        forward: f64,
        train: f64,
        checkpointed_train: f64,
        cuts: Vec<CutFigures>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct CutFigures {
        cut_layer: usize,
        front_forward: f64,
        back_forward: f64,
        front_train: f64,
        back_train: f64,
    }

    fn query_value(targets: Vec<String>, rank: usize) -> LoraSettings {
        LoraSettings { rank, alpha: 16.0, dropout: 0.0, rs_lora: false, target_modules: targets }
    }

    fn assert_within_one_percent(what: &str, found: f64, expected: f64) {
        assert!((found - expected).abs() <= 0.01 * expected, "{what}: {found} FLOPs, flop_counter has {expected}");
    }

    #[test]
    fn flops_are_those_of_torch_flop_counter_within_one_percent() {
        for figures in json::<Vec<Figures>>("flops.json") {
            let tiny = figures.model.starts_with("tiny-");
            let base = load(&if tiny { file(&figures.model) } else { real_model(&figures.model) });
            let lora = query_value(figures.targets, figures.rank);
            let (head, batch) = (Head::Classifier(figures.labels), BatchSize::of_rows(figures.batch, figures.seq));
            let forward = |part| forward(base.shape(), part, &lora, head, batch);
            let train = |part| train(base.shape(), part, &lora, head, batch, 0);
            assert_within_one_percent("forward", forward(Part::Whole), figures.forward);
            assert_within_one_percent("train", train(Part::Whole), figures.train);
            let again = recompute(base.shape(), Part::Whole, &lora, batch, 0);
            assert_within_one_percent("checkpointed", train(Part::Whole) + again, figures.checkpointed_train);
            for cut in figures.cuts {
                let (front, back) = (Part::Front(cut.cut_layer), Part::Back(cut.cut_layer));
                assert_within_one_percent("front forward", forward(front), cut.front_forward);
                assert_within_one_percent("back forward", forward(back), cut.back_forward);
                assert_within_one_percent("front train", train(front), cut.front_train);
                assert_within_one_percent("back train", train(back), cut.back_train);
            }
        }
    }

    #[test]
    fn the_halves_of_a_model_cost_what_the_whole_costs() {
        let base = load(&real_model("minilm"));
        let lora = query_value(vec!["query".into(), "value".into()], 8);
        let cost = |part| train(base.shape(), part, &lora, Head::Classifier(2), BatchSize::of_rows(4, 32), 0);
        for cut_layer in 1..=6 {
            // Exactly: block 0 has trained layers, so the whole computes the gradient at every cut too.
            for halves in
                [[Part::Front(cut_layer), Part::Back(cut_layer)], [Part::Ends(cut_layer), Part::Middle(cut_layer)]]
            {
                let both: f64 = halves.into_iter().map(cost).sum();
                assert!((both - cost(Part::Whole)).abs() < 1.0, "{halves:?}");
            }
        }
    }

    #[test]
    fn modelled_memory_falls_with_the_part_and_with_the_precision() {
        let base = load(&real_model("minilm"));
        let lora = query_value(vec!["query".into(), "value".into()], 8);
        let (head, batch) = (Head::Classifier(2), BatchSize::of_rows(16, 64));
        let memory = |part, precision| modelled_memory(base.shape(), part, &lora, head, batch, precision);
        let whole = memory(Part::Whole, Precision::F32);
        // 22.5 million weights and the embedding in F32 are 90 MB of it.
        assert!(whole > 90_000_000 && whole < 1_000_000_000, "{whole}");
        assert!(memory(Part::Front(2), Precision::F32) < whole);
        let checkpointed = modelled_checkpointed_memory(base.shape(), Part::Whole, &lora, head, batch, Precision::F32);
        // Five of six blocks are not in memory at the same time; the weights are.
        assert!(checkpointed > 90_000_000 && checkpointed < whole * 2 / 3, "{checkpointed} of {whole}");
        assert!(memory(Part::Whole, Precision::BF16) < whole * 2 / 3);
    }
}
