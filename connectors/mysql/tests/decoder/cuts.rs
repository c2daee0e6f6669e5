//! Any cut of the bytes, any limit and any restart give the same changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use logweir_core::{LogEvent, LogMark, Relation};
use logweir_mysql::decoder::{BinlogDecoder, DecoderOptions};
use logweir_mysql::offset::BinlogOffset;
use proptest::prelude::*;

use crate::captures::DECODED;
use crate::text::{decode, decode_pieces, read, render};

fn pieces<'b>(bytes: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_gives_the_same_events(capture in 0..DECODED.len(), cuts in proptest::collection::vec(any::<usize>(), 0..40)) {
        let bytes = read(DECODED[capture]);
        let (whole, _) = decode(&bytes, DecoderOptions::default());
        let mut decoder = BinlogDecoder::new(DecoderOptions::default(), "types.000001", 0).unwrap();
        let (cut, result) = decode_pieces(&mut decoder, pieces(&bytes, &cuts), false, &|_| None);
        prop_assert!(result.is_ok(), "{result:?}");
        prop_assert_eq!(render(&cut, true), render(&whole, true));
    }

    #[test]
    fn flushing_and_limits_change_batches_and_not_changes(
        capture in 0..DECODED.len(), cuts in proptest::collection::vec(any::<usize>(), 0..40), flush_bytes in 1usize..4000, flush_bytes_max in 1usize..4000,
    ) {
        let bytes = read(DECODED[capture]);
        let (whole, _) = decode(&bytes, DecoderOptions::default());
        let options = DecoderOptions { flush_bytes, flush_bytes_max, ..DecoderOptions::default() };
        let mut decoder = BinlogDecoder::new(options, "types.000001", 0).unwrap();
        let (cut, result) = decode_pieces(&mut decoder, pieces(&bytes, &cuts), true, &|_| None);
        prop_assert!(result.is_ok(), "{result:?}");
        prop_assert_eq!(render(&cut, false), render(&whole, false));
        // A mark is behind everything before it, and before everything behind it.
        let mut reached = None;
        let mut marked = None;
        for event in &cut {
            match event {
                LogEvent::Changes(batch) => {
                    prop_assert!(marked.is_none_or(|mark| batch.position(0) > mark));
                    reached = reached.max(Some(batch.last));
                }
                LogEvent::Mark(mark) => {
                    prop_assert!(reached.is_none_or(|reached| mark.position > reached));
                    marked = Some(mark.position);
                }
                LogEvent::Relation(_) => {}
            }
        }
    }

    #[test]
    fn byte_by_byte(capture in 0..DECODED.len()) {
        let bytes = read(DECODED[capture]);
        let (whole, _) = decode(&bytes, DecoderOptions::default());
        let mut decoder = BinlogDecoder::new(DecoderOptions::default(), "types.000001", 0).unwrap();
        let (cut, result) = decode_pieces(&mut decoder, bytes.chunks(1), false, &|_| None);
        prop_assert!(result.is_ok(), "{result:?}");
        prop_assert_eq!(render(&cut, true), render(&whole, true));
    }
}

#[test]
fn a_restart_from_any_mark_goes_on_with_the_same_changes() {
    for capture in DECODED {
        let bytes = read(capture);
        let (whole, _) = decode(&bytes, DecoderOptions::default());
        let changes = |events: &[LogEvent]| -> BTreeMap<String, String> {
            let text = render(events, false);
            let mut changes = BTreeMap::new();
            let mut position = String::new();
            for line in text.lines() {
                if !line.starts_with("  ") {
                    position = line.split(' ').nth(3).unwrap_or_default().to_owned();
                    if line.contains(" since ") {
                        position.clear();
                    }
                }
                if !position.is_empty() {
                    changes.entry(position.clone()).or_insert_with(String::new).push_str(line);
                }
            }
            changes
        };
        let expected = changes(&whole);
        // A mark at the end of every transaction.
        let options = DecoderOptions { flush_bytes: 0, ..DecoderOptions::default() };
        let (events, _) = decode(&bytes, options);
        let mut relations: Vec<Arc<Relation>> = Vec::new();
        let mut marks = 0;
        for event in &events {
            match event {
                LogEvent::Relation(relation) => relations.push(Arc::clone(relation)),
                LogEvent::Mark(mark) => {
                    marks += 1;
                    let (rest, announced) = resume(&bytes, mark, &relations);
                    let behind: BTreeMap<_, _> = expected
                        .iter()
                        .filter(|(position, _)| **position > mark.position.to_string())
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect();
                    assert_eq!(changes(&rest), behind, "{capture} from {}", mark.position);
                    // Versions are the same ones, also those that begin behind the mark.
                    for relation in announced {
                        assert!(
                            events.iter().any(|event| matches!(event, LogEvent::Relation(known) if *known == relation)),
                            "{capture}: {relation:?} since {}",
                            relation.since()
                        );
                    }
                }
                LogEvent::Changes(_) => {}
            }
        }
        assert!(marks > 2, "{capture}");
    }
}

/// Decodes from a mark on, as a recorded source does: the format first, in an event without a place.
fn resume(bytes: &[u8], mark: &LogMark, relations: &[Arc<Relation>]) -> (Vec<LogEvent>, Vec<Arc<Relation>>) {
    let offset = BinlogOffset::of(mark).unwrap();
    let options = DecoderOptions {
        resume: Some(mark.clone()),
        relations: relations.to_vec(),
        gtid: offset.gtid.clone(),
        incarnation: offset.incarnation,
        ..DecoderOptions::default()
    };
    let size = u32::from_le_bytes(bytes[13..17].try_into().unwrap()) as usize;
    let mut format = bytes[4..4 + size].to_vec();
    format[13..17].fill(0);
    format[17] &= !1;
    let covered = format.len() - 4;
    let checksum = crc32fast::hash(&format[..covered]);
    format[covered..].copy_from_slice(&checksum.to_le_bytes());
    let mut decoder = BinlogDecoder::new(options, &offset.file, offset.position).unwrap();
    let (events, result) = decode_pieces(&mut decoder, [&format, &bytes[offset.position as usize..]], false, &|_| None);
    result.unwrap();
    let announced =
        events.iter().filter_map(|event| if let LogEvent::Relation(relation) = event { Some(Arc::clone(relation)) } else { None });
    let announced = announced.collect();
    (events, announced)
}
