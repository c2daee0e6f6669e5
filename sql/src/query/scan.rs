//! Table providers over the files of one schema, and over what is in flight of it.
//!
//! Not a `ListingTable`: the files are known, with their sizes and rows, so nothing is listed or opened to plan a query, and a
//! `count(*)` is answered from the footers.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{Result, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup as ScanGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::StreamExt as _;

use super::error::wrap;
use super::inventory::FileGroup;
use super::tail::TailPart;

/// The columns of a group's files as a reader takes them.
pub(super) fn readable(group: &FileGroup) -> SchemaRef {
    // Whatever the writer said, a reader need not rely on a column without NULLs.
    let nullable = group.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(nullable.collect::<Vec<_>>()))
}

/// Rows as somebody is shown them as a reader takes them: `schema` is [`readable`].
pub(super) fn as_readable(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| Ok(cast(column, field.data_type())?));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_>>()?)?)
}

/// Changes in flight that are too many to be held.
#[derive(Debug)]
pub(super) struct TailScan {
    schema: SchemaRef,
    part: TailPart,
}

impl TailScan {
    /// `schema` is [`readable`].
    pub(super) fn new(schema: SchemaRef, part: TailPart) -> Self {
        TailScan { schema, part }
    }
}

#[async_trait]
impl TableProvider for TailScan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partition = TailStream { schema: Arc::clone(&self.schema), part: self.part.clone() };
        Ok(Arc::new(StreamingTableExec::try_new(Arc::clone(&self.schema), vec![Arc::new(partition)], projection, [], false, limit)?))
    }
}

#[derive(Debug)]
struct TailStream {
    schema: SchemaRef,
    part: TailPart,
}

impl PartitionStream for TailStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let rows = (self.part.open)().map(move |rows| as_readable(&rows.map_err(wrap)?, &schema));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

/// The files of one schema as a table.
#[derive(Debug)]
pub(super) struct GroupScan {
    store: ObjectStoreUrl,
    schema: SchemaRef,
    files: Vec<PartitionedFile>,
    statistics: Statistics,
}

impl GroupScan {
    pub(super) fn new(store: ObjectStoreUrl, group: &FileGroup) -> Self {
        let schema = readable(group);
        let statistics = Statistics {
            num_rows: Precision::Exact(group.rows() as usize),
            total_byte_size: Precision::Inexact(group.bytes() as usize),
            ..Statistics::new_unknown(&schema)
        };
        let files = group.files.iter().map(|file| PartitionedFile::from(file.meta.clone())).collect();
        GroupScan { store, schema, files, statistics }
    }
}

#[async_trait]
impl TableProvider for GroupScan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.statistics.clone())
    }

    // Filters come later, from the physical optimizer, straight into the source.
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = TableParquetOptions { global: state.config_options().execution.parquet.clone(), ..Default::default() };
        let source = Arc::new(ParquetSource::new(Arc::clone(&self.schema)).with_table_parquet_options(options));
        let groups = ScanGroup::new(self.files.clone()).split_files(state.config().target_partitions());
        let config = FileScanConfigBuilder::new(self.store.clone(), source)
            .with_file_groups(groups)
            .with_statistics(self.statistics.clone())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
