//! Reads a reference table from a file: Parquet, CSV with a header, or a JSON object a line.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::datasource::file_format::options::{CsvReadOptions, JsonReadOptions, ParquetReadOptions};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use futures::{FutureExt, TryStreamExt};
use logweir_core::{Error, Result};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::query::unwrap;

/// Reads the file at `path`, whose ending says what it is. An error of kind `Config` if it takes more than `bytes_max` in memory or is
/// none of the forms.
pub async fn read_reference_file(store: Arc<dyn ObjectStore>, path: &Path, bytes_max: usize) -> Result<RecordBatch> {
    // What reads Parquet panics on some files that are none.
    let read = AssertUnwindSafe(read(store, path, bytes_max)).catch_unwind().await;
    read.unwrap_or_else(|_| Err(Error::config("a reference table is not what its ending says").context("file", path)))
}

async fn read(store: Arc<dyn ObjectStore>, path: &Path, bytes_max: usize) -> Result<RecordBatch> {
    let ending = path.extension().unwrap_or_default().to_lowercase();
    // Types as they are in changes, so that comparing needs no casts.
    let config = SessionConfig::new().set_bool("datafusion.execution.parquet.schema_force_view_types", false);
    let context = SessionContext::new_with_config(config);
    let url = ObjectStoreUrl::parse("reference://file").map_err(unwrap)?;
    context.register_object_store(url.as_ref(), Arc::clone(&store));
    let file = format!("{}{path}", url.as_str());
    let dotted = format!(".{ending}");
    let read: std::result::Result<DataFrame, _> = match ending.as_str() {
        "parquet" => context.read_parquet(file, ParquetReadOptions::default().file_extension(&dotted)).await,
        "csv" => context.read_csv(file, CsvReadOptions::new().has_header(true).file_extension(&dotted)).await,
        "json" | "jsonl" | "ndjson" => context.read_json(file, JsonReadOptions::default().file_extension(&dotted)).await,
        _ => {
            return Err(Error::config("a reference table is a .parquet, .csv, .json, .jsonl or .ndjson file").context("file", path));
        }
    };
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            let gone = matches!(store.head(path).await, Err(object_store::Error::NotFound { .. }));
            let nothing =
                Error::config("a reference table is not there").context("file", path).remedy("put the file there, or mend its path");
            return Err(if gone { nothing } else { unreadable(error, path) });
        }
    };
    let schema = Arc::clone(read.schema().inner());
    let mut rows = read.execute_stream().await.map_err(|error| unreadable(error, path))?;
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = rows.try_next().await.map_err(|error| unreadable(error, path))? {
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

/// Why a file cannot be read. What is wrong inside of it is said by its place alone: the words of a parser quote the row.
fn unreadable(error: DataFusionError, path: &Path) -> Error {
    let words = match error.find_root() {
        DataFusionError::ArrowError(inner, _) if !matches!(**inner, ArrowError::IoError(..)) => inner.to_string(),
        DataFusionError::ParquetError(_) => String::new(),
        _ => return unwrap(error).context("file", path),
    };
    let mut unreadable = Error::config("a reference table is not what its ending says").context("file", path);
    for (name, before) in [("column", " for column "), ("line", " line ")] {
        let number = words.split_once(before).map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        if let Some(number) = number.filter(|number| !number.is_empty()) {
            unreadable = unreadable.context(name, number);
        }
    }
    unreadable.remedy("make all its rows fit: the first 1,000 rows of a CSV or JSON file decide the types of its columns")
}
