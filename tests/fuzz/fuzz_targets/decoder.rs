//! Arbitrary bytes into the binlog decoder: no panic, no unbounded memory.
//!
//! The first two bytes say how: in which cuts, of which server, with or without somebody to ask for shapes. The rest are events
//! behind a format description without checksums, which otherwise would stop nearly every input at its first event.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir_core::{LogEvent, Pattern, TimestampMicros};
use logweir_mysql::decoder::{BinlogDecoder, Decoded, DecoderOptions};

fn preamble(version: &[u8]) -> Vec<u8> {
    let mut body = vec![4, 0];
    body.extend(version);
    body.resize(52, 0);
    body.extend([0, 0, 0, 0, 19]);
    body.extend([8; 42]);
    body.extend([0; 5]);
    let mut bytes = b"\xfebin".to_vec();
    bytes.extend([0, 0, 0, 0, 15, 1, 0, 0, 0]);
    bytes.extend((19 + body.len() as u32).to_le_bytes());
    bytes.extend((23 + body.len() as u32).to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(body);
    bytes
}

fuzz_target!(|input: &[u8]| {
    let [how, cut, events @ ..] = input else { return };
    let mut bytes = preamble(if how & 1 == 0 { b"9.7.4" } else { b"10.11.19-MariaDB" });
    bytes.extend(events);
    let options = DecoderOptions {
        has_catalog: how & 2 != 0,
        before_images: if how & 8 != 0 { vec![Pattern::new("*")] } else { Vec::new() },
        flush_bytes: 1 << (how >> 4),
        flush_bytes_max: 1 << (4 + (how >> 4)),
        ..DecoderOptions::default()
    };
    let mut decoder = BinlogDecoder::new(options, "binlog.000001", 0).expect("the options are sound");
    let mut held = 0;
    for piece in bytes.chunks(usize::from(*cut) * 8 + 1) {
        let mut rest = piece;
        loop {
            match decoder.decode(rest, TimestampMicros(0)) {
                Ok(Decoded::All) => break,
                Ok(Decoded::NeedsShape { relation, consumed }) => {
                    rest = &rest[consumed..];
                    decoder.provide_shape(&relation, None).expect("the decoder asked");
                }
                Err(_) => return,
            }
        }
        if how & 4 != 0 && decoder.flush().is_err() {
            return;
        }
        while let Some(event) = decoder.next_event() {
            if let LogEvent::Changes(batch) = event {
                held += batch.bytes();
            }
        }
    }
    // What comes out is in proportion to what went in; compression and defaults of builders multiply it.
    assert!(held < (64 << 20) + bytes.len() * 4096, "{held} bytes came of {}", bytes.len());
});
