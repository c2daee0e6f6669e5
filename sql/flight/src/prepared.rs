//! Statements that clients have prepared, until they close them.
//!
//! Clients that go without a word close nothing, so that there is room for so many of a user: the one that was not used for longest goes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::array::{Array as _, ArrayRef};
use rand::Rng as _;

use crate::identity::Identity;

/// Statements of one user.
const STATEMENTS_MAX: usize = 256;

/// What the statements of one user and their values take, by their lengths.
const BYTES_MAX: usize = 8 << 20;

/// What a client names a statement by.
pub(crate) type Handle = [u8; 16];

/// A statement, and the values of its parameters once they were given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statement {
    pub(crate) text: String,
    /// An array of one row for each parameter.
    pub(crate) values: Vec<ArrayRef>,
}

impl Statement {
    fn bytes(&self) -> usize {
        self.text.len() + self.values.iter().map(|value| value.get_array_memory_size()).sum::<usize>()
    }
}

#[derive(Debug)]
struct Entry {
    user: Identity,
    statement: Statement,
    /// When it was used last, in the order of uses.
    used: u64,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<Handle, Entry>,
    uses: u64,
}

/// The statements of all users.
#[derive(Debug, Default)]
pub(crate) struct Statements(Mutex<Kept>);

impl Statements {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one more. `None` if it is larger than what a user may have.
    pub(crate) fn add(&self, user: Identity, statement: Statement) -> Option<Handle> {
        let mut handle = Handle::default();
        rand::rng().fill(&mut handle);
        self.kept().put(user, handle, statement).then_some(handle)
    }

    /// The statement of that name, if it is that user's.
    pub(crate) fn get(&self, user: Identity, handle: &[u8]) -> Option<Statement> {
        let mut kept = self.kept();
        kept.uses += 1;
        let uses = kept.uses;
        let entry = kept.entries.get_mut(handle).filter(|entry| entry.user == user)?;
        entry.used = uses;
        Some(entry.statement.clone())
    }

    /// Gives its parameters their values. False if it is not there any more, or larger than what a user may have.
    pub(crate) fn bind(&self, user: Identity, handle: &[u8], values: Vec<ArrayRef>) -> bool {
        let mut kept = self.kept();
        let Ok(key) = Handle::try_from(handle) else { return false };
        match kept.entries.remove(&key) {
            Some(entry) if entry.user == user => kept.put(user, key, Statement { text: entry.statement.text, values }),
            Some(entry) => {
                kept.entries.insert(key, entry);
                false
            }
            None => false,
        }
    }

    /// Forgets it.
    pub(crate) fn close(&self, user: Identity, handle: &[u8]) {
        let mut kept = self.kept();
        if kept.entries.get(handle).is_some_and(|entry| entry.user == user) {
            kept.entries.remove(handle);
        }
    }
}

impl Kept {
    fn put(&mut self, user: Identity, handle: Handle, statement: Statement) -> bool {
        let more = statement.bytes();
        if more > BYTES_MAX {
            return false;
        }
        loop {
            let of_user = || self.entries.iter().filter(|(_, entry)| entry.user == user);
            let bytes: usize = of_user().map(|(_, entry)| entry.statement.bytes()).sum();
            if of_user().count() < STATEMENTS_MAX && bytes + more <= BYTES_MAX {
                break;
            }
            let Some(oldest) = of_user().min_by_key(|(_, entry)| entry.used).map(|(handle, _)| *handle) else { break };
            self.entries.remove(&oldest);
        }
        self.uses += 1;
        self.entries.insert(handle, Entry { user, statement, used: self.uses });
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;

    use super::*;

    fn statement(text: &str) -> Statement {
        Statement { text: text.to_owned(), values: vec![] }
    }

    #[test]
    fn a_statement_is_whose_it_is() {
        let (statements, ann, bob) = (Statements::default(), Identity(0), Identity(1));
        let handle = statements.add(ann, statement("SELECT 1")).unwrap();
        assert!(statements.get(bob, &handle).is_none());
        assert!(!statements.bind(bob, &handle, vec![]));
        statements.close(bob, &handle);
        let values: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["x"]))];
        assert!(statements.bind(ann, &handle, values));
        assert_eq!(statements.get(ann, &handle).unwrap().values.len(), 1);
        statements.close(ann, &handle);
        assert!(statements.get(ann, &handle).is_none() && !statements.bind(ann, &handle, vec![]));
        assert!(statements.get(ann, b"other").is_none());
    }

    #[test]
    fn those_that_were_not_used_for_longest_go_and_only_those_of_the_user() {
        let (statements, ann, bob) = (Statements::default(), Identity(0), Identity(1));
        let of_bob = statements.add(bob, statement("SELECT 'bob'")).unwrap();
        let handles: Vec<Handle> = (0..STATEMENTS_MAX).map(|_| statements.add(ann, statement("SELECT 1")).unwrap()).collect();
        assert!(statements.get(ann, &handles[0]).is_some());
        statements.add(ann, statement("SELECT 2")).unwrap();
        assert!(statements.get(ann, &handles[0]).is_some());
        assert!(statements.get(ann, &handles[1]).is_none());
        let large = "x".repeat(BYTES_MAX);
        assert!(statements.add(ann, statement(&large)).is_some());
        assert!(statements.get(ann, &handles[0]).is_none());
        assert!(statements.add(ann, statement(&format!("{large}x"))).is_none());
        assert!(statements.get(bob, &of_bob).is_some());
    }
}
