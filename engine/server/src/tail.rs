//! What is on its way to a destination, for queries: the change log on disk, as the destination will land it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{AsArray as _, RecordBatch};
use arrow::compute::cast;
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use logweir_core::{
    BeforeImages, ChangeBatch, ChangeType, Error, ErrorKind, LogMark, LogPosition, Pattern, Relation, RelationId, RelationName, Result,
    Transform as _,
};
use logweir_files::form::{Form, FormColumn};
use logweir_runtime::ChangeLogSpec;
use logweir_runtime::changelog::segment::{Extent, Locate, SegmentCursor, SegmentPlace};
use logweir_sql::{CUT_OFF, SqlTransform, Tail, TailBatch, TailPart, TailRows, TailSpan};

use crate::references::{Found, Wanted};
use crate::registry::DestinationSql;

/// How often whoever follows looks whether the log has grown.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(5);
/// The same while what may go away by itself stands in the way: the stream begins anew, or the log's store is away.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// It is told when that has taken this long.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The change log of a stream beside one of its destinations.
#[derive(Clone)]
pub(crate) struct LogTail {
    pub(crate) log: SegmentPlace,
    /// Everything at or before it is visible in the destination.
    pub(crate) visible: LogPosition,
    /// The log holds everything at or before it, as the checkpoint says.
    pub(crate) logged: LogPosition,
    /// What happens to changes on their way to it, and what that looks values up in.
    pub(crate) sql: Option<(DestinationSql, Arc<Wanted>)>,
    /// The tables of which what updated rows were before is shown.
    pub(crate) before_images: Vec<Pattern>,
    /// Tables with the columns that they have lost, which it may name.
    pub(crate) recalled: Vec<Arc<Relation>>,
    /// More of one table is not held: it is read when it is asked for.
    pub(crate) bytes_max: usize,
    /// Of all tables of a query, what may still be held.
    pub(crate) bytes_left: Arc<AtomicUsize>,
}

impl fmt::Debug for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogTail({} from {})", self.log.directory.display(), self.visible)
    }
}

#[async_trait]
impl Tail for LogTail {
    async fn span(&self) -> Result<TailSpan> {
        let (log, visible) = (self.log.clone(), self.visible);
        let located = blocking(move || {
            SegmentCursor::behind(&log, visible)?;
            SegmentCursor::locate(&log, Locate::Position(LogPosition::MAX))
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
                .context("directory", self.log.directory.display())
                .context("position", self.logged)
                .remedy(
                    "a process that has just begun the log anew is there in a moment: ask again; else restart the stream, which mends the log or \
                     begins it anew where the slowest destination is",
                ));
        }
        // A destination may be ahead of what the log holds durably, but not of what it holds.
        Ok(TailSpan { after: self.visible, through: last.position.max(self.visible), commit_time: last.commit_time })
    }

    async fn read(&self, table: &RelationName, span: &TailSpan) -> Result<TailRows> {
        match self.read_span(table, span).await {
            // A process that has begun the stream anew has cut off what was there, and goes on otherwise. What is damaged is so for the next look, too.
            Err(error) if error.kind() == ErrorKind::Corrupt => match self.read_span(table, span).await {
                Err(_) if self.span().await.is_ok_and(|now| now.through < span.through) => {
                    Err(Error::transient(CUT_OFF).context("table", table).remedy("ask again"))
                }
                again => again,
            },
            read => read,
        }
    }

    fn follow(&self, table: &RelationName, after: LogPosition) -> BoxStream<'static, Result<TailBatch>> {
        let (tail, table) = (self.clone(), table.clone());
        futures::stream::try_unfold(None, move |following: Option<Following>| {
            let (tail, table) = (tail.clone(), table.clone());
            async move {
                let following = match following {
                    Some(following) => following,
                    None => Following {
                        all: tail.sql.is_some(),
                        view: tail.view(&table).await?,
                        log: tail.log,
                        cursors: None,
                        after,
                        through: after,
                        handed: after,
                        failing_since: None,
                        ready: VecDeque::new(),
                    },
                };
                let (following, batch) = following.next().await?;
                Ok(Some((batch, Some(following))))
            }
        })
        .boxed()
    }
}

impl LogTail {
    async fn read_span(&self, table: &RelationName, span: &TailSpan) -> Result<TailRows> {
        let bytes_max = self.bytes_max.min(self.bytes_left.load(Ordering::Relaxed));
        if span.through <= span.after {
            return Ok(TailRows::Held(Vec::new()));
        }
        let (mut held, mut parts) = (Some(Vec::new()), Vec::new());
        let mut bytes = 0;
        let mut passing = Some(self.passing(table, span).await?);
        while let Some(at) = passing.take() {
            let Some((at, batches)) = at.next().await? else { break };
            passing = Some(at);
            bytes += batches.iter().map(|batch| batch.rows.get_array_memory_size()).sum::<usize>();
            batches.iter().for_each(|batch| self.note(table, span, batch, &mut parts));
            // What is too much is read when it is asked for, each time anew.
            match &mut held {
                Some(batches_held) if bytes <= bytes_max => batches_held.extend(batches),
                _ => held = None,
            }
        }
        let Some(held) = held else { return Ok(TailRows::Read(parts)) };
        // Of tables that are read at once each may have seen the same as left.
        let take = |left: usize| Some(left.saturating_sub(bytes));
        let _ = self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        Ok(TailRows::Held(held))
    }

    async fn passing(&self, table: &RelationName, span: &TailSpan) -> Result<Passing> {
        let (log, span) = (self.log.clone(), *span);
        // Transforms may make the table of any other.
        Ok(Passing { log, span, all: self.sql.is_some(), view: self.view(table).await?, cursor: None })
    }

    /// Takes note of a batch among those of its relation.
    fn note(&self, table: &RelationName, span: &TailSpan, batch: &TailBatch, parts: &mut Vec<TailPart>) {
        let Some(last) = last_position(&batch.rows) else { return };
        let rows = batch.rows.num_rows() as u64;
        if let Some(part) = parts.iter_mut().find(|part| is_of(part, batch)) {
            part.rows += rows;
            part.last = part.last.max(last);
            part.truncates |= batch.truncates;
            part.unchanged |= batch.unchanged;
            return;
        }
        let (tail, table, span) = (self.clone(), table.clone(), *span);
        let (relation, schema) = (Arc::clone(&batch.relation), batch.rows.schema());
        let open = move || -> BoxStream<'static, Result<RecordBatch>> {
            let (relation, schema) = (Arc::clone(&relation), Arc::clone(&schema));
            let (tail, table) = (tail.clone(), table.clone());
            let begun = async move { tail.passing(&table, &span).await };
            let batches = futures::stream::once(begun).and_then(|passing| async move { Ok(passing.batches()) }).try_flatten();
            let of_relation = move |batches: Vec<TailBatch>| {
                let of_it = batches.into_iter().filter(|batch| batch.relation == relation && batch.rows.schema() == schema);
                futures::stream::iter(of_it.map(|batch| Ok(batch.rows)).collect::<Vec<_>>())
            };
            batches.map_ok(of_relation).try_flatten().boxed()
        };
        let (relation, schema) = (Arc::clone(&batch.relation), batch.rows.schema());
        let (truncates, unchanged) = (batch.truncates, batch.unchanged);
        parts.push(TailPart { relation, schema, rows, last, truncates, unchanged, open: Arc::new(open) });
    }

    async fn view(&self, table: &RelationName) -> Result<View> {
        let (mut sql, mut lacking) = (None, None);
        if let Some((rules, wanted)) = &self.sql {
            let Found { references, failed } = wanted.find(|name| rules.mentions(name)).await;
            let mut made = rules.with(&references)?;
            for relation in &self.recalled {
                made.recall(relation);
            }
            (sql, lacking) = (Some(made), failed);
        }
        let before_images = self.before_images.clone();
        Ok(View { table: table.clone(), sql, lacking, before_images, planned: HashMap::new(), form: None })
    }
}

/// How changes of the log become rows of a table as the destination will land them.
struct View {
    table: RelationName,
    sql: Option<SqlTransform>,
    /// Why it lacks a reference table.
    lacking: Option<Error>,
    before_images: Vec<Pattern>,
    /// Whether it makes the table of a relation.
    planned: HashMap<RelationId, bool>,
    /// Of one table's batches most are of one version.
    form: Option<Form>,
}

impl View {
    fn show(&mut self, batch: ChangeBatch, shown: &mut Vec<TailBatch>) -> Result<()> {
        let batches = match &mut self.sql {
            None => vec![batch],
            Some(sql) => {
                let wanted = match self.planned.get(&batch.relation.id()) {
                    Some(wanted) => *wanted,
                    None => {
                        let wanted = match sql.output(&batch.relation) {
                            Ok(outputs) => outputs.iter().any(|output| *output.name() == self.table),
                            // What a rule does not fit stands in the way of its own tables only.
                            Err(error) if sql.target_names(batch.relation.name()).contains(&self.table) => {
                                return Err(self.lacking.take().unwrap_or(error));
                            }
                            Err(_) => false,
                        };
                        self.planned.insert(batch.relation.id(), wanted);
                        wanted
                    }
                };
                // A change that a rule cannot carry stands in the way of its own tables only.
                if !wanted {
                    return Ok(());
                }
                sql.apply(batch)?.into_iter().filter(|batch| *batch.relation.name() == self.table).collect()
            }
        };
        for batch in batches {
            let form = match &mut self.form {
                Some(form) if *form.relation() == batch.relation => form,
                other => {
                    let before_images = BeforeImages::are_kept(&self.before_images, &batch.relation);
                    other.insert(Form::new(Arc::clone(&batch.relation), before_images)?)
                }
            };
            shown.push(as_shown(form, batch)?);
        }
        Ok(())
    }
}

fn is_of(part: &TailPart, batch: &TailBatch) -> bool {
    part.relation == batch.relation && part.schema == batch.rows.schema()
}

/// The position of the last row.
fn last_position(rows: &RecordBatch) -> Option<LogPosition> {
    let sequences = rows.column_by_name(FormColumn::Sequence.name())?.as_string_opt::<i32>()?;
    sequences.iter().next_back()??.parse().ok()
}

/// Frames of the log that are passed at a time.
const FRAMES: usize = 16;

/// Somebody passes over a span of the log.
struct Passing {
    log: SegmentPlace,
    span: TailSpan,
    /// Transforms may make the table of any other.
    all: bool,
    view: View,
    cursor: Option<SegmentCursor>,
}

impl Passing {
    /// All of them.
    fn batches(self) -> BoxStream<'static, Result<Vec<TailBatch>>> {
        let passed = futures::stream::try_unfold(self, |passing| async move {
            let next = passing.next().await?;
            Ok::<_, Error>(next.map(|(passing, batches)| (batches, passing)))
        });
        passed.boxed()
    }

    /// What some more frames hold of the table, which may be nothing; `None` at the end.
    async fn next(mut self) -> Result<Option<(Self, Vec<TailBatch>)>> {
        blocking(move || Ok(self.pass()?.map(|batches| (self, batches)))).await
    }

    fn pass(&mut self) -> Result<Option<Vec<TailBatch>>> {
        let TailSpan { after, through, .. } = self.span;
        if through <= after {
            return Ok(None);
        }
        let cursor = match &mut self.cursor {
            Some(cursor) => cursor,
            None => self.cursor.insert(SegmentCursor::behind(&self.log, after)?),
        };
        let (all, name) = (self.all, self.view.table.clone());
        let wanted = move |relation: &Relation| all || *relation.name() == name;
        let mut shown = Vec::new();
        for frame in 0..FRAMES {
            match cursor.next_changes(after, through, &wanted)? {
                Some(batch) => self.view.show(batch, &mut shown)?,
                None if frame == 0 => return Ok(None),
                None => break,
            }
        }
        Ok(Some(shown))
    }
}

/// Somebody reads the log as it grows.
struct Following {
    log: SegmentPlace,
    /// Transforms may make the table of any other.
    all: bool,
    view: View,
    /// Where it reads, and where it looks ahead for marks.
    cursors: Option<(SegmentCursor, SegmentCursor)>,
    /// Where it began.
    after: LogPosition,
    /// The mark up to which it reads now: everything before it is whole.
    through: LogPosition,
    /// What it needs of the log up to here was handed on.
    handed: LogPosition,
    failing_since: Option<Instant>,
    ready: VecDeque<TailBatch>,
}

impl Following {
    /// Waits for the next batch.
    async fn next(mut self) -> Result<(Self, TailBatch)> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok((self, batch));
            }
            let (following, moved) = blocking(move || {
                let moved = match self.look() {
                    // Where another writer goes on with the log, its entries have other numbers; positions are what they were.
                    Err(error) if error.is_transient() && self.failing_since.get_or_insert_with(Instant::now).elapsed() < RETRY_MAX => {
                        (self.cursors, self.after, self.through) = (None, self.handed, self.handed);
                        false
                    }
                    moved => {
                        self.failing_since = None;
                        moved?
                    }
                };
                Ok((self, moved))
            })
            .await?;
            self = following;
            if !moved {
                tokio::time::sleep(if self.failing_since.is_some() { RETRY_INTERVAL } else { FOLLOW_INTERVAL }).await;
            }
        }
    }

    /// Reads on, as far as there is something. False if the log has not grown.
    fn look(&mut self) -> Result<bool> {
        let (cursor, ahead) = match &mut self.cursors {
            Some(cursors) => cursors,
            None => {
                let behind = || SegmentCursor::behind(&self.log, self.after);
                self.cursors.insert((behind()?, behind()?))
            }
        };
        let (all, view) = (self.all, &mut self.view);
        let name = view.table.clone();
        let wanted = move |relation: &Relation| all || *relation.name() == name;
        let mut batches = Vec::new();
        loop {
            if self.through > self.after
                && let Some(batch) = cursor.next_changes(self.after, self.through, &wanted)?
            {
                self.handed = batch.last;
                view.show(batch, &mut batches)?;
                if !batches.is_empty() {
                    self.ready.extend(batches);
                    return Ok(true);
                }
                continue;
            }
            match ahead.pass()? {
                Some(last) if last > self.through => self.through = last,
                _ => return Ok(false),
            }
        }
    }
}

/// A batch as a reader of a file is shown it.
fn as_shown(form: &Form, batch: ChangeBatch) -> Result<TailBatch> {
    let schema = Arc::clone(form.shown());
    let columns = batch.records.columns();
    let column = |(index, field): (usize, &Arc<arrow::datatypes::Field>)| {
        let written = form.column(index, columns, batch.unchanged.as_ref(), batch.before.as_ref())?;
        // Its words may quote a value.
        cast(&written, field.data_type()).map_err(|_| Error::internal("a change cannot be shown").context("column", field.name()))
    };
    let columns = schema.fields().iter().enumerate().map(column).collect::<Result<Vec<_>>>()?;
    let rows = RecordBatch::try_new(schema, columns).map_err(|_| Error::internal("changes cannot be shown"))?;
    let truncates = batch.change_type_codes().contains(&ChangeType::Truncate.code());
    Ok(TailBatch { truncates, unchanged: batch.unchanged.is_some(), rows, relation: batch.relation })
}

/// What a change log holds.
pub(crate) async fn extent(log: &ChangeLogSpec) -> Result<Option<Extent>> {
    let place = log.segments.place();
    blocking(move || SegmentCursor::extent(&place)).await
}

/// The last mark of a change log that fits a place.
pub(crate) async fn locate(log: &ChangeLogSpec, place: Locate) -> Result<LogMark> {
    let log = log.segments.place();
    blocking(move || SegmentCursor::locate(&log, place).map(|(_, mark)| mark)).await
}

/// Runs what reads a change log where it may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    // What it panicked with may hold values, and is told by the hook as far as it may be.
    done.map_err(|_| Error::internal("reading the change log did not end"))?
}
