//! What is tried again, how often, and after which pause.
//! Must not try for ever: what does not pass ends with its sentence.

use std::time::Duration;

use super::{Access, SourceError};

/// Something that went wrong, and whether it may pass.
#[derive(Debug)]
pub(super) struct Fault {
    /// What is said if it does not.
    pub(super) error: SourceError,
    /// Whether to try again.
    pub(super) again: Again,
}

/// Whether something that went wrong may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Trying changes nothing.
    Never,
    /// After a pause of one's own choice.
    Soon,
    /// After the pause that the server asks for.
    After(Duration),
}

impl From<SourceError> for Fault {
    fn from(error: SourceError) -> Self {
        Self { error, again: Again::Never }
    }
}

impl Fault {
    /// One that may pass.
    pub(super) fn passing(error: SourceError) -> Self {
        Self { error, again: Again::Soon }
    }
}

/// The tries of one thing.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    access: &'a Access,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(access: &'a Access) -> Self {
        Self { access, failed: 0 }
    }

    /// Begins to count anew: bytes came in between.
    pub(super) fn progressed(&mut self) {
        self.failed = 0;
    }

    /// Makes the pause before the next try, or gives the error back where there is none.
    pub(super) async fn after(&mut self, fault: Fault) -> Result<(), SourceError> {
        self.failed += 1;
        let access = self.access;
        let own = access.first_pause.saturating_mul(1 << (self.failed - 1).min(16)).min(access.longest_pause);
        let pause = match fault.again {
            Again::Never => return Err(fault.error),
            Again::Soon => own,
            // One who is told to wait for an hour is not helped by waiting for a minute.
            Again::After(asked) if asked > access.longest_pause => return Err(fault.error),
            Again::After(asked) => asked.max(own),
        };
        let in_vain = access.hasty && matches!(fault.error, SourceError::Away { .. } | SourceError::Busy { .. });
        if in_vain || self.failed >= access.tries {
            return Err(fault.error);
        }
        tracing::debug!(error = %fault.error, seconds = pause.as_secs_f64(), "tried again after a pause");
        (access.pause)(pause).await;
        Ok(())
    }

    /// Does `work` until it succeeds or no try is left.
    pub(super) async fn of<T>(
        access: &Access,
        mut work: impl AsyncFnMut() -> Result<T, Fault>,
    ) -> Result<T, SourceError> {
        let mut tries = Tries::new(access);
        loop {
            match work().await {
                Ok(done) => return Ok(done),
                Err(fault) => tries.after(fault).await?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::testing::{block_on, patient};

    fn fault(again: Again) -> Fault {
        Fault { error: SourceError::Changed { what: "a".into() }, again }
    }

    /// The pauses in seconds until the first of these faults that is not tried again.
    fn pauses(faults: &[Again]) -> Vec<u64> {
        let (access, pauses) = patient();
        let mut faults = faults.iter();
        let _ended = block_on(Tries::of(&access, async || match faults.next() {
            Some(again) => Err(fault(*again)),
            None => Ok(()),
        }));
        pauses.lock().unwrap().iter().map(Duration::as_secs).collect()
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_the_sixth_failure_is_the_last() {
        assert_eq!(pauses(&[Again::Soon; 9]), [1, 2, 4, 8, 16]);
    }

    #[test]
    fn a_server_is_given_the_pause_that_it_asks_for() {
        assert_eq!(pauses(&[Again::After(Duration::from_secs(30)), Again::Soon]), [30, 2]);
    }

    #[test]
    fn one_who_is_told_to_wait_for_too_long_does_not_wait_at_all() {
        assert_eq!(pauses(&[Again::Soon, Again::After(Duration::from_secs(3600)), Again::Soon]), [1]);
    }

    #[test]
    fn one_who_can_do_without_does_not_wait_for_a_server_that_is_away() {
        let (mut access, pauses) = patient();
        access.hasty = true;
        let away = || SourceError::Away { what: "a".into(), why: "refused".into() };
        assert!(block_on(Tries::of(&access, async || Err::<(), _>(Fault::passing(away())))).is_err());
        assert!(pauses.lock().unwrap().is_empty());
    }

    #[test]
    fn what_does_not_pass_is_not_tried_again() {
        assert_eq!(pauses(&[Again::Never, Again::Soon]), [0; 0]);
    }
}
