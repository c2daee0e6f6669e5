//! Connections of which it is not known yet whose they are.
//!
//! Who means well is known within some round trips. Who says nothing, or not enough, would keep others out, so there is room for so many and
//! the oldest makes way for the newest. One whose password was wrong stays until it was told so: else a loop of wrong passwords would wait
//! for nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// More than come in the time that a handshake takes over a slow line, and little memory.
pub(crate) const STRANGERS_MAX: usize = 128;

#[derive(Default)]
pub(crate) struct Strangers(Mutex<Met>);

#[derive(Default)]
struct Met {
    next: u64,
    /// In the order in which they came.
    present: Vec<Entry>,
}

struct Entry {
    number: u64,
    address: IpAddr,
    task: AbortHandle,
    stays: bool,
}

impl Strangers {
    fn met(&self) -> MutexGuard<'_, Met> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `begin` serve one more, if there is room. It comes back if there is none: all that are there wait for us, not we for them.
    pub(crate) fn meet<S>(self: &Arc<Self>, one: S, address: IpAddr, begin: impl FnOnce(S, Stranger) -> AbortHandle) -> Result<(), S> {
        let mut met = self.met();
        if !met.make_room() {
            return Err(one);
        }
        let number = met.next;
        met.next += 1;
        // Whoever is served on another thread and gone at once waits for this note before it takes it away.
        let task = begin(one, Stranger { strangers: Arc::clone(self), number });
        met.present.push(Entry { number, address, task, stays: false });
        Ok(())
    }
}

impl Met {
    fn make_room(&mut self) -> bool {
        if self.present.len() < STRANGERS_MAX {
            return true;
        }
        let mut of_address: HashMap<IpAddr, usize> = HashMap::new();
        for entry in &self.present {
            *of_address.entry(entry.address).or_default() += 1;
        }
        // The address with most of them loses one, so that a crowd from there does not drive others away.
        let most = self.present.iter().filter(|entry| !entry.stays).map(|entry| of_address[&entry.address]).max();
        let oldest = self.present.iter().position(|entry| !entry.stays && Some(of_address[&entry.address]) == most);
        let Some(oldest) = oldest else { return false };
        self.present.remove(oldest).task.abort();
        true
    }
}

/// One of them, as long as it is one.
pub(crate) struct Stranger {
    strangers: Arc<Strangers>,
    number: u64,
}

impl Stranger {
    /// It is not to make way for others any more.
    pub(crate) fn stays(&self) {
        if let Some(entry) = self.strangers.met().present.iter_mut().find(|entry| entry.number == self.number) {
            entry.stays = true;
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.strangers.met().present.retain(|entry| entry.number != self.number);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_of_the_largest_crowd_makes_way() {
        let strangers = Arc::new(Strangers::default());
        let (crowd, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut known = Vec::new();
        let mut meet = |address: IpAddr, stays: bool| {
            let mut task = None;
            let met = strangers.meet((), address, |(), stranger| {
                let held = tokio::spawn(async move {
                    if stays {
                        stranger.stays();
                    }
                    std::future::pending::<()>().await;
                    drop(stranger);
                });
                let handle = held.abort_handle();
                task = Some(held);
                handle
            });
            assert_eq!(met, Ok(()));
            known.push(task.unwrap());
        };
        meet(other, false);
        meet(crowd, true);
        tokio::task::yield_now().await;
        for _ in 2..STRANGERS_MAX + 5 {
            meet(crowd, false);
        }
        tokio::task::yield_now().await;
        let gone: Vec<usize> = known.iter().enumerate().filter(|(_, task)| task.is_finished()).map(|(index, _)| index).collect();
        assert_eq!(gone, [2, 3, 4, 5, 6]);
        assert_eq!(strangers.met().present.len(), STRANGERS_MAX);
    }
}
