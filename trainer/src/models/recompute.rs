//! Gradient checkpointing (arXiv 1604.06174): of each block only its input is kept, and the block runs again in backward.
//! Must not give other bits than the plain way: the same operations run twice, dropout masks come from their keys.

use tch::Tensor;

use super::{
    Model, Part, Tokens,
    base::Purpose,
    objective::{Objective, seeded},
};
use crate::random::Key;

/// A part of a model that has run forward and not yet backward.
#[derive(Debug)]
pub struct Ran {
    part: Part,
    /// What the last block gave, `[batch, seq, hidden]`.
    hidden: Tensor,
    way: Way,
}

/// What a part's backward pass starts from.
#[derive(Debug)]
enum Way {
    /// The graph that ends in what the last block gave, and the leaf `[batch, seq, hidden]` that the first was given,
    /// where the part does not begin with tokens.
    Graph(Option<Tensor>),
    /// What each block was given.
    Again(Kept),
}

/// What blocks that run again are given.
#[derive(Debug)]
struct Kept {
    /// Input of each block of the part, `[batch, seq, hidden]`.
    inputs: Vec<Tensor>,
    /// `[batch, seq]`.
    mask: Tensor,
    dropout: Option<Key>,
}

impl Ran {
    /// What the last block gave, `[batch, seq, hidden]`.
    pub fn hidden(&self) -> &Tensor {
        &self.hidden
    }
}

impl Model {
    /// A loss, and its gradients by the adapter's parameters, in their order.
    ///
    /// With `recompute`, activations of one block at a time are in memory instead of all blocks', for one more forward
    /// pass; the bits are the same.
    pub fn loss_and_gradients(
        &self,
        tokens: &Tokens,
        dropout: Option<Key>,
        recompute: bool,
        objective: Objective<'_>,
    ) -> (f64, Vec<Tensor>) {
        let places = tokens.places.as_ref();
        if !recompute {
            let hidden = self.train_front(self.shape().blocks, tokens, dropout);
            let loss = self.lose(&hidden, &tokens.mask, places, dropout, objective);
            let gradients = Tensor::run_backward(&[&loss.root], &self.trained(|_| true), false, false);
            return (loss.value.double_value(&[]), gradients);
        }
        let front = self.run_front(self.shape().blocks, tokens, dropout, true);
        let (value, mut tail, gradient) = self.head_gradients(front.hidden(), &tokens.mask, places, dropout, objective);
        let (mut gradients, _) = self.run_backward(&front, &gradient);
        gradients.append(&mut tail);
        (value, gradients)
    }

    /// [`Model::front`], for [`Model::run_backward`]; its blocks run again there where that is asked for.
    pub fn run_front(&self, cut_layer: usize, tokens: &Tokens, dropout: Option<Key>, recompute: bool) -> Ran {
        let part = Part::Front(cut_layer);
        if recompute {
            let hidden = tch::no_grad(|| self.embed(tokens));
            return self.run_and_keep(part, hidden, &tokens.mask, dropout);
        }
        Ran { part, hidden: self.train_front(cut_layer, tokens, dropout), way: Way::Graph(None) }
    }

    /// The blocks from `cut_layer` on, without the head, for [`Model::run_backward`]; they run again there where that is
    /// asked for.
    pub fn run_middle(
        &self,
        cut_layer: usize,
        hidden: &Tensor,
        mask: &Tensor,
        dropout: Option<Key>,
        recompute: bool,
    ) -> Ran {
        let (part, hidden) = (Part::Middle(cut_layer), hidden.detach());
        if recompute {
            return self.run_and_keep(part, hidden, mask, dropout);
        }
        let given = hidden.set_requires_grad(true);
        Ran { part, hidden: self.train_back(cut_layer, &given, mask, dropout), way: Way::Graph(Some(given)) }
    }

    /// The loss at the end of the blocks from `cut_layer` on and the head, its gradients by the parameters of that part,
    /// and by `hidden`. `mask` and `places` are as [`Model::back`] has them.
    pub fn back_loss_and_gradients(
        &self,
        cut_layer: usize,
        hidden: &Tensor,
        (mask, places): (&Tensor, Option<&Tensor>),
        dropout: Option<Key>,
        recompute: bool,
        objective: Objective<'_>,
    ) -> (f64, Vec<Tensor>, Tensor) {
        if !recompute {
            let given = hidden.detach().set_requires_grad(true);
            let last = self.train_back(cut_layer, &given, mask, dropout);
            let loss = self.lose(&last, mask, places, dropout, objective);
            let (gradients, gradient) =
                gradients_and_last(&loss.root, self.adapter().tensors(Part::Back(cut_layer)), &given);
            return (loss.value.double_value(&[]), gradients, gradient);
        }
        let middle = self.run_middle(cut_layer, hidden, mask, dropout, true);
        let (value, mut tail, gradient) = self.head_gradients(middle.hidden(), mask, places, dropout, objective);
        let (mut gradients, given) = self.run_backward(&middle, &gradient);
        gradients.append(&mut tail);
        (value, gradients, given.expect("a part that was sent its input has a gradient there"))
    }

    /// Gradients by the parameters of the blocks that have run, in their order, and by what the first of them was given
    /// where that was sent by another party; `gradient` is that of [`Ran::hidden`].
    pub fn run_backward(&self, ran: &Ran, gradient: &Tensor) -> (Vec<Tensor>, Option<Tensor>) {
        match &ran.way {
            Way::Again(kept) => self.backward_kept(ran.part, kept, gradient),
            Way::Graph(given) => {
                let parameters = self.adapter().tensors(ran.part);
                if parameters.is_empty() && given.is_none() {
                    return (Vec::new(), None);
                }
                let sum = seeded(&ran.hidden, gradient);
                match given {
                    Some(given) => {
                        let (gradients, of_given) = gradients_and_last(&sum, parameters, given);
                        (gradients, Some(of_given))
                    }
                    None => (Tensor::run_backward(&[&sum], &parameters, false, false), None),
                }
            }
        }
    }

    /// [`Model::run_backward`] where blocks run again.
    fn backward_kept(&self, part: Part, kept: &Kept, gradient: &Tensor) -> (Vec<Tensor>, Option<Tensor>) {
        let context = self.context(&kept.mask, Purpose::Training);
        let blocks = part.blocks(self.shape().blocks);
        let (wanted, first_trained) = (!part.embeds(), self.first_trained_block(part));
        let (mut gradients, mut gradient) = (Vec::new(), gradient.shallow_clone());
        for (block, input) in blocks.zip(&kept.inputs).rev() {
            // Below the first trained block nobody asks for a gradient, unless the part was sent its input.
            let goes_on = wanted || first_trained.is_some_and(|first| first < block);
            let parameters = self.trained(|of| of == Some(block));
            if !goes_on && parameters.is_empty() {
                break;
            }
            let input = input.detach().set_requires_grad(goes_on);
            let sum = seeded(&self.block(block, &input, &context, kept.dropout), &gradient);
            if goes_on {
                let (of_block, of_input) = gradients_and_last(&sum, parameters, &input);
                gradient = of_input;
                gradients.push(of_block);
            } else {
                gradients.push(Tensor::run_backward(&[&sum], &parameters, false, false));
            }
        }
        (gradients.into_iter().rev().flatten().collect(), wanted.then_some(gradient))
    }

    /// [`Model::front`] with a graph.
    fn train_front(&self, cut_layer: usize, tokens: &Tokens, dropout: Option<Key>) -> Tensor {
        self.blocks(Part::Front(cut_layer), self.embed(tokens), &tokens.mask, dropout, Purpose::Training)
    }

    /// The blocks from `cut_layer` on, without the head and with a graph.
    fn train_back(&self, cut_layer: usize, hidden: &Tensor, mask: &Tensor, dropout: Option<Key>) -> Tensor {
        self.blocks(Part::Back(cut_layer), hidden.shallow_clone(), mask, dropout, Purpose::Training)
    }

    /// Runs a part's blocks without a graph and keeps what each is given.
    fn run_and_keep(&self, part: Part, mut hidden: Tensor, mask: &Tensor, dropout: Option<Key>) -> Ran {
        let _no_graph = tch::no_grad_guard();
        let context = self.context(mask, Purpose::Training);
        let mut inputs = Vec::new();
        for block in part.blocks(self.shape().blocks) {
            let next = self.block(block, &hidden, &context, dropout);
            inputs.push(std::mem::replace(&mut hidden, next));
        }
        Ran { part, hidden, way: Way::Again(Kept { inputs, mask: mask.shallow_clone(), dropout }) }
    }

    /// The loss of what the head reads from `hidden`, what the last block gave; its gradients by what follows the last
    /// block, and by `hidden`.
    pub fn head_gradients(
        &self,
        hidden: &Tensor,
        mask: &Tensor,
        places: Option<&Tensor>,
        dropout: Option<Key>,
        objective: Objective<'_>,
    ) -> (f64, Vec<Tensor>, Tensor) {
        let hidden = hidden.detach().set_requires_grad(true);
        let loss = self.lose(&hidden, mask, places, dropout, objective);
        let (gradients, gradient) = gradients_and_last(&loss.root, self.trained(|block| block.is_none()), &hidden);
        (loss.value.double_value(&[]), gradients, gradient)
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

/// Gradients of `of` by `parameters`, and by `last`.
fn gradients_and_last(of: &Tensor, parameters: Vec<&Tensor>, last: &Tensor) -> (Vec<Tensor>, Tensor) {
    let asked: Vec<&Tensor> = parameters.into_iter().chain([last]).collect();
    let mut gradients = Tensor::run_backward(&[of], &asked, false, false);
    let of_last = gradients.pop().expect("one gradient comes back for each tensor asked for");
    (gradients, of_last)
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

    #[test]
    fn gradients_with_blocks_run_again_are_the_plain_ones_to_the_last_bit() {
        for case in cases() {
            let golden = tensors(&case.name);
            let (model, tokens) = (case.model(&golden), batch(&golden));
            let both = |recompute| {
                model.loss_and_gradients(&tokens, None, recompute, Objective::CrossEntropy(&golden["labels"]))
            };
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
        let both = |key, recompute| {
            model.loss_and_gradients(&batch(&golden), key, recompute, Objective::CrossEntropy(&golden["labels"]))
        };
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
            let both = |recompute| {
                model.loss_and_gradients(&batch(&golden), None, recompute, Objective::CrossEntropy(&golden["labels"]))
            };
            assert_same(target, &model, &both(false), &both(true));
        }
    }

    #[test]
    fn front_and_back_give_the_bits_of_the_whole_also_with_blocks_run_again() {
        for case in cases() {
            let golden = tensors(&case.name);
            let (model, tokens) = (case.model(&golden), batch(&golden));
            let whole = model.loss_and_gradients(&tokens, None, false, Objective::CrossEntropy(&golden["labels"]));
            for cut in 0..=model.shape().blocks {
                for recompute in [false, true] {
                    let front = model.run_front(cut, &tokens, None, recompute);
                    let given = (&tokens.mask, tokens.places.as_ref());
                    let by_logits = Objective::CrossEntropy(&golden["labels"]);
                    let (value, mut back, gradient) =
                        model.back_loss_and_gradients(cut, front.hidden(), given, None, recompute, by_logits);
                    let (mut gradients, _) = model.run_backward(&front, &gradient);
                    gradients.append(&mut back);
                    let what = format!("{} cut at {cut}, recompute {recompute}", case.name);
                    assert_same(&what, &model, &whole_copy(&whole), &(value, gradients));
                }
            }
        }
    }

    #[test]
    fn a_middle_between_the_ends_of_another_party_gives_the_bits_of_the_whole() {
        for case in cases() {
            let golden = tensors(&case.name);
            let (model, tokens) = (case.model(&golden), batch(&golden));
            let whole = model.loss_and_gradients(&tokens, None, false, Objective::CrossEntropy(&golden["labels"]));
            for (cut, recompute) in [(1, false), (1, true)] {
                let front = model.run_front(cut, &tokens, None, recompute);
                let middle = model.run_middle(cut, front.hidden(), &tokens.mask, None, recompute);
                let places = tokens.places.as_ref();
                let by_logits = Objective::CrossEntropy(&golden["labels"]);
                let (value, mut head, gradient) =
                    model.head_gradients(middle.hidden(), &tokens.mask, places, None, by_logits);
                let (mut of_middle, gradient) = model.run_backward(&middle, &gradient);
                let (mut gradients, _) = model.run_backward(&front, &gradient.expect("of what it was sent"));
                gradients.append(&mut of_middle);
                gradients.append(&mut head);
                let what = format!("{}, recompute {recompute}", case.name);
                assert_same(&what, &model, &whole_copy(&whole), &(value, gradients));
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
            model.loss_and_gradients(&tokens, None, recompute, Objective::CrossEntropy(&labels));
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
