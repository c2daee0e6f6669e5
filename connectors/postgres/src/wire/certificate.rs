//! What we must know of a server's certificate beyond whether to believe it.
//!
//! Channel binding hashes the certificate with the hash of its own signature (RFC 5929), and a certificate that is itself
//! named as trusted is believed without a chain. Both need a handful of fields, at fixed places of the DER.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, explicit: the version of a certificate, the hash of RSASSA-PSS.
const CONTEXT_0: u8 = 0xa0;

/// Arcs that algorithms' names begin with.
const PKCS_1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
const ECDSA_WITH_SHA_1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
const ECDSA_WITH_SHA_2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
const SHA_1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const SHA_2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

/// The last arc under [`PKCS_1`] of RSASSA-PSS, whose hash is a parameter.
const RSASSA_PSS: u8 = 10;

/// An element: what it is, what it holds, and all of it.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// Takes the element that `bytes` begin with.
fn element<'a>(bytes: &mut &'a [u8]) -> Option<Element<'a>> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Up to four bytes of length: no certificate has more, and 0x80, an unknown length, is not DER.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    let whole = &bytes[..bytes.len() - after.len()];
    *bytes = after;
    Some(Element { tag, content, whole })
}

/// Takes an element that must be a `tag`.
fn expect<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<Element<'a>> {
    element(bytes).filter(|element| element.tag == tag)
}

/// The fields of a certificate that are of interest here.
pub(super) struct Certificate<'a> {
    whole: &'a [u8],
    signature_algorithm: &'a [u8],
    validity: &'a [u8],
    public_key: &'a [u8],
}

impl<'a> Certificate<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut outer = expect(&mut &*der, SEQUENCE)?.content;
        let mut signed = expect(&mut outer, SEQUENCE)?.content;
        let signature_algorithm = expect(&mut outer, SEQUENCE)?.content;
        // A certificate of version 1 does not say so.
        if signed.first() == Some(&CONTEXT_0) {
            element(&mut signed)?;
        }
        // Serial number, signature algorithm, issuer.
        for _ in 0..3 {
            element(&mut signed)?;
        }
        let validity = expect(&mut signed, SEQUENCE)?.content;
        // Subject.
        element(&mut signed)?;
        let public_key = expect(&mut signed, SEQUENCE)?.whole;
        Some(Certificate { whole: der, signature_algorithm, validity, public_key })
    }

    /// The public key with what kind of key it is (SubjectPublicKeyInfo).
    pub(super) fn public_key(&self) -> &'a [u8] {
        self.public_key
    }

    /// What the channel is bound to, `tls-server-end-point`; `None` where the signature has no hash of its own.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        Some(match self.signature_hash()? {
            Hash::Sha224 => Sha224::digest(self.whole).to_vec(),
            Hash::Sha256 => Sha256::digest(self.whole).to_vec(),
            Hash::Sha384 => Sha384::digest(self.whole).to_vec(),
            Hash::Sha512 => Sha512::digest(self.whole).to_vec(),
        })
    }

    fn signature_hash(&self) -> Option<Hash> {
        let mut algorithm = self.signature_algorithm;
        let name = expect(&mut algorithm, OBJECT_IDENTIFIER)?.content;
        let (&last, arc) = name.split_last()?;
        match last {
            RSASSA_PSS if arc == PKCS_1 => pss_hash(algorithm),
            // MD5 and SHA-1 are too weak; RFC 5929 puts SHA-256 in their place.
            4 | 5 | 11 if arc == PKCS_1 => Some(Hash::Sha256),
            12 if arc == PKCS_1 => Some(Hash::Sha384),
            13 if arc == PKCS_1 => Some(Hash::Sha512),
            14 if arc == PKCS_1 => Some(Hash::Sha224),
            1 if arc == ECDSA_WITH_SHA_2 => Some(Hash::Sha224),
            2 if arc == ECDSA_WITH_SHA_2 => Some(Hash::Sha256),
            3 if arc == ECDSA_WITH_SHA_2 => Some(Hash::Sha384),
            4 if arc == ECDSA_WITH_SHA_2 => Some(Hash::Sha512),
            _ if name == ECDSA_WITH_SHA_1 => Some(Hash::Sha256),
            _ => None,
        }
    }

    /// True if `now`, in seconds since 1970, is within the time that the certificate is good for.
    pub(super) fn is_valid_at(&self, now: u64) -> bool {
        let mut validity = self.validity;
        let mut bound = || element(&mut validity).and_then(|bound| seconds(&bound));
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        matches!((bound(), bound()), (Some(from), Some(until)) if (from..=until).contains(&now))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// The hash in the parameters of RSASSA-PSS.
fn pss_hash(mut algorithm: &[u8]) -> Option<Hash> {
    let mut parameters = expect(&mut algorithm, SEQUENCE)?.content;
    if parameters.first() != Some(&CONTEXT_0) {
        // Left out it is SHA-1.
        return Some(Hash::Sha256);
    }
    let mut explicit = element(&mut parameters)?.content;
    let mut identifier = expect(&mut explicit, SEQUENCE)?.content;
    let name = expect(&mut identifier, OBJECT_IDENTIFIER)?.content;
    match name.split_last()? {
        (1, arc) if arc == SHA_2 => Some(Hash::Sha256),
        (2, arc) if arc == SHA_2 => Some(Hash::Sha384),
        (3, arc) if arc == SHA_2 => Some(Hash::Sha512),
        (4, arc) if arc == SHA_2 => Some(Hash::Sha224),
        _ if name == SHA_1 => Some(Hash::Sha256),
        _ => None,
    }
}

/// Seconds since 1970 of a time.
fn seconds(time: &Element<'_>) -> Option<i64> {
    let digits = time.content.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0i64, |number, digit| number * 10 + i64::from(digit - b'0'));
    let (year, rest) = match (time.tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(&digits[..2]);
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let part = |i: usize| number(&rest[2 * i..2 * i + 2]);
    let (month, day) = (part(0), part(1));
    if !(1..=12).contains(&month) {
        return None;
    }
    // Days since 1970-01-01, with years that begin in March so that leap days come last.
    let (shifted, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        shifted * 365 + shifted.div_euclid(4) - shifted.div_euclid(100) + shifted.div_euclid(400) + (153 * month + 2) / 5 + day - 719_469;
    Some(days * 86_400 + part(2) * 3600 + part(3) * 60 + part(4))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    /// Self-signed with P-256 and SHA-384, from 2024-01-01 to 2054-01-01; all of these are made by openssl.
    const ECDSA_SHA_384: &[u8] = include_bytes!("../../testdata/certificates/ecdsa-sha384.pem");
    /// RSASSA-PSS with SHA-512, version 1.
    const PSS_SHA_512: &[u8] = include_bytes!("../../testdata/certificates/pss-sha512-v1.pem");
    const RSA_SHA_1: &[u8] = include_bytes!("../../testdata/certificates/rsa-sha1.pem");
    const ED25519: &[u8] = include_bytes!("../../testdata/certificates/ed25519.pem");

    fn der(pem: &[u8]) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem).unwrap()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (pem, hash) in
            [(ECDSA_SHA_384, Some(Hash::Sha384)), (PSS_SHA_512, Some(Hash::Sha512)), (RSA_SHA_1, Some(Hash::Sha256)), (ED25519, None)]
        {
            let der = der(pem);
            let certificate = Certificate::parse(&der).unwrap();
            assert_eq!(certificate.signature_hash(), hash);
            assert_eq!(
                certificate.end_point().map(|hash| hash.len()),
                hash.map(|hash| match hash {
                    Hash::Sha224 => 28,
                    Hash::Sha256 => 32,
                    Hash::Sha384 => 48,
                    Hash::Sha512 => 64,
                })
            );
        }
    }

    #[test]
    fn validity() {
        let der = der(ECDSA_SHA_384);
        let certificate = Certificate::parse(&der).unwrap();
        let (from, until) = (1_704_067_200, 2_650_924_799);
        for (now, valid) in [(from - 1, false), (from, true), (until, true), (until + 1, false)] {
            assert_eq!(certificate.is_valid_at(now), valid, "{now}");
        }
    }

    #[test]
    fn times() {
        let at = |tag, content| seconds(&Element { tag, content, whole: &[] });
        assert_eq!(at(UTC_TIME, &b"700101000000Z"[..]), Some(0));
        assert_eq!(at(UTC_TIME, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(at(GENERALIZED_TIME, b"20240229120000Z"), Some(1_709_208_000));
        assert_eq!(at(GENERALIZED_TIME, b"20241329120000Z"), None);
        assert_eq!(at(GENERALIZED_TIME, b"202402291200Z"), None);
        assert_eq!(at(UTC_TIME, b"7001010000+0Z"), None);
    }

    #[test]
    fn the_key_with_its_kind() {
        let der = der(ED25519);
        let key = Certificate::parse(&der).unwrap().public_key();
        assert_eq!((key.len(), &key[..9]), (44, &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70][..]));
    }

    #[test]
    fn any_cut_and_any_damage_is_survived() {
        for pem in [ECDSA_SHA_384, PSS_SHA_512, RSA_SHA_1, ED25519] {
            let der = der(pem).to_vec();
            for cut in 0..der.len() {
                assert!(Certificate::parse(&der[..cut]).is_none());
            }
            for i in 0..der.len() {
                for bit in 0..8 {
                    let mut damaged = der.clone();
                    damaged[i] ^= 1 << bit;
                    if let Some(certificate) = Certificate::parse(&damaged) {
                        certificate.end_point();
                        certificate.is_valid_at(0);
                    }
                }
            }
        }
    }
}
