//! Memory for requests that clients are still sending: of every connection a little is free, the rest comes out of what all
//! connections share. Who finds that used up is refused, and what was taken is free again with the connection or the request.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// Bytes that count as one.
const UNIT: usize = 1024;

/// What the connections of a listener's daemon share.
pub struct Budgets {
    /// Heads of requests.
    pub heads: Arc<Semaphore>,
    /// Bodies that are kept in memory.
    pub bodies: Arc<Semaphore>,
}

impl Default for Budgets {
    fn default() -> Budgets {
        let budget = |bytes: usize| Arc::new(Semaphore::new(bytes / UNIT));
        Budgets { heads: budget(limits::HEADS), bodies: budget(limits::JSON_BODIES) }
    }
}

/// What one request has taken of a budget.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Semaphore>,
    free: usize,
    taken: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Nothing yet; `free` bytes cost nothing.
    pub fn new(budget: &Arc<Semaphore>, free: usize) -> Share {
        Share { budget: budget.clone(), free, taken: None }
    }

    /// Makes it `bytes` in all; false when there is not so much left.
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let needed = bytes.saturating_sub(self.free).div_ceil(UNIT);
        let missing = needed.saturating_sub(self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        let Ok(missing) = u32::try_from(missing) else { return false };
        if missing == 0 {
            return true;
        }
        let Ok(more) = self.budget.clone().try_acquire_many_owned(missing) else { return false };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_within_the_budget_and_give_it_back() {
        let budget = Arc::new(Semaphore::new(10));
        let (mut one, mut two) = (Share::new(&budget, 100), Share::new(&budget, 100));
        assert!(one.grow_to(100));
        assert!(one.grow_to(101) && one.grow_to(100 + 8 * UNIT));
        assert!(two.grow_to(100 + 2 * UNIT) && !two.grow_to(101 + 2 * UNIT));
        assert!(!one.grow_to(usize::MAX));
        drop(one);
        assert!(two.grow_to(100 + 10 * UNIT));
        drop(two);
        assert_eq!(budget.available_permits(), 10);
    }
}
