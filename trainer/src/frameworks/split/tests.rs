//! Split's oracles: what goes over the wire, message by message, and what every cut must come to.

use std::{collections::VecDeque, path::Path};

use fedtune_crds::report::{Direction, PayloadKind};
use tch::Device;

use super::*;
use crate::{
    averages::weighted_means,
    data::{Answer, Labels, Record, encode},
    events::Events,
    frameworks::{
        Spare, Stepper,
        tests::{adapter_of, flat, one_client, run_with_unequal_clients, worker},
    },
    local::train,
    models::{Base, LoadOptions, Model, Precision},
    plan::{Plan, Task},
    random::Key,
    rounds::Exchange,
    run::{
        local::{Kept, run},
        materials::Materials,
    },
    testing::{materials, plan, records},
    wire::{Line, LinkError, Message, Subject, encode as frames},
};

/// The server's stepper at the other end of a line that keeps all that is said.
struct Recorded {
    stepper: Box<dyn Stepper>,
    said: Vec<(Direction, Message)>,
    replies: VecDeque<Message>,
}

impl Line for Recorded {
    fn send(&mut self, message: Message) -> Result<(), LinkError> {
        let reply = self.stepper.step(&message).unwrap_or_else(|error| panic!("{error}"));
        self.said.extend([(Direction::Up, message), (Direction::Down, reply.clone())]);
        self.replies.push_back(reply);
        Ok(())
    }

    fn receive(&mut self) -> Result<Message, LinkError> {
        Ok(self.replies.pop_front().expect("a client waits for one reply to each message"))
    }
}

/// A fresh model of this plan and how it is trained.
fn fresh(plan: &Plan, materials: &Materials) -> (Model, crate::local::Recipe) {
    let recipe = plan.recipe(3, 0, plan.lora.clone());
    (Model::new(materials.base.share(), &plan.lora, recipe.head, plan.seed).unwrap(), recipe)
}

/// All that the only client and the server say in the first round, the question and the answer included.
fn first_round(plan: &Plan, materials: &Materials, records: &[Record]) -> Vec<(Direction, Message)> {
    let (model, recipe) = fresh(plan, materials);
    let (base, lora, head, seed) = (materials.base.share(), plan.lora.clone(), recipe.head, plan.seed);
    let mut server = plan.framework.server_half(ServerSeat {
        recipe,
        model,
        spare: Spare(Box::new(move || Model::new(base.share(), &lora, head, seed).unwrap())),
        clients: vec!["silo/0".to_owned()],
        all_data: Vec::new(),
        public: Vec::new(),
        evaluation: Vec::new(),
        worker: worker(),
    });
    let (model, recipe) = fresh(plan, materials);
    let mut client = plan.framework.client_half(ClientSeat {
        ordinal: 0,
        recipe,
        model,
        train: encode(records, &Labels::new(plan.data.labels.clone())).unwrap(),
        public: Vec::new(),
        evaluation: Vec::new(),
        worker: worker(),
    });
    let ask = Message { attempt: 1, ..server.ask(0, Exchange { round: 1, index: 0 }).unwrap() };
    let mut line = Recorded { stepper: server.stepper(0, 1, 2).unwrap(), said: Vec::new(), replies: VecDeque::new() };
    let answer = client.answer(&ask, &mut line).unwrap();
    [vec![(Direction::Down, ask)], line.said, vec![(Direction::Up, answer)]].concat()
}

/// Every byte that a message is on the wire.
fn bytes(message: &Message) -> Vec<u8> {
    frames(message.clone(), "run").unwrap().flat_map(|frame| prost::Message::encode_to_vec(&frame)).collect()
}

/// The same texts with other labels: a for b, b for c, c for a.
fn with_labels_permuted(records: &[Record]) -> Vec<Record> {
    let next = |label: &String| ["b", "c", "a"][["a", "b", "c"].iter().position(|known| known == label).unwrap()];
    let permute =
        |record: &Record| Record { label: record.label.as_ref().map(|l| next(l).to_owned()), ..record.clone() };
    records.iter().map(permute).collect()
}

const U_SHAPED: &str = "splitFedLLM: {variant: V1, cutLayer: 1, head: Client}";

#[test]
fn permuted_labels_leave_every_byte_of_the_first_steps_forward_pass_unchanged() {
    for codec in ["F32", "INT8"] {
        let framework = format!("splitFedLLM: {{variant: V1, cutLayer: 1, head: Client, activationCodec: {codec}}}");
        let plan = one_client(&framework, &[]);
        let (materials, records) = (materials(&plan, Vec::new()), records(10, 0));
        let said = first_round(&plan, &materials, &records);
        let permuted = first_round(&plan, &materials, &with_labels_permuted(&records));
        let subjects: Vec<Subject> = said.iter().map(|(_, message)| message.subject).collect();
        let step = [Subject::Step, Subject::StepReply, Subject::StepGradient, Subject::StepGradientReply];
        assert_eq!(subjects, [&[Subject::Begin][..], &step, &step, &[Subject::Upload]].concat());
        for ((_, one), (_, other)) in said.iter().zip(&permuted).take(3) {
            assert!(bytes(one) == bytes(other), "a {} tells labels apart", one.subject);
        }
        // The gradient is the first that cannot but tell them apart.
        assert!(bytes(&said[3].1) != bytes(&permuted[3].1));
    }
}

#[test]
fn labels_and_losses_are_in_no_message_of_a_step_where_the_head_is_the_clients() {
    let plan = one_client(U_SHAPED, &[]);
    let said = first_round(&plan, &materials(&plan, Vec::new()), &records(10, 0));
    let of_steps = &said[1..said.len() - 1];
    assert_eq!(of_steps.len(), 2 * 4);
    for (_, message) in of_steps {
        assert!(message.fields.is_null(), "{message:?}");
        assert!(!message.payload_by_kind().contains_key(&PayloadKind::Label), "{message:?}");
        assert!(!message.payload_by_kind().contains_key(&PayloadKind::Head), "{message:?}");
    }
    // Where the head is the server's both are there, so that this test could fail.
    let plan = one_client("splitFedLLM: {variant: V1, cutLayer: 1}", &[]);
    let said = first_round(&plan, &materials(&plan, Vec::new()), &records(10, 0));
    assert!(said[1].1.payload_by_kind().contains_key(&PayloadKind::Label));
    assert!(said[2].1.fields["loss"].is_f64());
}

#[test]
fn clients_that_keep_their_labels_do_not_say_how_many_they_have() {
    let counts = |framework: &str| -> Vec<Vec<u64>> {
        let plan = plan(framework, &[]);
        let ended = run_with_unequal_clients(&plan);
        ended.outcome.account.clients(&plan).into_iter().map(|client| client.label_counts).collect()
    };
    assert_eq!(counts(U_SHAPED), vec![vec![0; 3]; 3]);
    let told = counts("splitFedLLM: {variant: V1, cutLayer: 1}");
    assert_eq!(told.iter().map(|counts| counts.iter().sum::<u64>()).collect::<Vec<_>>(), [10, 11, 12]);
}

/// TRAINER: `2 B S c + 4 B` and labels a step, `4 B S c + 4 B` with the head at the client; `2 N_c 4` a round.
#[test]
fn the_bytes_of_a_round_are_those_of_the_formula_for_each_codec() {
    // d = 24; r = 2 on query and value of one block, 4 r (in + out) bytes each; head of 3 labels, with a bias.
    let (adapter, head) = (2 * 4 * 2 * (24 + 24), 4 * (3 * 24 + 3));
    for (codec, c) in [("F32", 96), ("BF16", 48), ("F16", 48), ("INT8", 28)] {
        for side in ["Server", "Client"] {
            let framework = format!("splitFedLLM: {{cutLayer: 1, head: {side}, activationCodec: {codec}}}");
            let plan = one_client(&framework, &[]);
            let said = first_round(&plan, &materials(&plan, Vec::new()), &records(10, 0));
            let steps = said.iter().filter(|(_, message)| message.subject == Subject::Step);
            let shapes: Vec<_> = steps.map(|(_, step)| (step.tensors[0].shape[0], step.tensors[0].shape[1])).collect();
            let rows: i64 = shapes.iter().map(|(rows, _)| rows).sum();
            let tokens: i64 = shapes.iter().map(|(rows, seq)| rows * seq).sum();
            let formula = match side {
                "Server" => 2 * tokens * c + 4 * rows + 4 * rows + 2 * adapter,
                _ => 4 * tokens * c + 4 * rows + 2 * (adapter + head),
            };
            let counted: u64 = said.iter().map(|(_, message)| message.payload_bytes()).sum();
            assert_eq!(counted, formula as u64, "{codec}, head: {side}");
            let steps = StepSizes { rows: rows as u64, tokens: tokens as u64 };
            let materials = materials(&plan, Vec::new());
            let recipe = fresh(&plan, &materials).1;
            let facts = PayloadFacts {
                client: 0,
                shape: materials.base.shape(),
                recipe: &recipe,
                before: &[],
                public_reads: 8,
                steps,
            };
            let mut by_kind = Payload::new();
            for (direction, message) in &said {
                for (kind, bytes) in message.payload_by_kind() {
                    *by_kind.entry((*direction, kind)).or_default() += bytes;
                }
            }
            assert_eq!(by_kind, plan.framework.payload(&facts), "{codec}, head: {side}");
        }
    }
}

fn two_groups(framework: &str, cuts: [usize; 2], sets: &[&str]) -> Plan {
    let [small, large] = cuts;
    let groups = format!(
        "clients.groups=[{{name: small, replicas: 1, cutLayer: {small}}}, {{name: large, replicas: 2, cutLayer: {large}}}]"
    );
    plan(framework, &[sets, &[groups.as_str()]].concat())
}

/// A local step of the whole model and one of its halves are the same step, so that each client's whole is known.
#[test]
fn with_cuts_at_2_and_5_every_block_is_the_weighted_mean_over_all_clients() {
    // Six blocks.
    let path = crate::models::golden::real_model("minilm");
    let options = LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head: false };
    let base = Base::load(&path, options).unwrap();
    for head in ["Server", "Client"] {
        let framework = format!("splitFedLLM: {{variant: V1, head: {head}}}");
        let plan = two_groups(&framework, [2, 5], &["training.rounds=1"]);
        let clients: Vec<_> = (0..3).map(|k| records(10 + k, k as u64)).collect();
        let materials = Materials { base: base.share(), ..materials(&plan, clients.clone()) };
        let ended = run(&plan, &materials, Kept::Nowhere, &Events::silent()).unwrap();
        let trained = clients.iter().enumerate().map(|(client, records)| {
            let (model, recipe) = fresh(&plan, &materials);
            let examples = encode(records, &Labels::new(plan.data.labels.clone())).unwrap();
            let key = Key { seed: plan.seed, client: client as u32, round: 1, step: 0 };
            train(&model, &examples, &recipe, key, &mut worker()).unwrap();
            (records.len() as f64, adapter::snapshot(&model, Part::Whole))
        });
        let trained: Vec<_> = trained.collect();
        let expected = weighted_means(trained.iter().map(|(examples, values)| (*examples, &values[..])));
        assert_eq!(adapter_of(&ended), flat(&expected), "head: {head}");
        assert!(adapter_of(&ended) != flat(&trained[0].1), "one client alone is not the mean");
        let cuts = ended.outcome.account.clients(&plan).into_iter().map(|client| client.cut_layer);
        assert_eq!(cuts.collect::<Vec<_>>(), [Some(2), Some(5), Some(5)]);
    }
}

/// In F32 nothing depends on where the model is cut.
#[test]
fn equal_and_unequal_cuts_of_groups_give_the_bits_of_one_cut_for_all() {
    for head in ["Server", "Client"] {
        let framework = format!("splitFedLLM: {{variant: V1, cutLayer: 1, head: {head}}}");
        let of_all = adapter_of(&run_with_unequal_clients(&plan(&framework, &[])));
        for cuts in [[1, 1], [1, 2], [2, 1]] {
            let bits = adapter_of(&run_with_unequal_clients(&two_groups(&framework, cuts, &[])));
            assert_eq!(bits, of_all, "cuts {cuts:?}, head: {head}");
        }
    }
}

#[test]
fn a_cut_above_a_groups_model_is_refused_by_the_name_of_the_group() {
    let plan = two_groups("splitFedLLM: {variant: V1}", [1, 3], &[]);
    let materials = materials(&plan, (0..3).map(|k| records(10, k)).collect());
    let error = run(&plan, &materials, Kept::Nowhere, &Events::silent()).err().unwrap().to_string();
    assert!(error.starts_with("clients of group large are to hold 3 blocks, and the model has 3;"), "{error}");
}

#[test]
#[should_panic(expected = "variant V2 has one server half, so every group is cut where")]
fn v2_with_unequal_cuts_is_refused() {
    two_groups("splitFedLLM: {variant: V2, cutLayer: 1}", [1, 2], &[]);
}

/// A plan of the language task on the tiny Llama.
fn language(framework: &str) -> (Plan, Materials) {
    let plan = one_client(framework, &["tuning.lora.targetModules=[q_proj, v_proj]"]);
    let plan = Plan { task: Task::Language, ..plan };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny-llama");
    let options = LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head: true };
    let base = Base::load(&path, options).unwrap();
    let mut materials = Materials { base, ..materials(&plan, vec![with_answers(records(10, 0))]) };
    materials.corpus.evaluation = with_answers(records(8, 2000));
    (plan, materials)
}

/// The second half of each text is the answer, but of every fifth text nothing is.
fn with_answers(records: Vec<Record>) -> Vec<Record> {
    let answered = |(index, record): (usize, Record)| {
        let said = (0..record.tokens.len()).map(|place| index % 5 != 4 && 2 * place >= record.tokens.len()).collect();
        Record { answer: Some(Answer { said, ..Answer::default() }), ..record }
    };
    records.into_iter().enumerate().map(answered).collect()
}

#[test]
fn split_of_a_language_model_with_one_client_equals_central_to_the_last_bit() {
    let trained = |framework: &str| {
        let (plan, materials) = language(framework);
        adapter_of(&run(&plan, &materials, Kept::Nowhere, &Events::silent()).unwrap())
    };
    let central = trained("central: {}");
    for head in ["Server", "Client"] {
        for (variant, cut) in [("V1", 1), ("V1", 2), ("V2", 2)] {
            let framework = format!("splitFedLLM: {{variant: {variant}, cutLayer: {cut}, head: {head}}}");
            assert_eq!(trained(&framework), central, "{framework}");
        }
    }
}

/// Which tokens are to be said is a label, too; the tokens themselves are text that the front reads.
#[test]
fn which_tokens_are_to_be_said_leaves_the_first_forward_pass_of_a_language_model_unchanged() {
    let (plan, materials) = language("splitFedLLM: {variant: V1, cutLayer: 1, head: Client}");
    let answered = with_answers(records(10, 0));
    let turned = |record: &Record| {
        let answer = record.answer.clone().unwrap_or_default();
        let said = answer.said.iter().map(|said| !said).collect();
        Record { answer: Some(Answer { said, ..answer }), ..record.clone() }
    };
    let others: Vec<Record> = answered.iter().map(turned).collect();
    let (said, turned) = (first_round(&plan, &materials, &answered), first_round(&plan, &materials, &others));
    for ((_, one), (_, other)) in said.iter().zip(&turned).take(3) {
        assert!(bytes(one) == bytes(other), "a {} tells apart what is to be said", one.subject);
    }
    assert!(bytes(&said[3].1) != bytes(&turned[3].1));
}

/// Blocks below and above the cut run again in backward, at the client and at the server, dropout included.
#[test]
fn gradient_checkpointing_changes_no_bit_of_either_half() {
    for framework in [
        "splitFedLLM: {variant: V1, cutLayer: 1}",
        "splitFedLLM: {variant: V2, cutLayer: 1}",
        "splitFedLLM: {variant: V1, cutLayer: 1, head: Client}",
    ] {
        let run = |again: &str| {
            let plan = plan(framework, &[again, "tuning.lora.dropout=0.3"]);
            let ended = run_with_unequal_clients(&plan);
            let flops: f64 = ended.outcome.account.clients(&plan).iter().map(|client| client.flops.train).sum();
            (adapter_of(&ended), flops)
        };
        let (plainly, flops) = run("training.gradientCheckpointing=false");
        let (again, more) = run("training.gradientCheckpointing=true");
        assert!(plainly == again, "{framework}");
        assert!(more > flops, "{framework}: the blocks that run again are counted");
    }
}
