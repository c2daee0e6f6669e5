//! Reading a live log: every start, every restart, every fault.

use std::collections::BTreeMap;
use std::time::Duration;

use logweir_core::{ErrorKind, LogEvent, LogMark, LogReader, Source};
use logweir_mysql::options::{MysqlOptions, Start};
use logweir_mysql::source::MysqlSource;

use crate::rig::{Flavour, PATIENCE, Reading, Rig, catch_up, open, read_all, read_to, start, tables};

const INSERT: i8 = 0;

async fn insert(rig: &Rig, ids: std::ops::Range<u32>) {
    let values: Vec<String> = ids.map(|id| format!("({id}, 'n{id}')")).collect();
    rig.execute(&format!("INSERT INTO shop.a VALUES {}", values.join(", "))).await;
}

async fn with_table(flavour: Flavour, options: &[&str]) -> Rig {
    let rig = Rig::start(flavour, options).await;
    rig.execute("CREATE TABLE shop.a (id INT PRIMARY KEY, name VARCHAR(20))").await;
    rig.execute("CREATE TABLE shop.b (id INT PRIMARY KEY, n INT)").await;
    rig
}

fn row(id: u32) -> String {
    format!("shop.a {INSERT} {id} n{id}")
}

async fn opening_mark(reader: &mut dyn LogReader) -> LogMark {
    match tokio::time::timeout(PATIENCE, reader.next()).await.unwrap().unwrap().unwrap() {
        LogEvent::Mark(mark) => mark,
        event => panic!("the first event is a mark, not {event:?}"),
    }
}

async fn starts(flavour: Flavour) {
    let rig = with_table(flavour, &[]).await;
    // From the beginning: everything.
    let mut reader = open(&rig.source(Start::Earliest), start(None)).await;
    let mut reading = Reading::default();
    insert(&rig, 0..3).await;
    catch_up(reader.as_mut(), &mut reading).await;
    rig.execute("FLUSH BINARY LOGS").await;
    insert(&rig, 3..6).await;
    catch_up(reader.as_mut(), &mut reading).await;
    assert_eq!(reading.texts(), (0..6).map(row).collect::<Vec<_>>());
    drop(reader);

    // Now is pinned by the opening mark, before anything is read.
    let mut reader = open(&rig.source(Start::Now), start(None)).await;
    let mark = opening_mark(reader.as_mut()).await;
    assert!(mark.position >= reading.last().position);
    drop(reader);
    insert(&rig, 6..8).await;
    let now = Reading { marks: vec![mark], ..Reading::default() };
    let mut later = Reading::default();
    let mut reader = open(&rig.source(Start::Now), start(Some(&now))).await;
    catch_up(reader.as_mut(), &mut later).await;
    assert_eq!(later.texts(), [row(6), row(7)]);
    drop(reader);

    // At a file and position: those of the second file.
    let first = reading.marks.iter().find(|mark| mark.position.file() == later.last().position.file()).unwrap();
    let position = Start::Position { file: first.offset.0["file"].as_str().unwrap().into(), position: 4 };
    let mut second = Reading::default();
    let mut reader = open(&rig.source(position), start(None)).await;
    catch_up(reader.as_mut(), &mut second).await;
    assert_eq!(second.texts(), (3..8).map(row).collect::<Vec<_>>());
    assert!(second.changes.iter().take(3).all(|(at, text)| reading.changes.get(at) == Some(text)), "the same positions");
    drop(reader);

    // After the GTIDs of a mark in the middle.
    let middle = reading.marks.iter().rev().find(|mark| reading.behind(mark.position).len() == 3).unwrap();
    let gtid = &middle.offset.0["gtid"];
    let gtid = gtid.get("mysql").or_else(|| gtid.get("mariadb")).unwrap().as_str().unwrap();
    let mut after = Reading::default();
    let mut reader = open(&rig.source(Start::Gtid(gtid.into())), start(None)).await;
    catch_up(reader.as_mut(), &mut after).await;
    assert_eq!(after.texts(), (3..8).map(row).collect::<Vec<_>>());
    assert!(after.changes.iter().all(|(at, text)| second.changes.get(at) == Some(text)), "the same positions");
    drop(reader);

    // And again at each of its marks, which reopens by GTIDs.
    for mark in &after.marks {
        let from = Reading { marks: vec![mark.clone()], relations: after.relations.clone(), ..Reading::default() };
        let mut again = Reading::default();
        let mut reader = open(&rig.source(Start::Now), start(Some(&from))).await;
        read_to(reader.as_mut(), &mut again, after.last().position).await;
        assert_eq!(again.changes, after.behind(mark.position), "from {}", mark.position);
    }
}

#[tokio::test]
async fn mariadb_starts() {
    starts(Flavour::Mariadb).await;
}

#[tokio::test]
async fn mysql_starts() {
    starts(Flavour::Mysql).await;
}

async fn restarts(flavour: Flavour) {
    let rig = with_table(flavour, &[]).await;
    let mut reader = open(&rig.source(Start::Now), start(None)).await;
    let mut reading = Reading::default();
    reading.take(LogEvent::Mark(opening_mark(reader.as_mut()).await));
    for round in 0..6 {
        insert(&rig, round * 10..round * 10 + 3).await;
        rig.execute(&format!("INSERT INTO shop.b (id, n) VALUES ({round}, 1)")).await;
        rig.execute(&format!("UPDATE shop.a SET name = 'x' WHERE id = {}", round * 10)).await;
        rig.execute(&format!("UPDATE shop.a SET id = id + 5 WHERE id = {}", round * 10 + 1)).await;
        if round == 1 {
            rig.execute("ALTER TABLE shop.b ADD COLUMN m INT DEFAULT 3").await;
        }
        if round == 3 {
            rig.execute("FLUSH BINARY LOGS").await;
        }
        if round == 4 {
            rig.execute("TRUNCATE TABLE shop.b").await;
        }
        catch_up(reader.as_mut(), &mut reading).await;
    }
    drop(reader);
    assert!(reading.marks.len() >= 6);
    // 3 inserts, 1 insert, 1 update, 1 key change in two halves; and a truncate.
    assert_eq!(reading.changes.len(), 6 * 7 + 1, "{:#?}", reading.changes);
    let end = reading.last().position;
    for mark in &reading.marks {
        let relations = reading.relations.iter().filter(|relation| relation.since() <= mark.position).cloned().collect();
        let from = Reading { marks: vec![mark.clone()], relations, ..Reading::default() };
        let mut again = Reading::default();
        let mut reader = open(&rig.source(Start::Now), start(Some(&from))).await;
        read_to(reader.as_mut(), &mut again, end).await;
        assert_eq!(again.marks[0].position, mark.position, "the first event is the mark again");
        assert_eq!(again.changes, reading.behind(mark.position), "from {}", mark.position);
        let versions = |relations: &[std::sync::Arc<logweir_core::Relation>]| -> BTreeMap<String, u32> {
            relations.iter().map(|relation| (relation.name().to_string(), relation.version())).collect()
        };
        let (told, known) = (versions(&again.relations), versions(&reading.relations));
        assert!(told.iter().all(|(name, version)| known.get(name) >= Some(version)), "{told:?} of {known:?}");
    }
}

#[tokio::test]
async fn mariadb_restarts_at_every_mark() {
    restarts(Flavour::Mariadb).await;
}

#[tokio::test]
async fn mysql_restarts_at_every_mark() {
    restarts(Flavour::Mysql).await;
}

async fn kill_dumps(rig: &Rig) {
    let ids: Vec<u64> = rig.query("SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'").await;
    for id in ids {
        // One that hung up by itself in between is as good.
        let _ = rig.try_execute(&format!("KILL {id}")).await;
    }
}

#[tokio::test]
async fn a_killed_dump_is_opened_again() {
    let rig = with_table(Flavour::Mariadb, &[]).await;
    let mut reader = open(&rig.source(Start::Now), start(None)).await;
    let mut reading = Reading::default();
    let mut expected = 0;
    for round in 0..5 {
        insert(&rig, round * 100..round * 100 + 50).await;
        expected += 50;
        kill_dumps(&rig).await;
        insert(&rig, round * 100 + 50..round * 100 + 60).await;
        expected += 10;
        catch_up(reader.as_mut(), &mut reading).await;
        assert_eq!(reading.changes.len(), expected);
    }
}

#[tokio::test]
async fn two_replicas_cannot_share_a_configured_server_id() {
    let rig = with_table(Flavour::Mariadb, &[]).await;
    let source = || MysqlSource::new(MysqlOptions { server_id: Some(7001), ..rig.options() });
    let mut first = open(&source(), start(None)).await;
    opening_mark(first.as_mut()).await;
    let mut second = open(&source(), start(None)).await;
    opening_mark(second.as_mut()).await;
    let error = read_all(first.as_mut()).await.1.unwrap();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.get_remedy().is_some_and(|remedy| remedy.contains("server_id")), "{error:?}");
    // The other one goes on.
    insert(&rig, 0..2).await;
    let mut reading = Reading::default();
    catch_up(second.as_mut(), &mut reading).await;
    assert_eq!(reading.changes.len(), 2);
}

#[tokio::test]
async fn a_large_transaction_is_cut_and_not_repeated_after_a_fault() {
    let rig = with_table(Flavour::Mariadb, &[]).await;
    let mut start = start(None);
    // Small enough that the transaction is handed out in parts.
    start.memory = logweir_core::MemoryBudget::new(4 * 1024 * 1024);
    let mut reader = open(&rig.source(Start::Now), start).await;
    let mut reading = Reading::default();
    reading.take(LogEvent::Mark(opening_mark(reader.as_mut()).await));
    rig.execute("INSERT INTO shop.a SELECT seq, CONCAT('n', seq) FROM shop.seq_1_to_200000").await;
    let end = reader.end().await.unwrap().unwrap();
    // In the middle of it: some changes, no mark behind them yet.
    while reading.changes.len() < 20_000 {
        let event = tokio::time::timeout(PATIENCE, reader.next()).await.unwrap().unwrap().unwrap();
        reading.take(event);
    }
    assert!(reading.changes.len() < 200_000, "handed out in parts");
    assert!(reading.changes.keys().next_back().unwrap() > &reading.last().position);
    kill_dumps(&rig).await;
    // `take` refuses a position that comes twice.
    read_to(reader.as_mut(), &mut reading, end).await;
    assert_eq!(reading.changes.len(), 200_000);
}

#[tokio::test]
async fn an_idle_log_gives_marks_and_a_call_may_be_dropped() {
    let rig = with_table(Flavour::Mariadb, &[]).await;
    let mut reader = open(&rig.source(Start::Now), start(None)).await;
    let mut reading = Reading::default();
    reading.take(LogEvent::Mark(opening_mark(reader.as_mut()).await));
    // Calls dropped all the time lose nothing.
    let writing = async {
        for id in 0..40 {
            insert(&rig, id..id + 1).await;
        }
    };
    let polling = async {
        while reading.changes.len() < 40 {
            if let Ok(event) = tokio::time::timeout(Duration::from_micros(300), reader.next()).await {
                reading.take(event.unwrap().unwrap());
            }
        }
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(writing, polling) }).await.unwrap();
    assert_eq!(reading.texts(), (0..40).map(row).collect::<Vec<_>>());

    catch_up(reader.as_mut(), &mut reading).await;
    let idle = std::time::Instant::now();
    let event = tokio::time::timeout(Duration::from_secs(<dyn LogReader>::IDLE_MARK_SECONDS), reader.next()).await;
    assert!(matches!(event, Ok(Ok(Some(LogEvent::Mark(_))))), "{event:?} after {:?}", idle.elapsed());

    // What is not followed moves the mark as well.
    rig.execute("CREATE DATABASE other").await;
    rig.execute("CREATE TABLE other.x (id INT)").await;
    rig.execute("INSERT INTO other.x VALUES (1)").await;
    rig.execute("FLUSH BINARY LOGS").await;
    let before = reading.changes.len();
    catch_up(reader.as_mut(), &mut reading).await;
    assert_eq!(reading.changes.len(), before);
}

#[tokio::test]
async fn a_purged_file_is_log_gone() {
    let rig = with_table(Flavour::Mariadb, &[]).await;
    let mut reader = open(&rig.source(Start::Now), start(None)).await;
    let mut reading = Reading::default();
    insert(&rig, 0..3).await;
    catch_up(reader.as_mut(), &mut reading).await;
    drop(reader);
    let mark = start(Some(&reading)).resume;
    let found = rig.source(Start::Now).check(&tables(&["shop.*"]), mark.as_ref()).await.unwrap();
    assert!(found.iter().all(|finding| finding.code != "checkpoint"), "{found:?}");
    rig.execute("FLUSH BINARY LOGS").await;
    rig.execute("FLUSH BINARY LOGS").await;
    let files: Vec<(String, u64)> = rig.query("SHOW BINARY LOGS").await;
    // The server keeps what a dump thread still reads, and notices late that we hung up.
    let purging = async {
        while rig.query::<(String, u64)>("SHOW BINARY LOGS").await.len() > 1 {
            kill_dumps(&rig).await;
            rig.execute(&format!("PURGE BINARY LOGS TO '{}'", files.last().unwrap().0)).await;
        }
    };
    tokio::time::timeout(PATIENCE, purging).await.unwrap();
    let error = rig.source(Start::Now).open_log(start(Some(&reading))).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LogGone, "{error:?}");
    assert_eq!(error.get_context("oldest file"), Some(files.last().unwrap().0.as_str()));
    assert!(error.get_remedy().unwrap().contains("expire_logs"), "{error}");
    // A check finds the same.
    let mark = start(Some(&reading)).resume;
    let found = rig.source(Start::Now).check(&tables(&["shop.*"]), mark.as_ref()).await.unwrap();
    let found: Vec<_> = found.iter().filter(|finding| finding.code == "checkpoint").collect();
    assert!(found.len() == 1 && found[0].message.starts_with(error.message()), "{found:?}");
    assert_eq!(Some(found[0].remedy.as_str()), error.get_remedy());

    // By GTIDs too.
    let mut options = rig.options();
    options.start = Start::Gtid("0-41-1".into());
    let source = MysqlSource::new(options);
    let error = match source.open_log(start(None)).await {
        Err(error) => error,
        Ok(mut reader) => read_all(reader.as_mut()).await.1.unwrap(),
    };
    assert_eq!(error.kind(), ErrorKind::LogGone, "{error:?}");
}

#[tokio::test]
async fn another_server_is_found_by_gtid_and_raises_the_incarnation() {
    let rig = with_table(Flavour::Mysql, &[]).await;
    let mut reader = open(&rig.source(Start::Now), start(None)).await;
    let mut reading = Reading::default();
    insert(&rig, 0..3).await;
    catch_up(reader.as_mut(), &mut reading).await;
    drop(reader);
    insert(&rig, 3..5).await;
    // The same server under another name is, to the checkpoint, another server with the same transactions.
    let mut mark = reading.last().clone();
    mark.offset.0["server"] = "mysql:another".into();
    let from = Reading { marks: vec![mark], relations: reading.relations.clone(), ..Reading::default() };
    let mut moved = Reading::default();
    let mut reader = open(&rig.source(Start::Now), start(Some(&from))).await;
    catch_up(reader.as_mut(), &mut moved).await;
    assert_eq!(moved.texts(), [row(3), row(4)]);
    assert!(moved.changes.keys().all(|at| at.incarnation() == 1));
    drop(reader);

    // And that again at its own marks.
    for mark in &moved.marks {
        let from = Reading { marks: vec![mark.clone()], relations: moved.relations.clone(), ..Reading::default() };
        let mut again = Reading::default();
        let mut reader = open(&rig.source(Start::Now), start(Some(&from))).await;
        read_to(reader.as_mut(), &mut again, moved.last().position).await;
        assert_eq!(again.changes, moved.behind(mark.position), "from {}", mark.position);
    }

    // Without GTIDs there is no way.
    let mut mark = reading.last().clone();
    mark.offset.0["server"] = "mysql:another".into();
    mark.offset.0.as_object_mut().unwrap().remove("gtid");
    let from = Reading { marks: vec![mark], ..Reading::default() };
    let error = rig.source(Start::Now).open_log(start(Some(&from))).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LogGone, "{error:?}");
    let _ = tables(&[]);
}

/// Writes, resets the log, and writes until the old place is inside the new log.
async fn reset(flavour: Flavour, options: &[&str]) {
    let rig = with_table(flavour, options).await;
    let reset = if flavour == Flavour::Mysql { "RESET BINARY LOGS AND GTIDS" } else { "RESET MASTER" };
    rig.execute(reset).await;
    let mut reader = open(&rig.source(Start::Now), start(None)).await;
    let mut reading = Reading::default();
    insert(&rig, 0..3).await;
    catch_up(reader.as_mut(), &mut reading).await;
    drop(reader);
    // Unharmed, the mark is good.
    drop(open(&rig.source(Start::Now), start(Some(&reading))).await);
    // A file says to the second when it was begun.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    rig.execute(reset).await;
    // The same transactions again, and more.
    rig.execute("DELETE FROM shop.a").await;
    for id in 0..5 {
        insert(&rig, id..id + 1).await;
    }
    let error = rig.source(Start::Now).open_log(start(Some(&reading))).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LogGone, "{error:?}");
    assert!(error.message().contains("reset"), "{error:?}");
    assert!(error.get_remedy().unwrap().contains("remove the stream's checkpoint"), "{error:?}");
}

#[tokio::test]
async fn mariadb_a_log_that_was_reset_is_gone() {
    reset(Flavour::Mariadb, &[]).await;
}

#[tokio::test]
async fn mysql_a_log_that_was_reset_is_gone() {
    reset(Flavour::Mysql, &[]).await;
}

#[tokio::test]
async fn mysql_without_gtids_a_log_that_was_reset_is_gone() {
    reset(Flavour::Mysql, &["gtid_mode=OFF", "enforce_gtid_consistency=OFF"]).await;
}

#[tokio::test]
async fn a_mariadb_server_that_never_met_the_domain_is_refused() {
    let rig = with_table(Flavour::Mariadb, &["gtid_domain_id=7"]).await;
    let mut reader = open(&rig.source(Start::Now), start(None)).await;
    let mut reading = Reading::default();
    insert(&rig, 0..3).await;
    catch_up(reader.as_mut(), &mut reading).await;
    let other = with_table(Flavour::Mariadb, &["gtid_domain_id=8", "server_id=42"]).await;
    insert(&other, 0..3).await;
    let error = other.source(Start::Now).open_log(start(Some(&reading))).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LogGone, "{error:?}");
    assert_eq!(error.get_context("domain"), Some("7"), "{error:?}");
}

async fn inside_an_event(flavour: Flavour) {
    let rig = with_table(flavour, &[]).await;
    let position = Start::Position { file: "mysql-bin.000001".into(), position: 5 };
    let error = match rig.source(position).open_log(start(None)).await {
        Err(error) => error,
        Ok(mut reader) => read_all(reader.as_mut()).await.1.unwrap(),
    };
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.message().contains("not where an event"), "{error:?}");
}

#[tokio::test]
async fn mariadb_a_position_inside_an_event() {
    inside_an_event(Flavour::Mariadb).await;
}

#[tokio::test]
async fn mysql_a_position_inside_an_event() {
    inside_an_event(Flavour::Mysql).await;
}

#[tokio::test]
async fn a_log_that_is_reset_while_it_is_read_is_gone() {
    let rig = with_table(Flavour::Mariadb, &[]).await;
    rig.execute("FLUSH BINARY LOGS").await;
    let mut reader = open(&rig.source(Start::Now), start(None)).await;
    let mut reading = Reading::default();
    insert(&rig, 0..3).await;
    catch_up(reader.as_mut(), &mut reading).await;
    rig.execute("RESET MASTER").await;
    insert(&rig, 10..12).await;
    let error = read_all(reader.as_mut()).await.1.unwrap();
    assert_eq!(error.kind(), ErrorKind::LogGone, "{error:?}");
    assert!(error.get_remedy().is_some_and(|remedy| remedy.contains("start:")), "{error:?}");
}
