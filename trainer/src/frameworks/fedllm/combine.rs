//! What the server does with a round's uploads: one aggregation after another.
//! Must not read a message: uploads are checked already.

use tch::TchError;

use super::{
    Aggregation,
    aggregate::{Share, mean_product, residual},
    client::new_pair,
    optimizer::ServerOptimizer,
    uploads::{Answered, Upload},
};
use crate::{
    frameworks::{FrameworkError, adapter},
    local::{Recipe, tensors},
    low_rank::LowRank,
    models::{Model, Part},
    random::Key,
};

/// Every client's pair of a module.
pub(super) fn shares(uploads: &[Upload], module: usize) -> Vec<Share<'_>> {
    let all: u64 = uploads.iter().map(|upload| upload.examples).sum();
    let shares = uploads.iter().map(|Upload { examples, scale, tensors }| Share {
        weight: *examples as f64 / all as f64,
        scale: *scale,
        a: &tensors[2 * module],
        b: &tensors[2 * module + 1],
    });
    shares.collect()
}

/// The server's model, and what of its state an aggregation changes.
pub(super) struct Global<'a> {
    pub(super) model: &'a mut Model,
    pub(super) recipe: &'a Recipe,
    pub(super) means: &'a mut ServerOptimizer,
    /// What this round adds beside the base; every client does the same.
    pub(super) products: &'a mut Vec<LowRank>,
}

impl Global<'_> {
    /// Takes in the uploads of `round`, of one client at least.
    pub(super) fn combine(
        &mut self,
        aggregation: &Aggregation,
        answered: &Answered<'_>,
        round: u32,
    ) -> Result<(), FrameworkError> {
        match aggregation {
            Aggregation::FedAvg(_) | Aggregation::FfaLora(_) => {
                self.means.step(&tensors(self.model, Part::Whole), &answered.means(0)?);
            }
            Aggregation::Flora => {
                self.add(&answered.whole()?, |shares| Some(mean_product(shares)));
                self.take_mean_head(answered)?;
                self.model.renew(new_pair(self.recipe.seed, round + 1));
            }
            Aggregation::FedExLora => {
                self.add(&answered.whole()?, residual);
                adapter::assign(self.model, Part::Whole, &answered.means(0)?);
            }
            Aggregation::FlexLora => {
                self.cut_mean_product(&answered.whole()?)?;
                self.take_mean_head(answered)?;
            }
        }
        Ok(())
    }

    /// Adds a product of the clients' pairs beside each weight, and keeps it for the clients.
    fn add(&mut self, uploads: &[Upload], product: impl Fn(&[Share<'_>]) -> Option<LowRank>) {
        let modules = 0..self.model.adapter().targets().len();
        let products = modules.filter_map(|module| product(&shares(uploads, module)));
        *self.products = products.map(|product| product.to_f32()).collect();
        if !self.products.is_empty() {
            self.model.fold(self.products);
        }
    }

    /// A: right singular vectors, B: left ones times singular values over the scale. What the clients' ranks together
    /// do not fill stays as at first, where it adds nothing.
    fn cut_mean_product(&self, uploads: &[Upload]) -> Result<(), TchError> {
        let (model, recipe) = (&self.model, self.recipe);
        model.renew(Key { seed: recipe.seed, ..Key::default() });
        let _no_graph = tch::no_grad_guard();
        for (module, [a, b]) in model.adapter().pairs().enumerate() {
            let LowRank { up, down } = mean_product(&shares(uploads, module)).svd()?.cut(recipe.lora.rank);
            let rows = down.size()[0];
            a.tensor.narrow(0, 0, rows).copy_(&down);
            b.tensor.narrow(1, 0, rows).copy_(&(up / recipe.lora.scale()));
        }
        Ok(())
    }

    fn take_mean_head(&self, answered: &Answered<'_>) -> Result<(), FrameworkError> {
        let first = 2 * self.model.adapter().targets().len();
        adapter::assign_head(self.model, &answered.means(first)?);
        Ok(())
    }
}
