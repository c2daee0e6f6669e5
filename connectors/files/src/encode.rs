//! Encodes the rows of one file, columns side by side.
//!
//! A file is encoded in steps of some ten thousand rows, each on the threads of one pool: a task per column takes that
//! column of every buffered part through to compressed pages. Whole files are tasks of the same pool when a
//! checkpoint finishes many small ones, so both shapes of work fill the cores without a choice between them.
//! Nothing here waits or touches a disk: bytes come out as row groups close.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow_array::ArrayRef;
use arrow_schema::DataType;
use logweir_core::{BeforeImages, Error, LogPosition, Relation, Result, Unchanged};
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use rayon::prelude::*;

use crate::error::parquet_error;
use crate::form::{Form, FormColumn};
use crate::repeats;

/// Rows in a row group at most: enough that dictionaries and statistics pay, few enough that readers skip at a useful grain.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// Below this many rows in a step the columns are encoded one after the other: the tasks would cost more than they save.
const PARALLEL_ROWS: usize = 4096;

/// Where encoding happens: as many threads as there are cores, for the whole process however many writers there are.
static POOL: LazyLock<Option<rayon::ThreadPool>> =
    LazyLock::new(|| rayon::ThreadPoolBuilder::new().thread_name(|i| format!("encode-{i}")).build().ok());

/// Runs `work` on the encoding threads and waits for it without holding up the async ones.
pub(crate) async fn on_pool<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = tokio::task::spawn_blocking(move || match &*POOL {
        Some(pool) => pool.install(work),
        // No threads to be had: slower, and still right.
        None => work(),
    });
    // What it panicked with may hold values, and is told by the hook as far as it may be.
    task.await.map_err(|_| Error::internal("encoding ended by a panic"))?
}

/// Rows of one relation waiting to be encoded: a batch without its right to memory.
pub(crate) struct Part {
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) unchanged: Option<Unchanged>,
    pub(crate) before: Option<BeforeImages>,
    pub(crate) rows: usize,
}

/// What holds for every file of a writer.
#[derive(Debug, Clone)]
pub(crate) struct EncodeSettings {
    pub(crate) stream: String,
    pub(crate) compression_level: i32,
    /// Bytes of a row group at most, as estimated while it grows.
    pub(crate) row_group_bytes: usize,
}

/// A file under construction.
pub(crate) struct FileEncoder {
    form: Arc<Form>,
    file: SerializedFileWriter<Vec<u8>>,
    groups: ArrowRowGroupWriterFactory,
    /// The row group under construction: for each column of the form, its leaves.
    open: Vec<Vec<ArrowColumnWriter>>,
    open_rows: usize,
    row_group_bytes: usize,
}

impl FileEncoder {
    /// A file whose first rows are those of `parts`; how columns are encoded is decided by them.
    pub(crate) fn new(form: Arc<Form>, settings: &EncodeSettings, parts: &[Part]) -> Result<Self> {
        Self::build(&form, settings, parts)
            .map(|(file, groups)| FileEncoder {
                file,
                groups,
                open: Vec::new(),
                open_rows: 0,
                row_group_bytes: settings.row_group_bytes,
                form: Arc::clone(&form),
            })
            .map_err(|error| match error {
                ParquetError::NYI(_) | ParquetError::ArrowError(_) => Error::schema("a column has a type that Parquet cannot hold")
                    .context("relation", form.relation().name())
                    .remedy("exclude the column, or cast it in a transform")
                    .source(error),
                error => parquet_error(error, form.relation().name()),
            })
    }

    fn build(
        form: &Form,
        settings: &EncodeSettings,
        parts: &[Part],
    ) -> Result<(SerializedFileWriter<Vec<u8>>, ArrowRowGroupWriterFactory), ParquetError> {
        let mut properties = properties(form, settings, parts)?;
        let schema = ArrowSchemaConverter::new().convert(form.written())?;
        add_encoded_arrow_schema_to_metadata(form.shown(), &mut properties);
        let mut file = SerializedFileWriter::new(Vec::new(), schema.root_schema_ptr(), Arc::new(properties))?;
        for (key, value) in footer(form.relation(), &settings.stream) {
            file.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        let groups = ArrowRowGroupWriterFactory::new(&file, Arc::clone(form.written()));
        Ok((file, groups))
    }

    /// Encodes `parts`, in order. Row groups that become full are closed on the way.
    pub(crate) fn write(&mut self, parts: &[Part]) -> Result<()> {
        let mut start = 0;
        while start < parts.len() {
            // A step ends where a row group is full, so that one long step cannot overrun it by much.
            let mut rows = 0;
            let mut end = start;
            while end < parts.len() && (end == start || self.open_rows + rows + parts[end].rows <= ROW_GROUP_ROWS) {
                rows += parts[end].rows;
                end += 1;
            }
            self.write_step(&parts[start..end], rows)?;
            if self.open_rows >= ROW_GROUP_ROWS || self.open_bytes() >= self.row_group_bytes {
                self.close_row_group()?;
            }
            start = end;
        }
        Ok(())
    }

    fn write_step(&mut self, parts: &[Part], rows: usize) -> Result<()> {
        if self.open.is_empty() {
            self.open = self.new_row_group().map_err(|error| parquet_error(error, self.form.relation().name()))?;
        }
        let form = &self.form;
        let encode = |(index, leaves): (usize, &mut Vec<ArrowColumnWriter>)| -> Result<()> {
            let field = form.written().field(index);
            for part in parts {
                let column = form.column(index, &part.columns, part.unchanged.as_ref(), part.before.as_ref())?;
                encode_column(field, &column, leaves)
                    .map_err(|error| parquet_error(error, form.relation().name()).context("column", field.name()))?;
            }
            Ok(())
        };
        if rows < PARALLEL_ROWS {
            self.open.iter_mut().enumerate().try_for_each(encode)?;
        } else {
            self.open.par_iter_mut().enumerate().try_for_each(encode)?;
        }
        self.open_rows += rows;
        Ok(())
    }

    fn new_row_group(&self) -> Result<Vec<Vec<ArrowColumnWriter>>, ParquetError> {
        let mut writers = self.groups.create_column_writers(self.file.flushed_row_groups().len())?.into_iter();
        let fields = self.form.written().fields();
        Ok(fields.iter().map(|field| writers.by_ref().take(leaf_count(field.data_type())).collect()).collect())
    }

    /// Ends the row group under construction, if any.
    pub(crate) fn close_row_group(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.open_rows);
        let leaves: Vec<ArrowColumnWriter> = std::mem::take(&mut self.open).into_iter().flatten().collect();
        if leaves.is_empty() {
            return Ok(());
        }
        let close = || -> Result<(), ParquetError> {
            let chunks: Vec<_> = if rows < PARALLEL_ROWS {
                leaves.into_iter().map(ArrowColumnWriter::close).collect::<Result<_, _>>()?
            } else {
                leaves.into_par_iter().map(ArrowColumnWriter::close).collect::<Result<_, _>>()?
            };
            let mut group = self.file.next_row_group()?;
            for chunk in chunks {
                chunk.append_to_row_group(&mut group)?;
            }
            group.close()?;
            Ok(())
        };
        close().map_err(|error| parquet_error(error, self.form.relation().name()))
    }

    /// Bytes of closed row groups that nobody has taken yet.
    pub(crate) fn take_bytes(&mut self) -> Result<Vec<u8>> {
        self.file.flush().map_err(|error| Error::internal("could not write to memory").source(error))?;
        Ok(std::mem::take(self.file.inner_mut()))
    }

    /// Ends the file, whose changes are from `first` to `last`; the bytes not taken yet. `in_log_order` says that its rows rise from one to
    /// the next, so that whoever looks for the newest of a key needs no positions.
    pub(crate) fn finish(&mut self, first: LogPosition, last: LogPosition, in_log_order: bool) -> Result<Vec<u8>> {
        self.close_row_group()?;
        self.file.append_key_value_metadata(KeyValue::new("logweir.first".to_owned(), first.to_string()));
        self.file.append_key_value_metadata(KeyValue::new("logweir.last".to_owned(), last.to_string()));
        self.file.append_key_value_metadata(KeyValue::new("logweir.in_log_order".to_owned(), in_log_order.to_string()));
        self.file.finish().map_err(|error| parquet_error(error, self.form.relation().name()))?;
        self.take_bytes()
    }

    /// How large the file would be if it were finished now, about.
    pub(crate) fn file_bytes(&self) -> u64 {
        (self.file.bytes_written() + self.open_bytes()) as u64
    }

    /// Memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.open.iter().flatten().map(ArrowColumnWriter::memory_size).sum::<usize>() + self.file.inner().capacity()
    }

    fn open_bytes(&self) -> usize {
        self.open.iter().flatten().map(ArrowColumnWriter::get_estimated_total_bytes).sum()
    }
}

fn encode_column(field: &arrow_schema::Field, column: &ArrayRef, writers: &mut [ArrowColumnWriter]) -> Result<(), ParquetError> {
    for (leaf, writer) in compute_leaves(field, column)?.iter().zip(writers) {
        writer.write(leaf)?;
    }
    Ok(())
}

/// Parquet columns that a field of this type becomes.
fn leaf_count(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => fields.iter().map(|field| leaf_count(field.data_type())).sum(),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::Map(field, _) => leaf_count(field.data_type()),
        DataType::RunEndEncoded(_, values) => leaf_count(values.data_type()),
        _ => 1,
    }
}

fn properties(form: &Form, settings: &EncodeSettings, parts: &[Part]) -> Result<WriterProperties, ParquetError> {
    let metadata = |column: FormColumn| ColumnPath::new(vec![column.name().to_owned()]);
    let plain = |builder: WriterPropertiesBuilder, path: ColumnPath, encoding: Encoding| {
        builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, encoding)
    };
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("logweir version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(settings.compression_level)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    // Chosen for size (benches/README.md): of 30.6 bytes a row, the key saves 1.3 and each of the others about 0.5. CPU: no difference seen.
    // Every sequence is another text that shares most of its beginning with the one before.
    builder = plain(builder, metadata(FormColumn::Sequence), Encoding::DELTA_BYTE_ARRAY);
    // Rising numbers. Not the read timestamp, which stays the same for many rows: there both ways are equal.
    builder = plain(builder, metadata(FormColumn::Timestamp), Encoding::DELTA_BINARY_PACKED);
    let log_position = ColumnPath::new(vec![FormColumn::Source.name().to_owned(), "log_position".to_owned()]);
    builder = plain(builder, log_position, Encoding::DELTA_BINARY_PACKED);
    // An integer that alone is the key is mostly new in every row, and often rising.
    if let (true, [key]) = (form.relation().key_declared(), form.relation().key()) {
        let field = &form.relation().columns()[*key].field;
        if field.data_type().is_integer() {
            builder = plain(builder, ColumnPath::new(vec![field.name().clone()]), Encoding::DELTA_BINARY_PACKED);
        }
    }
    for (index, column) in form.relation().columns().iter().enumerate() {
        if repeats::are_rare(parts.iter().map(|part| part.columns[index].as_ref())) {
            builder = builder.set_column_dictionary_enabled(ColumnPath::new(vec![column.name().to_owned()]), false);
        }
    }
    Ok(builder.build())
}

/// What a reader of the file alone needs to know of its relation.
fn footer(relation: &Relation, stream: &str) -> Vec<(&'static str, String)> {
    let name = |index: usize| relation.columns()[index].name();
    // An undeclared key is no key: all columns stand in for one.
    let key: Vec<&str> = if relation.key_declared() { relation.key().iter().map(|&index| name(index)).collect() } else { Vec::new() };
    let source_types: BTreeMap<&str, &str> = relation.columns().iter().map(|column| (column.name(), column.source_type.as_str())).collect();
    let mut pairs = vec![
        ("logweir.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("logweir.stream", stream.to_owned()),
        ("logweir.relation", serde_json::json!(relation.name()).to_string()),
        ("logweir.schema_version", relation.version().to_string()),
        ("logweir.key", serde_json::json!(key).to_string()),
        ("logweir.source_types", serde_json::json!(source_types).to_string()),
    ];
    pairs.extend(relation.renamed_from().map(|origin| ("logweir.origin", serde_json::json!(origin).to_string())));
    pairs
}
