//! Rows as `COPY … TO STDOUT` writes them.

use bytes::{BufMut, BytesMut};

use crate::reply::{Column, Reply as _, put_count};
use crate::statement::{CopyFormat, CopyOptions};
use crate::value::Values;

const BINARY_HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What stands before the rows.
pub(crate) fn begin(columns: &[Column], options: &CopyOptions, output: &mut BytesMut) {
    let format = i16::from(options.format == CopyFormat::Binary);
    output.message(b'H', |body| {
        body.put_u8(u8::from(format == 1));
        put_count(body, columns.len());
        columns.iter().for_each(|_| body.put_i16(format));
    });
    if options.header && options.format != CopyFormat::Binary {
        output.message(b'd', |body| {
            for (index, column) in columns.iter().enumerate() {
                separate(index, options, body);
                write(column.name.as_bytes(), options, body);
            }
            body.put_u8(b'\n');
        });
    }
}

/// A row. In binary the head of the format is in the message of the first one, where clients look for it.
pub(crate) fn row(values: &[Values], row: usize, options: &CopyOptions, is_first: bool, output: &mut BytesMut) {
    output.message(b'd', |body| {
        if options.format == CopyFormat::Binary {
            if is_first {
                body.put_slice(BINARY_HEAD);
            }
            put_count(body, values.len());
            values.iter().for_each(|values| values.write(row, 1, body));
            return;
        }
        let mut text = BytesMut::new();
        for (index, values) in values.iter().enumerate() {
            separate(index, options, body);
            if values.is_null(row) {
                body.put_slice(options.null.as_bytes());
                continue;
            }
            text.clear();
            values.text(row, &mut text);
            write(&text, options, body);
        }
        body.put_u8(b'\n');
    });
}

/// What stands behind the rows.
pub(crate) fn end(options: &CopyOptions, is_empty: bool, output: &mut BytesMut) {
    if options.format == CopyFormat::Binary {
        output.message(b'd', |body| {
            if is_empty {
                body.put_slice(BINARY_HEAD);
            }
            body.put_i16(-1);
        });
    }
    output.message(b'c', |_| {});
}

fn separate(index: usize, options: &CopyOptions, output: &mut BytesMut) {
    if index > 0 {
        output.put_u8(options.delimiter);
    }
}

fn write(text: &[u8], options: &CopyOptions, output: &mut BytesMut) {
    match options.format {
        CopyFormat::Csv => {
            let special = |byte: &u8| [options.delimiter, b'"', b'\n', b'\r'].contains(byte);
            // `\.` on a line of its own would be the end.
            if text == options.null.as_bytes() || text == b"\\." || text.iter().any(special) {
                output.put_u8(b'"');
                for byte in text {
                    if *byte == b'"' {
                        output.put_u8(b'"');
                    }
                    output.put_u8(*byte);
                }
                output.put_u8(b'"');
            } else {
                output.put_slice(text);
            }
        }
        _ => {
            for byte in text {
                match byte {
                    b'\\' => output.put_slice(b"\\\\"),
                    b'\n' => output.put_slice(b"\\n"),
                    b'\r' => output.put_slice(b"\\r"),
                    b'\t' => output.put_slice(b"\\t"),
                    0x08 => output.put_slice(b"\\b"),
                    0x0b => output.put_slice(b"\\v"),
                    0x0c => output.put_slice(b"\\f"),
                    byte if *byte == options.delimiter => output.put_slice(&[b'\\', *byte]),
                    byte => output.put_u8(*byte),
                }
            }
        }
    }
}
