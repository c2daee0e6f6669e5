//! The mask `hash`: a keyed hash that keeps equal values equal.
//!
//! HMAC-SHA-256, because a plain hash of a phone number or an e-mail address is found by trying them all; without the key
//! that is not possible. The result can be computed anywhere:
//! `hmac.new(key, text, hashlib.sha256).hexdigest()`, with the text of [`super::canonical`].

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringBuilder};
use hmac::{Hmac, Mac};
use logweir_core::{Error, Result};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::canonical::for_each_text;

const HASH_LEN: usize = 32;
const HEX_LEN: usize = 2 * HASH_LEN;

/// A hash function under a key. The key itself is not kept, only the state of the hash behind it.
#[derive(Clone)]
pub(super) struct KeyedHash(Hmac<Sha256>);

impl KeyedHash {
    pub(super) fn new(key: &SecretString) -> Result<Self> {
        let mac =
            Hmac::new_from_slice(key.expose_secret().as_bytes()).map_err(|_| Error::config("the key of a hash mask cannot be used"))?;
        Ok(KeyedHash(mac))
    }

    /// The same under a key that is made of this one for a purpose of its own.
    pub(super) fn derived(&self, purpose: &[u8]) -> Result<Self> {
        let mac = Hmac::new_from_slice(&self.bytes(purpose)).map_err(|_| Error::config("the key of a mask cannot be used"))?;
        Ok(KeyedHash(mac))
    }

    pub(super) fn bytes(&self, text: &[u8]) -> [u8; HASH_LEN] {
        let mut mac = self.0.clone();
        mac.update(text);
        mac.finalize().into_bytes().into()
    }

    pub(super) fn apply(&self, array: &ArrayRef) -> Result<ArrayRef> {
        let mut hashes = StringBuilder::with_capacity(array.len(), (array.len() - array.logical_null_count()) * HEX_LEN);
        for_each_text(array, |text| match text {
            Some(text) => hashes.append_value(self.hex(text).as_str()),
            None => hashes.append_null(),
        })?;
        Ok(Arc::new(hashes.finish()))
    }

    fn hex(&self, text: &[u8]) -> Hex {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; HEX_LEN];
        for (digits, byte) in hex.chunks_exact_mut(2).zip(self.bytes(text)) {
            digits[0] = DIGITS[usize::from(byte >> 4)];
            digits[1] = DIGITS[usize::from(byte & 15)];
        }
        Hex(hex)
    }
}

struct Hex([u8; HEX_LEN]);

impl Hex {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // RFC 4231, test case 2.
        let hash = KeyedHash::new(&SecretString::from("Jefe")).unwrap();
        assert_eq!(hash.hex(b"what do ya want for nothing?").as_str(), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
