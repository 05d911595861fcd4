use super::*;
use crate::{
    models::Model,
    testing::{language_materials, language_plan, prompts},
};

/// A tiny Llama with an adapter that is not zero, and its recipe.
fn model() -> (Model, Recipe) {
    let plan = language_plan("fedLLM: {}", &[]);
    let recipe = plan.recipe(3, 0, plan.lora.clone());
    let model = Model::new(language_materials(&plan, Vec::new()).base, &plan.lora, recipe.head, 1).unwrap();
    for (ordinal, parameter) in model.adapter().parameters().iter().enumerate() {
        let wave = Tensor::arange(parameter.tensor.numel() as i64, (Kind::Float, tch::Device::Cpu)) + ordinal as i64;
        tch::no_grad(|| parameter.tensor.shallow_clone().copy_(&wave.sin().view_as(&parameter.tensor)));
    }
    (model, recipe)
}

fn examples(count: usize) -> Vec<Example> {
    let record = |record: crate::data::Record| Example { tokens: record.tokens, label: None, answer: record.answer };
    prompts(count, 3).into_iter().map(record).collect()
}

/// The likeliest token after these, by a whole forward pass of the row alone.
fn next(model: &Model, tokens: &[u32]) -> u32 {
    let tokens = crate::models::Tokens::right_padded(&[tokens], 0, model.device());
    let logits = tch::no_grad(|| model.forward(&tokens, None)); // [seq, vocab]
    logits.get(-1).argmax(0, false).int64_value(&[]) as u32
}

/// Sum of ln p of what is said, read off a forward pass of the row alone.
fn log_likelihood(model: &Model, example: &Example) -> f64 {
    let tokens = crate::models::Tokens::right_padded(&[&example.tokens], 0, model.device());
    let logits = tch::no_grad(|| model.forward(&tokens, None)).log_softmax(-1, Kind::Double);
    example.next_tokens().map(|(place, token)| logits.double_value(&[place as i64, i64::from(token)])).sum()
}

#[test]
fn loss_is_the_mean_over_the_tokens_that_are_said_whatever_the_batch() {
    let ((model, recipe), examples) = (model(), examples(9));
    let tokens: usize = examples.iter().map(Example::reads).sum();
    let expected = -examples.iter().map(|example| log_likelihood(&model, example)).sum::<f64>() / tokens as f64;
    for batch_size in [1, 4, 64] {
        let evaluation = evaluate(&model, &examples, &Recipe { batch_size, ..recipe.clone() });
        assert!((evaluation.loss() - expected).abs() < 1e-5, "{} {expected}", evaluation.loss());
        assert!((evaluation.perplexity().unwrap() - evaluation.loss().exp()).abs() < 1e-12);
    }
}

/// The answers that the model gives by itself, token after token, as the references of half of the rows.
#[test]
fn an_answer_is_exact_where_generating_greedily_gives_it() {
    let ((model, recipe), mut examples) = (model(), examples(8));
    for example in examples.iter_mut().step_by(2) {
        let places: Vec<usize> = example.next_tokens().map(|(place, _)| place + 1).collect();
        for place in places {
            example.tokens[place] = next(&model, &example.tokens[..place]);
        }
    }
    let exact = |example: &Example| {
        let mut said = example.next_tokens();
        let start = said.next().unwrap().0 + 1;
        let mut tokens = example.tokens[..start].to_vec();
        while tokens.len() < example.tokens.len() {
            tokens.push(next(&model, &tokens));
        }
        tokens == example.tokens
    };
    let generated = examples.iter().filter(|example| exact(example)).count();
    let text = evaluate(&model, &examples, &recipe).text.unwrap();
    assert!((4..8).contains(&generated), "{generated}");
    assert_eq!((text.exact as usize, text.examples), (generated, 8));
}

#[test]
fn the_likeliest_of_the_choices_is_chosen_and_counted_by_label() {
    let ((model, recipe), mut examples) = (model(), examples(12));
    for (index, example) in examples.iter_mut().enumerate() {
        let right = index % 3;
        let said = example.next_tokens().count();
        let start = example.tokens.len() - said;
        let choices: Vec<Vec<u32>> = (0..3).map(|choice| vec![55 + choice, 2]).collect();
        example.tokens.truncate(start);
        example.tokens.extend(&choices[right]);
        example.label = Some(right as u32);
        example.answer.as_mut().unwrap().choices = choices;
        example.answer.as_mut().unwrap().right = right;
    }
    let chosen = |example: &Example| {
        let answer = example.answer.as_ref().unwrap();
        let of = |choice: &Vec<u32>| log_likelihood(&model, &with_answer(example, answer, choice));
        let likelihoods: Vec<f64> = answer.choices.iter().map(of).collect();
        (0..3).max_by(|&a, &b| likelihoods[a].total_cmp(&likelihoods[b])).unwrap()
    };
    let evaluation = evaluate(&model, &examples, &recipe);
    let right = examples.iter().filter(|example| chosen(example) == example.answer.as_ref().unwrap().right).count();
    assert_eq!(evaluation.choices_accuracy(), Some(right as f64 / 12.0));
    assert!(
        (evaluation.accuracy() - right as f64 / 12.0).abs() < 1e-12,
        "choices are the headline where there are any"
    );
    assert_eq!(
        evaluation.labels.iter().map(|label| (label.have, label.given)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
        (12, 12)
    );
    assert!(evaluation.could_be(&recipe));
}

#[test]
fn a_row_in_which_nothing_is_said_counts_for_nothing() {
    let ((model, recipe), mut examples) = (model(), examples(3));
    let without = evaluate(&model, &examples, &recipe);
    examples.push(Example {
        tokens: vec![5, 6],
        label: None,
        answer: Some(Answer { said: vec![false; 2], ..Answer::default() }),
    });
    let with = evaluate(&model, &examples, &recipe);
    assert_eq!(with.text, without.text);
    assert!((with.loss() - without.loss()).abs() < 1e-6);
}
