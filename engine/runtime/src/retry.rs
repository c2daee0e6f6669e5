//! How long to wait before trying again.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

/// The first wait: short, because most faults are a dropped connection.
const FIRST: Duration = Duration::from_millis(250);
/// The longest wait: a source or destination that is back is noticed within it.
const LONGEST: Duration = Duration::from_secs(30);

/// Waits that double from 250 ms to 30 s, each shortened by up to a half by chance, so that many streams do not
/// return to one server at the same moment.
#[derive(Debug)]
pub struct Backoff {
    rng: StdRng,
    next: Duration,
}

impl Backoff {
    /// The longest wait it gives.
    pub const LONGEST: Duration = LONGEST;

    /// Starts with the shortest wait.
    pub fn new(rng: StdRng) -> Self {
        Backoff { rng, next: FIRST }
    }

    /// The wait before the next attempt.
    pub fn wait(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(LONGEST);
        full.mul_f64(self.rng.random_range(0.5..=1.0))
    }

    /// After progress: the next fault is a new one.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_progress() {
        let mut backoff = Backoff::new(StdRng::seed_from_u64(1));
        let mut full = FIRST;
        for _ in 0..12 {
            let wait = backoff.wait();
            assert!(wait <= full && wait >= full / 2, "{wait:?} of {full:?}");
            full = (full * 2).min(LONGEST);
        }
        assert_eq!(full, LONGEST);
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
