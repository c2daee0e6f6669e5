//! Decodes one recorded binlog with everything side by side, on one core.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- FILE [REPEATS]`
//!
//! * `walk`: every event's header is read, its checksum computed, its body stepped over: what any reader pays.
//! * `logweir`: our decoder, into Arrow batches that are dropped.
//! * `mysql_common`: rows as vectors of values (`mysql_common::binlog`).
//! * `mysql_cdc`: the crate of that name, rows as vectors of an enum; it reads the file itself.
//!
//! CPU is the thread's own (`/proc/thread-self/schedstat`), so other work on the machine disturbs it little. Rows are row
//! events as the server counts them: an update is one.

use std::alloc::System;
use std::io::Cursor;

use logweir_core::{LogEvent, TableFilter, TimestampMicros};
use logweir_mysql::decoder::{BinlogDecoder, Decoded, DecoderOptions};
use mysql_common::binlog::BinlogFile;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::{EventData, RowsEventData};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a program counted: rows as it sees them.
type Program = fn(&[u8], &str) -> u64;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        eprintln!("usage: logweir-peers FILE [REPEATS]");
        std::process::exit(2);
    };
    let repeats: usize = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(5);
    let bytes = std::fs::read(&path).expect("the recorded binlog can be read");
    let programs: [(&str, Program); 4] = [("walk", walk), ("logweir", logweir), ("mysql_common", mysql_common), ("mysql_cdc", mysql_cdc)];
    let rows = logweir(&bytes, &path);
    println!(
        "{rows} row changes, {} bytes, {:.1} bytes a change; median of {repeats} (least to most)\n",
        bytes.len(),
        bytes.len() as f64 / rows as f64
    );
    println!(
        "| program | CPU-s per million rows | rows/s of one core | MB/s | allocations per row | against logweir |\n|---|---|---|---|---|---|"
    );
    // Each round runs everything once, so that a disturbance of the machine meets all alike.
    let mut runs = vec![Vec::new(); programs.len()];
    let mut allocations = vec![0.0; programs.len()];
    for _ in 0..repeats {
        for (i, (_, program)) in programs.iter().enumerate() {
            let region = Region::new(ALLOCATOR);
            let cpu_before = cpu_nanos();
            std::hint::black_box(program(&bytes, &path));
            let cpu = (cpu_nanos() - cpu_before).max(1);
            runs[i].push(cpu as f64 / 1e9);
            allocations[i] = (region.change().allocations + region.change().reallocations) as f64 / rows as f64;
        }
    }
    for cpu in &mut runs {
        cpu.sort_by(f64::total_cmp);
    }
    let median = |cpu: &[f64]| cpu[cpu.len() / 2];
    let ours = median(&runs[1]);
    for (i, (name, _)) in programs.iter().enumerate() {
        let per_million = |cpu: f64| cpu / rows as f64 * 1e6;
        let cpu = median(&runs[i]);
        println!(
            "| {name} | {:.3} ({:.3}-{:.3}) | {:.0} | {:.0} | {:.4} | x{:.2} |",
            per_million(cpu),
            per_million(runs[i][0]),
            per_million(runs[i][runs[i].len() - 1]),
            rows as f64 / cpu,
            bytes.len() as f64 / cpu / 1e6,
            allocations[i],
            cpu / ours,
        );
    }
}

/// CPU time of this thread in nanoseconds, as the kernel's scheduler counts it.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux keeps schedstat");
    text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).expect("schedstat begins with nanoseconds")
}

fn walk(bytes: &[u8], _: &str) -> u64 {
    let (mut at, mut sum) = (4, 0);
    while let Some(header) = bytes.get(at..at + 19) {
        let size = (u32::from_le_bytes([header[9], header[10], header[11], header[12]]) as usize).max(19);
        // The checksum over every event is part of what a reader that verifies it pays.
        sum += u64::from(crc32fast::hash(bytes.get(at..at + size).unwrap_or_default()));
        at += size;
    }
    sum
}

fn logweir(bytes: &[u8], path: &str) -> u64 {
    const MIB: usize = 1024 * 1024;
    let options =
        DecoderOptions { tables: TableFilter::all(), flush_bytes: 8 * MIB, flush_bytes_max: 32 * MIB, ..DecoderOptions::default() };
    let file = path.rsplit('/').next().unwrap_or(path);
    let mut decoder = BinlogDecoder::new(options, file, 0).expect("the options are sound");
    let mut rows = 0;
    let mut take = |decoder: &mut BinlogDecoder| {
        while let Some(event) = decoder.next_event() {
            if let LogEvent::Changes(batch) = event {
                rows += batch.rows() as u64;
            }
        }
    };
    // As a socket or a file hands them over.
    for chunk in bytes.chunks(MIB) {
        let decoded = decoder.decode(chunk, TimestampMicros(0)).expect("a recorded binlog decodes");
        assert_eq!(decoded, Decoded::All, "a recording has no server to ask");
        take(&mut decoder);
    }
    decoder.flush().expect("a recorded binlog decodes");
    take(&mut decoder);
    rows
}

fn mysql_common(bytes: &[u8], _: &str) -> u64 {
    let mut file = BinlogFile::new(BinlogVersion::Version4, Cursor::new(bytes)).expect("a binlog begins with its magic number");
    let mut rows = 0;
    while let Some(event) = file.next() {
        let event = event.expect("a recorded binlog decodes");
        let Ok(Some(EventData::RowsEvent(data))) = event.read_data() else { continue };
        let table = file.reader().get_tme(data.table_id()).expect("a rows event follows its table map");
        let decoded: Box<dyn Iterator<Item = _>> = match &data {
            RowsEventData::WriteRowsEvent(event) => Box::new(event.rows(table)),
            RowsEventData::UpdateRowsEvent(event) => Box::new(event.rows(table)),
            RowsEventData::DeleteRowsEvent(event) => Box::new(event.rows(table)),
            RowsEventData::WriteRowsEventV1(event) => Box::new(event.rows(table)),
            RowsEventData::UpdateRowsEventV1(event) => Box::new(event.rows(table)),
            RowsEventData::DeleteRowsEventV1(event) => Box::new(event.rows(table)),
            _ => continue,
        };
        for row in decoded {
            std::hint::black_box(row.expect("a recorded binlog decodes"));
            rows += 1;
        }
    }
    rows
}

fn mysql_cdc(_: &[u8], path: &str) -> u64 {
    use mysql_cdc::events::binlog_event::BinlogEvent;
    let file = std::fs::File::open(path).expect("the recorded binlog can be read");
    let reader = mysql_cdc::binlog_reader::BinlogReader::new(file).expect("a binlog begins with its magic number");
    let mut rows = 0;
    for event in reader.read_events() {
        // It can't read every event of newer servers; what it can't, it returns as an error and goes on.
        match event {
            Ok((_, BinlogEvent::WriteRowsEvent(event))) => rows += event.rows.len() as u64,
            Ok((_, BinlogEvent::UpdateRowsEvent(event))) => rows += event.rows.len() as u64,
            Ok((_, BinlogEvent::DeleteRowsEvent(event))) => rows += event.rows.len() as u64,
            _ => {}
        }
    }
    rows
}
