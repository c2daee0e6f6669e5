//! Who asks: a name and a password, and from then on a token.
//!
//! Every request says who it is from, as HTTP does: `Basic` with name and password, or `Bearer` with a token that the first answer to
//! `Basic` came with. A token says of itself whose it is and until when, under a key that the process has made: nothing is kept of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, Mac as _};
use logweir_core::Pattern;
use logweir_pgwire::{PasswordVerifier, User};
use rand::Rng as _;
use secrecy::ExposeSecret as _;
use sha2::Sha256;
use tonic::Status;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::AUTHORIZATION;

use crate::connection::Peer;

/// From when on a client has to name itself anew.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How long a wrong password waits for its answer. A connection is asked about one password at a time.
const WRONG_PASSWORD_DELAY: Duration = Duration::from_secs(1);

/// With padding, as HTTP has it, or without, as ADBC's driver writes it.
const BASIC: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// A user's number and the last second of the token.
const CLAIM_BYTES: usize = 4 + 8;

/// Who asks, as a place among the users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(pub(crate) usize);

/// Somebody who may ask, as it is kept.
pub(crate) struct Known {
    pub(crate) name: String,
    verifier: PasswordVerifier,
    pub(crate) schemas: Vec<Pattern>,
}

/// All who may ask.
pub(crate) struct Users {
    users: Vec<Known>,
    /// What a password of nobody is held against: it takes as long.
    nobody: PasswordVerifier,
    secret: [u8; 32],
}

impl Users {
    pub(crate) fn new(users: Vec<User>) -> Self {
        let users = users.into_iter().map(|user| Known {
            verifier: PasswordVerifier::new(user.password.expose_secret()),
            name: user.name,
            schemas: user.schemas,
        });
        let mut secret = [0; 32];
        rand::rng().fill(&mut secret);
        Users { users: users.collect(), nobody: PasswordVerifier::of_nobody("", &secret), secret }
    }

    pub(crate) fn get(&self, identity: Identity) -> &Known {
        &self.users[identity.0]
    }

    /// Finds out who a request is from.
    pub(crate) async fn identify(&self, headers: &HeaderMap, peer: &Peer) -> Result<Identity, Status> {
        let unknown = || Status::unauthenticated("name and password, or a token, are needed");
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(unknown)?;
        let (scheme, rest) = header.split_once(' ').ok_or_else(unknown)?;
        let identity = if scheme.eq_ignore_ascii_case("bearer") {
            let now = seconds_since_epoch();
            self.of_token(rest.trim(), now)
                .ok_or_else(|| Status::unauthenticated("the token is not known, or was given out too long ago"))?
        } else if scheme.eq_ignore_ascii_case("basic") {
            let _one_at_a_time = peer.passwords.lock().await;
            match self.of_password(rest.trim()) {
                Some(identity) => identity,
                None => {
                    tracing::warn!(peer = %peer.address, "a password for Flight SQL was wrong");
                    tokio::time::sleep(WRONG_PASSWORD_DELAY).await;
                    return Err(Status::unauthenticated("password authentication failed"));
                }
            }
        } else {
            return Err(unknown());
        };
        peer.now_known();
        Ok(identity)
    }

    fn of_password(&self, encoded: &str) -> Option<Identity> {
        let pair = String::from_utf8(BASIC.decode(encoded).ok()?).ok()?;
        let (name, password) = pair.split_once(':')?;
        let found = self.users.iter().position(|user| user.name == name);
        let verifier = found.map_or(&self.nobody, |found| &self.users[found].verifier);
        (verifier.fits(password)).then_some(())?;
        found.map(Identity)
    }

    fn sign(&self, claim: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("a key of HMAC has any length");
        mac.update(claim);
        mac
    }

    /// A token by which the same user is known from now on.
    pub(crate) fn token(&self, identity: Identity) -> String {
        self.token_until(identity, seconds_since_epoch() + TOKEN_LIFETIME.as_secs())
    }

    fn token_until(&self, identity: Identity, last: u64) -> String {
        let mut token = u32::try_from(identity.0).unwrap_or(u32::MAX).to_le_bytes().to_vec();
        token.extend(last.to_le_bytes());
        let signature = self.sign(&token).finalize().into_bytes();
        token.extend(signature);
        URL_SAFE_NO_PAD.encode(token)
    }

    fn of_token(&self, token: &str, now: u64) -> Option<Identity> {
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (claim, signature) = token.split_at_checked(CLAIM_BYTES)?;
        // Takes as long, wherever the first wrong byte is.
        self.sign(claim).verify_slice(signature).ok()?;
        let (user, last) = claim.split_first_chunk::<4>()?;
        let user = usize::try_from(u32::from_le_bytes(*user)).ok()?;
        let last = u64::from_le_bytes(last.try_into().ok()?);
        (now <= last && user < self.users.len()).then_some(Identity(user))
    }
}

fn seconds_since_epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn users() -> Users {
        let user = |name: &str, password: &str| User { name: name.to_owned(), password: password.to_owned().into(), schemas: vec![] };
        Users::new(vec![user("ann", "a:b pässword"), user("bob", "")])
    }

    #[test]
    fn tokens_are_for_whom_they_were_given_and_for_their_time() {
        let (ours, others) = (users(), users());
        let token = ours.token_until(Identity(1), 100);
        assert_eq!(ours.of_token(&token, 100), Some(Identity(1)));
        assert_eq!(ours.of_token(&token, 101), None);
        assert_eq!(others.of_token(&token, 100), None);
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for (index, _) in bytes.iter().enumerate() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1;
            assert_eq!(ours.of_token(&URL_SAFE_NO_PAD.encode(damaged), 100), None, "{index}");
            assert_eq!(ours.of_token(&URL_SAFE_NO_PAD.encode(&bytes[..index]), 100), None, "{index}");
        }
        assert_eq!(ours.of_token(&ours.token_until(Identity(2), 100), 100), None);
        assert_eq!(ours.of_token("", 0), None);
    }

    #[test]
    fn passwords() {
        let users = users();
        let of = |pair: &str| {
            let padded = BASIC.encode(pair);
            let found = users.of_password(&padded);
            assert_eq!(users.of_password(padded.trim_end_matches('=')), found);
            found
        };
        assert_eq!(of("ann:a:b pässword"), Some(Identity(0)));
        assert_eq!(of("bob:"), Some(Identity(1)));
        for wrong in ["ann:a:b password", "ann:", "ann", "", "bob:a:b pässword", "eve:", ":"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(users.of_password("~"), None);
    }
}
