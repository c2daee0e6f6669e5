//! How fast a backlog is read: a measurement, run by hand.
//!
//! `cargo test -p logweir-mysql --profile bench-fast --test it drain -- --ignored --nocapture --test-threads=1`

use std::time::Instant;

use logweir_core::{LogEvent, LogStart, MemoryBudget, TableFilter};
use logweir_mysql::options::Start;

use crate::rig::{Flavour, Rig, open, tables};

const ROWS: u32 = 1_000_000;

/// Seconds of processor that this process has used.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

async fn drain(rig: &Rig, what: &str, tables: TableFilter) {
    let start = LogStart { resume: None, relations: vec![], tables, before_images: Vec::new(), memory: MemoryBudget::new(256 << 20) };
    let (began, processor) = (Instant::now(), processor_seconds());
    let mut reader = open(&rig.source(Start::Earliest), start).await;
    let end = reader.end().await.unwrap().unwrap();
    let (mut rows, mut batches) = (0, 0);
    loop {
        match reader.next().await.unwrap().unwrap() {
            LogEvent::Mark(mark) if mark.position >= end => break,
            LogEvent::Changes(batch) => {
                rows += batch.rows();
                batches += 1;
            }
            _ => {}
        }
    }
    let (seconds, processor) = (began.elapsed().as_secs_f64(), processor_seconds() - processor);
    println!(
        "{what}: {rows} rows of {ROWS} in {batches} batches, {seconds:.2} s, {:.0} rows/s, {:.2} processor s per million",
        f64::from(ROWS) / seconds,
        processor * 1e6 / f64::from(ROWS)
    );
}

async fn backlog(flavour: Flavour) {
    let rig = Rig::start(flavour, &["max_allowed_packet=64M"]).await;
    rig.execute(
        "CREATE TABLE shop.orders (id BIGINT UNSIGNED PRIMARY KEY, customer INT UNSIGNED, status ENUM('new','paid','sent'), amount DECIMAL(12,2), \
         placed DATETIME(6), changed TIMESTAMP(3) NULL, note VARCHAR(60), country CHAR(2), flags TINYINT, weight DOUBLE)",
    )
    .await;
    let mut digits = "SELECT 0 d".to_owned();
    for digit in 1..10 {
        digits.push_str(&format!(" UNION ALL SELECT {digit}"));
    }
    for hundred_thousand in 0..ROWS / 100_000 {
        rig.execute(&format!(
            "INSERT INTO shop.orders SELECT n, n % 9973, 1 + n % 3, n / 7, '2026-01-01' + INTERVAL n SECOND, '2026-01-01 00:00:01', \
             CONCAT('a note to the order number ', n), 'DE', n % 5, n / 3 FROM (SELECT {hundred_thousand} * 100000 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d n \
             FROM ({digits}) a, ({digits}) b, ({digits}) c, ({digits}) e, ({digits}) f) numbers"
        ))
        .await;
    }
    for round in 0..3 {
        drain(&rig, &format!("{flavour:?} raw, round {round}"), tables(&["none.*"])).await;
        drain(&rig, &format!("{flavour:?} decoded, round {round}"), tables(&["shop.*"])).await;
    }
}

#[tokio::test]
#[ignore = "a measurement of a minute"]
async fn drain_of_mariadb() {
    backlog(Flavour::Mariadb).await;
}

#[tokio::test]
#[ignore = "a measurement of a minute"]
async fn drain_of_mysql() {
    backlog(Flavour::Mysql).await;
}
