//! Decodes COPY in binary format into columns.
//!
//! Source of the format: "Binary Format" in the description of COPY in PostgreSQL's documentation.

use arrow_array::ArrayRef;
use logweir_core::{Error, Result};

use crate::message::Bytes;
use crate::types::{ColumnBuilder, ColumnType, ValueError};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of the extension of the header.
const HEADER_BYTES: usize = 19;

/// Rows of one COPY under construction.
pub(crate) struct CopyDecoder<'a> {
    types: &'a [ColumnType],
    columns: Vec<ColumnBuilder>,
    binary: Vec<bool>,
    /// The header was read.
    begun: bool,
    /// The trailer was read.
    ended: bool,
    rows: usize,
    bytes: usize,
}

/// Why rows cannot be carried.
#[derive(Debug)]
pub(crate) enum CopyError {
    Format(Error),
    /// A value of the column with this index.
    Value(usize, ValueError),
}

impl From<Error> for CopyError {
    fn from(error: Error) -> Self {
        CopyError::Format(error)
    }
}

fn corrupt() -> Error {
    Error::corrupt("the rows of a table came in an unknown form")
}

impl<'a> CopyDecoder<'a> {
    /// Columns of these types. Those that cannot be read in binary form must have been cast to text.
    pub(crate) fn new(types: &'a [ColumnType]) -> Self {
        CopyDecoder {
            types,
            columns: types.iter().map(|column| ColumnBuilder::new(column, 0)).collect(),
            binary: types.iter().map(ColumnType::is_binary).collect(),
            begun: false,
            ended: false,
            rows: 0,
            bytes: 0,
        }
    }

    /// Takes whole rows out of `bytes`; how many bytes were taken. What is left is to be given again with what follows.
    /// Stops early when `bytes_max` are held.
    pub(crate) fn decode(&mut self, bytes: &[u8], bytes_max: usize) -> Result<usize, CopyError> {
        let mut rest = Bytes(bytes);
        if !self.begun {
            if bytes.len() < HEADER_BYTES {
                return Ok(0);
            }
            if rest.take(SIGNATURE.len()).map_err(Error::from)? != SIGNATURE {
                return Err(corrupt().into());
            }
            rest.u32().map_err(Error::from)?;
            let extension = rest.u32().map_err(Error::from)? as usize;
            if rest.take(extension).is_err() {
                return Ok(0);
            }
            self.begun = true;
        }
        while !self.ended && self.bytes < bytes_max {
            let row = rest;
            let Ok(count) = rest.i16() else { break };
            if count == -1 {
                self.ended = true;
                break;
            }
            if usize::try_from(count) != Ok(self.columns.len()) {
                return Err(corrupt().into());
            }
            // A row that is not there whole is left for the next call.
            let mut whole = rest;
            if !pass(&mut whole, self.columns.len())? {
                rest = row;
                break;
            }
            for (index, column) in self.columns.iter_mut().enumerate() {
                let length = rest.i32().map_err(Error::from)?;
                let Ok(length) = usize::try_from(length) else {
                    column.append_null();
                    continue;
                };
                let value = rest.take(length).map_err(Error::from)?;
                let appended = if self.binary[index] { column.append_binary(value) } else { column.append_text(value) };
                appended.map_err(|error| CopyError::Value(index, error))?;
            }
            self.rows += 1;
            self.bytes += row.0.len() - rest.0.len() + 8 * self.columns.len();
        }
        Ok(bytes.len() - rest.0.len())
    }

    /// Rows held.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes held, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// True if the server has said that there are no more rows.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The rows as columns; none are held afterwards.
    pub(crate) fn finish(&mut self) -> (Vec<ArrayRef>, usize) {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        let mut columns = Vec::with_capacity(self.columns.len());
        for (column, built) in self.types.iter().zip(&mut self.columns) {
            columns.push(built.finish());
            // As many rows are to be expected again, and need not be moved as they become more.
            *built = ColumnBuilder::new(column, rows);
        }
        (columns, rows)
    }
}

/// Goes over the values of a row; false if they are not all there.
fn pass(row: &mut Bytes<'_>, count: usize) -> Result<bool> {
    for _ in 0..count {
        let Ok(length) = row.i32() else { return Ok(false) };
        match usize::try_from(length) {
            Ok(length) => {
                if row.take(length).is_err() {
                    return Ok(false);
                }
            }
            Err(_) if length == -1 => {}
            Err(_) => return Err(corrupt()),
        }
    }
    Ok(true)
}
