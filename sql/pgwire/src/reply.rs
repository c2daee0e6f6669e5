//! Messages to a client.

use std::fmt;

use bytes::{BufMut, BytesMut};
use logweir_core::Error;
use logweir_sql::sqlstate;

use crate::frame::Broken;

/// A column of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The type, as PostgreSQL numbers it.
    pub(crate) oid: u32,
}

/// What a client is told went wrong.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    message: String,
    hint: Option<String>,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Refusal { code, message: message.into(), hint: None }
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let shown = error.to_string();
        let remedy = error.get_remedy().map(str::to_owned);
        let mut message = match &remedy {
            Some(remedy) => shown.strip_suffix(remedy.as_str()).and_then(|shown| shown.strip_suffix("; ")).unwrap_or(&shown).to_owned(),
            None => shown,
        };
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        Refusal { code: sqlstate(&error), message, hint: remedy }
    }
}

/// Why a step of a session did not do what it was to do.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client is told, and goes on.
    Refused(Refusal),
    /// The connection ends; the client is told why, if anything.
    Ended(Option<Refusal>),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Refused(error.into())
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Failure::Ended(match broken {
            Broken::Gone => None,
            Broken::Malformed => Some(Refusal::new("08P01", "the message is not one of the protocol")),
            Broken::TooLarge => Some(Refusal::new("54000", "the message is too long")),
        })
    }
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Writes messages.
pub(crate) trait Reply {
    /// A message of a type, with what `body` writes.
    fn message(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut));

    fn authentication(&mut self, code: i32, data: &[u8]);
    fn parameter_status(&mut self, name: &str, value: &str);
    fn ready(&mut self, status: u8);
    fn complete(&mut self, tag: &str);
    fn error(&mut self, severity: &str, refusal: &Refusal);
    fn notice(&mut self, code: &str, message: &str);
    fn row_description(&mut self, columns: &[Column], formats: &[i16]);
    fn parameter_description(&mut self, types: &[u32]);
}

impl Reply for BytesMut {
    fn message(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut)) {
        self.put_u8(kind);
        let start = self.len();
        self.put_u32(0);
        body(self);
        // A value is bounded by what a batch of Arrow holds.
        let length = u32::try_from(self.len() - start).unwrap_or(u32::MAX);
        self[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn authentication(&mut self, code: i32, data: &[u8]) {
        self.message(b'R', |body| {
            body.put_i32(code);
            body.put_slice(data);
        });
    }

    fn parameter_status(&mut self, name: &str, value: &str) {
        self.message(b'S', |body| {
            put_text(body, name);
            put_text(body, value);
        });
    }

    fn ready(&mut self, status: u8) {
        self.message(b'Z', |body| body.put_u8(status));
    }

    fn complete(&mut self, tag: &str) {
        self.message(b'C', |body| put_text(body, tag));
    }

    fn error(&mut self, severity: &str, refusal: &Refusal) {
        fields(self, b'E', severity, refusal.code, &refusal.message, refusal.hint.as_deref());
    }

    fn notice(&mut self, code: &str, message: &str) {
        fields(self, b'N', "WARNING", code, message, None);
    }

    fn row_description(&mut self, columns: &[Column], formats: &[i16]) {
        self.message(b'T', |body| {
            put_count(body, columns.len());
            for (index, column) in columns.iter().enumerate() {
                put_text(body, &column.name);
                body.put_i32(0);
                body.put_i16(0);
                body.put_u32(column.oid);
                body.put_i16(width(column.oid));
                body.put_i32(-1);
                body.put_i16(format_of(formats, index));
            }
        });
    }

    fn parameter_description(&mut self, types: &[u32]) {
        self.message(b't', |body| {
            put_count(body, types.len());
            types.iter().for_each(|oid| body.put_u32(*oid));
        });
    }
}

fn fields(output: &mut BytesMut, kind: u8, severity: &str, code: &str, message: &str, hint: Option<&str>) {
    output.message(kind, |body| {
        let given = [(b'S', Some(severity)), (b'V', Some(severity)), (b'C', Some(code)), (b'M', Some(message)), (b'H', hint)];
        for (field, text) in given.into_iter().filter_map(|(field, text)| text.map(|text| (field, text))) {
            body.put_u8(field);
            put_text(body, text);
        }
        body.put_u8(0);
    });
}

/// A text with a zero at its end, and none in it.
pub(crate) fn put_text(output: &mut BytesMut, text: &str) {
    output.put_slice(text.split('\0').next().unwrap_or_default().as_bytes());
    output.put_u8(0);
}

/// A count of 16 bits.
pub(crate) fn put_count(output: &mut BytesMut, count: usize) {
    output.put_u16(u16::try_from(count).unwrap_or(u16::MAX));
}

/// The format of a column: 0 is text, 1 is binary; one format is for all, none is text.
pub(crate) fn format_of(formats: &[i16], index: usize) -> i16 {
    match formats {
        [] => 0,
        [one] => *one,
        many => many.get(index).copied().unwrap_or(0),
    }
}

/// The bytes of a type, -1 where they vary.
fn width(oid: u32) -> i16 {
    match oid {
        16 | 18 => 1,
        21 => 2,
        23 | 26 | 700 | 1082 => 4,
        20 | 701 | 1083 | 1114 | 1184 => 8,
        1186 | 2950 => 16,
        19 => 64,
        _ => -1,
    }
}
