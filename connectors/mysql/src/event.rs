//! Binlog events: the header every event begins with, the types there are, and the small events that frame a log.
//!
//! The layouts are those of the pages "Binary Log Event" and "Replication Protocol" of MySQL's source documentation and of
//! MariaDB's knowledge base ("2-Binlog Event Header" and its neighbours). Bodies are given without header and checksum.

use crate::reader::{Cursor, Truncated};

/// Length of the header.
pub(crate) const HEADER_LEN: usize = 19;

/// Longest event: what `max_allowed_packet` allows at most, and room for the headers around it.
pub(crate) const EVENT_BYTES_MAX: u32 = (1 << 30) + (1 << 20);

/// The event was made up by the dump thread and has no place in the file.
pub(crate) const FLAG_ARTIFICIAL: u16 = 0x20;
/// The event may be ignored by who does not know its type.
pub(crate) const FLAG_IGNORABLE: u16 = 0x80;

macro_rules! event_types {
    ($($name:ident = $code:literal;)*) => {
        $(pub(crate) const $name: u8 = $code;)*

        /// The name of an event type, for messages.
        pub(crate) fn type_name(code: u8) -> &'static str {
            match code {
                $($code => stringify!($name),)*
                _ => "an unknown type",
            }
        }
    };
}

event_types! {
    QUERY = 2;
    STOP = 3;
    ROTATE = 4;
    INTVAR = 5;
    APPEND_BLOCK = 9;
    DELETE_FILE = 11;
    RAND = 13;
    USER_VAR = 14;
    FORMAT_DESCRIPTION = 15;
    XID = 16;
    BEGIN_LOAD_QUERY = 17;
    EXECUTE_LOAD_QUERY = 18;
    TABLE_MAP = 19;
    WRITE_ROWS_V1 = 23;
    UPDATE_ROWS_V1 = 24;
    DELETE_ROWS_V1 = 25;
    INCIDENT = 26;
    HEARTBEAT = 27;
    IGNORABLE = 28;
    ROWS_QUERY = 29;
    WRITE_ROWS = 30;
    UPDATE_ROWS = 31;
    DELETE_ROWS = 32;
    GTID = 33;
    ANONYMOUS_GTID = 34;
    PREVIOUS_GTIDS = 35;
    TRANSACTION_CONTEXT = 36;
    VIEW_CHANGE = 37;
    XA_PREPARE = 38;
    PARTIAL_UPDATE_ROWS = 39;
    TRANSACTION_PAYLOAD = 40;
    HEARTBEAT_V2 = 41;
    GTID_TAGGED = 42;
    MARIADB_ANNOTATE_ROWS = 160;
    MARIADB_BINLOG_CHECKPOINT = 161;
    MARIADB_GTID = 162;
    MARIADB_GTID_LIST = 163;
    MARIADB_START_ENCRYPTION = 164;
    MARIADB_QUERY_COMPRESSED = 165;
    MARIADB_WRITE_ROWS_COMPRESSED_V1 = 166;
    MARIADB_UPDATE_ROWS_COMPRESSED_V1 = 167;
    MARIADB_DELETE_ROWS_COMPRESSED_V1 = 168;
    MARIADB_WRITE_ROWS_COMPRESSED = 169;
    MARIADB_UPDATE_ROWS_COMPRESSED = 170;
    MARIADB_DELETE_ROWS_COMPRESSED = 171;
}

/// The header of an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventHeader {
    /// Seconds since the epoch.
    pub(crate) timestamp: u32,
    pub(crate) event_type: u8,
    pub(crate) server_id: u32,
    /// Of the whole event, header and checksum included.
    pub(crate) event_size: u32,
    /// Where the event ends in its file, modulo 2^32; 0 if it is in none.
    pub(crate) log_pos: u32,
    pub(crate) flags: u16,
}

impl EventHeader {
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let [t0, t1, t2, t3, event_type, i0, i1, i2, i3, s0, s1, s2, s3, p0, p1, p2, p3, f0, f1] = *bytes;
        EventHeader {
            timestamp: u32::from_le_bytes([t0, t1, t2, t3]),
            event_type,
            server_id: u32::from_le_bytes([i0, i1, i2, i3]),
            event_size: u32::from_le_bytes([s0, s1, s2, s3]),
            log_pos: u32::from_le_bytes([p0, p1, p2, p3]),
            flags: u16::from_le_bytes([f0, f1]),
        }
    }

    /// True if the event is of the conversation and has no place in the file.
    pub(crate) fn is_artificial(&self) -> bool {
        self.log_pos == 0 || self.flags & FLAG_ARTIFICIAL != 0 || matches!(self.event_type, HEARTBEAT | HEARTBEAT_V2)
    }
}

/// The body of a ROTATE event.
pub(crate) struct Rotate<'a> {
    pub(crate) position: u64,
    pub(crate) file: &'a [u8],
}

impl<'a> Rotate<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Truncated> {
        let mut cursor = Cursor::new(body);
        Ok(Rotate { position: cursor.u64()?, file: cursor.rest() })
    }
}

/// The name of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gtid {
    /// MySQL's; the tag is empty for none.
    Mysql { uuid: [u8; 16], tag: String, number: u64 },
    /// MariaDB's.
    Mariadb { domain: u32, server: u32, sequence: u64 },
}

impl Gtid {
    /// Writes the name as the servers do: `uuid:n`, `uuid:tag:n`, `domain-server-sequence`.
    pub(crate) fn write(&self, text: &mut String) {
        use std::fmt::Write as _;
        // Writing to a string cannot fail.
        let _ = match self {
            Gtid::Mysql { uuid, tag, number } => {
                for (i, byte) in uuid.iter().enumerate() {
                    if matches!(i, 4 | 6 | 8 | 10) {
                        text.push('-');
                    }
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    text.push(char::from(HEX[usize::from(byte >> 4)]));
                    text.push(char::from(HEX[usize::from(byte & 15)]));
                }
                if tag.is_empty() { write!(text, ":{number}") } else { write!(text, ":{tag}:{number}") }
            }
            Gtid::Mariadb { domain, server, sequence } => write!(text, "{domain}-{server}-{sequence}"),
        };
    }
}

/// What a MySQL GTID event says.
pub(crate) struct MysqlGtid {
    pub(crate) gtid: Gtid,
    /// Microseconds since the epoch, where the server is new enough (8.0.1) to say it.
    pub(crate) commit_micros: Option<i64>,
}

impl MysqlGtid {
    /// GTID and ANONYMOUS_GTID.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Truncated> {
        let mut cursor = Cursor::new(body);
        cursor.skip(1)?;
        let uuid = cursor.array()?;
        let number = cursor.u64()?;
        let mut commit_micros = None;
        // The logical clock came with 5.7, the time of the commit with 8.0.1: an older event just ends.
        if cursor.len() >= 17 + 7 && cursor.u8()? == 2 {
            cursor.skip(16)?;
            let micros = cursor.uint(7)?;
            // The highest bit says that the time of the original commit follows, on a replica.
            commit_micros = i64::try_from(micros & !(1 << 55)).ok().filter(|micros| *micros > 0);
        }
        Ok(MysqlGtid { gtid: Gtid::Mysql { uuid, tag: String::new(), number }, commit_micros })
    }

    /// GTID_TAGGED: fields by number in the encoding of MySQL's serialization library.
    pub(crate) fn parse_tagged(body: &[u8]) -> Result<Self, Truncated> {
        let mut cursor = Cursor::new(body);
        let _version = variable(&mut cursor)?;
        let size = usize::try_from(variable(&mut cursor)?).map_err(|_| Truncated)?;
        let last_needed = variable(&mut cursor)?;
        // The size counts from the version on.
        let mut fields = Cursor::new(body.get(body.len() - cursor.len()..size).ok_or(Truncated)?);
        let (mut uuid, mut tag, mut number, mut commit_micros) = ([0; 16], String::new(), 0, None);
        while !fields.is_empty() {
            match variable(&mut fields)? {
                // A byte array of fixed length is a number per byte.
                1 => {
                    for byte in &mut uuid {
                        *byte = u8::try_from(variable(&mut fields)?).map_err(|_| Truncated)?;
                    }
                }
                2 => number = variable_signed(&mut fields)?,
                3 => {
                    let length = usize::try_from(variable(&mut fields)?).map_err(|_| Truncated)?;
                    tag = std::str::from_utf8(fields.take(length)?).map_err(|_| Truncated)?.to_owned();
                }
                4 | 5 => {
                    variable_signed(&mut fields)?;
                }
                6 => commit_micros = i64::try_from(variable(&mut fields)?).ok().filter(|micros| *micros > 0),
                0 | 7..=11 => {
                    variable(&mut fields)?;
                }
                field if field <= last_needed => return Err(Truncated),
                // What a newer server adds may be ignored, and hides what stands behind it.
                _ => break,
            }
        }
        Ok(MysqlGtid { gtid: Gtid::Mysql { uuid, tag, number: u64::try_from(number).map_err(|_| Truncated)? }, commit_micros })
    }
}

/// An integer whose length is the number of trailing ones of its first byte.
fn variable(cursor: &mut Cursor<'_>) -> Result<u64, Truncated> {
    let first = cursor.u8()?;
    let more = first.trailing_ones() as usize;
    if more == 8 {
        return cursor.u64();
    }
    // Of the first byte `more + 1` bits are spent on the length.
    let low = u64::from(first) >> (more + 1);
    let high = cursor.uint(more)?;
    // With seven more bytes the first one holds no bit of the number.
    Ok(high.checked_shl(7 - more as u32).unwrap_or(0) | low)
}

/// The same with the sign in the lowest bit.
fn variable_signed(cursor: &mut Cursor<'_>) -> Result<i64, Truncated> {
    let number = variable(cursor)?;
    let magnitude = (number >> 1) as i64;
    Ok(if number & 1 == 0 { magnitude } else { !magnitude })
}

/// What a MariaDB GTID event says.
pub(crate) struct MariadbGtid {
    pub(crate) gtid: Gtid,
    /// The group is one event (a DDL statement, mostly) and has no end of its own.
    pub(crate) standalone: bool,
    /// The group prepares or completes an XA transaction.
    pub(crate) xa: bool,
}

impl MariadbGtid {
    /// The server is not in the body but in the header.
    pub(crate) fn parse(body: &[u8], server: u32) -> Result<Self, Truncated> {
        let mut cursor = Cursor::new(body);
        let sequence = cursor.u64()?;
        let domain = cursor.u32()?;
        let flags = cursor.u8()?;
        Ok(MariadbGtid { gtid: Gtid::Mariadb { domain, server, sequence }, standalone: flags & 1 != 0, xa: flags & (64 | 128) != 0 })
    }
}

/// The text of the set in a PREVIOUS_GTIDS event, in MySQL's own form.
pub(crate) fn previous_gtids(body: &[u8]) -> Result<String, Truncated> {
    use std::fmt::Write as _;
    let mut cursor = Cursor::new(body);
    let head = cursor.u64()?;
    let tagged = head >> 56 != 0;
    let sources = if tagged { (head >> 8) & ((1 << 48) - 1) } else { head };
    let mut text = String::new();
    for _ in 0..sources {
        let uuid = cursor.array()?;
        let tag = if tagged {
            let length = usize::try_from(variable(&mut cursor)?).map_err(|_| Truncated)?;
            std::str::from_utf8(cursor.take(length)?).map_err(|_| Truncated)?
        } else {
            ""
        };
        let intervals = cursor.u64()?;
        for _ in 0..intervals {
            let (first, end) = (cursor.u64()?, cursor.u64()?);
            let last = end.checked_sub(1).filter(|last| *last >= first).ok_or(Truncated)?;
            if !text.is_empty() {
                text.push(',');
            }
            Gtid::Mysql { uuid, tag: tag.to_owned(), number: first }.write(&mut text);
            let _ = write!(text, "-{last}");
        }
    }
    Ok(text)
}

/// The text of the position in a GTID_LIST event, in MariaDB's own form.
pub(crate) fn gtid_list(body: &[u8]) -> Result<String, Truncated> {
    let mut cursor = Cursor::new(body);
    // The highest four bits are flags.
    let count = cursor.u32()? & 0x0fff_ffff;
    let mut text = String::new();
    for _ in 0..count {
        let (domain, server, sequence) = (cursor.u32()?, cursor.u32()?, cursor.u64()?);
        if !text.is_empty() {
            text.push(',');
        }
        Gtid::Mariadb { domain, server, sequence }.write(&mut text);
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    fn name(gtid: &Gtid) -> String {
        let mut text = String::new();
        gtid.write(&mut text);
        text
    }

    #[test]
    fn a_gtid_event_of_mysql_9() {
        let event = MysqlGtid::parse(&hex(
            "017365dc5fe4db11f1a01602fc00000001010000000000000002000000000000000001000000000000000273d025b46006bc50620100",
        ));
        let event = event.unwrap();
        assert_eq!(name(&event.gtid), "7365dc5f-e4db-11f1-a016-02fc00000001:1");
        assert_eq!(event.commit_micros, Some(0x06_60b4_25d0_7302));
    }

    #[test]
    fn a_gtid_event_of_mysql_5_6_ends_early() {
        let event = MysqlGtid::parse(&hex("017365dc5fe4db11f1a01602fc000000010900000000000000")).unwrap();
        assert_eq!((name(&event.gtid).as_str(), event.commit_micros), ("7365dc5f-e4db-11f1-a016-02fc00000001:9", None));
    }

    #[test]
    fn variable_length_integers() {
        for (bytes, expected) in [
            (&[0b0000_0010][..], 1),
            (&[0b1111_1110], 127),
            (&[0b0000_0001, 2], 128),
            (&[0b1111_1101, 0xff], 16383),
            (&[0xff, 1, 0, 0, 0, 0, 0, 0, 0x80], 0x8000_0000_0000_0001),
            (&[0x7f, 1, 0, 0, 0, 0, 0, 0], 1),
        ] {
            assert_eq!(variable(&mut Cursor::new(bytes)), Ok(expected), "{bytes:?}");
        }
        assert_eq!(variable_signed(&mut Cursor::new(&[0b0000_0100])), Ok(1));
        assert_eq!(variable_signed(&mut Cursor::new(&[0b0000_0010])), Ok(-1));
    }

    #[test]
    fn a_list_of_mariadb() {
        let mut body = vec![2, 0, 0, 0x10];
        for (domain, server, sequence) in [(0u32, 1u32, 7u64), (5, 2, 9)] {
            body.extend(domain.to_le_bytes());
            body.extend(server.to_le_bytes());
            body.extend(sequence.to_le_bytes());
        }
        assert_eq!(gtid_list(&body).unwrap(), "0-1-7,5-2-9");
        assert_eq!(gtid_list(&body[..20]), Err(Truncated));
    }

    #[test]
    fn a_set_of_mysql() {
        let mut body = hex("0100000000000000");
        body.extend([0x11; 16]);
        body.extend(hex("0200000000000000"));
        for number in [1u64, 6, 8, 9] {
            body.extend(number.to_le_bytes());
        }
        let uuid = "11111111-1111-1111-1111-111111111111";
        assert_eq!(previous_gtids(&body).unwrap(), format!("{uuid}:1-5,{uuid}:8-8"));
        // A count of sources that is not there must not be believed.
        body[3] = 0xff;
        assert_eq!(previous_gtids(&body), Err(Truncated));
    }
}
