//! Events of a decoder as text, to compare and to read.

use std::fmt::Write as _;
use std::path::PathBuf;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use logweir_core::{ChangeBatch, ChangeType, LogEvent, MetadataColumn, Result, TimestampMicros};
use logweir_mysql::catalog::TableShape;
use logweir_mysql::decoder::{BinlogDecoder, Decoded, DecoderOptions};

pub(crate) const NOW: TimestampMicros = TimestampMicros(1_000_000);

/// The path of a recording: `mariadb-10.11/types`.
pub(crate) fn path(capture: &str, suffix: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../datasets/captures").join(format!("{capture}.{suffix}"))
}

pub(crate) fn read(capture: &str) -> Vec<u8> {
    std::fs::read(path(capture, "000001")).unwrap()
}

/// Answers what a server would.
pub(crate) type Catalog<'a> = &'a dyn Fn(&str) -> Option<TableShape>;

/// Feeds pieces to a decoder, flushing at the end of each where `flush` says so, and collects its events.
pub(crate) fn decode_pieces<'b>(
    decoder: &mut BinlogDecoder,
    pieces: impl IntoIterator<Item = &'b [u8]>,
    flush: bool,
    catalog: Catalog<'_>,
) -> (Vec<LogEvent>, Result<()>) {
    let mut events = Vec::new();
    let feed = |decoder: &mut BinlogDecoder, piece: &[u8]| -> Result<()> {
        let mut rest = piece;
        while let Decoded::NeedsShape { relation, consumed } = decoder.decode(rest, NOW)? {
            rest = &rest[consumed..];
            decoder.provide_shape(&relation, catalog(&relation.table))?;
        }
        if flush {
            decoder.flush()?;
        }
        Ok(())
    };
    let mut result = Ok(());
    for piece in pieces {
        result = feed(decoder, piece);
        events.extend(std::iter::from_fn(|| decoder.next_event()));
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        result = decoder.flush().map(|_| ());
    }
    events.extend(std::iter::from_fn(|| decoder.next_event()));
    (events, result)
}

/// Decodes a recording in one piece.
pub(crate) fn decode(bytes: &[u8], options: DecoderOptions) -> (Vec<LogEvent>, Result<()>) {
    let mut decoder = BinlogDecoder::new(options, "types.000001", 0).unwrap();
    decode_pieces(&mut decoder, [bytes], false, &|_| None)
}

/// A line per relation, a paragraph per change, in log order; marks if asked for.
pub(crate) fn render(events: &[LogEvent], marks: bool) -> String {
    let mut pieces: Vec<(String, String)> = Vec::new();
    let mut heads = Vec::new();
    for event in events {
        match event {
            LogEvent::Relation(relation) => {
                let types: Vec<_> = relation
                    .columns()
                    .iter()
                    .map(|column| {
                        let mut text = format!("{} {} -> {}", column.name(), column.source_type, column.field.data_type());
                        let mut metadata: Vec<_> = column.field.metadata().iter().collect();
                        metadata.sort();
                        metadata.iter().for_each(|(key, value)| write!(text, " {key}={value}").unwrap());
                        text
                    })
                    .collect();
                let key: Vec<_> = relation.key().iter().map(|i| relation.columns()[*i].name()).collect();
                let declared = if relation.key_declared() { "" } else { " (undeclared)" };
                let mut head = String::new();
                writeln!(head, "{} v{} since {} key {}{declared}", relation.name(), relation.version(), relation.since(), key.join(", "))
                    .unwrap();
                types.iter().for_each(|line| writeln!(head, "  {line}").unwrap());
                heads.push((relation.since(), head));
            }
            LogEvent::Changes(batch) => changes(batch, &mut pieces),
            LogEvent::Mark(mark) if marks => {
                pieces.push((mark.position.to_string(), format!("MARK {} {:?} {}\n", mark.position, mark.commit_time, mark.offset.0)));
            }
            LogEvent::Mark(_) => {}
        }
    }
    heads.sort();
    pieces.sort();
    heads.into_iter().map(|(_, head)| head).collect::<String>() + &pieces.into_iter().map(|(_, text)| text).collect::<String>()
}

fn changes(batch: &ChangeBatch, pieces: &mut Vec<(String, String)>) {
    let options = FormatOptions::default().with_null("NULL");
    let columns = batch.relation.columns();
    let arrays: Vec<ArrayRef> = batch.records.columns()[..columns.len()].iter().map(without_zone).collect();
    let formatters: Vec<_> = arrays.iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
    let source = batch.metadata(MetadataColumn::Source).as_struct();
    let transactions = source.column(2).as_dictionary::<Int32Type>();
    let names = transactions.values().as_string::<i32>();
    let times = batch.metadata(MetadataColumn::Timestamp).as_primitive::<TimestampMicrosecondType>();
    for row in 0..batch.rows() {
        let change = ChangeType::from_code(batch.change_type_codes()[row]).unwrap().name();
        let position = batch.position(row);
        let transaction = if transactions.is_null(row) { "-" } else { names.value(transactions.key(row).unwrap()) };
        let mut text =
            format!("{change} {} v{} {position} {} {transaction}\n", batch.relation.name(), batch.relation.version(), times.value(row));
        for (i, column) in columns.iter().enumerate() {
            let unchanged = batch.unchanged.as_ref().is_some_and(|unchanged| unchanged.is_unchanged(i, row));
            let value = if unchanged { "UNCHANGED".to_owned() } else { formatters[i].value(row).to_string() };
            writeln!(text, "  {} = {value}", column.name()).unwrap();
        }
        pieces.push((position.to_string(), text));
    }
}

/// Printing a time zone, even UTC, would need a database of them.
fn without_zone(column: &ArrayRef) -> ArrayRef {
    match column.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(times) => std::sync::Arc::new(times.clone().with_timezone_opt(None::<&str>)),
        None => std::sync::Arc::clone(column),
    }
}
