//! Why something could not be done, told apart by what helps: time, another spec, or another try.
//! Must not decide what follows from it.

use kube::core::Status;

use super::{build::BuildError, why::Trouble};
use crate::authority::AuthorityError;

/// What an API server says of a namespace that is being deleted.
const NAMESPACE_ENDS: &str = "NamespaceTerminating";

/// Why a step could not be done.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum Hindrance {
    #[error("{}", .0.sentence)]
    Waiting(Trouble),
    #[error("{}", .0.sentence)]
    Refused(Trouble),
    #[error("{doing}: {}", words(source))]
    Api { doing: String, source: Box<kube::Error> },
    #[error("the resource has changed since it was read")]
    Stale,
}

impl Hindrance {
    /// What follows where `doing` something gave `error`: words of the API server about an object are for its writer,
    /// all else is tried again.
    pub fn of(doing: impl Into<String>, error: kube::Error) -> Self {
        let doing = doing.into();
        match &error {
            kube::Error::Api(status) => match status.code {
                400 | 422 => Self::Refused(Trouble::new("Invalid", format!("{doing}: {}", status.message))),
                403 => Self::Waiting(Trouble::new(forbidden(status), format!("{doing}: {}", status.message))),
                _ => Self::Api { doing, source: Box::new(error) },
            },
            _ => Self::Api { doing, source: Box::new(error) },
        }
    }
}

/// What the API server says, or why it could not be asked; without what only a debugger wants to know.
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

/// What a refusal is called that may be lifted without a change of the resource.
fn forbidden(status: &Status) -> &'static str {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    if causes.into_iter().any(|cause| cause.reason == NAMESPACE_ENDS) {
        NAMESPACE_ENDS
    } else if status.message.contains("exceeded quota") {
        "QuotaExceeded"
    } else if status.message.contains("violates PodSecurity") {
        "PodSecurity"
    } else {
        "Forbidden"
    }
}

impl From<BuildError> for Hindrance {
    fn from(error: BuildError) -> Self {
        Self::Refused(Trouble::new("Invalid", error.to_string()))
    }
}

impl From<AuthorityError> for Hindrance {
    fn from(error: AuthorityError) -> Self {
        Self::Refused(Trouble::new("Certificate", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, message: &str) -> Hindrance {
        let status = Status::failure(message, "").with_code(code).boxed();
        Hindrance::of("Job a cannot be made", kube::Error::Api(status))
    }

    #[test]
    fn what_only_another_spec_helps_against_is_refused_in_the_servers_words() {
        let Hindrance::Refused(trouble) = of(422, "spec.priority: nope") else { panic!("refused") };
        assert_eq!(trouble, Trouble::new("Invalid", "Job a cannot be made: spec.priority: nope"));
    }

    #[test]
    fn a_quota_may_grow_and_a_namespaces_level_may_change() {
        for (message, reason) in [
            ("pods \"a\" is forbidden: exceeded quota: small", "QuotaExceeded"),
            ("pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\"", "PodSecurity"),
            ("jobs.batch is forbidden: User \"x\" cannot create resource", "Forbidden"),
        ] {
            let Hindrance::Waiting(trouble) = of(403, message) else { panic!("{message} is waited for") };
            assert_eq!(trouble.reason, reason);
        }
    }

    #[test]
    fn a_server_that_is_busy_is_tried_again() {
        for code in [429, 500, 503, 504] {
            assert!(matches!(of(code, "busy"), Hindrance::Api { .. }));
        }
    }
}
