//! Keys by name, so that rules, SQL and queries can say which one without holding it.
//!
//! A key that is replaced stays in the list under its own id: what was masked with it is still told apart and, if it was
//! tokenized, still undone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use logweir_core::{Error, Result};
use secrecy::{ExposeSecret, SecretString};

use super::hash::KeyedHash;
use super::tokenize::Tokens;

/// What the key of noise is made of, beside the secret.
const NOISE: &[u8] = b"logweir noise";

/// A key of a mask.
#[derive(Debug, Clone)]
pub struct MaskKey {
    /// Its name among the [`MaskKeys`], if it has one; landed files say it.
    pub id: Option<String>,
    /// The key: a secret of at least 32 random bytes. Who has it can try values.
    pub secret: SecretString,
}

impl From<SecretString> for MaskKey {
    fn from(secret: SecretString) -> Self {
        MaskKey { id: None, secret }
    }
}

impl From<&str> for MaskKey {
    fn from(secret: &str) -> Self {
        MaskKey::from(SecretString::from(secret))
    }
}

/// What is made of a key once: the states of what is computed under it, not the key itself.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) hash: KeyedHash,
    /// For noise, so that a noisy number says nothing of the number's hash.
    pub(super) noise: KeyedHash,
    pub(super) tokens: Tokens,
}

impl Prepared {
    pub(super) fn new(secret: &SecretString) -> Result<Self> {
        if secret.expose_secret().is_empty() {
            return Err(Error::config("the key of a mask is empty").remedy("use at least 32 random bytes: openssl rand -hex 32"));
        }
        let hash = KeyedHash::new(secret)?;
        Ok(Prepared { noise: hash.derived(NOISE)?, tokens: Tokens::new(&hash), hash })
    }
}

/// The keys that masks in SQL may name, by id. Cheap to clone.
#[derive(Clone, Default)]
pub struct MaskKeys(Arc<BTreeMap<String, Prepared>>);

impl MaskKeys {
    /// Keys by their ids. An error of kind `Config` if one is empty.
    pub fn new(keys: impl IntoIterator<Item = (String, SecretString)>) -> Result<Self> {
        let prepared = keys.into_iter().map(|(id, secret)| {
            let prepared = Prepared::new(&secret).map_err(|error| error.context("key", &id))?;
            Ok((id, prepared))
        });
        Ok(MaskKeys(Arc::new(prepared.collect::<Result<_>>()?)))
    }

    /// The ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Prepared> {
        self.0.get(id)
    }

    /// The key that is meant where none is named.
    pub(super) fn only(&self) -> Option<&Prepared> {
        let mut keys = self.0.values();
        keys.next().filter(|_| keys.next().is_none())
    }

    pub(super) fn is_same(&self, other: &MaskKeys) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for MaskKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never a key.
        f.debug_list().entries(self.ids()).finish()
    }
}
