//! What is on its way to a destination, for queries: the change log on disk, as the destination will land it.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use async_trait::async_trait;
use logweir_core::{
    ChangeBatch, ChangeType, Error, ErrorKind, LogPosition, Relation, RelationId, RelationName, Result, apply_all, output_of_all,
    recall_all,
};
use logweir_files::form::Form;
use logweir_runtime::TransformFactory;
use logweir_runtime::changelog::segment::{Locate, SegmentCursor};
use logweir_sql::{Tail, TailBatch, TailSpan};

/// The change log of a stream beside one of its destinations.
pub(crate) struct LogTail {
    pub(crate) directory: PathBuf,
    /// Everything at or before it is visible in the destination.
    pub(crate) visible: LogPosition,
    /// The log holds everything at or before it, as the checkpoint says.
    pub(crate) logged: LogPosition,
    /// What happens to changes on their way to it.
    pub(crate) transforms: TransformFactory,
    /// Tables with the columns that they have lost, which these may name.
    pub(crate) recalled: Vec<Arc<Relation>>,
    pub(crate) has_transforms: bool,
    /// More of one table is not held.
    pub(crate) bytes_max: usize,
}

impl fmt::Debug for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogTail({} from {})", self.directory.display(), self.visible)
    }
}

#[async_trait]
impl Tail for LogTail {
    async fn span(&self) -> Result<TailSpan> {
        let (directory, visible) = (self.directory.clone(), self.visible);
        let located = blocking(move || {
            SegmentCursor::behind(&directory, visible)?;
            SegmentCursor::locate(&directory, Locate::Position(LogPosition::MAX))
        });
        let last = match located.await {
            Ok((_, last)) => last,
            // What the destination lacks is not whole in the log any more: what it has is.
            Err(error) if error.kind() == ErrorKind::LogGone => {
                return Ok(TailSpan { after: self.visible, through: self.visible, commit_time: None });
            }
            Err(error) => return Err(error),
        };
        if last.position < self.logged {
            // Less than there was would look like the present, and is the past.
            return Err(Error::corrupt("the change log does not hold what the checkpoint says")
                .context("directory", self.directory.display())
                .context("position", self.logged)
                .remedy(
                    "a process that has just begun the log anew is there in a moment: ask again; else restart the stream, which mends the log or \
                     begins it anew where the slowest destination is",
                ));
        }
        // A destination may be ahead of what the log holds durably, but not of what it holds.
        Ok(TailSpan { after: self.visible, through: last.position.max(self.visible), commit_time: last.commit_time })
    }

    async fn read(&self, table: &RelationName, span: &TailSpan) -> Result<Vec<TailBatch>> {
        let (directory, span, bytes_max, name) = (self.directory.clone(), *span, self.bytes_max, table.clone());
        // Transforms may make the table of any other.
        let all = self.has_transforms;
        let batches = blocking(move || {
            let wanted = |relation: &Relation| all || *relation.name() == name;
            SegmentCursor::changes(&directory, span.after, span.through, &wanted, bytes_max)
        })
        .await?;
        let batches = if self.has_transforms { self.transformed(batches, table)? } else { batches };
        let mut form: Option<Form> = None;
        let mut shown = Vec::with_capacity(batches.len());
        for batch in batches {
            // Of one table's batches most are of one version.
            let form = match &mut form {
                Some(form) if *form.relation() == batch.relation => form,
                other => other.insert(Form::new(Arc::clone(&batch.relation))?),
            };
            shown.push(as_shown(form, batch)?);
        }
        Ok(shown)
    }
}

impl LogTail {
    fn transformed(&self, batches: Vec<ChangeBatch>, table: &RelationName) -> Result<Vec<ChangeBatch>> {
        let mut transforms = (self.transforms)()?;
        for relation in &self.recalled {
            recall_all(&mut transforms, relation);
        }
        let mut planned: HashMap<RelationId, bool> = HashMap::new();
        let mut made = Vec::new();
        for batch in batches {
            let wanted = match planned.get(&batch.relation.id()) {
                Some(wanted) => *wanted,
                None => {
                    let outputs = output_of_all(&mut transforms, &batch.relation)?;
                    let wanted = outputs.iter().any(|output| output.name() == table);
                    planned.insert(batch.relation.id(), wanted);
                    wanted
                }
            };
            // A change that a rule cannot carry stands in the way of its own tables only.
            if !wanted {
                continue;
            }
            made.extend(apply_all(&transforms, batch)?.into_iter().filter(|batch| *batch.relation.name() == *table));
        }
        Ok(made)
    }
}

/// A batch as a reader of a file is shown it.
fn as_shown(form: &Form, batch: ChangeBatch) -> Result<TailBatch> {
    let schema = Arc::clone(form.shown());
    let columns = batch.records.columns();
    let column = |(index, field): (usize, &Arc<arrow::datatypes::Field>)| {
        let written = form.column(index, columns, batch.unchanged.as_ref())?;
        // Its words may quote a value.
        cast(&written, field.data_type()).map_err(|_| Error::internal("a change cannot be shown").context("column", field.name()))
    };
    let columns = schema.fields().iter().enumerate().map(column).collect::<Result<Vec<_>>>()?;
    let rows = RecordBatch::try_new(schema, columns).map_err(|_| Error::internal("changes cannot be shown"))?;
    let truncates = batch.change_type_codes().contains(&ChangeType::Truncate.code());
    Ok(TailBatch { truncates, unchanged: batch.unchanged.is_some(), rows, relation: batch.relation })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("reading the change log did not end").source(error))?
}
