//! Logs made by hand: what servers write rarely, what they send only over the network, and what they never should.

use std::sync::Arc;

use logweir_core::{ErrorKind, LogEvent, LogMark, LogPosition, Pattern, Relation, Result, TableFilter, TimestampMicros};
use logweir_mysql::catalog::{ColumnShape, TableShape};
use logweir_mysql::decoder::{BinlogDecoder, DecoderOptions};
use logweir_mysql::gtid::MysqlGtidSet;
use logweir_mysql::offset::{BinlogOffset, GtidState};

use crate::text::{NOW, decode_pieces, render};

const UUID: [u8; 16] = [0x11; 16];

/// A log of table `d.x (id INT PRIMARY KEY, n INT)`, without checksums.
#[derive(Default)]
struct Log {
    bytes: Vec<u8>,
    seconds: u32,
    /// Where the next event begins as the server counts.
    at: u64,
}

impl Log {
    fn file() -> Self {
        let mut log = Log { bytes: b"\xfebin".to_vec(), seconds: 1000, at: 4 };
        log.format();
        log
    }

    /// As a server begins to send: the file's name, the format without a place.
    fn stream(file: &str, position: u64) -> Self {
        let mut log = Log { bytes: Vec::new(), seconds: 1000, at: position };
        log.rotate_to(file, position);
        let start = log.bytes.len();
        log.format();
        log.bytes[start + 13..start + 17].fill(0);
        log.at = position;
        log
    }

    fn format(&mut self) {
        let mut body = vec![4, 0];
        body.extend(b"9.7.4");
        body.resize(52, 0);
        body.extend([0, 0, 0, 0, 19]);
        body.extend([8; 42]);
        body.extend([0; 5]);
        self.event(15, 0, &body);
    }

    fn rotate_to(&mut self, file: &str, position: u64) {
        let body = [&position.to_le_bytes()[..], file.as_bytes()].concat();
        let at = self.at;
        let start = self.bytes.len();
        self.event(4, 0x20, &body);
        self.bytes[start + 13..start + 17].fill(0);
        self.at = at;
    }

    fn event(&mut self, event_type: u8, flags: u16, body: &[u8]) -> &mut Self {
        let size = 19 + body.len() as u32;
        self.at += u64::from(size);
        self.bytes.extend(self.seconds.to_le_bytes());
        self.bytes.push(event_type);
        self.bytes.extend(1u32.to_le_bytes());
        self.bytes.extend(size.to_le_bytes());
        self.bytes.extend((self.at as u32).to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(body);
        self
    }

    fn gtid(&mut self, number: u64) -> &mut Self {
        let body = [&[0][..], &UUID, &number.to_le_bytes()].concat();
        self.event(33, 0, &body)
    }

    fn query(&mut self, text: &str) -> &mut Self {
        let body = [&[0; 8][..], &[1, 0, 0, 0, 0], b"d\0", text.as_bytes()].concat();
        self.event(2, 0, &body)
    }

    fn map_of(&mut self, schema: &str, table: &str) -> &mut Self {
        let mut body = vec![9, 0, 0, 0, 0, 0, 1, 0, schema.len() as u8];
        body.extend([schema.as_bytes(), &[0, table.len() as u8], table.as_bytes(), &[0]].concat());
        // Signs, names, the key.
        body.extend([2, 3, 3, 0, 2, 1, 1, 0, 4, 5, 2, b'i', b'd', 1, b'n', 8, 1, 0]);
        self.event(19, 0, &body)
    }

    fn map(&mut self) -> &mut Self {
        self.map_of("d", "x")
    }

    fn image(values: &[i32]) -> Vec<u8> {
        let mut image = vec![0xfc];
        values.iter().for_each(|value| image.extend(value.to_le_bytes()));
        image
    }

    fn insert(&mut self, rows: &[[i32; 2]]) -> &mut Self {
        let rows: Vec<u8> = rows.iter().flat_map(|row| Log::image(row)).collect();
        self.event(30, 0, &[&[9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 0xff][..], &rows].concat())
    }

    fn xid(&mut self) -> &mut Self {
        self.event(16, 0, &[0; 8])
    }

    /// A transaction that inserts one row.
    fn one(&mut self, id: i32) -> &mut Self {
        self.query("BEGIN").map().insert(&[[id, id]]).xid()
    }
}

fn run(log: &Log, options: DecoderOptions) -> (Vec<LogEvent>, Result<()>) {
    let mut decoder = BinlogDecoder::new(options, "bin.000001", 0).unwrap();
    decode_pieces(&mut decoder, [log.bytes.as_slice()], false, &|_| None)
}

fn error(log: &Log) -> logweir_core::Error {
    run(log, DecoderOptions::default()).1.unwrap_err()
}

fn ids(events: &[LogEvent]) -> Vec<String> {
    render(events, false).lines().filter_map(|line| line.strip_prefix("  id = ")).map(str::to_owned).collect()
}

fn marks(events: &[LogEvent]) -> Vec<&LogMark> {
    events.iter().filter_map(|event| if let LogEvent::Mark(mark) = event { Some(mark) } else { None }).collect()
}

fn relations(events: &[LogEvent]) -> Vec<Arc<Relation>> {
    events.iter().filter_map(|event| if let LogEvent::Relation(relation) = event { Some(Arc::clone(relation)) } else { None }).collect()
}

#[test]
fn what_must_stop_a_stream() {
    let whole = |log: &mut Log| {
        log.one(1);
        log.query("BEGIN").map().insert(&[[2, 2]]);
    };
    type Bad = fn(&mut Log);
    let cases: [(Bad, ErrorKind, &str); 13] = [
        (
            |log| {
                log.query("ROLLBACK");
            },
            ErrorKind::Config,
            "changes were logged and then rolled back",
        ),
        (
            |log| {
                log.query("ROLLBACK TO `s`");
            },
            ErrorKind::Config,
            "rows were logged and rolled back to a savepoint",
        ),
        (
            |log| {
                log.query("INSERT INTO x VALUES (1, 1)");
            },
            ErrorKind::Config,
            "the binlog holds a statement instead of the rows",
        ),
        (
            |log| {
                log.query("/* c */ update d.x set n = 1");
            },
            ErrorKind::Config,
            "the binlog holds a statement instead of the rows",
        ),
        (
            |log| {
                log.event(26, 0, &[1, 0, 0]);
            },
            ErrorKind::LogGone,
            "the server notes in its log that changes were lost",
        ),
        (
            |log| {
                log.event(164, 0, &[1; 17]);
            },
            ErrorKind::Config,
            "the binlog file is encrypted",
        ),
        (
            |log| {
                log.event(200, 0, &[]);
            },
            ErrorKind::Corrupt,
            "the log has an event that is not known here",
        ),
        (
            |log| {
                log.event(39, 0, &[9, 0, 0, 0, 0, 0, 0, 0]);
            },
            ErrorKind::Config,
            "the binlog holds parts of JSON documents",
        ),
        (
            |log| {
                log.event(30, 0, &[8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 0xff]);
            },
            ErrorKind::Corrupt,
            "rows come without a map of their table",
        ),
        // An image of one row and a half.
        (
            |log| {
                log.event(30, 0, &[9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 0xff, 0xfc, 1, 0, 0]);
            },
            ErrorKind::Corrupt,
            "rows do not fit the map",
        ),
        (
            |log| {
                log.event(30, 0, &[9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0xff, 0xf8, 1, 0, 0, 0]);
            },
            ErrorKind::Corrupt,
            "rows do not fit the map",
        ),
        // An insert without `n`, and a delete without the key.
        (
            |log| {
                log.event(30, 0, &[9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 1, 0xfe, 1, 0, 0, 0]);
            },
            ErrorKind::Config,
            "an insert leaves out a column",
        ),
        (
            |log| {
                log.event(32, 0, &[9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 2, 0xfe, 1, 0, 0, 0]);
            },
            ErrorKind::Config,
            "a change leaves out a column of",
        ),
    ];
    for (bad, kind, message) in cases {
        let mut log = Log::file();
        whole(&mut log);
        let at = log.at;
        bad(&mut log);
        log.xid().one(3);
        let (events, result) = run(&log, DecoderOptions::default());
        let error = result.unwrap_err();
        assert!(error.kind() == kind && error.message().starts_with(message), "{error:?}");
        assert_eq!(error.get_context("file"), Some("bin.000001"), "{error}");
        assert_eq!(error.get_context("position"), Some(at.to_string().as_str()), "{error}");
        // What was whole is there, and no more.
        assert_eq!(ids(&events), ["1"], "{error}");
        assert!(matches!(events.last(), Some(LogEvent::Mark(_))));
    }
}

#[test]
fn what_does_not_concern_us_passes() {
    let mut log = Log::file();
    log.one(1).event(200, 0x80, &[1, 2, 3]).event(3, 0, &[]).event(29, 0, b"\x04text");
    log.query("GRANT ALL ON *.* TO x").query("INSERT INTO e.other VALUES (1)").query("CREATE TABLE e.other (a INT)");
    log.event(30, 0, &[0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 2, 0, 0]);
    // The server's own tables are followed only by name.
    log.query("BEGIN").map_of("mysql", "x").insert(&[[7, 7]]).xid();
    let tables = TableFilter { include: vec![Pattern::new("d.*"), Pattern::new("*.x")], ..TableFilter::all() };
    let (events, result) = run(&log, DecoderOptions { tables, ..DecoderOptions::default() });
    result.unwrap();
    assert_eq!(ids(&events), ["1"]);
    assert_eq!(marks(&events)[0].position, LogPosition::new(0, 1, log.at, 0, false));
    let tables = TableFilter { include: vec![Pattern::new("mysql.x")], ..TableFilter::all() };
    assert_eq!(ids(&run(&log, DecoderOptions { tables, ..DecoderOptions::default() }).0), ["7"]);
}

#[test]
fn an_xa_transaction_stops_only_those_who_follow_its_tables() {
    let mut log = Log::file();
    log.query("XA START X'61',X'',1").map().insert(&[[1, 1]]).query("XA END X'61',X'',1").event(38, 0, &[0; 15]);
    log.query("XA COMMIT X'61',X'',1").query("BEGIN").map_of("d", "y").insert(&[[2, 2]]).xid();
    assert_eq!(error(&log).message(), "changes of a table come in an XA transaction, which is not supported");
    let tables = TableFilter { include: vec![Pattern::new("d.y")], ..TableFilter::all() };
    let (events, result) = run(&log, DecoderOptions { tables, ..DecoderOptions::default() });
    result.unwrap();
    assert_eq!(ids(&events), ["2"]);
}

#[test]
fn a_server_leaves_out_what_is_known_and_offsets_follow_its_own_count() {
    // Beyond 4 GiB, where the server's 32 bits have wrapped.
    let mut log = Log::stream("bin.000007", 4);
    log.at = (1 << 32) - 60;
    log.gtid(5);
    let first = log.at - 44;
    log.one(1);
    log.event(27, 0, b"bin.000007");
    log.at -= 29;
    let end = log.at;
    let mut decoder = BinlogDecoder::new(DecoderOptions::default(), "bin.000001", 4).unwrap();
    let (events, result) = decode_pieces(&mut decoder, [log.bytes.as_slice()], false, &|_| None);
    result.unwrap();
    assert!(render(&events, false).contains(&LogPosition::new(0, 7, first, 1, true).to_string()), "{}", render(&events, false));
    assert!(end > 1 << 32);
    let mark = marks(&events)[0];
    assert_eq!(mark.position, LogPosition::new(0, 7, end, 0, false));
    assert_eq!(BinlogOffset::of(mark).unwrap().file, "bin.000007");
    // And on in the next file.
    let mut next = Log { bytes: Vec::new(), seconds: 1001, at: end };
    next.event(4, 0, &[&4u64.to_le_bytes()[..], b"bin.000008"].concat());
    next.rotate_to("bin.000008", 4);
    next.at = 4;
    next.format();
    next.one(2);
    let (events, result) = decode_pieces(&mut decoder, [next.bytes.as_slice()], false, &|_| None);
    result.unwrap();
    assert_eq!(marks(&events)[0].position, LogPosition::new(0, 8, next.at, 0, false));
}

#[test]
fn a_server_that_encrypts_its_files_sends_them_decrypted() {
    let mut log = Log::stream("bin.000001", 4);
    // As the server sends it: behind the format, without a place.
    let start = log.bytes.len();
    log.event(164, 0, &[1; 17]);
    log.bytes[start + 13..start + 17].fill(0);
    log.at = 300;
    log.one(1);
    let mut decoder = BinlogDecoder::new(DecoderOptions::default(), "bin.000001", 4).unwrap();
    let (events, result) = decode_pieces(&mut decoder, [log.bytes.as_slice()], false, &|_| None);
    result.unwrap();
    assert_eq!(ids(&events), ["1"]);
    assert_eq!(marks(&events)[0].position, LogPosition::new(0, 1, log.at, 0, false));
}

#[test]
fn a_place_without_rows_has_a_mark_too() {
    let mut log = Log::stream("bin.000001", 500);
    let mut decoder = BinlogDecoder::new(DecoderOptions::default(), "bin.000001", 500).unwrap();
    decoder.decode(&log.bytes, NOW).unwrap();
    assert_eq!(decoder.mark().unwrap().position, LogPosition::new(0, 1, 500, 0, false));
    log.bytes.clear();
    log.query("CREATE TABLE e.f (a INT)");
    decoder.decode(&log.bytes, NOW).unwrap();
    assert_eq!(decoder.mark().unwrap().position, LogPosition::new(0, 1, log.at, 0, false));
    log.bytes.clear();
    log.query("BEGIN");
    decoder.decode(&log.bytes, NOW).unwrap();
    assert!(decoder.mark().is_none());
}

#[test]
fn transactions_are_named_and_counted() {
    let mut log = Log::file();
    let previous = [&1u64.to_le_bytes()[..], &UUID, &1u64.to_le_bytes(), &1u64.to_le_bytes(), &4u64.to_le_bytes()].concat();
    log.event(35, 0x80, &previous);
    log.gtid(4).one(1).gtid(5).query("DROP TABLE e.f").gtid(7).one(2);
    let uuid = "11111111-1111-1111-1111-111111111111";
    for (gtid, expected) in [
        (None, format!("{uuid}:1-5:7")),
        (Some(GtidState::Mysql(MysqlGtidSet::parse(&format!("{uuid}:1-3:6")).unwrap())), format!("{uuid}:1-7")),
    ] {
        let (events, result) = run(&log, DecoderOptions { gtid, ..DecoderOptions::default() });
        result.unwrap();
        assert!(render(&events, false).contains(&format!("{uuid}:7\n  id = 2")));
        let Some(GtidState::Mysql(set)) = BinlogOffset::of(marks(&events)[0]).unwrap().gtid else { panic!("a set is known") };
        assert_eq!(set.to_string(), expected);
    }
}

#[test]
fn time_never_goes_back() {
    let mut log = Log::file();
    log.one(1);
    log.seconds = 900;
    log.one(2);
    log.seconds = 1100;
    log.one(3);
    let times = |options| {
        let (events, result) = run(&log, options);
        result.unwrap();
        let commit_time = marks(&events)[0].commit_time;
        let times: Vec<String> = render(&events, false)
            .lines()
            .filter(|line| line.starts_with("INSERT"))
            .map(|line| line.split(' ').nth(4).unwrap().to_owned())
            .collect();
        (times, commit_time)
    };
    assert_eq!(
        times(DecoderOptions::default()),
        (vec!["1000000000".into(), "1000000000".into(), "1100000000".into()], Some(TimestampMicros(1_100_000_000)))
    );
    let (events, _) = run(&log, DecoderOptions::default());
    let mark = LogMark { commit_time: Some(TimestampMicros(1_050_000_000)), ..marks(&events)[0].clone() };
    let resumed = times(DecoderOptions { resume: Some(mark), ..DecoderOptions::default() });
    assert_eq!(resumed.0, ["1050000000", "1050000000", "1100000000"]);
}

#[test]
fn what_was_handed_out_before_a_fault_is_skipped() {
    let mut log = Log::file();
    log.one(1);
    let start = log.at;
    log.query("BEGIN").map().insert(&[[2, 2], [3, 3], [4, 4]]).insert(&[[5, 5]]).xid();
    let skip_through = Some(LogPosition::new(0, 1, start, 2, true));
    let (events, result) = run(&log, DecoderOptions { skip_through, ..DecoderOptions::default() });
    result.unwrap();
    assert_eq!(ids(&events), ["4", "5"]);
    let (all, _) = run(&log, DecoderOptions::default());
    assert!(render(&all, false).ends_with(render(&events, false).split_once("\nINSERT").unwrap().1));
}

#[test]
fn a_transaction_that_a_file_leaves_open_never_happened() {
    let mut log = Log::file();
    log.one(1).query("BEGIN").map().insert(&[[2, 2]]);
    let mut decoder = BinlogDecoder::new(DecoderOptions::default(), "bin.000001", 0).unwrap();
    decoder.decode(&log.bytes, NOW).unwrap();
    decoder.next_file("bin.000002").unwrap();
    let mut next = Log::file();
    next.one(3);
    let (events, result) = decode_pieces(&mut decoder, [next.bytes.as_slice()], false, &|_| None);
    result.unwrap();
    assert_eq!(ids(&events), ["1", "3"]);
    assert_eq!(marks(&events)[0].position, LogPosition::new(0, 2, next.at, 0, false));
}

#[test]
fn a_file_that_ends_inside_an_event_is_corrupt() {
    let mut log = Log::file();
    log.one(1);
    let end = log.at;
    log.query("BEGIN");
    log.bytes.pop();
    let mut decoder = BinlogDecoder::new(DecoderOptions::default(), "bin.000001", 0).unwrap();
    decoder.decode(&log.bytes, NOW).unwrap();
    let error = decoder.next_file("bin.000002").unwrap_err();
    assert_eq!((error.kind(), error.get_context("position")), (ErrorKind::Corrupt, Some(end.to_string().as_str())));
    let events: Vec<_> = std::iter::from_fn(|| decoder.next_event()).collect();
    assert_eq!(ids(&events), ["1"]);
    assert!(decoder.decode(&[], NOW).is_err());
}

#[test]
fn a_truncate_is_a_change_of_its_own() {
    let mut log = Log::file();
    log.query("TRUNCATE x").one(1).query("TRUNCATE TABLE `d`.`x`").query("TRUNCATE e.y");
    let (events, result) = run(&log, DecoderOptions::default());
    result.unwrap();
    // Of a table never met, a recording can say nothing.
    assert_eq!(ids(&events), ["1", "NULL"]);
    // A table known from the checkpoint needs no map, one known to nobody but the server is asked for.
    let relations = relations(&events);
    let mut log = Log::file();
    log.query("TRUNCATE x");
    let options = DecoderOptions { relations: relations.clone(), resume: Some(marks(&events)[0].clone()), ..DecoderOptions::default() };
    let mut decoder = BinlogDecoder::new(options, "bin.000002", 0).unwrap();
    let (resumed, result) = decode_pieces(&mut decoder, [log.bytes.as_slice()], false, &|_| None);
    result.unwrap();
    assert_eq!(ids(&resumed), ["NULL"]);
    let column =
        |name: &str| ColumnShape { name: name.into(), data_type: "int".into(), column_type: "int".into(), charset: None, srid: None };
    let shape = TableShape { columns: vec![column("id"), column("n")], key: vec!["id".into()] };
    log.one(1);
    let mut decoder = BinlogDecoder::new(DecoderOptions { has_catalog: true, ..DecoderOptions::default() }, "bin.000001", 0).unwrap();
    let (asked, result) = decode_pieces(&mut decoder, [log.bytes.as_slice()], false, &|_| Some(shape.clone()));
    result.unwrap();
    assert_eq!(ids(&asked), ["NULL", "1"]);
    // The log then says the same of the table: no new version.
    assert_eq!(self::relations(&asked).len(), 1);
}

#[test]
fn what_is_rolled_back_to_a_savepoint_never_happened() {
    let mut log = Log::file();
    log.one(1).query("BEGIN").map().insert(&[[2, 2]]).query("SAVEPOINT `a`").map().insert(&[[3, 3], [4, 4]]);
    log.map_of("d", "y").insert(&[[5, 5]]).query("SAVEPOINT b").map().insert(&[[6, 6]]);
    log.query("ROLLBACK TO `A`").map().insert(&[[7, 7]]).query("ROLLBACK TO `a`").map().insert(&[[8, 8]]).xid().one(9);
    let options = DecoderOptions { flush_bytes: 0, ..DecoderOptions::default() };
    for options in [DecoderOptions::default(), options.clone()] {
        let (events, result) = run(&log, options);
        result.unwrap();
        assert_eq!(ids(&events), ["1", "2", "8", "9"]);
    }
    // After a fault everything behind what was handed out has the number it had.
    let second = |log: &Log| {
        let (all, _) = run(log, DecoderOptions::default());
        let text = render(&all, false);
        let at = text.lines().take_while(|line| *line != "  id = 8").filter(|line| line.starts_with("INSERT")).last().unwrap().to_owned();
        (text, at)
    };
    let (_, line) = second(&log);
    let start = log_transaction(&line);
    let through =
        |ordinal| DecoderOptions { skip_through: Some(LogPosition::new(0, 1, start, ordinal, true)), ..DecoderOptions::default() };
    let (events, result) = run(&log, through(1));
    result.unwrap();
    assert_eq!(ids(&events), ["8", "9"]);
    let (events, result) = run(&log, through(7));
    result.unwrap();
    assert_eq!(ids(&events), ["9"]);
    // Handed out before, and then taken back.
    assert!(run(&log, through(2)).1.unwrap_err().message().starts_with("rows were logged and rolled back to a savepoint, in"));
    let (_, result) = run(&log, DecoderOptions { flush_bytes_max: 1, ..options });
    let error = result.unwrap_err();
    assert!(error.message().starts_with("rows were logged and rolled back to a savepoint, in"), "{error}");
    assert!(error.get_remedy().unwrap().contains("start at bin.000001:"), "{error}");
}

/// Where the transaction of a rendered change begins.
fn log_transaction(line: &str) -> u64 {
    let position = line.split(' ').find_map(|word| word.parse::<LogPosition>().ok()).unwrap();
    position.commit()
}

#[test]
fn tables_that_are_dropped_or_replaced_lose_their_rows_and_renamed_ones_do_not() {
    let cases: [(&str, &[&str]); 13] = [
        ("DROP TABLE IF EXISTS `x`, e.z /* generated by server */", &["d.x"]),
        ("DROP TABLE y, d.x", &["d.y", "d.x"]),
        ("CREATE OR REPLACE TABLE x (id INT PRIMARY KEY, n INT)", &["d.x"]),
        ("RENAME TABLE x TO w", &[]),
        ("RENAME TABLE x TO old, copy TO x", &[]),
        ("ALTER TABLE w RENAME TO x", &[]),
        ("DROP DATABASE d", &["d.x", "d.y"]),
        ("DROP TEMPORARY TABLE x", &[]),
        ("CREATE OR REPLACE TEMPORARY TABLE x (a INT)", &[]),
        ("DROP TABLE X", &[]),
        ("DROP DATABASE e", &[]),
        ("ALTER TABLE x DROP PARTITION p", &[]),
        ("CREATE TABLE IF NOT EXISTS x (a INT)", &[]),
    ];
    for (text, emptied) in cases {
        let mut log = Log::file();
        log.one(1).query("BEGIN").map_of("d", "y").insert(&[[2, 2]]).xid().query(text).one(3);
        let (events, result) = run(&log, DecoderOptions { flush_bytes: 0, ..DecoderOptions::default() });
        result.unwrap();
        let mut found = Vec::new();
        for event in &events {
            if let LogEvent::Changes(batch) = event
                && batch.change_type_codes()[0] == logweir_core::ChangeType::Truncate as i8
            {
                found.push((batch.position(0), batch.relation.name().to_string()));
            }
        }
        found.sort();
        assert_eq!(found.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), emptied, "{text}");
        // The same shape is the same version, and what comes later comes later.
        assert_eq!(relations(&events).len(), 2, "{text}");
        assert_eq!(ids(&events).last().map(String::as_str), Some("3"), "{text}");
        // A table that is not followed, or not any more, has none.
        let tables = TableFilter { include: vec![Pattern::new("e.*")], ..TableFilter::all() };
        let options = DecoderOptions { tables, relations: relations(&events), ..DecoderOptions::default() };
        assert!(ids(&run(&log, options).0).is_empty(), "{text}");
    }
}

#[test]
fn a_remedy_says_where_to_go_on() {
    let mut log = Log::file();
    log.query("INSERT INTO x VALUES (1, 1)");
    let end = log.at;
    let error = error(&log);
    assert_eq!(error.get_context("relation"), Some("d.x"));
    assert!(error.get_remedy().unwrap().contains(&format!("start at bin.000001:{end} ")), "{error}");
    // And there it goes on.
    log.one(2);
    let mut rest = Log::file();
    rest.bytes.extend(&log.bytes[end as usize..]);
    assert_eq!(ids(&run(&rest, DecoderOptions::default()).0), ["2"]);
}

#[test]
fn bytes_before_the_format_or_of_no_binlog_are_refused() {
    let decode = |bytes: &[u8], offset| {
        let mut decoder = BinlogDecoder::new(DecoderOptions::default(), "bin.000001", offset).unwrap();
        decoder.decode(bytes, NOW).map(|_| ()).unwrap_err()
    };
    assert!(decode(b"PK\x03\x04", 0).message().starts_with("the file does not begin as a binlog does"));
    let mut log = Log { bytes: Vec::new(), seconds: 0, at: 4 };
    log.query("BEGIN");
    assert_eq!(decode(&log.bytes, 4).message(), "the log does not begin with a format description");
    let mut huge = log.bytes;
    huge[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(&huge, 4).message(), "an event has an impossible size");
    assert!(BinlogDecoder::new(DecoderOptions::default(), "binlog", 0).is_err());
}

/// A log of table `d.y (id INT PRIMARY KEY, n INT, note VARCHAR(20))`: updates `(present before, before, present after, after)`, where an
/// image is a value for each column that is present.
fn updates(images: &[(u8, &[Value<'_>], u8, &[Value<'_>])]) -> Log {
    let mut log = Log::file();
    log.query("BEGIN");
    let mut map = vec![9, 0, 0, 0, 0, 0, 1, 0, 1];
    map.extend(b"d\0\x01y\0\x03\x03\x03\x0f\x02\x50\0\x06");
    // Signs, the character set utf8mb4, names, the key.
    map.extend([1, 1, 0, 2, 1, 45, 4, 10, 2, b'i', b'd', 1, b'n', 4, b'n', b'o', b't', b'e', 8, 1, 0]);
    log.event(19, 0, &map);
    for (first, before, second, after) in images {
        let mut body = vec![9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 3, *first, *second];
        for image in [before, after] {
            body.push(image.iter().enumerate().fold(0, |nulls, (i, value)| nulls | u8::from(matches!(value, Value::Null)) << i));
            for value in *image {
                match value {
                    Value::Null => {}
                    Value::Int(value) => body.extend(value.to_le_bytes()),
                    Value::Text(text) => body.extend([&[text.len() as u8][..], text.as_bytes()].concat()),
                }
            }
        }
        log.event(31, 0, &body);
    }
    log.xid();
    log
}

enum Value<'a> {
    Null,
    Int(i32),
    Text(&'a str),
}

/// Changes as `type: after (unchanged: columns) before: image`, a value that an image does not hold as `?`.
fn changes(events: &[LogEvent]) -> String {
    use arrow_array::Array;
    let text = |column: &arrow_array::ArrayRef, row| match column.is_null(row) {
        true => "null".to_owned(),
        false => arrow_cast::display::array_value_to_string(column, row).unwrap(),
    };
    let mut lines = String::new();
    for event in events {
        let LogEvent::Changes(batch) = event else { continue };
        let columns = 0..batch.relation.columns().len();
        for row in 0..batch.rows() {
            let change_type = logweir_core::ChangeType::from_code(batch.change_type_codes()[row]).unwrap();
            let unchanged = |column| batch.unchanged.as_ref().is_some_and(|unchanged| unchanged.is_unchanged(column, row));
            let after = columns.clone().map(|i| if unchanged(i) { "~".to_owned() } else { text(batch.records.column(i), row) });
            lines += &format!("{}: {}", change_type.name(), after.collect::<Vec<_>>().join(" "));
            if let Some(images) = batch.before.as_ref().filter(|images| images.present.value(row)) {
                let value = |i: usize| if images.holds(i, row) { text(&images.columns[i], row) } else { "?".to_owned() };
                lines += &format!(" before: {}", columns.clone().map(value).collect::<Vec<_>>().join(" "));
            }
            lines += "\n";
        }
    }
    lines
}

/// What the servers write under each `binlog_row_image`, and what comes of it with and without before images.
#[test]
fn updates_have_their_before_images() {
    use Value::{Int, Null, Text};
    let log = updates(&[
        // FULL.
        (7, &[Int(1), Int(10), Text("a")], 7, &[Int(1), Int(11), Null]),
        // FULL, another key.
        (7, &[Int(1), Int(11), Null], 7, &[Int(2), Int(11), Text("b")]),
        // MINIMAL: the key, and what changed.
        (1, &[Int(2)], 2, &[Int(12)]),
        // MINIMAL, another key.
        (1, &[Int(2)], 1, &[Int(3)]),
        // NOBLOB, were the text one.
        (3, &[Int(3), Int(12)], 7, &[Int(3), Null, Text("c")]),
        (3, &[Int(3), Null], 3, &[Int(3), Int(13)]),
        // MariaDB's FULL_NODUP: all before, and what changed.
        (7, &[Int(3), Int(13), Text("c")], 4, &[Text("d")]),
        (7, &[Int(3), Int(13), Null], 1, &[Int(4)]),
    ]);
    let asked = DecoderOptions { before_images: vec![Pattern::new("d.*")], ..DecoderOptions::default() };
    let (events, result) = run(&log, asked.clone());
    result.unwrap();
    let with = changes(&events);
    expect_test::expect![[r#"
        UPDATE-INSERT: 1 11 null before: 1 10 a
        UPDATE-DELETE: 1 11 null
        UPDATE-INSERT: 2 11 b before: 1 11 null
        UPDATE-INSERT: 2 12 ~ before: 2 ? ?
        UPDATE-DELETE: 2 ~ ~
        UPDATE-INSERT: 3 ~ ~ before: 2 ? ?
        UPDATE-INSERT: 3 null c before: 3 12 ?
        UPDATE-INSERT: 3 13 ~ before: 3 null ?
        UPDATE-INSERT: 3 13 d before: 3 13 c
        UPDATE-DELETE: 3 13 null
        UPDATE-INSERT: 4 13 null before: 3 13 null
    "#]]
    .assert_eq(&with);
    // The rows themselves are the same if nobody asks.
    let (events, result) = run(&log, DecoderOptions { before_images: vec![Pattern::new("e.*")], ..DecoderOptions::default() });
    result.unwrap();
    let without: String = with.lines().map(|line| line.split(" before").next().unwrap().to_owned() + "\n").collect();
    assert_eq!(changes(&events), without);
    // In whatever cut.
    for bytes in [1, 200, 400, 800] {
        let (events, result) = run(&log, DecoderOptions { flush_bytes: 0, flush_bytes_max: bytes, ..asked.clone() });
        result.unwrap();
        assert_eq!(changes(&events), with);
    }
}

/// Only updates have images, and a batch without one has no columns for them.
#[test]
fn what_is_no_update_has_no_before_image() {
    let mut log = Log::file();
    log.one(1).one(2);
    let (events, _) = run(&log, DecoderOptions { before_images: vec![Pattern::new("*")], ..DecoderOptions::default() });
    let without = |event: &LogEvent| !matches!(event, LogEvent::Changes(batch) if batch.before.is_some());
    assert!(!ids(&events).is_empty() && events.iter().all(without));
}
