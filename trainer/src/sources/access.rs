//! What opens sources: the hub's token, the keys of a store, where both are; and how patiently it is tried.
//! Must not show a secret, nor look into the environment twice: what a run began with, it ends with.

use std::{env, fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;

/// The hub where `HF_ENDPOINT` names no other.
const HUB: &str = "https://huggingface.co";

/// What a variable's name begins with that holds for results alone.
const OUTPUT: &str = "FEDTUNE_OUTPUT_";

/// Waits; tests do it without time.
pub(super) type Pause = Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// What opens sources, and how patiently it is tried.
#[derive(Clone)]
pub struct Access {
    /// Address of the hub, without a slash at its end.
    pub(super) hub_endpoint: String,
    /// What the hub knows its user by.
    pub(super) hub_token: Option<String>,
    /// The `AWS_` variables, names in small letters as the store's library takes them.
    pub(super) s3: Vec<(String, String)>,
    /// Variables as in `s3`, for the store that results are taken to, where they differ.
    pub(super) s3_output: Vec<(String, String)>,
    /// How often something is tried before it is given up, where no byte came in between.
    pub(super) tries: u32,
    /// The pause after the first failure; it doubles with each one.
    pub(super) first_pause: Duration,
    /// The longest pause, also where a server asks for a longer one.
    pub(super) longest_pause: Duration,
    /// Whether a server that is away is given up at once: there is something to do without it.
    pub(super) hasty: bool,
    /// How pauses are made.
    pub(super) pause: Pause,
}

impl Access {
    /// From the environment of this process: `HF_ENDPOINT`, `HF_TOKEN` and the variables that begin with `AWS_`.
    pub fn from_environment() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::of(env::vars_os().filter_map(text))
    }

    /// From these variables. An empty one counts as not set.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut access = Self {
            hub_endpoint: HUB.to_owned(),
            hub_token: None,
            s3: Vec::new(),
            s3_output: Vec::new(),
            tries: 6,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            hasty: false,
            pause: Arc::new(|length| Box::pin(tokio::time::sleep(length))),
        };
        for (name, value) in variables {
            // Secrets that are mounted from files often end with a line break.
            let value = value.trim();
            match name.as_str() {
                _ if value.is_empty() => {}
                "HF_ENDPOINT" => value.trim_end_matches('/').clone_into(&mut access.hub_endpoint),
                "HF_TOKEN" => access.hub_token = Some(value.to_owned()),
                aws if aws.starts_with("AWS_") => access.s3.push((aws.to_ascii_lowercase(), value.to_owned())),
                other => {
                    if let Some(aws) = other.strip_prefix(OUTPUT).filter(|aws| aws.starts_with("AWS_")) {
                        access.s3_output.push((aws.to_ascii_lowercase(), value.to_owned()));
                    }
                }
            }
        }
        access
    }

    /// What opens the store that results are taken to: as for sources, but for what was set for it alone.
    #[must_use]
    pub fn of_output(&self) -> Self {
        let own = |name: &String| self.s3_output.iter().any(|(other, _)| other == name);
        let s3 = self.s3.iter().filter(|(name, _)| !own(name)).chain(&self.s3_output).cloned().collect();
        Self { s3, ..self.clone() }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("hub_endpoint", &self.hub_endpoint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Access {
        Access::of(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let access = of(&[("HF_TOKEN", " \n"), ("HF_ENDPOINT", ""), ("AWS_REGION", "")]);
        assert_eq!((access.hub_token, access.hub_endpoint.as_str(), access.s3.len()), (None, HUB, 0));
    }

    #[test]
    fn a_secret_is_taken_without_the_line_break_of_its_file_and_never_shown() {
        let access = of(&[("HF_TOKEN", "hf_secret\n"), ("AWS_SECRET_ACCESS_KEY", "also secret"), ("PATH", "/bin")]);
        assert_eq!(access.hub_token.as_deref(), Some("hf_secret"));
        assert_eq!(access.s3, [("aws_secret_access_key".to_owned(), "also secret".to_owned())]);
        assert!(!format!("{access:?}").contains("secret"), "{access:?}");
    }
}
