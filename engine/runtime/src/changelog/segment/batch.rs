//! Batches of changes as payloads.
//!
//! ```text
//! four lengths of 8 bytes: changes, unchanged values, columns of before images, their bits; then zeros up to 64 bytes
//! changes         Arrow IPC: dictionaries and a record batch, without the schema, which the relation's frame holds
//! unchanged       see below
//! before images   an Arrow IPC stream of the relation's columns, without metadata
//! their bits      a bit per row that has one, then unchanged values
//! ```
//!
//! Each section is padded to 64 bytes. Unchanged values are a number of columns and, for each, its index and a bit per row.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::{BooleanBuffer, Buffer};
use arrow_ipc::CompressionType;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::{IpcWriteOptions, StreamEncoder};
use arrow_schema::{ArrowError, Schema, SchemaRef};
use logweir_core::{BeforeImages, ChangeBatch, Error, MemoryPermit, Relation, Result, Unchanged};

use super::Compression;
use super::frame::{ALIGNMENT, padded};

/// Bytes that end an IPC stream.
const END_BYTES: usize = 8;
const SECTIONS: usize = 4;

/// How batches of one schema are written.
pub(super) struct Encoding {
    options: IpcWriteOptions,
}

impl Encoding {
    pub(super) fn new(compression: Compression) -> Result<Self> {
        let kind = match compression {
            Compression::None => None,
            Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
            Compression::Zstd => Some(CompressionType::ZSTD),
        };
        let options = IpcWriteOptions::default().try_with_compression(kind).map_err(|error| unwritten(&error))?;
        Ok(Encoding { options })
    }

    /// The message that begins an IPC stream of this schema.
    pub(super) fn schema(&self, schema: &Schema) -> Result<Vec<u8>> {
        let mut bytes = self.stream(schema, None)?;
        bytes.truncate(bytes.len() - END_BYTES);
        Ok(bytes)
    }

    /// An IPC stream of one batch or none.
    fn stream(&self, schema: &Schema, batch: Option<&RecordBatch>) -> Result<Vec<u8>> {
        let mut encoder = StreamEncoder::try_new_with_options(schema, self.options.clone()).map_err(|error| unwritten(&error))?;
        let mut buffers = Vec::new();
        if let Some(batch) = batch {
            buffers.extend(encoder.encode(batch).map_err(|error| unwritten(&error))?);
        }
        buffers.extend(encoder.finish().map_err(|error| unwritten(&error))?);
        let mut bytes = Vec::with_capacity(buffers.iter().map(Buffer::len).sum());
        buffers.iter().for_each(|buffer| bytes.extend_from_slice(buffer));
        Ok(bytes)
    }

    /// Appends the payload of a batch to `into`; `schema_bytes` is the length of what [`schema`](Self::schema) says of its schema.
    pub(super) fn changes(&self, batch: &ChangeBatch, schema_bytes: usize, into: &mut Vec<u8>) -> Result<()> {
        let start = into.len();
        into.resize(start + ALIGNMENT, 0);
        let mut lengths = [0; SECTIONS];

        let schema = batch.relation.schema();
        let mut encoder = StreamEncoder::try_new_with_options(schema, self.options.clone()).map_err(|error| unwritten(&error))?;
        let mut skip = schema_bytes;
        for buffer in encoder.encode(&batch.records).map_err(|error| unwritten(&error))? {
            let from = skip.min(buffer.len());
            skip -= from;
            into.extend_from_slice(&buffer[from..]);
        }
        let mut sections = Sections { into, start, lengths: &mut lengths, next: 0 };
        sections.end(start + ALIGNMENT);
        sections.section(|into| {
            if let Some(unchanged) = &batch.unchanged {
                write_unchanged(unchanged, into);
            }
        });
        match &batch.before {
            Some(before) => {
                let columns = batch.relation.columns().iter().map(|column| Arc::clone(&column.field)).collect::<Vec<_>>();
                let schema: SchemaRef = Arc::new(Schema::new(columns));
                let records = RecordBatch::try_new(Arc::clone(&schema), before.columns.clone()).map_err(|error| unwritten(&error))?;
                let stream = self.stream(&schema, Some(&records))?;
                sections.section(|into| into.extend_from_slice(&stream));
                sections.section(|into| {
                    write_bits(&before.present, into);
                    write_unchanged(before.absent.as_ref().unwrap_or(&Unchanged::default()), into);
                });
            }
            None => {
                sections.section(|_| {});
                sections.section(|_| {});
            }
        }
        for (index, length) in lengths.iter().enumerate() {
            into[start + index * 8..start + index * 8 + 8].copy_from_slice(&u64::to_le_bytes(*length));
        }
        Ok(())
    }
}

struct Sections<'a> {
    into: &'a mut Vec<u8>,
    start: usize,
    lengths: &'a mut [u64; SECTIONS],
    next: usize,
}

impl Sections<'_> {
    fn section(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.into.len();
        write(self.into);
        self.end(from);
    }

    fn end(&mut self, from: usize) {
        self.lengths[self.next] = (self.into.len() - from) as u64;
        self.next += 1;
        let length = padded((self.into.len() - self.start) as u64) as usize;
        self.into.resize(self.start + length, 0);
    }
}

fn write_unchanged(unchanged: &Unchanged, into: &mut Vec<u8>) {
    into.extend_from_slice(&(unchanged.columns.len() as u32).to_le_bytes());
    for (column, bits) in &unchanged.columns {
        into.extend_from_slice(&(*column as u32).to_le_bytes());
        write_bits(bits, into);
    }
}

fn write_bits(bits: &BooleanBuffer, into: &mut Vec<u8>) {
    let aligned = bits.inner().bit_slice(bits.offset(), bits.len());
    into.extend_from_slice(&aligned.as_slice()[..bits.len().div_ceil(8)]);
}

/// Reads batches of one relation of a segment.
pub(super) struct Decoding {
    relation: Arc<Relation>,
    decoder: StreamDecoder,
}

impl Decoding {
    /// For the batches of a relation whose schema is this message.
    pub(super) fn new(relation: Arc<Relation>, schema: Buffer) -> Result<Self> {
        let mut decoder = StreamDecoder::new();
        // It takes note of a message when the next one comes.
        if decode(&mut decoder, schema)?.is_some() {
            return Err(damaged());
        }
        Ok(Decoding { relation, decoder })
    }

    pub(super) fn relation(&self) -> &Arc<Relation> {
        &self.relation
    }

    /// The batch of a payload.
    pub(super) fn changes(&mut self, payload: &Buffer, memory: Arc<MemoryPermit>) -> Result<ChangeBatch> {
        let mut offset = ALIGNMENT;
        let mut sections = Vec::with_capacity(SECTIONS);
        for index in 0..SECTIONS {
            let length = payload.get(index * 8..index * 8 + 8).ok_or_else(damaged)?;
            let length = u64::from_le_bytes(length.try_into().expect("eight bytes are eight"));
            let length = usize::try_from(length).map_err(|_| damaged())?;
            let end = offset.checked_add(length).filter(|end| *end <= payload.len()).ok_or_else(damaged)?;
            sections.push(payload.slice_with_length(offset, length));
            offset = padded(end as u64) as usize;
        }
        let [changes, unchanged, images, bits] = <[Buffer; SECTIONS]>::try_from(sections).map_err(|_| damaged())?;
        let records = decode(&mut self.decoder, changes)?.ok_or_else(damaged)?;
        // The same fields in the relation's own schema, so that batches that were read and batches that were not are alike.
        let records = records.with_schema(Arc::clone(self.relation.schema())).map_err(|_| damaged())?;
        let rows = records.num_rows();
        let mut bytes = unchanged.as_slice();
        let unchanged = if bytes.is_empty() { None } else { Some(read_unchanged(&mut bytes, rows)?) };
        let before = if images.is_empty() {
            None
        } else {
            let records = decode(&mut StreamDecoder::new(), images)?.filter(|records| records.num_rows() == rows).ok_or_else(damaged)?;
            let mut bytes = bits.as_slice();
            let present = read_bits(&mut bytes, rows)?;
            let absent = read_unchanged(&mut bytes, rows)?;
            Some(BeforeImages { columns: records.columns().to_vec(), present, absent: (!absent.columns.is_empty()).then_some(absent) })
        };
        if rows == 0 {
            return Err(damaged());
        }
        let mut batch =
            ChangeBatch { relation: Arc::clone(&self.relation), records, unchanged, before, last: logweir_core::LogPosition::MIN, memory };
        batch.last = batch.position(rows - 1);
        Ok(batch)
    }
}

fn decode(decoder: &mut StreamDecoder, mut bytes: Buffer) -> Result<Option<RecordBatch>> {
    // Its words may quote a value.
    decoder.decode(&mut bytes).map_err(|_| damaged())
}

fn read_unchanged(bytes: &mut &[u8], rows: usize) -> Result<Unchanged> {
    let columns = read_number(bytes)?;
    let mut unchanged = Unchanged::default();
    for _ in 0..columns {
        let column = read_number(bytes)? as usize;
        unchanged.columns.push((column, read_bits(bytes, rows)?));
    }
    Ok(unchanged)
}

fn read_number(bytes: &mut &[u8]) -> Result<u32> {
    let (number, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    *bytes = rest;
    Ok(u32::from_le_bytes(*number))
}

fn read_bits(bytes: &mut &[u8], rows: usize) -> Result<BooleanBuffer> {
    let (bits, rest) = bytes.split_at_checked(rows.div_ceil(8)).ok_or_else(damaged)?;
    *bytes = rest;
    Ok(BooleanBuffer::new(Buffer::from(bits), 0, rows))
}

/// Bytes whose checksum is right say what cannot be.
fn damaged() -> Error {
    Error::corrupt("a batch in the change log is not what logweir writes")
}

fn unwritten(error: &ArrowError) -> Error {
    let reason = match error {
        ArrowError::NotYetImplemented(_) => "a type that Arrow's file form does not know",
        ArrowError::MemoryError(_) => "memory",
        _ => "the batch",
    };
    Error::internal("a batch could not be written to the change log").context("because of", reason)
}
