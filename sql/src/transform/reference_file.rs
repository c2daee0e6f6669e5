//! Reads a reference table from a file: Parquet, CSV with a header, or a JSON object a line.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::datasource::file_format::options::{CsvReadOptions, JsonReadOptions, ParquetReadOptions};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use futures::TryStreamExt;
use logweir_core::{Error, Result};
use object_store::ObjectStore;
use object_store::path::Path;

use crate::query::unwrap;

/// Reads the file at `path`, whose ending says what it is. An error of kind `Config` if it takes more than `bytes_max` in memory or is
/// none of the forms.
pub async fn read_reference_file(store: Arc<dyn ObjectStore>, path: &Path, bytes_max: usize) -> Result<RecordBatch> {
    let ending = path.extension().unwrap_or_default().to_lowercase();
    // Types as they are in changes, so that comparing needs no casts.
    let config = SessionConfig::new().set_bool("datafusion.execution.parquet.schema_force_view_types", false);
    let context = SessionContext::new_with_config(config);
    let url = ObjectStoreUrl::parse("reference://file").map_err(unwrap)?;
    context.register_object_store(url.as_ref(), store);
    let file = format!("{}{path}", url.as_str());
    let dotted = format!(".{ending}");
    let read: DataFrame = match ending.as_str() {
        "parquet" => context.read_parquet(file, ParquetReadOptions::default().file_extension(&dotted)).await,
        "csv" => context.read_csv(file, CsvReadOptions::new().has_header(true).file_extension(&dotted)).await,
        "json" | "jsonl" | "ndjson" => context.read_json(file, JsonReadOptions::default().file_extension(&dotted)).await,
        _ => {
            return Err(Error::config("a reference table is a .parquet, .csv, .json, .jsonl or .ndjson file").context("file", path));
        }
    }
    .map_err(|error| unwrap(error).context("file", path))?;
    let schema = Arc::clone(read.schema().inner());
    let mut rows = read.execute_stream().await.map_err(unwrap)?;
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = rows.try_next().await.map_err(|error| unwrap(error).context("file", path))? {
        bytes += batch.get_array_memory_size();
        if bytes > bytes_max {
            return Err(Error::config("a reference table is larger than it may be")
                .context("file", path)
                .context("max_size", bytes_max)
                .remedy("raise its max_size, or leave out rows and columns that no rule needs"));
        }
        batches.push(batch);
    }
    concat_batches(&schema, &batches).map_err(|_| Error::internal("the parts of a reference table do not fit together"))
}
