//! Damaged logs: an error or less output, never a panic, never much memory, and the same error again.

use logweir_core::LogEvent;
use logweir_mysql::decoder::{BinlogDecoder, DecoderOptions};

use crate::captures::DECODED;
use crate::text::{NOW, decode, read};

/// A small generator of our own, so that a failure is repeated by its number alone.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// The recordings without checksums, which would notice every damage before the decoder met it.
fn without_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes[..4].to_vec();
    let mut rest = &bytes[4..];
    let mut checksums = true;
    while !rest.is_empty() {
        let size = u32::from_le_bytes(rest[9..13].try_into().unwrap()) as usize;
        let (event, behind) = rest.split_at(size);
        let mut event = event.to_vec();
        if event[4] == 15 {
            let algorithm = event.len() - 5;
            checksums = event[algorithm] == 1;
            event[algorithm] = 0;
        } else if checksums {
            event.truncate(size - 4);
            event[9..13].copy_from_slice(&(size as u32 - 4).to_le_bytes());
        }
        out.extend(event);
        rest = behind;
    }
    out
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    // The format is left alone, mostly: without it nothing is reached.
    let first = if random.below(20) == 0 { 0 } else { 130.min(bytes.len() - 1) };
    for _ in 0..1 + random.below(4) {
        let at = first + random.below(bytes.len() - first);
        match random.below(6) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes.insert(at, random.next() as u8),
            2 => drop(bytes.remove(at)),
            3 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfb, 0xfc, 0xfd, 0xfe, 0xff][random.below(9)],
            4 => {
                let (from, length) = (random.below(bytes.len()), random.below(64));
                let copied: Vec<u8> = bytes[from..].iter().take(length).copied().collect();
                let end = (at + copied.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&copied[..end - at]);
            }
            _ => bytes[at] ^= 1 << random.below(8),
        }
        if bytes.len() <= first + 1 {
            break;
        }
    }
}

#[test]
fn twenty_thousand_damaged_logs() {
    let originals: Vec<Vec<u8>> = DECODED.iter().map(|capture| without_checksums(&read(capture))).collect();
    for original in &originals {
        decode(original, DecoderOptions::default()).1.unwrap();
    }
    let (mut failed, mut passed) = (0, 0);
    for seed in 1..=20_000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bytes = originals[random.below(originals.len())].clone();
        damage(&mut bytes, &mut random);
        let run = std::panic::catch_unwind(|| {
            let mut decoder = BinlogDecoder::new(DecoderOptions::default(), "types.000001", 0).unwrap();
            let result = decoder.decode(&bytes, NOW).map(|_| ()).and_then(|()| decoder.flush().map(|_| ()));
            let mut held = 0;
            while let Some(event) = decoder.next_event() {
                if let LogEvent::Changes(batch) = event {
                    held += batch.bytes();
                }
            }
            if let Err(error) = &result {
                let again = decoder.decode(&[], NOW).unwrap_err();
                assert_eq!(error.to_string(), again.to_string());
            }
            (result.is_err(), held)
        });
        let (error, held) = run.unwrap_or_else(|_| panic!("seed {seed} panics"));
        assert!(held < 64 << 20, "seed {seed} holds {held} bytes");
        if error { failed += 1 } else { passed += 1 }
    }
    // Both happen, so both were tested.
    assert!(failed > 2000 && passed > 500, "{failed} failed, {passed} passed");
}

#[test]
fn with_checksums_every_flipped_bit_is_noticed() {
    let bytes = read("mysql-9.7/changes");
    let (whole, _) = decode(&bytes, DecoderOptions::default());
    let mut random = Random(7);
    for _ in 0..500 {
        let mut bytes = bytes.clone();
        let at = 4 + random.below(bytes.len() - 4);
        bytes[at] ^= 1 << random.below(8);
        let (events, result) = decode(&bytes, DecoderOptions::default());
        // A size that grew beyond the end leaves an event that never becomes whole.
        assert!(result.is_err() || events.len() < whole.len(), "byte {at}");
    }
}

#[test]
fn any_bytes_at_all() {
    for seed in 1..2000u64 {
        let mut random = Random(seed);
        let mut bytes = b"\xfebin".to_vec();
        bytes.extend((0..random.below(500)).map(|_| random.next() as u8));
        let mut decoder = BinlogDecoder::new(DecoderOptions::default(), "types.000001", 0).unwrap();
        let _ = decoder.decode(&bytes, NOW);
    }
}
