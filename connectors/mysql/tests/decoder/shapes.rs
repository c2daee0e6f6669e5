//! A live decoder asks for shapes: when, how often, and what it makes of the answers.

use std::cell::RefCell;

use logweir_core::{LogEvent, TimestampMicros};
use logweir_mysql::catalog::{ColumnShape, TableShape};
use logweir_mysql::decoder::{BinlogDecoder, Decoded, DecoderOptions};

use crate::text::{decode, decode_pieces, read, render};

fn column(name: &str, column_type: &str, charset: Option<&str>) -> ColumnShape {
    let end = column_type.find(['(', ' ']).unwrap_or(column_type.len());
    ColumnShape {
        name: name.into(),
        data_type: column_type[..end].into(),
        column_type: column_type.into(),
        charset: charset.map(str::to_owned),
        srid: None,
    }
}

fn table(text: &str) -> TableShape {
    let columns = text.split(';').map(|column| column.trim().split_once(' ').unwrap());
    let charset = |column_type: &str| {
        let text = ["char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"];
        let end = column_type.find(['(', ' ']).unwrap_or(column_type.len());
        text.contains(&&column_type[..end]).then_some("utf8mb4")
    };
    let columns = columns.map(|(name, column_type)| column(name, column_type, charset(column_type))).collect();
    TableShape { columns, key: vec!["id".into()] }
}

fn types(name: &str) -> Option<TableShape> {
    let mut shape = table(match name {
        "numbers" => {
            "id int(11); t tinyint(4); tu tinyint(3) unsigned; s smallint(6); su smallint(5) unsigned; m mediumint(9); mu mediumint(8) unsigned; \
             i int(11); iu int(10) unsigned; b bigint(20); bu bigint(20) unsigned; f float; d double; d1 decimal(10,2); d2 decimal(38,10); \
             d3 decimal(65,30); d4 decimal(5,5); b1 bit(1); b7 bit(7); b64 bit(64); y year(4); z int(10) unsigned zerofill"
        }
        "times" => {
            "id int(11); d date; t0 time; t1 time(1); t6 time(6); dt0 datetime; dt3 datetime(3); dt6 datetime(6); ts0 timestamp; ts6 timestamp(6)"
        }
        "strings" => {
            "id int(11); c char(10); cw char(255); v varchar(20); vw varchar(1000); tt tinytext; tx text; mt mediumtext; lt longtext; b4 binary(4); \
             vb varbinary(10); tb tinyblob; bb blob; lat varchar(20); u2 varchar(20); sj varchar(20); kr char(5); e enum('a','it''s','ü'); s set('x','y','z')"
        }
        "special" => {
            "id int(11); u uuid; i4 inet4; i6 inet6; j json; g geometry; p point; vc varchar(1000) compressed; tc text compressed; bc blob compressed; \
             vl varchar(100) compressed"
        }
        _ => return None,
    });
    for (name, charset) in [("lat", "latin1"), ("vl", "latin1"), ("u2", "ucs2"), ("sj", "sjis"), ("kr", "koi8r"), ("e", "latin1")] {
        shape.columns.iter_mut().filter(|column| column.name == name).for_each(|column| column.charset = Some(charset.into()));
    }
    for name in ["tc", "j"] {
        shape.columns.iter_mut().filter(|column| column.name == name).for_each(|column| column.charset = Some("utf8mb4".into()));
    }
    for column in &mut shape.columns {
        if column.column_type.ends_with("compressed") && column.name == "vc" {
            column.charset = Some("utf8mb4".into());
        }
    }
    Some(shape)
}

fn live() -> DecoderOptions {
    DecoderOptions { has_catalog: true, ..DecoderOptions::default() }
}

fn run(capture: &str, options: DecoderOptions, catalog: &dyn Fn(&str) -> Option<TableShape>) -> (String, Vec<String>) {
    let asked = RefCell::new(Vec::new());
    let answer = |table: &str| {
        asked.borrow_mut().push(table.to_owned());
        catalog(table)
    };
    let mut decoder = BinlogDecoder::new(options, "types.000001", 0).unwrap();
    let bytes = read(capture);
    let (events, result) = decode_pieces(&mut decoder, [bytes.as_slice()], false, &answer);
    result.unwrap();
    (render(&events, false), asked.into_inner())
}

/// The values alone: places differ between recordings.
fn values(text: &str) -> String {
    text.lines().filter(|line| line.contains(" = ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn without_metadata_the_server_s_description_gives_the_same() {
    let (minimal, asked) = run("mariadb-10.11/types-minimal", live(), &types);
    assert_eq!(asked, ["numbers", "times", "strings", "special"]);
    let (full, _) = run("mariadb-10.11/types", live(), &types);
    assert_eq!(values(&minimal), values(&full));
    // What only the server knows, it told.
    assert!(minimal.contains("  u uuid -> Utf8") && minimal.contains("  u = 123e4567-e89b-12d3-a456-426655440000"), "{minimal}");
    assert!(minimal.contains("  i6 = ::ffff:192.0.2.1") && minimal.contains("  j json -> Utf8 ARROW:extension:name=arrow.json"));
}

#[test]
fn with_full_metadata_the_server_is_asked_once_and_again_after_ddl() {
    let (text, asked) = run("mysql-9.7/changes", live(), &|_| None);
    let (recorded, _) = decode(&read("mysql-9.7/changes"), DecoderOptions::default());
    assert_eq!(values(&text), values(&render(&recorded, false)));
    // keyed: at first, and after each of three statements that alter it.
    assert_eq!(asked.iter().filter(|table| *table == "keyed").count(), 4, "{asked:?}");
    assert_eq!(asked.iter().filter(|table| *table == "composite").count(), 1);
}

#[test]
fn another_table_than_the_log_s_is_refused() {
    let mut decoder = BinlogDecoder::new(live(), "types.000001", 0).unwrap();
    let bytes = read("mariadb-10.11/types-minimal");
    let other = |_: &str| Some(table("id int; something varchar(10)"));
    let (_, result) = decode_pieces(&mut decoder, [bytes.as_slice()], false, &other);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), logweir_core::ErrorKind::Schema);
    assert!(error.get_remedy().unwrap().contains("binlog_row_metadata = FULL"), "{error}");
}

#[test]
fn nothing_is_taken_until_the_answer_comes() {
    let bytes = read("mysql-9.7/types-compressed");
    let mut decoder = BinlogDecoder::new(live(), "types.000001", 0).unwrap();
    let Decoded::NeedsShape { relation, consumed } = decoder.decode(&bytes, TimestampMicros(0)).unwrap() else {
        panic!("a shape is needed")
    };
    let again = decoder.decode(&bytes[consumed..], TimestampMicros(0)).unwrap();
    assert_eq!(again, Decoded::NeedsShape { relation: relation.clone(), consumed: 0 });
    decoder.provide_shape(&relation, None).unwrap();
    // Tables behind it ask for themselves.
    let mut rest = &bytes[consumed..];
    let mut asked = vec![relation.table];
    while let Decoded::NeedsShape { relation, consumed } = decoder.decode(rest, TimestampMicros(0)).unwrap() {
        rest = &rest[consumed..];
        decoder.provide_shape(&relation, None).unwrap();
        asked.push(relation.table);
    }
    assert_eq!(asked, ["numbers", "times", "strings", "special"]);
    decoder.flush().unwrap();
    let rows: usize =
        std::iter::from_fn(|| decoder.next_event()).map(|event| if let LogEvent::Changes(batch) = event { batch.rows() } else { 0 }).sum();
    assert_eq!(rows, 18);
}

#[test]
fn the_checkpoint_s_relation_saves_asking() {
    let bytes = read("mariadb-10.11/types-minimal");
    let mut decoder = BinlogDecoder::new(DecoderOptions { flush_bytes: 0, ..live() }, "types.000001", 0).unwrap();
    let (events, _) = decode_pieces(&mut decoder, [bytes.as_slice()], false, &types);
    let relations: Vec<_> = events
        .iter()
        .filter_map(|event| if let LogEvent::Relation(relation) = event { Some(std::sync::Arc::clone(relation)) } else { None })
        .collect();
    let json = serde_json::to_string(&relations).unwrap();
    let relations: Vec<std::sync::Arc<logweir_core::Relation>> =
        serde_json::from_str::<Vec<logweir_core::Relation>>(&json).unwrap().into_iter().map(std::sync::Arc::new).collect();
    // A later log of the same tables; the mark lies before it.
    let mark = events.iter().rev().find_map(|event| if let LogEvent::Mark(mark) = event { Some(mark.clone()) } else { None }).unwrap();
    let options = DecoderOptions { resume: Some(mark), relations, ..live() };
    let mut decoder = BinlogDecoder::new(options, "types.000002", 0).unwrap();
    // Its CREATE TABLE statements make the tables doubtful, so only rows are given: from behind the last of them.
    let refuse = |table: &str| -> Option<TableShape> { panic!("{table} is asked for") };
    let starts = event_starts(&bytes);
    let first_map = starts.iter().position(|(at, kind)| *kind == 19 && *at > 0).unwrap();
    let begin = starts[..first_map].iter().rev().find(|(_, kind)| *kind == 162).unwrap().0;
    let end = starts[first_map..].iter().find(|(_, kind)| *kind == 16).unwrap().0;
    let format_end = starts[1].0;
    let (events, result) = decode_pieces(&mut decoder, [&bytes[..format_end], &bytes[begin..end + 31]], false, &refuse);
    result.unwrap();
    assert!(render(&events, false).contains("t.numbers v1"));
}

fn event_starts(bytes: &[u8]) -> Vec<(usize, u8)> {
    let mut starts = Vec::new();
    let mut at = 4;
    while at < bytes.len() {
        starts.push((at, bytes[at + 4]));
        at += u32::from_le_bytes(bytes[at + 9..at + 13].try_into().unwrap()) as usize;
    }
    starts
}
