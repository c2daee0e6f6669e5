//! What decoding a binlog into Arrow batches costs on one core, beside merely walking its events.
//!
//! `cargo run --release -p logweir-benches --bin decoder -- [FILE | TRANSACTIONS] [REPEATS]`
//!
//! Without a file a binlog of 1,000 transactions of 1,000 changes is made in memory. CPU is the thread's own
//! (`/proc/thread-self/schedstat`), so other work on the machine disturbs it little; the median and the spread are printed.
//! `peers/` runs other crates on the same file.

use std::alloc::System;

use logweir_benches::binlog;
use logweir_core::{LogEvent, TimestampMicros};
use logweir_mysql::decoder::{BinlogDecoder, DecoderOptions};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// As a socket or a file hands bytes over.
const PIECE_BYTES: usize = 1 << 20;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let bytes = match arguments.next() {
        None => binlog::generate(1000),
        Some(argument) => match argument.parse() {
            Ok(transactions) => binlog::generate(transactions),
            Err(_) => std::fs::read(argument)?,
        },
    };
    let repeats: usize = arguments.next().map_or(Ok(7), |text| text.parse())?;
    let changes = decode(&bytes)?;
    println!(
        "{changes} changes, {} bytes, {:.1} bytes a change; median of {repeats} (least to most)\n",
        bytes.len(),
        bytes.len() as f64 / changes as f64
    );
    println!("| program | CPU-s per million changes | changes/s | MB/s | allocations per change |\n|---|---|---|---|---|");
    for (name, program) in [("walk", walk as fn(&[u8]) -> Result<u64>), ("decode", decode)] {
        let mut cpu = Vec::new();
        let mut allocations = 0;
        for _ in 0..repeats.max(1) {
            let region = Region::new(ALLOCATOR);
            let before = cpu_nanos()?;
            std::hint::black_box(program(&bytes)?);
            cpu.push((cpu_nanos()? - before).max(1) as f64 / 1e9);
            allocations = region.change().allocations + region.change().reallocations;
        }
        cpu.sort_by(f64::total_cmp);
        let per_million = |seconds: f64| seconds / changes as f64 * 1e6;
        let median = cpu[cpu.len() / 2];
        println!(
            "| {name} | {:.3} ({:.3} to {:.3}) | {:.0} | {:.0} | {:.5} |",
            per_million(median),
            per_million(cpu[0]),
            per_million(cpu[cpu.len() - 1]),
            changes as f64 / median,
            bytes.len() as f64 / median / 1e6,
            allocations as f64 / changes as f64,
        );
    }
    Ok(())
}

/// Reads every header and steps over the body, after its checksum was computed.
fn walk(bytes: &[u8]) -> Result<u64> {
    let (mut at, mut events) = (4, 0);
    while let Some(header) = bytes.get(at..at + 19) {
        let size = u32::from_le_bytes(header[9..13].try_into()?) as usize;
        let event = bytes.get(at..at + size).ok_or("the binlog ends inside of an event")?;
        std::hint::black_box(crc32fast::hash(event));
        at += size.max(19);
        events += u64::from(std::hint::black_box(header[4]) > 0);
    }
    Ok(events)
}

fn decode(bytes: &[u8]) -> Result<u64> {
    let mut decoder = BinlogDecoder::new(DecoderOptions::default(), "binlog.000001", 0)?;
    let mut changes = 0;
    for piece in bytes.chunks(PIECE_BYTES) {
        decoder.decode(piece, TimestampMicros(0))?;
        changes += take(&mut decoder);
    }
    decoder.flush()?;
    Ok(changes + take(&mut decoder))
}

fn take(decoder: &mut BinlogDecoder) -> u64 {
    let mut changes = 0;
    while let Some(event) = decoder.next_event() {
        if let LogEvent::Changes(batch) = event {
            changes += batch.rows() as u64;
        }
    }
    changes
}

/// What this thread has used of a processor.
fn cpu_nanos() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("no CPU time")?.parse()?)
}
