//! Which refusals are recorded: all that are news, and no more of one user than the disk can bear.
//!
//! What is not recorded is refused all the same, and explained to who tried.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use crate::format::record::{Door, Refusal};
use crate::governance::Caller;

/// The same attempt of the same user is recorded again after this time.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// Refusals of one user that are recorded within `WINDOW`.
const USER_COUNT_MAX: usize = 100;
const WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// Refusals that are remembered; with more users than fit, the oldest are forgotten.
const COUNT_MAX: usize = 10_000;

#[derive(Debug)]
struct Recorded {
    uid: u32,
    door: Door,
    refusal: Refusal,
    at: Timestamp,
}

/// The refusals that were recorded lately, oldest first.
#[derive(Debug, Default)]
pub(super) struct RecentRefusals(VecDeque<Recorded>);

impl RecentRefusals {
    /// Whether to record what `caller` was refused at `now`; it counts as recorded then.
    pub fn admit(&mut self, caller: &Caller, refusal: &Refusal, now: Timestamp) -> bool {
        while self.0.front().is_some_and(|it| WINDOW <= now.duration_since(it.at)) {
            self.0.pop_front();
        }
        let Caller { uid, door, .. } = *caller;
        let mut own = self.0.iter().filter(|it| it.uid == uid);
        let is_repeated = own.clone().any(|it| {
            it.door == door && now.duration_since(it.at) < PAUSE && it.refusal.is_like(refusal)
        });
        if is_repeated || own.nth(USER_COUNT_MAX - 1).is_some() {
            return false;
        }
        if COUNT_MAX <= self.0.len() {
            self.0.pop_front();
        }
        self.0.push_back(Recorded { uid, door, refusal: refusal.clone(), at: now });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32) -> Caller {
        Caller { user: uid.to_string(), uid, gid: uid, groups: Vec::new(), door: Door::Cli }
    }

    fn refusal(action: &str) -> Refusal {
        Refusal { action: action.into(), model: None, moves: Vec::new(), why: Vec::new() }
    }

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    #[test]
    fn an_attempt_is_recorded_once_a_second_whatever_is_tried_between() {
        let mut recent = RecentRefusals::default();
        assert!(recent.admit(&caller(1), &refusal("a"), at(0)));
        assert!(recent.admit(&caller(1), &refusal("b"), at(10)));
        assert!(!recent.admit(&caller(1), &refusal("a"), at(20)));
        assert!(recent.admit(&caller(2), &refusal("a"), at(20)));
        assert!(recent.admit(&caller(1), &refusal("a"), at(1_000)));
    }

    #[test]
    fn one_user_fills_no_history() {
        let mut recent = RecentRefusals::default();
        let mut tried = |uid: u32, from: i64| {
            let times = from..from + 1_000;
            times
                .filter(|it| recent.admit(&caller(uid), &refusal(&it.to_string()), at(*it)))
                .count()
        };
        assert_eq!(tried(1, 0), USER_COUNT_MAX);
        assert_eq!(tried(1, 30_000), 0);
        assert_eq!(tried(2, 30_000), USER_COUNT_MAX);
        assert_eq!(tried(1, 61_000), USER_COUNT_MAX);
    }
}
