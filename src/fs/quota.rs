//! Shares of what is scarce: so much for all, and so much for each user, that none is kept out by another.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// How much there is, and who has it.
#[derive(Debug)]
pub(super) struct Quota {
    all_max: u64,
    user_max: u64,
    /// Of each user who has some. No other lock is taken while it is held.
    taken: Mutex<HashMap<u32, u64>>,
}

/// What a user took; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    quota: Arc<Quota>,
    uid: u32,
    amount: u64,
}

impl Quota {
    pub fn new(all_max: u64, user_max: u64) -> Arc<Self> {
        Arc::new(Self { all_max, user_max, taken: Mutex::default() })
    }

    /// Takes `amount`; the error is what hinders it: how much is taken, and by whom.
    pub fn take(self: &Arc<Self>, uid: u32, amount: u64) -> Result<Share, Taken> {
        let mut taken = self.taken.lock();
        let own = taken.get(&uid).copied().unwrap_or(0);
        let all: u64 = taken.values().sum();
        if self.user_max < own + amount {
            return Err(Taken { amount: own, by: "you" });
        }
        if self.all_max < all + amount {
            return Err(Taken { amount: all, by: "all users" });
        }
        taken.insert(uid, own + amount);
        Ok(Share { quota: Arc::clone(self), uid, amount })
    }
}

/// Why there is nothing left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Taken {
    pub amount: u64,
    pub by: &'static str,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.quota.taken.lock();
        let own = taken.get_mut(&self.uid).expect("what was taken is there");
        *own -= self.amount;
        if *own == 0 {
            taken.remove(&self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_who_takes_all_they_may_leaves_some_for_others() {
        let quota = Quota::new(10, 4);
        let mut first = vec![quota.take(1, 3).unwrap(), quota.take(1, 1).unwrap()];
        assert_eq!(quota.take(1, 1).unwrap_err(), Taken { amount: 4, by: "you" });
        let _second = quota.take(2, 4).unwrap();
        assert_eq!(quota.take(3, 3).unwrap_err(), Taken { amount: 8, by: "all users" });
        drop(first.pop());
        let third = quota.take(3, 3).unwrap();
        drop((first, third));
        assert_eq!(quota.taken.lock().len(), 1, "who has nothing is not kept");
    }
}
