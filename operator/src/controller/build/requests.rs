//! What the trainer asks its node for where no template says: cores and memory.
//! Must not be a limit: an estimate that is too low must not end a run.

use fedtune_crds::{FederatedFineTuneSpec, model::Precision, source::Source};
use serde_json::{Value, json};

use super::overlay::object;

/// What a process takes beside its model: program, libtorch, tokenizer, data and the allocator's slack.
const PROCESS_BYTES: f64 = 130e6;

/// Where nobody knows how large the model is.
const OTHERWISE: f64 = (1_u64 << 30) as f64;

/// Cores and memory of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Requests {
    threads: u32,
    mebibytes: u64,
}

/// What a process of a run asks for.
///
/// Memory is what `fedtune estimate` says of a client, from what is known before the model is: its size, if its name
/// tells it, as in `SmolLM2-135M`.
pub(super) fn of(spec: &FederatedFineTuneSpec) -> Requests {
    let bytes = parameters(&spec.model.source).map_or(OTHERWISE, |parameters| PROCESS_BYTES + memory(spec, parameters));
    Requests { threads: spec.training.threads, mebibytes: (bytes / f64::from(1 << 20)).ceil() as u64 }
}

/// Weights, and the activations of one batch as autograd keeps them.
fn memory(spec: &FederatedFineTuneSpec, parameters: f64) -> f64 {
    let element = match spec.model.precision {
        Precision::F32 => 4.0,
        Precision::BF16 => 2.0,
    };
    let tokens = f64::from(spec.training.batch_size) * f64::from(spec.training.max_sequence_length);
    let (hidden, blocks) = shape(parameters);
    // In and out of the linear layers of a block, about 19 times the hidden state, and two F32 copies for each norm.
    let of_a_token = blocks * hidden * (19.0 * element + 16.0);
    parameters * element + tokens * of_a_token
}

/// Width and blocks of a transformer of so many parameters: 12 times the square of its width a block, and a block for
/// each 128 of its width, as models from 1 to 70 billion have them.
fn shape(parameters: f64) -> (f64, f64) {
    let hidden = (parameters * 128.0 / 12.0).cbrt();
    (hidden, hidden / 128.0)
}

/// How many parameters a model's name says that it has.
fn parameters(source: &Source) -> Option<f64> {
    let name = match source {
        Source { hugging_face: Some(hub), .. } => &hub.repo,
        Source { path: Some(path), .. } => path,
        Source { http: Some(http), .. } => &http.url,
        Source { s3: Some(store), .. } => &store.url,
        Source { path: None, hugging_face: None, http: None, s3: None } => return None,
    };
    let last = name.trim_end_matches('/').rsplit('/').next()?;
    last.split(['-', '_']).find_map(number)
}

/// `135M` and `1.5b` as numbers.
fn number(word: &str) -> Option<f64> {
    let unit = match word.chars().last()? {
        'M' | 'm' => 1e6,
        'B' | 'b' => 1e9,
        _ => return None,
    };
    let digits = &word[..word.len() - 1];
    let is_number = digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.chars().all(|digit| digit.is_ascii_digit() || digit == '.');
    digits.parse::<f64>().ok().filter(|number| is_number && *number > 0.0).map(|number| number * unit)
}

impl Requests {
    /// Asks for what neither a request nor a limit in `pod` speaks of; a limit stands for the request. Where a template has
    /// put something else in their place, the API server refuses it.
    pub(super) fn fill_in(self, pod: &mut Value) {
        let Some(trainer) = pod.pointer_mut("/spec/containers/0").and_then(Value::as_object_mut) else { return };
        let Some(resources) = object(trainer, "resources") else { return };
        for (resource, amount) in [("cpu", self.threads.to_string()), ("memory", format!("{}Mi", self.mebibytes))] {
            let is_asked = |kind: &str| resources.get(kind).is_some_and(|amounts| !amounts[resource].is_null());
            if is_asked("limits") || is_asked("requests") {
                continue;
            }
            if let Some(requests) = object(resources, "requests") {
                requests.insert(resource.to_owned(), json!(amount));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_path(path: &str) -> Option<f64> {
        parameters(&Source { path: Some(path.to_owned()), ..Source::default() })
    }

    #[test]
    fn a_models_name_tells_its_size() {
        for (name, size) in [
            ("HuggingFaceTB/SmolLM2-135M", 135e6),
            ("meta-llama/Llama-3.2-1B-Instruct", 1e9),
            ("/models/Qwen2-0.5b/", 0.5e9),
            ("tiny_7M_v2", 7e6),
        ] {
            assert_eq!(of_path(name), Some(size), "{name}");
        }
        for name in ["all-MiniLM-L6-v2", "gpt2", "Mixtral-8x7B", "b", "-.b", "M", ""] {
            assert_eq!(of_path(name), None, "{name}");
        }
    }

    #[test]
    fn a_limit_or_a_request_of_a_template_is_not_spoken_over() {
        let requests = Requests { threads: 2, mebibytes: 700 };
        let filled = |resources: Value| {
            let mut pod = json!({"spec": {"containers": [{"name": "trainer", "resources": resources}]}});
            requests.fill_in(&mut pod);
            pod["spec"]["containers"][0]["resources"].clone()
        };
        assert_eq!(filled(json!({}))["requests"], json!({"cpu": "2", "memory": "700Mi"}));
        let limited = filled(json!({"limits": {"memory": "512Mi"}}));
        assert_eq!(limited["requests"], json!({"cpu": "2"}), "{limited}");
        let asked = filled(json!({"requests": {"cpu": "500m"}}));
        assert_eq!(asked["requests"], json!({"cpu": "500m", "memory": "700Mi"}), "{asked}");
    }
}
