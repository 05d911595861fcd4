//! Whether the lease is free, ours or another's, from what was seen of it and when. Pure.
//! Must not compare a time in the lease with a clock of this machine.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};

/// One who wants to lead.
#[derive(Debug)]
pub(super) struct Candidate {
    identity: String,
    duration: Duration,
    seen: Option<Seen>,
}

/// The lease as it was when it last changed.
#[derive(Debug)]
struct Seen {
    spec: LeaseSpec,
    at: Instant,
}

/// What is to be done now.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// It is another's.
    Wait,
    /// It is free or ours: write this.
    Write(LeaseSpec),
}

impl Candidate {
    pub(super) fn new(identity: &str, duration: Duration) -> Self {
        Self { identity: identity.to_owned(), duration, seen: None }
    }

    /// Notes what the lease is; a change begins its time anew.
    pub(super) fn sees(&mut self, lease: Option<&Lease>, now: Instant) {
        let spec = lease.map(|lease| lease.spec.clone().unwrap_or_default());
        if self.seen.as_ref().map(|seen| &seen.spec) != spec.as_ref() {
            self.seen = spec.map(|spec| Seen { spec, at: now });
        }
    }

    /// Whether the lease was ours when it was last seen.
    pub(super) fn holds(&self) -> bool {
        self.holder() == Some(&self.identity)
    }

    pub(super) fn step(&self, now: Instant, time: Timestamp) -> Step {
        let others = self.seen.as_ref().filter(|_| self.holder().is_some() && !self.holds());
        if others.is_some_and(|seen| now.duration_since(seen.at) < lasts(&seen.spec, self.duration)) {
            return Step::Wait;
        }
        Step::Write(self.next(time))
    }

    fn holder(&self) -> Option<&String> {
        self.seen.as_ref()?.spec.holder_identity.as_ref().filter(|holder| !holder.is_empty())
    }

    fn next(&self, time: Timestamp) -> LeaseSpec {
        let before = self.seen.as_ref().map(|seen| seen.spec.clone()).unwrap_or_default();
        let changes = !self.holds();
        let transitions = before.lease_transitions.unwrap_or(0) + i32::from(changes && self.seen.is_some());
        let acquired = before.acquire_time.clone().filter(|_| !changes).unwrap_or(MicroTime(time));
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.duration.as_secs() as i32),
            acquire_time: Some(acquired),
            renew_time: Some(MicroTime(time)),
            lease_transitions: Some(transitions),
            ..before
        }
    }
}

/// How long the holder claimed it for.
fn lasts(spec: &LeaseSpec, otherwise: Duration) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(otherwise, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn lease(holder: &str, renewed: i64) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    fn writes(step: Step) -> Option<(String, i32)> {
        match step {
            Step::Wait => None,
            Step::Write(spec) => Some((spec.holder_identity.unwrap(), spec.lease_transitions.unwrap())),
        }
    }

    #[test]
    fn a_lease_that_nobody_has_is_taken() {
        let mut me = Candidate::new("me", DURATION);
        let now = Instant::now();
        me.sees(None, now);
        assert_eq!(writes(me.step(now, Timestamp::UNIX_EPOCH)), Some(("me".to_owned(), 0)));
        me.sees(Some(&lease("", 0)), now);
        assert_eq!(writes(me.step(now, Timestamp::UNIX_EPOCH)), Some(("me".to_owned(), 4)));
    }

    #[test]
    fn anothers_lease_is_waited_for_until_it_has_not_changed_for_its_duration() {
        let mut me = Candidate::new("me", DURATION);
        let start = Instant::now();
        // Its clock is an hour behind, or ahead; that says nothing.
        me.sees(Some(&lease("other", 3600)), start);
        let later = start + Duration::from_secs(14);
        assert_eq!(me.step(later, Timestamp::UNIX_EPOCH), Step::Wait);
        me.sees(Some(&lease("other", 3602)), later);
        let renewed = later + Duration::from_secs(14);
        assert_eq!(me.step(renewed, Timestamp::UNIX_EPOCH), Step::Wait, "it was renewed in the meantime");
        me.sees(Some(&lease("other", 3602)), renewed);
        let over = later + DURATION;
        assert_eq!(writes(me.step(over, Timestamp::UNIX_EPOCH)), Some(("me".to_owned(), 4)));
    }

    #[test]
    fn renewing_ones_own_lease_is_no_transition() {
        let mut me = Candidate::new("me", DURATION);
        let now = Instant::now();
        me.sees(Some(&lease("me", 1)), now);
        assert!(me.holds());
        assert_eq!(writes(me.step(now, Timestamp::UNIX_EPOCH)), Some(("me".to_owned(), 3)));
    }
}
