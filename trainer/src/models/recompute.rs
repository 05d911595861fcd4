//! Gradient checkpointing (arXiv 1604.06174): of each block only its input is kept, and the block runs again in backward.
//! Must not give other bits than the plain way: the same operations run twice, dropout masks come from their keys.

use tch::Tensor;

use super::{Model, Part, Tokens};
use crate::random::Key;

/// A part of a model that has run without a graph, with what its blocks were given.
#[derive(Debug)]
pub struct Kept {
    part: Part,
    /// Input of each block of the part, `[batch, seq, hidden]`.
    inputs: Vec<Tensor>,
    /// What the last block gave, `[batch, seq, hidden]`.
    hidden: Tensor,
    /// `[batch, seq]`.
    mask: Tensor,
    dropout: Option<Key>,
}

impl Kept {
    /// What the last block gave, `[batch, seq, hidden]`, without a graph.
    pub fn hidden(&self) -> &Tensor {
        &self.hidden
    }
}

impl Model {
    /// The loss that `loss` makes of the logits, and its gradients by the adapter's parameters, in their order.
    ///
    /// With `recompute`, activations of one block at a time are in memory instead of all blocks', for one more forward
    /// pass; the bits are the same.
    pub fn loss_and_gradients(
        &self,
        tokens: &Tokens,
        dropout: Option<Key>,
        recompute: bool,
        loss: impl FnOnce(&Tensor) -> Tensor,
    ) -> (f64, Vec<Tensor>) {
        if !recompute {
            let loss = loss(&self.forward(tokens, dropout));
            let gradients = Tensor::run_backward(&[&loss], &self.trained(|_| true), false, false);
            return (loss.double_value(&[]), gradients);
        }
        let blocks = self.shape().blocks;
        let kept = self.front_kept(blocks, tokens, dropout);
        let (value, mut tail, gradient) = self.head_gradients(&kept, tokens.places.as_ref(), loss);
        let (mut gradients, _) = self.backward_kept(&kept, gradient, false);
        gradients.append(&mut tail);
        (value, gradients)
    }

    /// [`Model::front`] without a graph, for [`Model::backward_kept`].
    pub fn front_kept(&self, cut_layer: usize, tokens: &Tokens, dropout: Option<Key>) -> Kept {
        let hidden = tch::no_grad(|| self.embed(tokens));
        self.keep(Part::Front(cut_layer), hidden, &tokens.mask, dropout)
    }

    /// The loss that `loss` makes of the logits of the blocks from `cut_layer` on and the head, its gradients by the
    /// parameters of that part, and by `hidden`, as [`Model::back`] has them.
    pub fn back_loss_and_gradients(
        &self,
        cut_layer: usize,
        hidden: &Tensor,
        tokens: (&Tensor, Option<&Tensor>),
        dropout: Option<Key>,
        loss: impl FnOnce(&Tensor) -> Tensor,
    ) -> (f64, Vec<Tensor>, Tensor) {
        let (mask, places) = tokens;
        let kept = self.keep(Part::Back(cut_layer), hidden.detach(), mask, dropout);
        let (value, mut tail, gradient) = self.head_gradients(&kept, places, loss);
        let (mut gradients, hidden) = self.backward_kept(&kept, gradient, true);
        gradients.append(&mut tail);
        (value, gradients, hidden)
    }

    /// Gradients by the parameters of the blocks that have run, in their order, and by what the first of them was given
    /// where that is `wanted`; `gradient` is that of [`Kept::hidden`].
    pub fn backward_kept(&self, kept: &Kept, gradient: Tensor, wanted: bool) -> (Vec<Tensor>, Tensor) {
        let context = self.context(&kept.mask);
        let blocks = kept.part.blocks(self.shape().blocks);
        let first_trained = self.first_trained_block(kept.part);
        let (mut gradients, mut gradient) = (Vec::new(), gradient);
        for (block, input) in blocks.zip(&kept.inputs).rev() {
            // Below the first trained block nobody asks for a gradient, unless the part was sent its input.
            let goes_on = wanted || first_trained.is_some_and(|first| first < block);
            let parameters = self.trained(|of| of == Some(block));
            if !goes_on && parameters.is_empty() {
                break;
            }
            let input = input.detach().set_requires_grad(goes_on);
            let output = self.block(block, &input, &context, kept.dropout);
            // The derivative of this sum by the output is `gradient`, exactly.
            let sum = (output * &gradient).sum(gradient.kind());
            let asked: Vec<&Tensor> = parameters.into_iter().chain(goes_on.then_some(&input)).collect();
            let mut of_block = Tensor::run_backward(&[&sum], &asked, false, false);
            if goes_on {
                gradient = of_block.pop().expect("one gradient comes back for each tensor asked for");
            }
            gradients.push(of_block);
        }
        (gradients.into_iter().rev().flatten().collect(), gradient)
    }

    /// Runs a part's blocks without a graph and keeps what each is given.
    fn keep(&self, part: Part, mut hidden: Tensor, mask: &Tensor, dropout: Option<Key>) -> Kept {
        let _no_graph = tch::no_grad_guard();
        let context = self.context(mask);
        let mut inputs = Vec::new();
        for block in part.blocks(self.shape().blocks) {
            let next = self.block(block, &hidden, &context, dropout);
            inputs.push(std::mem::replace(&mut hidden, next));
        }
        Kept { part, inputs, hidden, mask: mask.shallow_clone(), dropout }
    }

    /// Loss, gradients by what follows the last block, and by what that block gave.
    fn head_gradients(
        &self,
        kept: &Kept,
        places: Option<&Tensor>,
        loss: impl FnOnce(&Tensor) -> Tensor,
    ) -> (f64, Vec<Tensor>, Tensor) {
        let hidden = kept.hidden.detach().set_requires_grad(true);
        let loss = loss(&self.read(&hidden, &kept.mask, places, kept.dropout));
        let asked: Vec<&Tensor> = self.trained(|block| block.is_none()).into_iter().chain([&hidden]).collect();
        let mut gradients = Tensor::run_backward(&[&loss], &asked, false, false);
        let gradient = gradients.pop().expect("one gradient comes back for each tensor asked for");
        (loss.double_value(&[]), gradients, gradient)
    }

    /// The lowest block of a part that has a trained parameter.
    fn first_trained_block(&self, part: Part) -> Option<usize> {
        self.adapter().part(part).iter().find_map(|parameter| parameter.block)
    }

    /// The trained tensors of the blocks that `of` chooses, in the adapter's order.
    fn trained(&self, of: impl Fn(Option<usize>) -> bool) -> Vec<&Tensor> {
        let parameters = self.adapter().part(Part::Whole).into_iter().filter(|parameter| of(parameter.block));
        parameters.map(|parameter| &parameter.tensor).collect()
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::{
        meter::peak_memory_bytes,
        models::{
            Head, LoraSettings,
            golden::{batch, cases, file, load, query_value, real_model, tensors},
        },
    };

    fn loss(logits: &Tensor, labels: &Tensor) -> Tensor {
        logits.cross_entropy_for_logits(labels)
    }

    #[test]
    fn gradients_with_blocks_run_again_are_the_plain_ones_to_the_last_bit() {
        for case in cases() {
            let golden = tensors(&case.name);
            let (model, tokens) = (case.model(&golden), batch(&golden));
            let both = |recompute| model.loss_and_gradients(&tokens, None, recompute, |z| loss(z, &golden["labels"]));
            assert_same(&case.name, &model, &both(false), &both(true));
        }
    }

    #[test]
    fn dropout_masks_are_drawn_again_as_they_were() {
        let golden = tensors("llama-language");
        let base = load(&file("tiny-llama"));
        let lora = LoraSettings { dropout: 0.4, ..query_value(&base) };
        let model = Model::new(base, &lora, Head::Language, 5).unwrap();
        for parameter in model.adapter().parameters() {
            tch::no_grad(|| parameter.tensor.shallow_clone().copy_(&(&parameter.tensor + 0.1)));
        }
        let key = Key { seed: 1, client: 2, round: 3, step: 4 };
        let both =
            |key, recompute| model.loss_and_gradients(&batch(&golden), key, recompute, |z| loss(z, &golden["labels"]));
        assert_same("with dropout", &model, &both(Some(key), false), &both(Some(key), true));
        assert!((both(Some(key), true).0 - both(None, true).0).abs() > 1e-6, "dropout was on");
    }

    #[test]
    fn below_the_first_trained_block_nothing_runs_again_and_bits_stay() {
        let golden = tensors("llama-language");
        for target in ["model.layers.1.self_attn.v_proj", "model.layers.2.mlp.down_proj"] {
            let base = load(&file("tiny-llama"));
            let lora = LoraSettings { target_modules: vec![target.into()], ..query_value(&base) };
            let model = Model::new(base, &lora, Head::Language, 5).unwrap();
            let both =
                |recompute| model.loss_and_gradients(&batch(&golden), None, recompute, |z| loss(z, &golden["labels"]));
            assert_same(target, &model, &both(false), &both(true));
        }
    }

    #[test]
    fn front_and_back_with_blocks_run_again_give_the_bits_of_the_whole() {
        for case in cases() {
            let golden = tensors(&case.name);
            let (model, tokens) = (case.model(&golden), batch(&golden));
            let whole = model.loss_and_gradients(&tokens, None, false, |z| loss(z, &golden["labels"]));
            for cut in 0..=model.shape().blocks {
                let front = model.front_kept(cut, &tokens, None);
                let given = (&tokens.mask, tokens.places.as_ref());
                let (value, mut back, gradient) =
                    model.back_loss_and_gradients(cut, front.hidden(), given, None, |z| loss(z, &golden["labels"]));
                let (mut gradients, _) = model.backward_kept(&front, gradient, false);
                gradients.append(&mut back);
                assert_same(&format!("{} cut at {cut}", case.name), &model, &whole_copy(&whole), &(value, gradients));
            }
        }
    }

    /// Peaks of one process only grow, so the frugal way goes first.
    #[test]
    #[ignore = "measures the whole process: run it alone, cargo test -- --ignored peak_memory"]
    fn peak_memory_falls_where_blocks_run_again() {
        let base = load(&real_model("smollm2"));
        let lora = query_value(&base);
        let model = Model::new(base, &lora, Head::Classifier(2), 5).unwrap();
        let ids = Tensor::arange(8 * 256, (Kind::Int64, Device::Cpu)).view([8, 256]);
        let tokens = Tokens { mask: ids.ones_like().to_kind(Kind::Bool), ids, places: None };
        let labels = Tensor::zeros([8], (Kind::Int64, Device::Cpu));
        let loaded = peak_memory_bytes();
        let peak = |recompute| {
            model.loss_and_gradients(&tokens, None, recompute, |z| loss(z, &labels));
            peak_memory_bytes() - loaded
        };
        let (again, plain) = (peak(true), peak(false));
        eprintln!("SmolLM2, 8 rows of 256 tokens, F32: {again} bytes above the weights, {plain} where all is kept");
        assert!(again * 3 < plain, "{again} and {plain}");
    }

    fn whole_copy((loss, gradients): &(f64, Vec<Tensor>)) -> (f64, Vec<Tensor>) {
        (*loss, gradients.iter().map(Tensor::shallow_clone).collect())
    }

    fn assert_same(what: &str, model: &Model, plain: &(f64, Vec<Tensor>), again: &(f64, Vec<Tensor>)) {
        assert!(plain.0.to_bits() == again.0.to_bits(), "{what}: losses {} and {}", plain.0, again.0);
        assert_eq!(plain.1.len(), again.1.len(), "{what}");
        for ((plain, again), parameter) in plain.1.iter().zip(&again.1).zip(model.adapter().parameters()) {
            assert!(plain.equal(again), "{what}: gradient of {}", parameter.name);
        }
        assert!(plain.1.iter().any(|gradient| gradient.abs().sum(Kind::Float).double_value(&[]) > 0.0), "{what}");
    }
}
