//! Makes a binlog as MySQL 8 would write it, for benches that need no server: transactions of 1,000 changes (600 inserts,
//! 300 updates, 100 deletes) of one table of ten mixed columns, about 126 bytes a change, with full metadata and checksums.
//!
//! It has the same shape as `live/backlog.sql`, which makes the same from a real server.

const HEADER_LEN: usize = 19;
const CHECKSUM_LEN: usize = 4;
/// What a server puts into one rows event.
const EVENT_BYTES: usize = 8192;
const TABLE_ID: u64 = 107;

const FORMAT_DESCRIPTION: u8 = 15;
const QUERY: u8 = 2;
const XID: u8 = 16;
const TABLE_MAP: u8 = 19;
const WRITE_ROWS: u8 = 30;
const UPDATE_ROWS: u8 = 31;
const DELETE_ROWS: u8 = 32;
const ANONYMOUS_GTID: u8 = 34;

/// Changes of one transaction.
pub const TRANSACTION_CHANGES: usize = 1000;

const CITIES: [&str; 8] = ["Berlin", "Oslo", "Lisbon", "Montevideo", "Kyoto", "Nairobi", "Quito", "Perth"];

struct Writer {
    bytes: Vec<u8>,
    seconds: u32,
}

impl Writer {
    fn event(&mut self, event_type: u8, body: &[u8]) {
        let start = self.bytes.len();
        let size = (HEADER_LEN + body.len() + CHECKSUM_LEN) as u32;
        self.bytes.extend(self.seconds.to_le_bytes());
        self.bytes.push(event_type);
        self.bytes.extend(1u32.to_le_bytes());
        self.bytes.extend(size.to_le_bytes());
        self.bytes.extend((start as u32).wrapping_add(size).to_le_bytes());
        self.bytes.extend([0, 0]);
        self.bytes.extend(body);
        let checksum = crc32fast::hash(&self.bytes[start..]);
        self.bytes.extend(checksum.to_le_bytes());
    }
}

/// A binlog file of so many transactions.
pub fn generate(transactions: usize) -> Vec<u8> {
    let mut writer = Writer { bytes: b"\xfebin".to_vec(), seconds: 1_767_225_600 };
    let mut format = vec![4, 0];
    let mut version = [0; 50];
    version[..6].copy_from_slice(b"8.4.99");
    format.extend(version);
    format.extend([0, 0, 0, 0, HEADER_LEN as u8]);
    // Lengths of post-headers; only that of the table map is looked at.
    format.extend([8; 42]);
    format.push(1);
    writer.event(FORMAT_DESCRIPTION, &format);
    let map = table_map();
    for transaction in 0..transactions as u64 {
        writer.seconds += 1;
        let mut gtid = vec![0; 25];
        gtid.push(2);
        gtid.extend([0; 16]);
        gtid.extend(&(u64::from(writer.seconds) * 1_000_000).to_le_bytes()[..7]);
        writer.event(ANONYMOUS_GTID, &gtid);
        writer.event(QUERY, &[&[0; 8][..], &[5, 0, 0, 0, 0], b"bench\0BEGIN"].concat());
        let first = transaction * 600;
        writer.event(TABLE_MAP, &map);
        rows(&mut writer, WRITE_ROWS, (first..first + 600).map(|id| image(id, 0)));
        writer.event(TABLE_MAP, &map);
        rows(&mut writer, UPDATE_ROWS, (first..first + 300).map(|id| [image(id, 0), image(id, 1)].concat()));
        writer.event(TABLE_MAP, &map);
        rows(&mut writer, DELETE_ROWS, (first + 300..first + 400).map(|id| image(id, 0)));
        writer.event(XID, &transaction.to_le_bytes());
    }
    writer.bytes
}

fn table_map() -> Vec<u8> {
    let mut map = TABLE_ID.to_le_bytes()[..6].to_vec();
    map.extend([1, 0]);
    map.extend(b"\x05bench\0\x07changes\0");
    // bigint, int, decimal, timestamp(6), date, varchar, varchar, text, tinyint, double.
    map.extend([10, 8, 3, 246, 17, 10, 15, 15, 252, 1, 5]);
    let lengths = [12, 2, 6, 0x90, 1, 0x90, 1, 2, 8];
    map.push(lengths.len() as u8);
    map.extend(lengths);
    map.extend([0xfe, 3]);
    // Signs, the default collation (utf8mb4), names, the key.
    map.extend([1, 1, 0]);
    map.extend([2, 3, 252, 255, 0]);
    let names = ["id", "quantity", "amount", "changed", "day", "name", "city", "note", "flag", "score"];
    map.push(4);
    map.push(names.iter().map(|name| name.len() + 1).sum::<usize>() as u8);
    names.iter().for_each(|name| {
        map.push(name.len() as u8);
        map.extend(name.as_bytes());
    });
    map.extend([8, 1, 0]);
    map
}

fn rows(writer: &mut Writer, event_type: u8, rows: impl Iterator<Item = Vec<u8>>) {
    let mut head = TABLE_ID.to_le_bytes()[..6].to_vec();
    head.extend([0, 0, 2, 0, 10, 0xff, 0x03]);
    if event_type == UPDATE_ROWS {
        head.extend([0xff, 0x03]);
    }
    let mut body = head.clone();
    for row in rows {
        if body.len() + row.len() > EVENT_BYTES {
            writer.event(event_type, &body);
            body.truncate(head.len());
        }
        body.extend(row);
    }
    writer.event(event_type, &body);
}

fn image(id: u64, version: u64) -> Vec<u8> {
    let mut image = vec![0, 0xfc];
    image.extend(id.to_le_bytes());
    image.extend((((id * 7919) % 1_000_003 + version) as u32).to_le_bytes());
    // decimal(12,2): ten digits before the point in one and four bytes, two behind in one; the sign is the highest bit.
    let amount = (id * 104_729 + version * 125) % 99_999_989;
    let (whole, cents) = (amount / 100, amount % 100);
    image.push(0x80 | (whole / 1_000_000_000) as u8);
    image.extend(((whole % 1_000_000_000) as u32).to_be_bytes());
    image.push(cents as u8);
    let micros = 1_767_225_600_000_000 + id * 1_370_123 + version * 1_000_000;
    image.extend(((micros / 1_000_000) as u32).to_be_bytes());
    image.extend(&((micros % 1_000_000) as u32).to_be_bytes()[1..]);
    let (year, month, day) = (2020 + id % 6, 1 + id % 12, 1 + id % 28);
    image.extend(&((year << 9 | month << 5 | day) as u32).to_le_bytes()[..3]);
    let name = format!("customer-{id:08}");
    image.extend((name.len() as u16).to_le_bytes());
    image.extend(name.as_bytes());
    let city = CITIES[(id % 8) as usize];
    image.extend((city.len() as u16).to_le_bytes());
    image.extend(city.as_bytes());
    let note = format!("{:028x}", u128::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060) + u128::from(version));
    let note = &note[note.len() - 28..];
    image.extend((note.len() as u16).to_le_bytes());
    image.extend(note.as_bytes());
    image.push(u8::from(id.is_multiple_of(3)));
    image.extend((id as f64 * 0.618_033_988_7).to_le_bytes());
    image
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use logweir_core::{LogEvent, TimestampMicros};
    use logweir_mysql::decoder::{BinlogDecoder, DecoderOptions};

    #[test]
    fn what_is_generated_decodes() {
        let bytes = super::generate(3);
        let mut decoder = BinlogDecoder::new(DecoderOptions::default(), "binlog.000001", 0).unwrap();
        decoder.decode(&bytes, TimestampMicros(0)).unwrap();
        decoder.flush().unwrap();
        let mut rows = 0;
        while let Some(event) = decoder.next_event() {
            if let LogEvent::Changes(batch) = event {
                rows += batch.rows();
                assert_eq!(batch.relation.columns().len(), 10);
            }
        }
        assert_eq!(rows, 3 * super::TRANSACTION_CHANGES);
    }
}
