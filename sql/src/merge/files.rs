//! Files that are in the order of the log, read from the newest row to the oldest.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::Expr;
use datafusion::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use datafusion::parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream};
use datafusion::parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use datafusion::physical_expr::PhysicalExpr;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

/// Read from the end of a file in the hope that it holds the whole footer.
const FOOTER_GUESS_BYTES: usize = 64 * 1024;

/// Columns of files of one schema, and the values that are made of them.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// The columns, by their place in the files.
    pub(super) columns: Vec<usize>,
    schema: SchemaRef,
    pub(super) values: Vec<Arc<dyn PhysicalExpr>>,
}

impl Reading {
    /// `values` of files with `schema`.
    pub(super) fn new(state: &dyn Session, schema: &Schema, values: &[Expr]) -> Result<Self> {
        let names: HashSet<&str> = values.iter().flat_map(Expr::column_refs).map(|column| column.name.as_str()).collect();
        let columns: Vec<usize> = (0..schema.fields().len()).filter(|index| names.contains(schema.field(*index).name().as_str())).collect();
        let schema = Arc::new(schema.project(&columns)?);
        let of = DFSchema::try_from(Arc::clone(&schema))?;
        let values = values.iter().map(|value| state.create_physical_expr(value.clone(), &of)).collect::<Result<_>>()?;
        Ok(Reading { columns, schema, values })
    }

    /// The values of a batch of the columns.
    pub(super) fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let columns =
            batch.columns().iter().zip(self.schema.fields()).map(|(column, field)| match column.data_type() == field.data_type() {
                true => Ok(Arc::clone(column)),
                // A dictionary, which the files of others may have.
                false => Ok(cast(column, field.data_type())?),
            });
        self.values_of(columns.collect::<Result<_>>()?, batch.num_rows())
    }

    /// The values of rows of which no column is needed.
    pub(super) fn of_rows(&self, rows: usize) -> Result<Vec<ArrayRef>> {
        self.values_of(Vec::new(), rows)
    }

    fn values_of(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<Vec<ArrayRef>> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        self.values.iter().map(|value| value.evaluate(&batch)?.into_array(rows)).collect()
    }
}

/// A file, its footer read.
#[derive(Clone)]
pub(super) struct OpenFile {
    source: Source,
    metadata: ArrowReaderMetadata,
}

impl OpenFile {
    pub(super) async fn open(store: &Arc<dyn ObjectStore>, meta: &ObjectMeta) -> Result<Self> {
        let mut source = Source { store: Arc::clone(store), meta: meta.clone() };
        let metadata = ArrowReaderMetadata::load_async(&mut source, ArrowReaderOptions::new()).await?;
        Ok(OpenFile { source, metadata })
    }

    pub(super) fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    /// The rows of a row group, of the columns that `reading` wants. The caller chooses rows and builds.
    pub(super) fn read(&self, row_group: usize, reading: &Reading, batch_rows: usize) -> ParquetRecordBatchStreamBuilder<Source> {
        let columns = ProjectionMask::roots(self.metadata.parquet_schema(), reading.columns.iter().copied());
        ParquetRecordBatchStreamBuilder::new_with_metadata(self.source.clone(), self.metadata.clone())
            .with_projection(columns)
            .with_row_groups(vec![row_group])
            .with_batch_size(batch_rows)
    }
}

pub(super) type Rows = ParquetRecordBatchStream<Source>;

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
pub(super) struct Source {
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
}

impl AsyncFileReader for Source {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move { self.store.get_range(&self.meta.location, range).await.map_err(failed) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.meta.location, &ranges).await.map_err(failed) }.boxed()
    }

    fn get_metadata<'a>(&'a mut self, _: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size = self.meta.size;
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_GUESS_BYTES));
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

fn failed(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}
