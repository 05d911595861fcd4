use serde::Deserialize;

use super::*;
use crate::models::golden::{cases, file, json, largest_difference, load, query_value, real_model, tensors};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    model: String,
    prompts: Vec<Vec<u32>>,
    eos: u32,
    most_tokens: usize,
    tokens: Vec<Vec<u32>>,
}

/// A model whose adapter adds nothing.
fn untouched(name: &str) -> Model {
    let base = load(&if name.starts_with("tiny-") { file(name) } else { real_model(name) });
    let lora = query_value(&base);
    Model::new(base, &lora, Head::Language, 0).unwrap()
}

fn greedy(ends: Vec<u32>, most_tokens: usize) -> Generation {
    Generation { choice: Choice::Greedy, ends, most_tokens, pad_id: 0 }
}

fn go_on(_row: usize, _token: u32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn rows(prompts: &[Vec<u32>]) -> Vec<&[u32]> {
    prompts.iter().map(Vec::as_slice).collect()
}

/// Golden: `generate(do_sample=False)` of the same prompts in one batch, see `tests/golden/make_golden.py`.
#[test]
fn greedy_answers_are_those_of_transformers_on_tiny_models_and_on_smollm2() {
    let cases: Vec<Case> = json("generation.json");
    assert_eq!(cases.len(), 6);
    for case in cases {
        let model = untouched(&case.model);
        let mut told = vec![Vec::new(); case.prompts.len()];
        let answers = model
            .generate(&rows(&case.prompts), &greedy(vec![case.eos], case.most_tokens), |row, token| {
                told[row].push(token);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(answers, case.tokens, "{}", case.model);
        assert_eq!(told, answers, "{}", case.model);
        // Alone, without padding, each prompt has the same answer.
        for (prompt, answer) in case.prompts.iter().zip(&case.tokens).take(2) {
            let alone = model.generate(&[prompt], &greedy(vec![case.eos], case.most_tokens), go_on).unwrap();
            assert_eq!(&alone[0], answer, "{}", case.model);
        }
    }
}

#[test]
fn logits_with_kept_keys_and_values_are_those_without_within_1e_5() {
    for case in cases().into_iter().filter(|case| case.head() == Head::Language) {
        let golden = tensors(&case.name);
        let model = case.model(&golden);
        let prompts: [&[u32]; 2] = [&[5, 9, 7, 33, 12, 40, 3], &[8, 6]];
        let Tokens { ids, mask, .. } = Tokens::left_padded(&prompts, 0, model.device());
        let mut run = Run::new(&model, ids, mask);
        for step in 0..6 {
            let tokens = Tokens { ids: all_ids(&run, step, &prompts), mask: run.mask.shallow_clone(), places: None };
            let kept = tch::no_grad(|| run.logits());
            let whole = tch::no_grad(|| model.forward(&tokens, None)).view([2, -1, 61]).select(1, -1);
            let difference = largest_difference(&kept, &whole);
            assert!(difference < 1e-5, "{} at step {step}: logits differ by {difference}", case.name);
            run.push(&next(step));
        }
    }
}

/// Tokens that nobody chose, so that both ways are given the same.
fn next(step: u32) -> [u32; 2] {
    [3 + 7 * step, 50 - 5 * step]
}

fn all_ids(run: &Run<'_>, steps: u32, prompts: &[&[u32]]) -> Tensor {
    let grown: Vec<Vec<u32>> = prompts
        .iter()
        .enumerate()
        .map(|(row, prompt)| prompt.iter().copied().chain((0..steps).map(|step| next(step)[row])).collect())
        .collect();
    Tokens::left_padded(&rows(&grown), 0, run.model.device()).ids
}

#[test]
fn who_listens_may_break_off() {
    let model = untouched("tiny-llama-untied");
    let mut heard = 0;
    let answers = model
        .generate(&[&[5, 9], &[7]], &greedy(Vec::new(), 12), |_, _| {
            heard += 1;
            if heard == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn an_answer_ends_where_the_model_has_no_more_positions() {
    let model = untouched("tiny-gpt2");
    let answers = model.generate(&[&[5; 20]], &greedy(Vec::new(), 100), go_on).unwrap();
    assert_eq!(answers[0].len(), model.shape().max_positions - 20);
}

#[test]
fn chance_follows_its_key_and_each_row_has_its_own() {
    let model = untouched("tiny-qwen2");
    let answers = |key, top_p| {
        let choice = Choice::Sample { temperature: 5.0, top_p, key };
        let asked = Generation { choice, ..greedy(Vec::new(), 10) };
        model.generate(&[&[5, 9], &[5, 9]], &asked, go_on).unwrap()
    };
    let key = Key { seed: 3, ..Key::default() };
    let first = answers(key, 1.0);
    assert_eq!(first, answers(key, 1.0));
    assert_ne!(first, answers(Key { seed: 4, ..key }, 1.0));
    assert_ne!(first[0], first[1], "the same prompt twice");
    // So small a share that the likeliest token alone reaches it.
    let likeliest = model.generate(&[&[5, 9], &[5, 9]], &greedy(Vec::new(), 10), go_on).unwrap();
    assert_eq!(answers(key, 1e-9), likeliest);
}

#[test]
fn tokens_are_drawn_as_often_as_they_are_likely_and_never_from_beyond_the_share() {
    let weights = Tensor::from_slice(&[0.1f64, 0.5, 0.15, 0.25]);
    let mut stream = Key::default().stream(Site::Generation(0));
    let mut counts = [0; 4];
    for _ in 0..4000 {
        counts[draw(&weights, 0.7, &mut stream) as usize] += 1;
    }
    // Tokens 1 and 3 reach 0.75: of them token 1 has two thirds, give or take four standard errors (0.0075 each).
    assert_eq!((counts[0], counts[2]), (0, 0));
    assert!((f64::from(counts[1]) / 4000.0 - 2.0 / 3.0).abs() < 0.03, "{counts:?}");
    let every: std::collections::BTreeSet<u32> = (0..400).map(|_| draw(&weights, 1.0, &mut stream)).collect();
    assert_eq!(every.len(), 4);
}

#[test]
fn what_cannot_be_answered_is_refused_with_a_sentence() {
    let model = untouched("tiny-gpt2");
    let refused = |prompts: &[&[u32]], asked: &Generation| model.generate(prompts, asked, go_on).unwrap_err();
    let asked = greedy(Vec::new(), 4);
    assert_eq!(refused(&[], &asked), GenerateError::NoPrompt);
    assert_eq!(refused(&[&[5], &[]], &asked), GenerateError::EmptyPrompt { prompt: 1 });
    let long = GenerateError::LongPrompt { prompt: 0, tokens: 24, positions: 24 };
    assert_eq!(refused(&[&[5; 24]], &asked), long);
    let unknown = |token| GenerateError::UnknownToken { prompt: 0, token, vocab: 61 };
    assert_eq!(refused(&[&[61]], &asked), unknown(61));
    assert_eq!(refused(&[&[5]], &Generation { pad_id: 70, ..asked.clone() }), unknown(70));
    for (temperature, top_p, field) in [(0.0, 1.0, "temperature"), (f64::NAN, 1.0, "temperature"), (1.0, -1.0, "top_p")]
    {
        let choice = Choice::Sample { temperature, top_p, key: Key::default() };
        let error = refused(&[&[5]], &Generation { choice, ..asked.clone() });
        assert!(matches!(error, GenerateError::NotPositive { field: found, .. } if found == field), "{error}");
    }
    let base = load(&file("tiny-gpt2"));
    let lora = query_value(&base);
    let classifier = Model::new(base, &lora, Head::Classifier(2), 0).unwrap();
    assert_eq!(classifier.generate(&[&[5]], &asked, go_on).unwrap_err(), GenerateError::Classifier);
}
