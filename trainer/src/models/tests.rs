//! What the models compute, against transformers and PEFT, and against themselves cut in two.

use tch::{Cuda, Device, Kind, Tensor};

use super::{golden::*, *};
use crate::random::Key;

fn loss(logits: &Tensor, labels: &Tensor) -> Tensor {
    logits.cross_entropy_for_logits(&labels.to_device(logits.device()))
}

fn gradients(model: &Model) -> Vec<Tensor> {
    model.adapter().parameters().iter().map(|parameter| parameter.tensor.grad().copy()).collect()
}

fn clear_gradients(model: &Model) {
    for parameter in model.adapter().parameters() {
        parameter.tensor.shallow_clone().zero_grad();
    }
}

/// Puts numbers where the untrained adapter has zeros: with B = 0 the gradient of A would be zero.
fn fill_b(model: &Model) {
    for (ordinal, parameter) in model.adapter().parameters().iter().enumerate() {
        let wave = Tensor::arange(parameter.tensor.numel() as i64, (Kind::Float, parameter.tensor.device()));
        let values = (wave + ordinal as i64).sin().view(parameter.tensor.size().as_slice()) * 0.05;
        tch::no_grad(|| parameter.tensor.shallow_clone().copy_(&values));
    }
}

#[test]
fn logits_of_tiny_models_are_those_of_transformers_within_1e5() {
    for case in cases() {
        let golden = tensors(&case.name);
        let logits = case.model(&golden).forward(&batch(&golden), None);
        let difference = largest_difference(&logits, &golden["logits"]);
        assert!(difference < 1e-5, "{}: logits differ by {difference}", case.name);
    }
}

#[test]
fn loss_and_gradients_of_tiny_models_are_those_of_peft_within_1e4() {
    for case in cases() {
        let golden = tensors(&case.name);
        let model = case.model(&golden);
        let loss = loss(&model.forward(&batch(&golden), None), &golden["labels"]);
        loss.backward();
        assert!((loss.double_value(&[]) - golden["loss"].double_value(&[0])).abs() < 1e-4, "{}", case.name);
        for parameter in model.adapter().parameters() {
            let expected = &golden[&format!("gradient.{}", parameter.name)];
            let difference = largest_difference(&parameter.tensor.grad(), expected);
            let size = expected.abs().max().double_value(&[]);
            assert!(size > 0.0, "{}: {} has no gradient", case.name, parameter.name);
            assert!(difference < 1e-4, "{}: gradient of {} differs by {difference}", case.name, parameter.name);
        }
    }
}

/// The last half of each row is said, nothing of the second row.
#[test]
fn a_row_of_which_nothing_is_said_is_read_nowhere_and_the_loss_is_the_mean_over_the_others() {
    for case in cases().into_iter().filter(|case| case.head() == Head::Language) {
        let golden = tensors(&case.name);
        let (tokens, places) = (batch(&golden), Vec::<i64>::try_from(&golden["places"]).unwrap());
        let second = tokens.seq() as i64..2 * tokens.seq() as i64;
        assert!(places.iter().all(|place| !second.contains(place)) && places.len() > 4, "{}: {places:?}", case.name);
        let logits = case.model(&golden).forward(&tokens, None);
        assert_eq!(logits.size(), [places.len() as i64, 61], "{}", case.name);
        let likely = logits.log_softmax(-1, Kind::Float).gather(1, &golden["labels"].unsqueeze(1), false);
        let mean = -likely.sum(Kind::Double).double_value(&[]) / places.len() as f64;
        assert!((mean - golden["loss"].double_value(&[0])).abs() < 1e-4, "{}: {mean}", case.name);
    }
}

#[test]
fn an_encoder_has_no_layer_over_the_vocabulary() {
    let base = load(&file("tiny-bert"));
    let lora = query_value(&base);
    let error = Model::new(base, &lora, Head::Language, 0).unwrap_err();
    assert_eq!(error, ModelError::NoLanguageHead { architecture: "BERT".into() });
}

/// A window that no row reaches changes nothing, a shorter one does.
#[test]
fn a_window_on_attention_hides_what_lies_before_it() {
    let golden = tensors("mistral-language");
    let folder = tempfile::tempdir().unwrap();
    let with_window = |window: serde_json::Value| {
        let mut config: serde_json::Value = json("tiny-mistral/config.json");
        config["sliding_window"] = window;
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        std::fs::copy(file("tiny-mistral/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        let base = load(folder.path());
        let lora = query_value(&base);
        Model::new(base, &lora, Head::Language, 0).unwrap().forward(&batch(&golden), None)
    };
    let [none, wide, narrow] = [serde_json::Value::Null, 64.into(), 4.into()].map(with_window);
    assert!(wide.equal(&none));
    assert!(largest_difference(&narrow, &none) > 1e-2);
}

#[test]
fn the_adapter_lists_the_parameters_that_peft_lists_in_its_order() {
    for case in cases() {
        let model = case.model(&tensors(&case.name));
        let names: Vec<_> = model.adapter().parameters().iter().map(|parameter| parameter.name.clone()).collect();
        assert_eq!(names, case.order, "{}", case.name);
    }
}

#[test]
fn logits_of_minilm_and_smollm2_are_those_of_transformers_within_a_thousandth() {
    for name in ["minilm", "smollm2"] {
        let golden = tensors(name);
        let base = load(&real_model(name));
        let lora = query_value(&base);
        let labels = golden["head.weight"].size()[0] as usize;
        let model = Model::new(base, &lora, Head::Classifier(labels), 0).unwrap();
        for parameter in model.adapter().parameters().iter().filter(|p| p.kind == ParameterKind::Head) {
            let part = parameter.name.rsplit('.').next().unwrap();
            tch::no_grad(|| parameter.tensor.shallow_clone().copy_(&golden[&format!("head.{part}")]));
        }
        let logits = tch::no_grad(|| model.forward(&batch(&golden), None));
        let size = golden["logits"].abs().max().double_value(&[]);
        let difference = largest_difference(&logits, &golden["logits"]);
        assert!(difference < 1e-3 * size, "{name}: logits differ by {difference}, the largest is {size}");
    }
}

#[test]
fn a_model_cut_at_every_layer_gives_the_bits_of_the_whole() {
    for case in cases() {
        let golden = tensors(&case.name);
        let (model, tokens) = (case.model(&golden), batch(&golden));
        let whole = model.forward(&tokens, None);
        loss(&whole, &golden["labels"]).backward();
        let expected = gradients(&model);
        for cut_layer in 0..=model.shape().blocks {
            clear_gradients(&model);
            let front = model.front(cut_layer, &tokens, None);
            let hidden = front.detach().set_requires_grad(true);
            let logits = model.back(cut_layer, &hidden, &tokens.mask, tokens.places.as_ref(), None);
            loss(&logits, &golden["labels"]).backward();
            if front.requires_grad() {
                (&front * hidden.grad()).sum(Kind::Float).backward();
            }
            assert!(logits.equal(&whole), "{} cut at {cut_layer}: other logits", case.name);
            for (found, (expected, parameter)) in
                gradients(&model).iter().zip(expected.iter().zip(model.adapter().parameters()))
            {
                assert!(found.equal(expected), "{} cut at {cut_layer}: gradient of {}", case.name, parameter.name);
            }
        }
    }
}

#[test]
fn the_head_on_the_pooled_features_gives_the_logits() {
    for case in cases().into_iter().filter(|case| case.head() != Head::Language) {
        let golden = tensors(&case.name);
        let (model, tokens) = (case.model(&golden), batch(&golden));
        let pooled = model.pooled(&tokens).to_kind(Kind::Float);
        let (weight, bias) = model.adapter().head();
        assert_eq!(pooled.size(), [tokens.batch() as i64, model.shape().hidden as i64], "{}", case.name);
        assert!(pooled.linear(weight, bias).equal(&model.forward(&tokens, None)), "{}", case.name);
    }
}

#[test]
fn a_part_holds_its_blocks_and_the_back_holds_the_head() {
    let case = &cases()[0];
    let model = case.model(&tensors(&case.name));
    for cut_layer in 0..=model.shape().blocks {
        let (front, back) = (Part::Front(cut_layer), Part::Back(cut_layer));
        let names = |part| model.adapter().part(part).into_iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        assert!(model.adapter().part(front).iter().all(|parameter| parameter.block.unwrap() < cut_layer));
        assert_eq!([names(front), names(back)].concat(), names(Part::Whole));
        assert_eq!(names(back).last().unwrap(), "classifier.bias");
    }
}

#[test]
fn dropout_follows_its_key_and_nothing_else() {
    let golden = tensors("llama-query-value");
    let base = load(&file("tiny-llama"));
    let lora = LoraSettings { dropout: 0.5, ..query_value(&base) };
    let model = Model::new(base, &lora, Head::Classifier(3), 7).unwrap();
    fill_b(&model);
    let tokens = batch(&golden);
    let key = Key { seed: 7, client: 1, round: 2, step: 3 };
    let logits = |key| model.forward(&tokens, key);
    assert!(logits(Some(key)).equal(&logits(Some(key))));
    assert!(!logits(Some(key)).equal(&logits(Some(Key { step: 4, ..key }))));
    assert!(!logits(Some(key)).equal(&logits(None)));
    let front = model.front(2, &tokens, Some(key));
    assert!(model.back(2, &front, &tokens.mask, None, Some(key)).equal(&logits(Some(key))), "a cut changes no mask");
}

#[test]
fn dropout_keeps_the_expectation() {
    // One linear layer through many masks: the mean of inverted dropout is what no dropout gives.
    let golden = tensors("bert-query-value");
    let base = load(&file("tiny-bert"));
    let lora = LoraSettings { dropout: 0.3, ..query_value(&base) };
    let model = Model::new(base, &lora, Head::Classifier(3), 7).unwrap();
    fill_b(&model);
    let tokens = batch(&golden);
    let plain = model.front(1, &tokens, None);
    let draws = 400;
    let mean = (0..draws)
        .map(|step| model.front(1, &tokens, Some(Key { step, ..Key::default() })))
        .fold(plain.zeros_like(), |sum, hidden| sum + hidden)
        / f64::from(draws);
    // The layer norm behind it is not linear, so the means agree only about as well as the noise is small.
    let difference = (mean - &plain).abs().mean(Kind::Float).double_value(&[]);
    assert!(difference < 0.02, "means differ by {difference}");
}

#[test]
fn the_initial_adapter_depends_on_the_seed_alone_and_changes_no_logit() {
    let base = load(&file("tiny-llama"));
    let lora = query_value(&base);
    let golden = tensors("llama-query-value");
    let model = |seed| Model::new(base.share(), &lora, Head::Classifier(3), seed).unwrap();
    let (first, same, other) = (model(1), model(1), model(2));
    let parameters = |model: &Model| Tensor::cat(&flat(model), 0);
    assert!(parameters(&first).equal(&parameters(&same)));
    assert!(!parameters(&first).equal(&parameters(&other)));
    for parameter in first.adapter().parameters() {
        let (largest, mean) =
            (parameter.tensor.abs().max().double_value(&[]), parameter.tensor.mean(Kind::Float).double_value(&[]));
        let bound = 1.0 / (base.shape().hidden as f64).sqrt();
        match parameter.name.rsplit('.').nth(1).unwrap() {
            "lora_A" => assert!(largest <= bound && largest > 0.9 * bound && mean.abs() < 0.1 * bound),
            "lora_B" => assert!(largest == 0.0),
            _ => assert!(largest < 0.1 && mean.abs() < 0.01, "the head is small"),
        }
    }
    // B is zero, so the pairs add nothing: logits are the frozen model's under this head.
    let bare = LoraSettings { target_modules: vec!["down_proj".into()], ..lora.clone() };
    let bare = Model::new(base.share(), &bare, Head::Classifier(3), 1).unwrap();
    let head = &first.adapter().parameters().last().unwrap().tensor;
    tch::no_grad(|| bare.adapter().parameters().last().unwrap().tensor.shallow_clone().copy_(head));
    assert!(bare.forward(&batch(&golden), None).equal(&first.forward(&batch(&golden), None)));
}

fn flat(model: &Model) -> Vec<Tensor> {
    model.adapter().parameters().iter().map(|parameter| parameter.tensor.flatten(0, -1)).collect()
}

#[test]
fn no_gradient_flows_below_the_first_lora_layer() {
    let base = load(&file("tiny-llama"));
    let target_modules = vec!["model.layers.1.self_attn.v_proj".into()];
    let lora = LoraSettings { target_modules, ..query_value(&base) };
    let model = Model::new(base, &lora, Head::Classifier(3), 1).unwrap();
    let tokens = batch(&tensors("llama-query-value"));
    let requires_grad: Vec<_> =
        (0..=3).map(|cut_layer| model.front(cut_layer, &tokens, None).requires_grad()).collect();
    assert_eq!(requires_grad, [false, false, true, true]);
}

#[test]
fn a_model_can_move_to_the_thread_that_owns_it() {
    let model = cases()[0].model(&tensors(&cases()[0].name));
    let tokens = batch(&tensors(&cases()[0].name));
    let here = model.forward(&tokens, None);
    let there = std::thread::spawn(move || model.forward(&tokens, None)).join().unwrap();
    assert!(here.equal(&there));
}

#[test]
fn shared_models_train_apart_from_each_other() {
    let base = load(&file("tiny-bert"));
    let lora = query_value(&base);
    let (one, two) = (
        Model::new(base.share(), &lora, Head::Classifier(3), 1).unwrap(),
        Model::new(base.share(), &lora, Head::Classifier(3), 1).unwrap(),
    );
    let tokens = batch(&tensors("bert-query-value"));
    fill_b(&one);
    assert!(!one.forward(&tokens, None).equal(&two.forward(&tokens, None)));
    assert!(two.adapter().parameters().iter().all(|parameter| !parameter.tensor.grad().defined()));
}

#[test]
fn bf16_follows_f32_within_its_eight_bits() {
    for name in ["tiny-bert", "tiny-llama", "tiny-llama-sharded", "tiny-gpt2", "tiny-mistral", "tiny-qwen2"] {
        let logits = |precision| {
            let base = load_as(&file(name), precision, Device::Cpu);
            let lora = query_value(&base);
            let model = Model::new(base, &lora, Head::Classifier(3), 1).unwrap();
            fill_b(&model);
            let logits = model.forward(&batch(&tensors("bert-query-value")), None);
            assert_eq!(logits.kind(), Kind::Float);
            assert_eq!(model.front(1, &batch(&tensors("bert-query-value")), None).kind(), precision.kind());
            logits
        };
        let (wide, narrow) = (logits(Precision::F32), logits(Precision::BF16));
        let scale = wide.abs().max().double_value(&[]);
        let difference = largest_difference(&wide, &narrow);
        assert!(difference < 0.1 * scale && difference > 0.0, "{name}: differ by {difference}, the largest is {scale}");
    }
}

#[test]
fn cuda_follows_the_cpu_within_a_tolerance() {
    if !Cuda::is_available() {
        eprintln!("skipped: libtorch sees no GPU");
        return;
    }
    for case in cases() {
        let golden = tensors(&case.name);
        let base = load_as(&file(&case.model), Precision::F32, Device::Cuda(0));
        let model = Model::new(base, &case.lora(), case.head(), 0).unwrap();
        set(&model, &golden, "value.");
        let tokens = batch(&golden);
        let tokens = Tokens {
            ids: tokens.ids.to_device(Device::Cuda(0)),
            mask: tokens.mask.to_device(Device::Cuda(0)),
            places: tokens.places.map(|places| places.to_device(Device::Cuda(0))),
        };
        let logits = model.forward(&tokens, None);
        loss(&logits, &golden["labels"]).backward();
        let difference = largest_difference(&logits.to_device(Device::Cpu), &golden["logits"]);
        assert!(difference < 1e-3, "{}: logits differ by {difference}", case.name);
        for parameter in model.adapter().parameters() {
            let found = parameter.tensor.grad().to_device(Device::Cpu);
            let difference = largest_difference(&found, &golden[&format!("gradient.{}", parameter.name)]);
            assert!(difference < 1e-2, "{}: gradient of {} differs by {difference}", case.name, parameter.name);
        }
    }
}
