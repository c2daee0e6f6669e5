//! What is in the messages that servers send.

use logweir_core::{Error, Result};
use tracing::debug;

use super::failure::ServerError;
use super::frame::Frame;

pub(super) const AUTHENTICATION: u8 = b'R';
pub(super) const BACKEND_KEY_DATA: u8 = b'K';
pub(super) const COMMAND_COMPLETE: u8 = b'C';
pub(super) const COPY_BOTH_RESPONSE: u8 = b'W';
pub(super) const COPY_DATA: u8 = b'd';
pub(super) const COPY_DONE: u8 = b'c';
pub(super) const COPY_OUT_RESPONSE: u8 = b'H';
pub(super) const DATA_ROW: u8 = b'D';
pub(super) const EMPTY_QUERY_RESPONSE: u8 = b'I';
pub(super) const ERROR_RESPONSE: u8 = b'E';
pub(super) const NO_DATA: u8 = b'n';
pub(super) const PARAMETER_DESCRIPTION: u8 = b't';
pub(super) const PARSE_COMPLETE: u8 = b'1';
pub(super) const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
pub(super) const NOTICE_RESPONSE: u8 = b'N';
pub(super) const NOTIFICATION_RESPONSE: u8 = b'A';
pub(super) const PARAMETER_STATUS: u8 = b'S';
pub(super) const READY_FOR_QUERY: u8 = b'Z';
pub(super) const ROW_DESCRIPTION: u8 = b'T';

/// A message does not hold what its tag promises.
pub(super) fn malformed(tag: u8) -> Error {
    Error::corrupt("the server sent a message that cannot be understood").context("tag", char::from(tag).escape_default())
}

/// A message that has no place where it came.
pub(super) fn unexpected(tag: u8, waiting_for: &'static str) -> Error {
    Error::corrupt("the server sent an unexpected message")
        .context("tag", char::from(tag).escape_default())
        .context("waiting for", waiting_for)
}

/// What the server says about itself whenever it changes.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, kept)) => *kept = value,
            None => self.0.push((name, value)),
        }
    }
}

/// True for what a server may send at any time, between any two messages.
pub(super) fn is_aside(tag: u8) -> bool {
    matches!(tag, NOTICE_RESPONSE | PARAMETER_STATUS | NOTIFICATION_RESPONSE)
}

/// Takes note of what a server may send at any time.
pub(super) fn note(frame: Frame<'_>, parameters: &mut Parameters) -> Result<()> {
    match frame.tag {
        PARAMETER_STATUS => {
            let mut fields = Fields::new(frame);
            let (name, value) = (fields.text()?, fields.text()?);
            parameters.set(name, value);
        }
        NOTICE_RESPONSE => {
            // The text may hold values, the code does not.
            let notice = ServerError::parse(frame)?;
            debug!(severity = notice.severity(), sqlstate = notice.code(), "notice from the server");
        }
        _ => {}
    }
    Ok(())
}

/// Reads a body from front to back.
pub(super) struct Fields<'a> {
    tag: u8,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(frame: Frame<'a>) -> Self {
        Fields { tag: frame.tag, rest: frame.body }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| malformed(self.tag))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| malformed(self.tag))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// Text that ends with a zero byte.
    pub(super) fn text(&mut self) -> Result<String> {
        let end = self.rest.iter().position(|&byte| byte == 0).ok_or_else(|| malformed(self.tag))?;
        let text = self.bytes(end)?;
        self.bytes(1)?;
        // Before the encoding is agreed on, and with SQL_ASCII, the server sends what it has.
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

/// A column of a statement's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDescription {
    /// Its name.
    pub name: String,
    /// The number of its type; of a domain, of the type below.
    pub type_oid: u32,
    /// The modifier of the type, -1 if it has none.
    pub typmod: i32,
}

/// The columns that a RowDescription describes.
pub(super) fn columns(frame: Frame<'_>) -> Result<Vec<ColumnDescription>> {
    let mut fields = Fields::new(frame);
    let count = fields.u16()?;
    let mut columns = Vec::with_capacity(count.into());
    for _ in 0..count {
        let name = fields.text()?;
        // Table and column number; size; format.
        fields.bytes(4 + 2)?;
        let type_oid = fields.array().map(u32::from_be_bytes)?;
        fields.bytes(2)?;
        let typmod = fields.i32()?;
        fields.bytes(2)?;
        columns.push(ColumnDescription { name, type_oid, typmod });
    }
    Ok(columns)
}

/// The names of the columns that a RowDescription describes.
pub(super) fn column_names(frame: Frame<'_>) -> Result<Vec<String>> {
    Ok(columns(frame)?.into_iter().map(|column| column.name).collect())
}

/// True if a ParameterDescription describes any.
pub(super) fn has_parameters(frame: Frame<'_>) -> Result<bool> {
    Ok(Fields::new(frame).u16()? > 0)
}

/// The values of a DataRow, as text.
pub(super) fn row_values(frame: Frame<'_>) -> Result<Vec<Option<String>>> {
    let mut fields = Fields::new(frame);
    let count = fields.u16()?;
    let mut values = Vec::with_capacity(count.into());
    for _ in 0..count {
        values.push(match usize::try_from(fields.i32()?) {
            Ok(length) => Some(String::from_utf8_lossy(fields.bytes(length)?).into_owned()),
            Err(_) => None,
        });
    }
    Ok(values)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_kept_and_replaced() {
        let mut parameters = Parameters::default();
        for body in [&b"TimeZone\0GMT\0"[..], b"TimeZone\0UTC\0"] {
            note(Frame { tag: PARAMETER_STATUS, body }, &mut parameters).unwrap();
        }
        assert_eq!(parameters.get("TimeZone"), Some("UTC"));
        assert_eq!(parameters.0.len(), 1);
    }

    #[test]
    fn rows_cut_anywhere_are_errors() {
        let description = b"\0\x01id\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
        let row = b"\0\x02\0\0\0\x0242\xff\xff\xff\xff";
        let names = |body| column_names(Frame { tag: ROW_DESCRIPTION, body });
        let values = |body| row_values(Frame { tag: DATA_ROW, body });
        assert_eq!(names(description).unwrap(), ["id"]);
        assert_eq!(values(row).unwrap(), [Some("42".to_owned()), None]);
        for cut in 0..description.len() {
            assert!(names(&description[..cut]).is_err(), "{cut}");
        }
        for cut in 0..row.len() {
            assert!(values(&row[..cut]).is_err(), "{cut}");
        }
    }
}
