//! FF1 of NIST SP 800-38G: a permutation of the strings of a length over an alphabet, under an AES key.
//!
//! Ten rounds of a Feistel network over the two halves of the string. A half stays what it is, numerals; a round adds to them, with
//! carry, what AES made of the other half. So all that large integers are needed for is two changes of radix.

use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256};

/// A block of AES.
const BLOCK: usize = 16;
const ROUNDS: u8 = 10;

/// AES with keys of any length that the standard knows.
#[derive(Clone)]
enum Cipher {
    #[cfg_attr(not(test), expect(dead_code, reason = "for the published samples"))]
    Aes128(Aes128),
    #[cfg_attr(not(test), expect(dead_code, reason = "for the published samples"))]
    Aes192(Aes192),
    Aes256(Aes256),
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mask) enum Direction {
    Encrypt,
    Decrypt,
}

/// FF1 under a key.
#[derive(Clone)]
pub(super) struct Ff1(Cipher);

/// Buffers that are kept from one call to the next.
#[derive(Default)]
pub(super) struct Scratch {
    /// What goes into AES behind the first block: tweak, zeros, number of the round, half.
    message: Vec<u8>,
    /// What comes out.
    stream: Vec<u8>,
    /// A number in radix 2^32, the lowest limb first.
    limbs: Vec<u32>,
}

impl Ff1 {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Ff1(Cipher::Aes256(Aes256::new(key.into())))
    }

    /// Permutes `numerals`, two or more and each below `radix`, in place. With fewer than a million strings of the length there
    /// would be too few to hide among: see the callers.
    pub(super) fn apply(&self, direction: Direction, radix: u16, tweak: &[u8], numerals: &mut [u16], scratch: &mut Scratch) {
        let n = numerals.len();
        let radix = Radix::new(radix);
        let u = n / 2;
        // The bytes of a half's number: of the right one, which may be the longer.
        let b = radix.bytes(n - u);
        let stream_bytes = 4 * b.div_ceil(4) + 4;
        let first = self.first(radix.radix, u, n, tweak.len());

        let padded = (tweak.len() + 1 + b).next_multiple_of(BLOCK);
        scratch.message.clear();
        scratch.message.extend_from_slice(tweak);
        scratch.message.resize(padded, 0);
        for step in 0..ROUNDS {
            let round = if direction == Direction::Encrypt { step } else { ROUNDS - 1 - step };
            // The standard swaps the halves; here they take turns, which is the same.
            let (left, right) = numerals.split_at_mut(u);
            let (changed, read) = if round % 2 == 0 { (left, right) } else { (right, left) };
            scratch.message[padded - b - 1] = round;
            radix.write(read, &mut scratch.limbs, &mut scratch.message[padded - b..]);
            self.stream(first, &scratch.message, stream_bytes, &mut scratch.stream);
            radix.add(changed, &scratch.stream, &mut scratch.limbs, direction);
        }
    }

    /// What AES makes of the block that says which permutation this is.
    fn first(&self, radix: u16, u: usize, n: usize, tweak: usize) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..3].copy_from_slice(&[1, 2, 1]);
        block[4..6].copy_from_slice(&radix.to_be_bytes());
        block[6] = ROUNDS;
        block[7] = u as u8;
        // Both are lengths of values in memory, far below 2^32.
        block[8..12].copy_from_slice(&(n as u32).to_be_bytes());
        block[12..].copy_from_slice(&(tweak as u32).to_be_bytes());
        self.encrypt(block)
    }

    /// Bytes that depend on all of `message`, as many as `length`.
    fn stream(&self, first: [u8; BLOCK], message: &[u8], length: usize, stream: &mut Vec<u8>) {
        let mac = message.chunks_exact(BLOCK).fold(first, |mac, block| {
            let mut mixed = mac;
            mixed.iter_mut().zip(block).for_each(|(mixed, byte)| *mixed ^= byte);
            self.encrypt(mixed)
        });
        stream.clear();
        stream.extend_from_slice(&mac);
        for counter in 1_u64.. {
            if stream.len() >= length {
                break;
            }
            let mut block = mac;
            block[8..].iter_mut().zip(counter.to_be_bytes()).for_each(|(byte, counter)| *byte ^= counter);
            stream.extend_from_slice(&self.encrypt(block));
        }
        stream.truncate(length);
    }

    fn encrypt(&self, mut block: [u8; BLOCK]) -> [u8; BLOCK] {
        let bytes = GenericArray::from_mut_slice(&mut block);
        match &self.0 {
            Cipher::Aes128(aes) => aes.encrypt_block(bytes),
            Cipher::Aes192(aes) => aes.encrypt_block(bytes),
            Cipher::Aes256(aes) => aes.encrypt_block(bytes),
        }
        block
    }
}

/// A radix, and how many of its numerals are taken at a time.
struct Radix {
    radix: u16,
    /// The largest power of the radix that a limb holds, and its exponent.
    power: u32,
    digits: usize,
}

impl Radix {
    fn new(radix: u16) -> Self {
        let (mut power, mut digits) = (u32::from(radix), 1);
        while let Some(next) = power.checked_mul(u32::from(radix)) {
            (power, digits) = (next, digits + 1);
        }
        Radix { radix, power, digits }
    }

    /// How many bytes a number of so many numerals fills.
    fn bytes(&self, numerals: usize) -> usize {
        let bits = if self.radix.is_power_of_two() {
            numerals * self.radix.trailing_zeros() as usize
        } else {
            // No power of such a radix is near enough to one of two for the rounding to matter, for lengths that are masked.
            (numerals as f64 * f64::from(self.radix).log2()).ceil() as usize
        };
        bits.div_ceil(8)
    }

    fn is_bytes(&self) -> bool {
        self.radix == 256
    }

    /// Writes the number that `numerals` are, with the highest byte first.
    fn write(&self, numerals: &[u16], limbs: &mut Vec<u32>, bytes: &mut [u8]) {
        bytes.fill(0);
        if self.is_bytes() {
            let from = bytes.len() - numerals.len();
            bytes[from..].iter_mut().zip(numerals).for_each(|(byte, numeral)| *byte = *numeral as u8);
            return;
        }
        limbs.clear();
        // The first piece is the short one, so that the others are whole.
        let (head, rest) = numerals.split_at(numerals.len() % self.digits);
        for piece in std::iter::once(head).chain(rest.chunks_exact(self.digits)) {
            let mut carry = piece.iter().fold(0_u64, |number, numeral| number * u64::from(self.radix) + u64::from(*numeral));
            for limb in limbs.iter_mut() {
                carry += u64::from(*limb) * u64::from(self.power);
                *limb = carry as u32;
                carry >>= 32;
            }
            if carry > 0 {
                limbs.push(carry as u32);
            }
        }
        for (place, limb) in bytes.rchunks_mut(4).zip(limbs.iter()) {
            let limb = limb.to_be_bytes();
            place.copy_from_slice(&limb[4 - place.len()..]);
        }
    }

    /// Adds the number in `bytes` to `numerals`, or takes it away, and forgets what does not fit.
    fn add(&self, numerals: &mut [u16], bytes: &[u8], limbs: &mut Vec<u32>, direction: Direction) {
        let radix = self.radix;
        let mut carry = 0;
        let mut add = |numeral: &mut u16, other: u16| {
            let other = other + carry;
            (*numeral, carry) = match direction {
                Direction::Encrypt if *numeral + other >= radix => (*numeral + other - radix, 1),
                Direction::Encrypt => (*numeral + other, 0),
                Direction::Decrypt if *numeral < other => (*numeral + radix - other, 1),
                Direction::Decrypt => (*numeral - other, 0),
            };
        };
        if self.is_bytes() {
            numerals.iter_mut().rev().zip(bytes.iter().rev()).for_each(|(numeral, byte)| add(numeral, u16::from(*byte)));
            return;
        }
        limbs.clear();
        limbs.extend(bytes.rchunks(4).map(|place| place.iter().fold(0, |limb, byte| limb << 8 | u32::from(*byte))));
        for piece in numerals.rchunks_mut(self.digits) {
            let mut remainder = 0;
            for limb in limbs.iter_mut().rev() {
                let number = remainder << 32 | u64::from(*limb);
                *limb = (number / u64::from(self.power)) as u32;
                remainder = number % u64::from(self.power);
            }
            if limbs.last() == Some(&0) {
                limbs.pop();
            }
            for numeral in piece.iter_mut().rev() {
                add(numeral, (remainder % u64::from(radix)) as u16);
                remainder /= u64::from(radix);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn numerals(text: &str) -> Vec<u16> {
        text.chars().map(|c| c.to_digit(36).unwrap() as u16).collect()
    }

    /// The samples that NIST published with SP 800-38G, FF1samples.pdf.
    #[test]
    fn the_published_samples() {
        const KEY: &str = "2B7E151628AED2A6ABF7158809CF4F3CEF4359D8D580AA4F7F036D6F04FC6A94";
        const KEY_192: &str = "2B7E151628AED2A6ABF7158809CF4F3CEF4359D8D580AA4F";
        const TWEAK: &str = "39383736353433323130";
        const TWEAK_36: &str = "3737373770717273373737";
        const DIGITS: &str = "0123456789";
        const LETTERS: &str = "0123456789abcdefghi";
        for (sample, key, radix, tweak, clear, expected) in [
            (1, &KEY[..32], 10, "", DIGITS, "2433477484"),
            (2, &KEY[..32], 10, TWEAK, DIGITS, "6124200773"),
            (3, &KEY[..32], 36, TWEAK_36, LETTERS, "a9tv40mll9kdu509eum"),
            (4, KEY_192, 10, "", DIGITS, "2830668132"),
            (5, KEY_192, 10, TWEAK, DIGITS, "2496655549"),
            (6, KEY_192, 36, TWEAK_36, LETTERS, "xbj3kv35jrawxv32ysr"),
            (7, KEY, 10, "", DIGITS, "6657667009"),
            (8, KEY, 10, TWEAK, DIGITS, "1001623463"),
            (9, KEY, 36, TWEAK_36, LETTERS, "xs8a0azh2avyalyzuwd"),
        ] {
            let key = bytes(key);
            let ff1 = Ff1(match key.len() {
                16 => Cipher::Aes128(Aes128::new_from_slice(&key).unwrap()),
                24 => Cipher::Aes192(Aes192::new_from_slice(&key).unwrap()),
                _ => Cipher::Aes256(Aes256::new_from_slice(&key).unwrap()),
            });
            let (tweak, mut scratch) = (bytes(tweak), Scratch::default());
            let mut string = numerals(clear);
            ff1.apply(Direction::Encrypt, radix, &tweak, &mut string, &mut scratch);
            assert_eq!(string, numerals(expected), "sample {sample}");
            ff1.apply(Direction::Decrypt, radix, &tweak, &mut string, &mut scratch);
            assert_eq!(string, numerals(clear), "sample {sample}");
        }
    }

    /// Numbers of a radix as `num-bigint` would have them, digit by digit.
    fn digit_by_digit(numerals: &[u16], radix: u16, bytes: usize) -> Vec<u8> {
        let mut number = vec![0_u8; bytes];
        for numeral in numerals {
            let mut carry = u32::from(*numeral);
            for byte in number.iter_mut().rev() {
                carry += u32::from(*byte) * u32::from(radix);
                *byte = carry as u8;
                carry >>= 8;
            }
            assert_eq!(carry, 0, "it fits");
        }
        number
    }

    proptest! {
        #[test]
        fn a_half_is_the_number_it_should_be(radix in prop_oneof![Just(10_u16), Just(26), Just(36), Just(256)], seed in proptest::collection::vec(any::<u16>(), 1..200)) {
            let numerals: Vec<u16> = seed.iter().map(|numeral| numeral % radix).collect();
            let how = Radix::new(radix);
            let mut number = vec![7; how.bytes(numerals.len())];
            how.write(&numerals, &mut vec![9], &mut number);
            prop_assert_eq!(&number, &digit_by_digit(&numerals, radix, number.len()));
            // Added to zeros it is itself again.
            let mut again = vec![0; numerals.len()];
            how.add(&mut again, &number, &mut vec![9], Direction::Encrypt);
            prop_assert_eq!(&again, &numerals);
        }

        #[test]
        fn what_was_done_is_undone(key: [u8; 32], radix in prop_oneof![Just(10_u16), Just(26), Just(256)], tweak in proptest::collection::vec(any::<u8>(), 0..40), seed in proptest::collection::vec(any::<u16>(), 2..150)) {
            let clear: Vec<u16> = seed.iter().map(|numeral| numeral % radix).collect();
            let (ff1, mut scratch, mut string) = (Ff1::new(&key), Scratch::default(), clear.clone());
            ff1.apply(Direction::Encrypt, radix, &tweak, &mut string, &mut scratch);
            prop_assert!(string.iter().all(|numeral| *numeral < radix));
            ff1.apply(Direction::Decrypt, radix, &tweak, &mut string, &mut scratch);
            prop_assert_eq!(string, clear);
        }
    }
}
