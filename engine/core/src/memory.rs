//! One budget for everything that buffers.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budget counts in units of this many bytes, because a semaphore counts in `u32`.
const UNIT_BYTES: usize = 1024;

/// A bound on bytes held. Cloning shares it.
///
/// Who wants to hold bytes acquires a permit first and waits while the budget is spent: this is how back-pressure
/// reaches the socket. A request larger than the whole budget is granted when everything else has been given
/// back, so one enormous row can pass, alone.
#[derive(Clone)]
pub struct MemoryBudget {
    semaphore: Arc<Semaphore>,
    units: u32,
}

impl MemoryBudget {
    /// A budget of `bytes`, rounded up to whole KiB, at least 1 KiB.
    pub fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES).max(1)).unwrap_or(u32::MAX);
        MemoryBudget { semaphore: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// The whole budget in bytes.
    pub fn total_bytes(&self) -> usize {
        self.units as usize * UNIT_BYTES
    }

    /// Bytes not held by anybody now.
    pub fn available_bytes(&self) -> usize {
        self.semaphore.available_permits() * UNIT_BYTES
    }

    /// Waits until `bytes` may be held. First come, first served. Cancel safe.
    pub async fn acquire(&self, bytes: usize) -> MemoryPermit {
        let permit = Arc::clone(&self.semaphore).acquire_many_owned(self.clamp(bytes)).await;
        MemoryPermit { permit: Some(permit.expect("the semaphore of a budget is never closed")), bytes }
    }

    /// The same without waiting: `None` if the budget is spent.
    pub fn try_acquire(&self, bytes: usize) -> Option<MemoryPermit> {
        let permit = Arc::clone(&self.semaphore).try_acquire_many_owned(self.clamp(bytes)).ok()?;
        Some(MemoryPermit { permit: Some(permit), bytes })
    }

    fn clamp(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.units)
    }
}

impl std::fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryBudget({} of {} bytes free)", self.available_bytes(), self.total_bytes())
    }
}

/// The right to hold bytes; dropping it gives them back.
#[derive(Debug, Default)]
pub struct MemoryPermit {
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl MemoryPermit {
    /// A permit of no budget, for bytes that are counted elsewhere or not at all (tests, constants).
    pub fn uncounted() -> Self {
        MemoryPermit::default()
    }

    /// The bytes asked for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes over what `other` holds, so that both are given back together.
    pub fn merge(&mut self, other: MemoryPermit) {
        self.bytes += other.bytes;
        match (&mut self.permit, other.permit) {
            (Some(mine), Some(theirs)) if std::ptr::eq(mine.semaphore().as_ref(), theirs.semaphore().as_ref()) => mine.merge(theirs),
            (mine @ None, theirs) => *mine = theirs,
            // Of two budgets: ours is kept, theirs is free again at once.
            (Some(_), _) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_refuses_until_bytes_come_back() {
        let budget = MemoryBudget::new(10 * 1024);
        let held = budget.try_acquire(8 * 1024).unwrap();
        assert!(budget.try_acquire(4 * 1024).is_none());
        drop(held);
        assert_eq!(budget.available_bytes(), 10 * 1024);
    }

    #[test]
    fn more_than_everything_is_granted_alone() {
        let budget = MemoryBudget::new(10 * 1024);
        let held = budget.try_acquire(1 << 30).unwrap();
        assert!(budget.try_acquire(1).is_none());
        drop(held);
        assert!(budget.try_acquire(1).is_some());
    }
}
