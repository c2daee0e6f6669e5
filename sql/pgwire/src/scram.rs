//! SCRAM-SHA-256, the server's side (RFC 5802, RFC 7677).
//!
//! A password is never kept: of each there is a salt and two keys. Somebody who is not known is asked as anybody else is, with a salt
//! that stays the same, and then refused: nobody learns which names there are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use rand::Rng as _;
use sha2::{Digest as _, Sha256};

type Key = [u8; 32];

/// What PostgreSQL has; more would be paid by every client that connects.
const ITERATIONS: u32 = 4096;

const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 18;

/// The name of the mechanism.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";

/// What a password is verified by: nothing that it could be found out from at once.
#[derive(Clone)]
pub struct PasswordVerifier {
    salt: [u8; SALT_BYTES],
    stored_key: Key,
    server_key: Key,
}

impl PasswordVerifier {
    /// One that this password fits.
    pub fn new(password: &str) -> Self {
        let mut salt = [0; SALT_BYTES];
        rand::rng().fill(&mut salt);
        Self::with_salt(password, salt)
    }

    fn with_salt(password: &str, salt: [u8; SALT_BYTES]) -> Self {
        let salted = salted_password(password, &salt);
        PasswordVerifier {
            salt,
            stored_key: Sha256::digest(hmac(&salted, &[b"Client Key"])).into(),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }

    /// One that no password fits, for a name that is not known.
    pub fn of_nobody(name: &str, secret: &Key) -> Self {
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&hmac(secret, &[name.as_bytes()])[..SALT_BYTES]);
        let mut stored_key = [0; 32];
        rand::rng().fill(&mut stored_key);
        PasswordVerifier { salt, stored_key, server_key: stored_key }
    }

    /// Whether it is the password, where a client has sent it. Takes as long for every one.
    pub fn fits(&self, password: &str) -> bool {
        let client_key = hmac(&salted_password(password, &self.salt), &[b"Client Key"]);
        are_equal(&Sha256::digest(client_key).into(), &self.stored_key)
    }
}

impl std::fmt::Debug for PasswordVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordVerifier")
    }
}

fn salted_password(password: &str, salt: &[u8]) -> Key {
    // As clients do: a password that cannot be prepared is taken as it is.
    let prepared = stringprep::saslprep(password).unwrap_or(password.into());
    salted(prepared.as_bytes(), salt)
}

/// All bytes are looked at, whichever the first different one is.
fn are_equal(one: &Key, other: &Key) -> bool {
    one.iter().zip(other).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

fn salted(password: &[u8], salt: &[u8]) -> Key {
    let mut block = hmac(password, &[salt, &1_u32.to_be_bytes()]);
    let mut sum = block;
    for _ in 1..ITERATIONS {
        block = hmac(password, &[&block]);
        sum.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of HMAC has any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// A conversation that has begun.
pub(crate) struct Exchange {
    verifier: PasswordVerifier,
    /// The header that the client must repeat.
    header: String,
    nonce: String,
    /// Everything that was said so far, which the proof is over.
    said: String,
}

impl Exchange {
    /// Takes the client's first message. Returns the answer; `None` if it is not one that we take.
    pub(crate) fn begin(verifier: PasswordVerifier, first: &str) -> Option<(Self, String)> {
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill(&mut nonce);
        Self::with_nonce(verifier, first, &STANDARD.encode(nonce))
    }

    fn with_nonce(verifier: PasswordVerifier, first: &str, ours: &str) -> Option<(Self, String)> {
        // Channel binding is not offered, so `y` (the client would have) is as good as `n`.
        let (flag, rest) = first.split_once(',').filter(|(flag, _)| ["n", "y"].contains(flag))?;
        let (authority, bare) = rest.split_once(',')?;
        let theirs = bare.split(',').nth(1)?.strip_prefix("r=").filter(|nonce| !nonce.is_empty())?;
        let nonce = format!("{theirs}{ours}");
        let answer = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(verifier.salt));
        let exchange = Exchange { verifier, header: format!("{flag},{authority},"), nonce, said: format!("{bare},{answer}") };
        Some((exchange, answer))
    }

    /// Takes the client's last message. Returns our proof that we know the password too; `None` if the client does not.
    pub(crate) fn end(self, last: &str) -> Option<String> {
        let (without_proof, proof) = last.rsplit_once(",p=")?;
        let mut parts = without_proof.split(',');
        let binding = STANDARD.decode(parts.next()?.strip_prefix("c=")?).ok()?;
        if binding != self.header.as_bytes() || parts.next()?.strip_prefix("r=")? != self.nonce {
            return None;
        }
        let proof: Key = STANDARD.decode(proof).ok()?.try_into().ok()?;
        let said = format!("{},{without_proof}", self.said);
        let signature = hmac(&self.verifier.stored_key, &[said.as_bytes()]);
        let mut client_key = proof;
        client_key.iter_mut().zip(signature).for_each(|(key, byte)| *key ^= byte);
        let fits = are_equal(&Sha256::digest(client_key).into(), &self.verifier.stored_key);
        fits.then(|| format!("v={}", STANDARD.encode(hmac(&self.verifier.server_key, &[said.as_bytes()]))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let first = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let begin = || Exchange::with_nonce(PasswordVerifier::with_salt("pencil", salt), first, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
        let (exchange, answer) = begin();
        assert_eq!(answer, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(exchange.end(last).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        for wrong in [
            "",
            "c=biws",
            "c=biws,r=other,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            &last.replace("dHzb", "dHzc"),
            &last.replace("biws", "eSws"),
            &last.replace("AndVQ=", ""),
        ] {
            assert!(begin().0.end(wrong).is_none(), "{wrong}");
        }
        for wrong in ["", "n", "n,,", "p=tls-unique,,n=,r=abc", "n,,n=user", "n,,n=user,r="] {
            assert!(Exchange::begin(PasswordVerifier::new("pencil"), wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_password_that_was_sent() {
        let verifier = PasswordVerifier::new("pencil\u{ad}");
        assert!(verifier.fits("pencil") && !verifier.fits("pencils") && !verifier.fits(""));
        assert!(!PasswordVerifier::of_nobody("eve", &[7; 32]).fits(""));
    }

    #[test]
    fn nobody_is_asked_as_anybody_is() {
        let secret = [7; 32];
        let answer = |name: &str| Exchange::with_nonce(PasswordVerifier::of_nobody(name, &secret), "n,,n=,r=abc", "def").unwrap().1;
        assert_eq!(answer("eve"), answer("eve"));
        assert_ne!(answer("eve"), answer("mallory"));
    }
}
