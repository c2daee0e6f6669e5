//! What queries can ask about the streams themselves: `logweir.streams`, `logweir.consumers`, `logweir.open_transactions` and
//! `logweir.schema_versions`.
//!
//! Made of the checkpoints and the change logs' directories, as `logweir status` is, so they need no running process. What only such a one
//! knows is NULL, or no row, without it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use logweir_core::{Clock as _, Error, ErrorKind, LogMark, OpenTransaction, Relation, Result, SystemClock, TimestampMicros};
use logweir_runtime::changelog::segment::Extent;
use logweir_runtime::checkpoint::{CheckpointDocument, ConsumerCheckpoint};

use crate::live;

/// The tables under construction, a stream at a time.
#[derive(Default)]
pub(crate) struct SystemTables {
    streams: Vec<(String, Option<LogMark>, Option<Extent>)>,
    consumers: Vec<(String, String, ConsumerCheckpoint)>,
    /// For each consumer the steps of its freshness, if its process says.
    lags: Vec<Option<BTreeMap<String, f64>>>,
    open: Vec<(String, OpenTransaction)>,
    versions: Vec<(String, Arc<Relation>)>,
}

impl SystemTables {
    /// Adds a stream and what its change log holds, with the columns of the tables of those schemas that are shown, and what its process says of it.
    pub(crate) fn add(
        &mut self,
        document: &CheckpointDocument,
        log: Result<Option<Extent>>,
        live: Option<&serde_json::Value>,
        shows: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let extent = match log {
            // Who asks for something else need not hear of it; who reads what is damaged does.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(stream = document.stream, error = %error.report(), "the change log cannot be described");
                None
            }
            extent => extent?,
        };
        self.streams.push((document.stream.clone(), document.passed().cloned(), extent));
        let consumers = document.consumers.iter().map(|(name, part)| {
            let mut part = part.clone();
            part.rows.retain(|table, _| shows(table.split_once('.').map_or(table.as_str(), |(schema, _)| schema)));
            (document.stream.clone(), name.clone(), part)
        });
        self.consumers.extend(consumers);
        let lag = |name: &String| live.and_then(|live| live::lag_seconds(live::consumer(live, name)?));
        self.lags.extend(document.consumers.keys().map(lag));
        let open = live.map(live::open_transactions).unwrap_or_default();
        self.open.extend(open.into_iter().map(|transaction| (document.stream.clone(), transaction)));
        let shown = document.relations.iter().filter(|relation| shows(&relation.name().schema));
        self.versions.extend(shown.map(|relation| (document.stream.clone(), Arc::clone(relation))));
        Ok(())
    }

    /// The tables by their names.
    pub(crate) fn tables(&self) -> Result<[(&'static str, RecordBatch); 4]> {
        Ok([
            ("streams", self.streams()?),
            ("consumers", self.consumers()?),
            ("open_transactions", self.open_transactions()?),
            ("schema_versions", self.versions()?),
        ])
    }

    fn streams(&self) -> Result<RecordBatch> {
        let extents = || self.streams.iter().map(|(.., extent)| extent.as_ref());
        let of_log = |mark: fn(&Extent) -> &LogMark| {
            let position = extents().map(|extent| extent.map(|extent| mark(extent).position.to_string()));
            let time = extents().map(|extent| extent.and_then(|extent| mark(extent).commit_time));
            (text(position), times(time))
        };
        let (first_position, first_time) = of_log(|extent| &extent.first);
        let (last_position, last_time) = of_log(|extent| &extent.last);
        batch(vec![
            ("stream", text(self.streams.iter().map(|(name, ..)| Some(name.clone())))),
            ("position", text(self.streams.iter().map(|(_, mark, _)| mark.as_ref().map(|mark| mark.position.to_string())))),
            ("commit_time", times(self.streams.iter().map(|(_, mark, _)| mark.as_ref().and_then(|mark| mark.commit_time)))),
            ("log_bytes", Arc::new(extents().map(|extent| extent.map(|extent| extent.bytes)).collect::<UInt64Array>())),
            ("log_first_position", first_position),
            ("log_first_commit_time", first_time),
            ("log_last_position", last_position),
            ("log_last_commit_time", last_time),
        ])
    }

    fn consumers(&self) -> Result<RecordBatch> {
        let now = SystemClock.now();
        let parts = || self.consumers.iter().map(|(.., part)| part);
        let freshness = parts().map(|part| part.mark.commit_time.map(|time| now.since(time).as_secs_f64()));
        let lag =
            |step: &str| -> ArrayRef { Arc::new(self.lags.iter().map(|lag| lag.as_ref()?.get(step).copied()).collect::<Float64Array>()) };
        batch(vec![
            ("stream", text(self.consumers.iter().map(|(stream, ..)| Some(stream.clone())))),
            ("destination", text(self.consumers.iter().map(|(_, name, _)| Some(name.clone())))),
            ("position", text(parts().map(|part| Some(part.mark.position.to_string())))),
            ("commit_time", times(parts().map(|part| part.mark.commit_time))),
            ("freshness_seconds", Arc::new(freshness.collect::<Float64Array>())),
            ("read_lag_seconds", lag("read")),
            ("transform_lag_seconds", lag("transform")),
            ("write_lag_seconds", lag("write")),
            ("commit_lag_seconds", lag("commit")),
            ("checkpoint_time", times(parts().map(|part| part.decided_at))),
            ("epoch", Arc::new(parts().map(|part| Some(part.epoch)).collect::<UInt64Array>())),
            ("rows_landed", Arc::new(parts().map(|part| Some(part.rows.values().sum::<u64>())).collect::<UInt64Array>())),
            ("staged", Arc::new(parts().map(|part| i64::try_from(part.staged.len()).ok()).collect::<Int64Array>())),
        ])
    }

    /// A row per transaction that was read and is not decided.
    fn open_transactions(&self) -> Result<RecordBatch> {
        let open = || self.open.iter().map(|(_, transaction)| transaction);
        batch(vec![
            ("stream", text(self.open.iter().map(|(stream, _)| Some(stream.clone())))),
            ("transaction_id", text(open().map(|transaction| Some(transaction.transaction_id.clone())))),
            ("prepared", Arc::new(open().map(|transaction| Some(transaction.prepared)).collect::<BooleanArray>())),
            ("prepared_at", times(open().map(|transaction| transaction.prepared_at))),
            ("position", text(open().map(|transaction| Some(transaction.position.clone())))),
            ("messages", Arc::new(open().map(|transaction| Some(transaction.messages)).collect::<UInt64Array>())),
            ("bytes", Arc::new(open().map(|transaction| Some(transaction.bytes)).collect::<UInt64Array>())),
        ])
    }

    /// A row per column of each version of the source's tables that the checkpoint knows.
    fn versions(&self) -> Result<RecordBatch> {
        let columns: Vec<_> = self
            .versions
            .iter()
            .flat_map(|(stream, relation)| {
                relation.columns().iter().enumerate().map(move |(index, column)| (stream, relation, index, column))
            })
            .collect();
        let names = |name: &dyn Fn(&Relation) -> Option<String>| text(columns.iter().map(|(_, relation, ..)| name(relation)));
        batch(vec![
            ("stream", text(columns.iter().map(|(stream, ..)| Some((*stream).clone())))),
            ("schema", names(&|relation| Some(relation.name().schema.clone()))),
            ("table", names(&|relation| Some(relation.name().table.clone()))),
            ("version", Arc::new(columns.iter().map(|(_, relation, ..)| Some(relation.version())).collect::<UInt32Array>())),
            ("since", names(&|relation| Some(relation.since().to_string()))),
            ("ordinal", Arc::new(columns.iter().map(|(.., index, _)| u32::try_from(index + 1).ok()).collect::<UInt32Array>())),
            ("column", text(columns.iter().map(|(.., column)| Some(column.name().to_owned())))),
            ("source_type", text(columns.iter().map(|(.., column)| Some(without_labels(&column.source_type))))),
            ("type", text(columns.iter().map(|(.., column)| Some(column.field.data_type().to_string())))),
            ("in_key", {
                let in_key =
                    |(_, relation, index, _): &(_, &Arc<Relation>, usize, _)| relation.key_declared() && relation.key().contains(index);
                Arc::new(columns.iter().map(|column| Some(in_key(column))).collect::<BooleanArray>())
            }),
        ])
    }
}

/// The labels of an enum or set may be what a mask hides in the rows.
fn without_labels(source_type: &str) -> String {
    match source_type.split_once('(') {
        Some((word, _)) if source_type.contains('\'') => word.to_owned(),
        _ => source_type.to_owned(),
    }
}

fn text(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn times(values: impl Iterator<Item = Option<TimestampMicros>>) -> ArrayRef {
    Arc::new(values.map(|time| time.map(|time| time.0)).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .map_err(|error| Error::internal("could not build a table of the streams").source(error))
}
