//! Numbers, times and tables as people read them.

use std::io::{self, Write as _};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use comfy_table::{ContentArrangement, Table, presets};
use logweir_core::{Error, Result, TimestampMicros};

/// A count with thousands set apart: `49,900`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in a fitting unit: `1.5 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A time span in its one or two largest units: `1.2s`, `3m 20s`, `5d 2h`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=59 => format!("{:.1}s", duration.as_secs_f64()),
        60..=3599 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A time in UTC: `2026-11-20T12:00:00.000000Z`.
pub(crate) fn time(timestamp: TimestampMicros) -> String {
    match DateTime::from_timestamp_micros(timestamp.0) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Micros, true),
        None => format!("{} µs", timestamp.0),
    }
}

/// A table with a header.
pub(crate) fn table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    table
}

/// Writes a result to standard output. Whoever closed it has had enough: that is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::transient("could not write to standard output").source(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 49_900, 1_234_567].map(count), ["0", "999", "1,000", "49,900", "1,234,567"]);
        assert_eq!([0, 1023, 1536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!([1250, 200_000, 7_260_000, 441_000_000].map(|ms| span(Duration::from_millis(ms))), ["1.2s", "3m 20s", "2h 1m", "5d 2h"]);
        assert_eq!(time(TimestampMicros(1_795_179_900_000_001)), "2026-11-20T13:05:00.000001Z");
    }
}
