//! The aggregations against their algebra, on uploads of random numbers and in whole runs.

use std::{collections::BTreeMap, sync::Arc};

use fedtune_crds::report::{Direction, PayloadKind};
use tch::{Kind, Tensor};

use super::{
    Aggregation, FedLlm, ServerRule, Upload,
    client::FedLlmClient,
    optimizer::{Adaptive, ServerOptimizer},
};
use crate::{
    adapter_files::{AdapterFiles, starting_model},
    averages::weighted_means,
    data::{Answer, Example, Labels, Record, encode},
    events::Events,
    export::{Export, condense, write_adapter},
    flops::{self, BatchSize},
    frameworks::{
        ClientHalf, ClientSeat, Figures, Framework, ServerHalf, ServerSeat, Spare, answer, payload_kind,
        tests::{adapter_of, flat, fresh, largest_difference, one_client, run_with_unequal_clients, values, worker},
    },
    local::{Batch, plan as batches_of, tensors, train},
    low_rank::LowRank,
    models::{Base, Head, LoadOptions, LoraSettings, Model, Objective, Part, Precision, Residual, cross_entropy},
    optimizer::Optimizer,
    plan::{Plan, Task},
    random::{Key, Site},
    rounds::{Client, Exchange},
    run::{
        local::{Ended, Kept, run},
        materials::Materials,
    },
    testing::{materials, plan, records},
    wire::{Element, Message, WireTensor},
};

const EXAMPLES: [u64; 3] = [10, 11, 30];

fn noise(seed: u64, shape: &[i64]) -> Tensor {
    let mut stream = Key { seed, ..Key::default() }.stream(Site::Init(0));
    let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|_| stream.normal() * 0.3).collect();
    Tensor::from_slice(&values).view(shape)
}

fn norm(tensor: &Tensor) -> f64 {
    tensor.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]).sqrt()
}

/// Server and clients without a wire between them.
struct Scene {
    method: FedLlm,
    plan: Plan,
    server: Box<dyn ServerHalf>,
}

impl Scene {
    fn new(aggregation: Aggregation, ranks: [usize; 3]) -> Self {
        let upload = Upload::Parameters(aggregation);
        let method = FedLlm { upload, proximal_mu: 0.0, ranks: ranks.to_vec() };
        let mut plan = plan("fedLLM: {}", &[]);
        plan.lora.rank = method.global_rank(ranks[0]);
        let recipe = plan.recipe(3, 0, plan.lora.clone());
        let model = Model::new(materials(&plan, Vec::new()).base, &plan.lora, Head::Classifier(3), plan.seed).unwrap();
        let seat = ServerSeat {
            recipe,
            model,
            spare: Spare(Box::new(|| panic!("FedLLM needs one model"))),
            clients: plan.clients.iter().map(ToString::to_string).collect(),
            all_data: Vec::new(),
            public: Vec::new(),
            evaluation: Vec::new(),
            worker: worker(),
        };
        let server = method.server_half(seat);
        Self { method, plan, server }
    }

    fn lora(&self, client: Client) -> LoraSettings {
        self.method.lora(client, &self.plan.lora)
    }

    fn client(&self, client: Client) -> FedLlmClient {
        let lora = self.lora(client);
        let mut model =
            Model::new(materials(&self.plan, Vec::new()).base, &lora, Head::Classifier(3), self.plan.seed).unwrap();
        if self.method.freezes_a() {
            model.freeze_a();
        }
        let recipe = self.plan.recipe(3, 0, lora);
        let train = encode(&records(10, 0), &Labels::new(self.plan.data.labels.clone())).unwrap();
        let (public, evaluation, worker) = (Vec::new(), Vec::new(), worker());
        let seat = ClientSeat { ordinal: client, recipe, model, train, public, evaluation, worker };
        FedLlmClient::new(self.method.upload.clone(), seat)
    }

    fn ask(&mut self, client: Client, round: u32) -> Message {
        self.server.ask(client, Exchange { round, index: 0 }).unwrap()
    }

    /// What client k uploads in a round: random numbers in the shapes of its model.
    fn upload(&self, client: Client, round: u32) -> Vec<(String, Tensor)> {
        let half = self.client(client);
        let parameters = half.seat.model.adapter().part(Part::Whole).into_iter().enumerate();
        let draw = |index: usize, shape: Vec<i64>| {
            noise(10_000 * u64::from(round) + 1000 * client as u64 + index as u64, &shape)
        };
        parameters.map(|(index, p)| (p.name.clone(), draw(index, p.tensor.size()))).collect()
    }

    /// A round of the three clients: everyone is asked, everyone uploads, the server closes.
    fn play(&mut self, round: u32) -> Vec<Message> {
        let asks: Vec<Message> = (0..3).map(|client| self.ask(client, round)).collect();
        for (client, ask) in asks.iter().enumerate() {
            let kinds = self.client(client);
            let kinds = kinds.seat.model.adapter().part(Part::Whole).into_iter().map(payload_kind);
            let uploads = self.upload(client, round);
            let tensors = uploads
                .iter()
                .zip(kinds)
                .map(|((name, values), kind)| WireTensor::from_tensor(name, kind, values, Element::F32).unwrap());
            let upload = Message { tensors: tensors.collect(), ..answer(ask) };
            self.server.take(client, Exchange { round, index: 0 }, &upload, &Figures::default()).unwrap();
        }
        let answered: Vec<(Client, u64)> = EXAMPLES.iter().copied().enumerate().collect();
        self.server.close(Exchange { round, index: 0 }, &answered).unwrap();
        asks
    }

    /// `sum p_k s_k B_k A_k` of each module, in F64, multiplied out.
    fn target(&self, round: u32) -> Vec<Tensor> {
        let all: u64 = EXAMPLES.iter().sum();
        let mut sums: Vec<Tensor> = Vec::new();
        for (client, examples) in EXAMPLES.into_iter().enumerate() {
            let weight = examples as f64 / all as f64 * self.lora(client).scale();
            let uploads: BTreeMap<String, Tensor> = self.upload(client, round).into_iter().collect();
            let half = self.client(client);
            for (module, [a, b]) in half.seat.model.adapter().pairs().enumerate() {
                let [a, b] = [a, b].map(|p| uploads.get(&p.name).unwrap_or(&p.tensor).to_kind(Kind::Double));
                let term = b.matmul(&a) * weight;
                match sums.get_mut(module) {
                    Some(sum) => *sum += term,
                    None => sums.push(term),
                }
            }
        }
        sums
    }

    fn model(&self) -> &Model {
        self.server.model().unwrap()
    }
}

/// All that is beside the weight of each module: what earlier rounds left, and the pair.
fn applied(model: &Model, lora: &LoraSettings) -> Vec<Tensor> {
    let modules = model.adapter().pairs().zip(model.residuals());
    let beside = |residual: &Residual| {
        let LowRank { up, down } = residual.factors();
        up.to_kind(Kind::Double).matmul(&down.to_kind(Kind::Double))
    };
    let of_module = modules.map(|([a, b], residual)| {
        let pair = b.tensor.to_kind(Kind::Double).matmul(&a.tensor.to_kind(Kind::Double)) * lora.scale();
        residual.as_ref().map_or_else(|| pair.shallow_clone(), |residual| beside(residual) + &pair).detach()
    });
    of_module.collect()
}

fn largest_distance(a: &[Tensor], b: &[Tensor]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs().max().double_value(&[])).fold(0.0, f64::max)
}

fn bits(tensors: &[Tensor]) -> Vec<u64> {
    let values = tensors.iter().flat_map(|t| Vec::<f64>::try_from(t.flatten(0, -1)).unwrap());
    values.map(f64::to_bits).collect()
}

const MEAN: ServerRule = ServerRule::Mean;

#[test]
fn flora_and_fedex_apply_the_mean_product_within_1e_5_on_server_and_clients() {
    for aggregation in [Aggregation::Flora, Aggregation::FedExLora] {
        let mut scene = Scene::new(aggregation.clone(), [2, 2, 2]);
        scene.play(1);
        let target = scene.target(1);
        let on_server = applied(scene.model(), &scene.plan.lora);
        let difference = largest_distance(&on_server, &target);
        assert!(difference < 1e-5, "{aggregation:?}: {difference}");
        let mut client = scene.client(0);
        client.take_in(&scene.ask(0, 2)).unwrap();
        assert_eq!(bits(&applied(&client.seat.model, &scene.lora(0))), bits(&on_server), "{aggregation:?}");
    }
}

/// The second round begins with what the first left: `FLoRA` with new pairs, `FedExLoRA` with the means.
#[test]
fn what_is_beside_the_base_adds_up_over_rounds() {
    let mut flora = Scene::new(Aggregation::Flora, [2, 2, 2]);
    (1..=2).for_each(|round| drop(flora.play(round)));
    let both: Vec<Tensor> = flora.target(1).iter().zip(flora.target(2)).map(|(a, b)| a + b).collect();
    let difference = largest_distance(&applied(flora.model(), &flora.plan.lora), &both);
    assert!(difference < 1e-5, "{difference}");

    let mut fedex = Scene::new(Aggregation::FedExLora, [2, 2, 2]);
    fedex.play(1);
    let beside = |model: &Model| -> Vec<Tensor> {
        let products = model.residuals().iter().map(|residual| residual.as_ref().unwrap().factors().product());
        products.map(|product| product.to_kind(Kind::Double)).collect()
    };
    let left: Vec<Tensor> = beside(fedex.model());
    fedex.play(2);
    let expected: Vec<Tensor> = left.iter().zip(fedex.target(2)).map(|(left, mean)| left + mean).collect();
    let difference = largest_distance(&applied(fedex.model(), &fedex.plan.lora), &expected);
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn a_client_that_sat_rounds_out_is_brought_to_the_same_bits_by_what_was_sent_in_them() {
    for aggregation in [Aggregation::Flora, Aggregation::FedExLora] {
        let mut scene = Scene::new(aggregation.clone(), [2, 2, 2]);
        let (mut always, mut late) = (scene.client(0), scene.client(2));
        for round in 1..=4 {
            always.take_in(&scene.play(round)[0]).unwrap();
            let sent = scene.server.broadcast().unwrap().unwrap();
            late.replay(&Message { tensors: sent.tensors, ..Message::new(crate::wire::Subject::Replay, round) })
                .unwrap();
        }
        let ask = scene.ask(0, 5);
        always.take_in(&ask).unwrap();
        late.take_in(&ask).unwrap();
        let [always, late] = [&always, &late].map(|client| bits(&applied(&client.seat.model, &scene.plan.lora)));
        assert_eq!(always, late, "{aggregation:?}");
        assert_eq!(always, bits(&applied(scene.model(), &scene.plan.lora)), "{aggregation:?}");
    }
}

#[test]
fn with_a_frozen_the_mean_of_b_is_the_mean_product_within_1e_5() {
    let mut scene = Scene::new(Aggregation::FfaLora(MEAN), [2, 2, 2]);
    let asks = scene.play(1);
    let difference = largest_distance(&applied(scene.model(), &scene.plan.lora), &scene.target(1));
    assert!(difference < 1e-5, "{difference}");
    assert!(asks[0].tensors.iter().all(|tensor| !tensor.name.contains("lora_A")), "{:?}", asks[0].tensors);
    let fresh = fresh(&scene.plan).0;
    for ([a, _], [drawn, _]) in scene.model().adapter().pairs().zip(fresh.adapter().pairs()) {
        assert_eq!(flat(&[a.tensor.detach()]), flat(&[drawn.tensor.detach()]), "{}", a.name);
    }
}

/// Its error in proportion to the target, of random uploads: what `docs/aggregation.md` shows comes from runs.
#[test]
fn fedavg_is_far_from_the_mean_product() {
    let mut scene = Scene::new(Aggregation::FedAvg(MEAN), [2, 2, 2]);
    scene.play(1);
    for (applied, target) in applied(scene.model(), &scene.plan.lora).iter().zip(scene.target(1)) {
        let error = norm(&(applied - &target)) / norm(&target);
        assert!(error > 0.1, "{error}");
    }
}

/// Frobenius: the root of the sum of squared singular values from the rank on, here by libtorch on the whole product.
#[test]
fn flexlora_is_as_far_off_as_the_discarded_singular_values_and_exact_from_the_sum_of_ranks_on() {
    // The last has room for all ranks of 24 x 24, whatever the sum of the clients'.
    for (ranks, exact) in [([2, 2, 2], false), ([1, 2, 3], false), ([6, 6, 6], false), ([2, 2, 24], true)] {
        let mut scene = Scene::new(Aggregation::FlexLora, ranks);
        scene.play(1);
        let target = scene.target(1);
        for (client, rank) in ranks.into_iter().enumerate() {
            let mut half = scene.client(client);
            half.take_in(&scene.ask(client, 2)).unwrap();
            for (applied, target) in applied(&half.seat.model, &scene.lora(client)).iter().zip(&target) {
                let (_, values, _) = target.svd(true, false);
                let from = (rank as i64).min(values.size()[0]);
                let discarded = norm(&values.narrow(0, from, values.size()[0] - from));
                let error = norm(&(applied - target));
                assert!((error - discarded).abs() < 1e-5, "{ranks:?} {client}: {error} {discarded}");
            }
        }
        let error = largest_distance(&applied(scene.model(), &scene.plan.lora), &target);
        assert_eq!(error < 1e-5, exact, "{ranks:?}: {error}");
    }
}

#[test]
fn unequal_ranks_stack_exactly() {
    let mut scene = Scene::new(Aggregation::Flora, [1, 4, 2]);
    scene.play(1);
    let difference = largest_distance(&applied(scene.model(), &scene.plan.lora), &scene.target(1));
    assert!(difference < 1e-5, "{difference}");
    assert_eq!(scene.ask(1, 2).tensors[0].shape, [7, 24], "one A below another");
}

/// Where nothing is combined, ranks may differ too: each client has its own.
#[test]
fn clients_of_unequal_ranks_train_and_are_exported_as_they_are() {
    let unequal = r#"clients.groups=[{"name":"silo","replicas":1,"rank":1},{"name":"b","replicas":2,"rank":3}]"#;
    for framework in ["kdFedLLM: {distillationSteps: 1}", "localOnly: {}", "fedLLM: {aggregation: FLoRA}"] {
        let plan = plan(framework, &[unequal]);
        let ended = run_with_unequal_clients(&plan);
        let ranks = ended.clients.iter().map(|client| {
            let first = client.half.seat().model.adapter().pairs().next().unwrap()[0].tensor.size()[0];
            first as usize
        });
        assert_eq!(ranks.collect::<Vec<_>>(), [1, 3, 3], "{framework}");
        let reported = ended.outcome.account.clients(&plan).into_iter().map(|client| client.rank);
        assert_eq!(reported.collect::<Vec<_>>(), [1, 3, 3], "{framework}");
    }
}

fn rules() -> [ServerRule; 3] {
    let adaptive = Adaptive { learning_rate: 0.05, beta1: 0.9, beta2: 0.99, tau: 1e-2 };
    [
        ServerRule::FedAvgM { learning_rate: 0.7, momentum: 0.9 },
        ServerRule::FedAdam(adaptive),
        ServerRule::FedYogi(adaptive),
    ]
}

/// Reddi et al., algorithm 2, on one number, as its lines stand there; v from tau squared.
fn by_hand(rule: &ServerRule, mut theta: f64, means: &[f64]) -> Vec<f64> {
    let (mut m, mut v) = (0.0, 1e-4);
    let step = |mean: &f64| {
        let delta = mean - theta;
        theta += match rule {
            ServerRule::Mean => delta,
            ServerRule::FedAvgM { .. } => {
                m = 0.9 * m + delta;
                0.7 * m
            }
            ServerRule::FedAdam(_) => {
                m = 0.9 * m + 0.1 * delta;
                v = 0.99 * v + 0.01 * m * m;
                0.05 * m / (f64::sqrt(v) + 0.01)
            }
            ServerRule::FedYogi(_) => {
                m = 0.9 * m + 0.1 * delta;
                v -= 0.01 * m * m * if v > m * m { 1.0 } else { -1.0 };
                0.05 * m / (f64::sqrt(v) + 0.01)
            }
        };
        theta
    };
    means.iter().map(step).collect()
}

#[test]
fn server_optimizers_step_as_the_paper_says_over_five_rounds() {
    let means = [[0.9f32, -1.2], [0.7, -1.9], [0.8, -0.3], [0.8, 0.6], [-0.4, 0.6]];
    for rule in rules() {
        let theta = Tensor::from_slice(&[1.0f32, -1.0]);
        let mut optimizer = ServerOptimizer::new(rule.clone(), &[&theta]);
        let expected = [(1.0, 0), (-1.0, 1)]
            .map(|(start, column)| by_hand(&rule, start, &means.map(|mean| f64::from(mean[column]))));
        for (round, mean) in means.iter().enumerate() {
            optimizer.step(&[&theta], &[Tensor::from_slice(mean)]);
            let theta = Vec::<f32>::try_from(&theta).unwrap();
            for (found, expected) in theta.iter().zip(&expected) {
                let expected = expected[round];
                assert!((f64::from(*found) - expected).abs() < 1e-6, "{rule:?}, round {round}: {found} {expected}");
            }
            // As after a restart: what a checkpoint keeps is all there is.
            let kept = optimizer.history().map(Tensor::copy).collect();
            optimizer = ServerOptimizer::new(rule.clone(), &[&Tensor::from_slice(&[0.0f32, 0.0])]);
            optimizer.resume(kept);
        }
    }
}

#[test]
fn fed_avg_m_with_a_whole_step_and_no_momentum_is_fed_avg_to_the_bit() {
    let plain = adapter_of(&run_with_unequal_clients(&plan("fedLLM: {}", &[])));
    let whole = "fedLLM: {serverOptimizer: {fedAvgM: {learningRate: '1', momentum: '0'}}}";
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&adapter_of(&run_with_unequal_clients(&plan(whole, &[])))), bits(&plain));
    let heavy = "fedLLM: {serverOptimizer: {fedAvgM: {learningRate: '1'}}}";
    assert!(largest_difference(&adapter_of(&run_with_unequal_clients(&plan(heavy, &[]))), &plain) > 1e-4);
}

/// Gradients go to the optimizer that the framework names, in the place of the one of training.
#[test]
fn the_servers_own_optimizer_applies_mean_gradients() {
    let sgd = |rate: &str| format!("{{sgd: {{learningRate: '{rate}'}}}}");
    let run = |framework: String, training: &str| {
        adapter_of(&run_with_unequal_clients(&plan(&framework, &[&format!("training.optimizer={training}")])))
    };
    let named = run(format!("fedLLM: {{upload: Gradients, serverOptimizer: {}}}", sgd("0.1")), &sgd("0.7"));
    assert_eq!(named, run("fedLLM: {upload: Gradients}".to_owned(), &sgd("0.1")));
    assert_ne!(named, run("fedLLM: {upload: Gradients}".to_owned(), &sgd("0.7")));
}

/// Local steps whose loss has `mu / 2 |theta - theta_0|^2` in it, by autograd; with a mu of zero, without.
fn steps_by_autograd(plan: &Plan, mu: f64) -> Vec<f32> {
    let (model, recipe) = fresh(plan);
    let examples = encode(&records(10, 0), &Labels::new(plan.data.labels.clone())).unwrap();
    let parameters = tensors(&model, Part::Whole);
    let start: Vec<Tensor> = parameters.iter().map(|p| p.detach().copy()).collect();
    let mut optimizer = Optimizer::new(&recipe.optimizer, &parameters);
    let key = Key { seed: plan.seed, client: 0, round: 1, step: 0 };
    for (step, indices) in batches_of(&examples, &recipe, key).iter().enumerate() {
        let batch = Batch::of(&examples, indices, 0, &model);
        let loss = Objective::of(|logits| {
            let loss = cross_entropy(logits, &batch.targets);
            let squares = parameters.iter().zip(&start).map(|(p, start)| (*p - start).square().sum(Kind::Float));
            if mu > 0.0 { loss + squares.sum::<Tensor>() * (mu / 2.0) } else { loss }
        });
        let dropout = Some(Key { step: step as u32, ..key });
        let (_, gradients) = model.loss_and_gradients(&batch.tokens, dropout, false, loss);
        optimizer.step(&parameters, &gradients, 1.0);
    }
    values(&model)
}

fn steps_with(plan: &Plan, mu: f64) -> Vec<f32> {
    let (model, mut recipe) = fresh(plan);
    recipe.proximal_mu = mu;
    let examples = encode(&records(10, 0), &Labels::new(plan.data.labels.clone())).unwrap();
    let key = Key { seed: plan.seed, client: 0, round: 1, step: 0 };
    train(&model, &examples, &recipe, key, &mut worker()).unwrap();
    values(&model)
}

#[test]
fn the_proximal_term_is_that_of_autograd_within_1e_6_and_a_mu_of_zero_changes_no_bit() {
    let sgd = r#"training.optimizer={"sgd":{"learningRate":"0.1"}}"#;
    let plan = one_client("fedLLM: {}", &["training.localSteps=5", sgd]);
    let difference = largest_difference(&steps_with(&plan, 2.0), &steps_by_autograd(&plan, 2.0));
    assert!(difference < 1e-6, "{difference}");
    assert_eq!(steps_with(&plan, 0.0), steps_by_autograd(&plan, 0.0));
    let pulled = largest_difference(&steps_with(&plan, 2.0), &steps_with(&plan, 0.0));
    assert!(pulled > 1e-3, "{pulled}");
}

#[test]
fn fedprox_sends_what_fedavg_sends_and_comes_to_something_else() {
    let run = |framework: &str| run_with_unequal_clients(&plan(framework, &[]));
    let (near, free) = (run("fedLLM: {proximalMu: '5'}"), run("fedLLM: {}"));
    assert_eq!(payload(&near), payload(&free));
    assert_ne!(adapter_of(&near), adapter_of(&free));
}

/// Adapter bytes of client 0 by round, down and up.
fn payload(ended: &Ended) -> Vec<[u64; 2]> {
    let of = |direction| {
        move |round: &fedtune_crds::report::RoundReport| -> u64 {
            let mine = round.bytes.iter().filter(|count| count.client == "silo/0" && count.direction == direction);
            mine.filter(|count| count.kind == PayloadKind::Adapter).map(|count| count.payload).sum()
        }
    };
    let rounds = ended.outcome.account.rounds();
    rounds.iter().map(|round| [of(Direction::Down)(round), of(Direction::Up)(round)]).collect()
}

/// Six modules of 24 x 24; N(r) = 6 r (24 + 24) numbers of 4 bytes.
#[test]
fn the_bytes_of_each_aggregation_are_those_of_the_formula() {
    const fn n(rank: u64) -> u64 {
        4 * 6 * rank * 48
    }
    let three = "training.rounds=3";
    let unequal = r#"clients.groups=[{"name":"silo","replicas":1,"rank":1},{"name":"b","replicas":2,"rank":3}]"#;
    for (aggregation, sets, expected) in [
        ("FedAvg", &[three][..], [[n(2), n(2)]; 3]),
        ("FFALoRA", &[three], [[n(2) / 2, n(2) / 2]; 3]),
        ("FLoRA", &[three], [[0, n(2)], [n(6), n(2)], [n(6), n(2)]]),
        ("FedExLoRA", &[three], [[n(2), n(2)], [n(6), n(2)], [n(6), n(2)]]),
        ("FlexLoRA", &[three], [[n(2), n(2)]; 3]),
        ("FLoRA", &[three, unequal], [[0, n(1)], [n(7), n(1)], [n(7), n(1)]]),
        ("FlexLoRA", &[three, unequal], [[n(1), n(1)]; 3]),
    ] {
        let ended = run_with_unequal_clients(&plan(&format!("fedLLM: {{aggregation: {aggregation}}}"), sets));
        assert_eq!(payload(&ended), expected, "{aggregation} {sets:?}");
    }
}

#[test]
fn the_first_round_of_every_aggregation_begins_with_the_same_adapter() {
    let after_one = |aggregation: &str| {
        let framework = format!("fedLLM: {{aggregation: {aggregation}}}");
        let plan = one_client(&framework, &["training.rounds=1"]);
        let ended = run_with_unequal_clients(&plan);
        applied(ended.outcome.half.model().unwrap(), &plan.lora)
    };
    let plain = after_one("FedAvg");
    // One client: whatever its ranks, means, stack and product are its own.
    for aggregation in ["FLoRA", "FedExLoRA", "FlexLoRA"] {
        let difference = largest_distance(&after_one(aggregation), &plain);
        assert!(difference < 1e-6, "{aggregation}: {difference}");
    }
}

/// Half of three clients a round: whoever sat rounds out asks for what was sent in them, which is counted apart.
#[test]
fn clients_that_were_not_asked_catch_up_and_go_on_from_the_same_residual() {
    let sets = ["training.rounds=5", "participation.fraction=0.5", "participation.minClients=2"];
    for aggregation in ["FLoRA", "FedExLoRA"] {
        let plan = plan(&format!("fedLLM: {{aggregation: {aggregation}}}"), &sets);
        let ended = run_with_unequal_clients(&plan);
        let rounds = ended.outcome.account.rounds();
        let took_part = |round: usize| rounds[round].participants.clone();
        let newcomers = took_part(4).into_iter().filter(|client| !took_part(3).contains(client)).count();
        assert!(newcomers > 0, "{:?}", rounds.iter().map(|round| &round.participants).collect::<Vec<_>>());
        let residuals: Vec<Vec<u64>> = took_part(4)
            .iter()
            .map(|client| {
                let model = &ended.clients[plan.ordinal(client).unwrap()].half.seat().model;
                let products = model.residuals().iter().map(|residual| residual.as_ref().unwrap().factors().product());
                bits(&products.map(|product| product.to_kind(Kind::Double)).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(residuals.len(), 2);
        assert_eq!(residuals[0], residuals[1], "{aggregation}");
        assert!(ended.outcome.ledger.total().retransmitted.down > 0, "{aggregation}");
    }
}

/// 24 x 24 is as large as a stack of rank 12: the third round's residual, of rank 18, is kept as a matrix.
#[test]
fn a_residual_that_grows_becomes_a_matrix_and_is_kept_and_read_again() {
    let mut scene = Scene::new(Aggregation::Flora, [2, 2, 2]);
    for round in 1..=4 {
        scene.play(round);
        let dense = scene.model().residuals().iter().all(|r| matches!(r, Some(Residual::Dense(_))));
        assert_eq!(dense, round > 2, "round {round}");
        let saved = scene.server.save().unwrap();
        let mut again = Scene::new(Aggregation::Flora, [2, 2, 2]);
        again.server.restore(&saved).unwrap();
        assert_eq!(again.server.save().unwrap(), saved);
        assert_eq!(again.ask(0, round + 1), scene.ask(0, round + 1));
        scene.server = again.server;
    }
    let total = (1..=4)
        .map(|round| scene.target(round))
        .reduce(|sum, more| sum.iter().zip(more).map(|(sum, more)| sum + more).collect());
    let difference = largest_distance(&applied(scene.model(), &scene.plan.lora), &total.unwrap());
    assert!(difference < 2e-5, "{difference}");
}

/// A stack of rank R beside a weight is two products more: forward 2 T R (in + out), and as much for the gradient of
/// their input where that needs one, which below the first trained layer it does not.
#[test]
fn what_is_beside_the_base_and_what_is_frozen_counts_in_flops() {
    let mut scene = Scene::new(Aggregation::Flora, [1, 1, 1]);
    let (lora, batch) = (scene.plan.lora.clone(), BatchSize::of_rows(3, 7));
    let before = flops::forward_of(scene.model(), Part::Whole, &lora, batch);
    scene.play(1);
    let beside = 2.0 * 21.0 * 3.0 * 48.0;
    let forward = flops::forward_of(scene.model(), Part::Whole, &lora, batch);
    assert!((forward - before - 6.0 * beside).abs() < 1e-6, "{forward} {before}");
    let plain = flops::train(scene.model().shape(), Part::Whole, &lora, Head::Classifier(3), batch, 0);
    let train = flops::train_of(scene.model(), Part::Whole, &lora, batch);
    assert!((train - plain - (6.0 + 4.0) * beside).abs() < 1e-6, "{train} {plain}");
    let frozen = Scene::new(Aggregation::FfaLora(MEAN), [1, 1, 1]);
    let saved = plain - flops::train_of(frozen.model(), Part::Whole, &lora, batch);
    // The gradients of the six A, and of their outputs in the first block, below which nothing is trained.
    assert!((saved - (6.0 + 2.0) * 2.0 * 21.0 * 24.0).abs() < 1e-6, "{saved}");
}

#[test]
fn an_upload_or_a_stack_of_another_shape_is_refused() {
    let mut scene = Scene::new(Aggregation::Flora, [1, 2, 3]);
    scene.play(1);
    let (ask, exchange) = (scene.ask(0, 2), Exchange { round: 2, index: 0 });
    let of_another = scene.upload(1, 2).into_iter().map(|(name, values)| {
        let kind = if name.contains("lora") { PayloadKind::Adapter } else { PayloadKind::Head };
        WireTensor::from_tensor(name, kind, &values, Element::F32).unwrap()
    });
    let upload = Message { tensors: of_another.collect(), ..answer(&ask) };
    let error = scene.server.take(0, exchange, &upload, &Figures::default()).unwrap_err().to_string();
    assert!(error.contains("expected bert.encoder.layer.0.attention.self.query.lora_A.weight"), "{error}");
    let mut client = scene.client(0);
    let mut short = ask.clone();
    short.tensors[0].shape = vec![5, 24];
    let error = client.take_in(&short).unwrap_err().to_string();
    assert!(error.contains("lora") || error.contains("residual_") || error.contains("bytes"), "{error}");
    let missing = Message { tensors: ask.tensors[1..].to_vec(), ..ask };
    assert!(client.take_in(&missing).is_err());
}

/// The adapter that is written is one pair a module, of the smallest rank that the logits allow.
#[test]
fn an_exported_adapter_gives_the_logits_within_1e_4_and_one_of_a_smaller_rank_does_not() {
    for aggregation in ["FLoRA", "FedExLoRA"] {
        let plan = plan(&format!("fedLLM: {{aggregation: {aggregation}}}"), &["training.rounds=3"]);
        let ended = run_with_unequal_clients(&plan);
        let model = ended.outcome.half.model().unwrap();
        let probes = encode(&records(4, 2000), &Labels::new(plan.data.labels.clone())).unwrap();
        let condensed = condense(model, &plan.lora, &probes, 0).unwrap().expect("there is a residual");
        assert!(condensed.residuals().iter().all(Option::is_none));
        let logits = |model: &Model| crate::evaluate::logits(model, &probes, 0, 4);
        let difference = |other: &Model| largest_difference(&flat(&[logits(other)]), &flat(&[logits(model)]));
        assert!(difference(&condensed) <= 1e-4, "{aggregation}: {}", difference(&condensed));
        let rank = condensed.adapter().pairs().next().unwrap()[0].tensor.size()[0];
        assert!((3..=24).contains(&rank), "{rank}");
        assert!(condensed.adapter().pairs().all(|[a, b]| a.tensor.size()[0] == rank && b.tensor.size()[1] == rank));
        let fewer = condensed
            .adapter()
            .pairs()
            .map(|[a, b]| LowRank { up: b.tensor.narrow(1, 0, rank - 1), down: a.tensor.narrow(0, 0, rank - 1) });
        let fewer = condensed.with_pairs(&plan.lora, fewer.collect());
        assert!(difference(&fewer) > 1e-4, "{aggregation}: {}", difference(&fewer));
        read_again_by_its_own_files(&condensed, &plan, &probes, &flat(&[logits(model)]));
    }
}

/// The files say rank and scale: who reads them has the same logits.
fn read_again_by_its_own_files(condensed: &Model, plan: &Plan, probes: &[Example], expected: &[f32]) {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("adapter");
    let export = Export {
        lora: &plan.lora,
        base: "tiny-bert".into(),
        revision: None,
        labels: &plan.data.labels,
        pad_id: 0,
        system_prompt: None,
    };
    write_adapter(&folder, condensed, &export).unwrap();
    let files = AdapterFiles::read(&folder).unwrap();
    let base = materials(plan, Vec::new()).base;
    let read = starting_model(base, &files.lora, Head::Classifier(3), 0, &plan.data.labels, Some(&files)).unwrap();
    let logits = flat(&[crate::evaluate::logits(&read, probes, 0, 4)]);
    assert!(largest_difference(&logits, expected) <= 1.1e-4);
}

#[test]
fn an_adapter_without_a_residual_is_exported_as_it_is() {
    let plan = plan("fedLLM: {aggregation: FlexLoRA}", &[]);
    let ended = run_with_unequal_clients(&plan);
    assert!(condense(ended.outcome.half.model().unwrap(), &plan.lora, &[], 0).unwrap().is_none());
}

/// Records for a tiny Llama, in which the last tokens are to be said.
fn said(count: usize, seed: u64) -> Vec<Record> {
    let answered = |record: Record| {
        let said = (0..record.tokens.len()).map(|place| place + 2 >= record.tokens.len()).collect();
        Record { answer: Some(Answer { said, ..Answer::default() }), ..record }
    };
    records(count, seed).into_iter().map(answered).collect()
}

/// A language model has no head to send: all that travels are pairs.
#[test]
fn every_aggregation_tunes_a_language_model() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny-llama");
    let options = LoadOptions { precision: Precision::F32, device: tch::Device::Cpu, language_head: true };
    for aggregation in ["FedAvg", "FFALoRA", "FLoRA", "FedExLoRA", "FlexLoRA"] {
        let framework = format!("fedLLM: {{aggregation: {aggregation}}}");
        let mut plan = plan(&framework, &["tuning.lora.targetModules=[q_proj, v_proj]", "training.rounds=2"]);
        plan.task = Task::Language;
        let base = Base::load(&folder, options).unwrap();
        let mut materials = Materials { base, ..materials(&plan, (0..3).map(|k| said(10 + k, k as u64)).collect()) };
        materials.corpus.evaluation = said(8, 2000);
        let ended = run(&plan, &materials, Kept::Nowhere, &Events::silent()).unwrap_or_else(|e| panic!("{e}"));
        let fresh = Model::new(materials.base.share(), &plan.lora, Head::Language, plan.seed).unwrap();
        let moved =
            largest_distance(&applied(ended.outcome.half.model().unwrap(), &plan.lora), &applied(&fresh, &plan.lora));
        assert!(moved > 1e-4, "{aggregation}: {moved}");
        for count in ended.outcome.account.rounds().iter().flat_map(|round| &round.bytes) {
            assert!(count.payload == 0 || count.kind == PayloadKind::Adapter, "{aggregation}: {count:?}");
        }
    }
}

/// The first step of a warm-up has a rate of 0: what a round ends with is the adapter that the run began with.
#[test]
fn every_aggregation_starts_from_the_adapter_that_is_named() {
    let above = tempfile::tempdir().unwrap();
    let trained = plan("fedLLM: {}", &[]);
    let ended = run_with_unequal_clients(&trained);
    let (folder, labels) = (above.path().join("adapter"), &trained.data.labels);
    let export = Export {
        lora: &trained.lora,
        base: "tiny-bert".into(),
        revision: None,
        labels,
        pad_id: 0,
        system_prompt: None,
    };
    let model = ended.outcome.half.model().unwrap();
    write_adapter(&folder, model, &export).unwrap();
    let still = [r#"training.schedule={"linear":{"warmupSteps":5}}"#, "training.rounds=1", "training.localSteps=1"];
    for aggregation in ["FedAvg", "FFALoRA", "FLoRA", "FedExLoRA", "FlexLoRA"] {
        let plan = plan(&format!("fedLLM: {{aggregation: {aggregation}}}"), &still);
        let clients = (0..3).map(|k| records(10 + k, k as u64)).collect();
        let initial = Some(Arc::new(AdapterFiles::read(&folder).unwrap()));
        let materials = Materials { initial, ..materials(&plan, clients) };
        let again = run(&plan, &materials, Kept::Nowhere, &Events::silent()).unwrap();
        let [again, first] = [again.outcome.half.model().unwrap(), model].map(|model| applied(model, &plan.lora));
        assert!(largest_distance(&again, &first) < 1e-6, "{aggregation}");
    }
}

/// What is frozen has no gradient, and what is beside the base runs again like the rest.
#[test]
fn gradient_checkpointing_changes_no_bit_of_frozen_or_stacked_adapters() {
    for aggregation in ["FFALoRA", "FLoRA"] {
        let run = |again: &str| {
            let plan = plan(&format!("fedLLM: {{aggregation: {aggregation}}}"), &[again]);
            bits(&applied(run_with_unequal_clients(&plan).outcome.half.model().unwrap(), &plan.lora))
        };
        let plainly = run("training.gradientCheckpointing=false");
        assert!(plainly == run("training.gradientCheckpointing=true"), "{aggregation}");
    }
}

/// How far each aggregation is from the mean product after a round of real steps; `docs/aggregation.md` shows it.
#[test]
fn after_a_round_of_real_steps_only_fedavg_and_flexlora_are_off() {
    for (aggregation, exact) in
        [("FedAvg", false), ("FFALoRA", true), ("FLoRA", true), ("FedExLoRA", true), ("FlexLoRA", false)]
    {
        let framework = format!("fedLLM: {{aggregation: {aggregation}}}");
        let plan = plan(&framework, &["training.rounds=1", "training.localSteps=10", "tuning.lora.dropout=0"]);
        let ended = run_with_unequal_clients(&plan);
        let counted: Vec<(f64, Vec<Tensor>)> = ended
            .clients
            .iter()
            .enumerate()
            .map(|(k, client)| ((10 + k) as f64, applied(&client.half.seat().model, &plan.lora)))
            .collect();
        let target = weighted_means(counted.iter().map(|(examples, products)| (*examples, &products[..])));
        let global = applied(ended.outcome.half.model().unwrap(), &plan.lora);
        let errors = global.iter().zip(&target).map(|(global, target)| norm(&(global - target)) / norm(target));
        let error = errors.fold(0.0, f64::max);
        println!("{aggregation}: largest relative error of a module {error:.2e}");
        assert_eq!(error < 1e-5, exact, "{aggregation}: {error}");
    }
}
