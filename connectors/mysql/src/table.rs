//! A followed table: its schema versions, and the plan its rows are read by.
//!
//! A version is made where the shape changes, at the position of the first change that has it. A restart from an earlier
//! mark meets the same place again and must give it the same number, so versions known from the checkpoint are
//! recognised by where they begin; only what is new gets the next number.

use std::sync::Arc;

use logweir_core::{Column, Error, LogPosition, Pattern, Relation, RelationName, Result, TableFilter};

use crate::buffer::{Part, RowBuffer, TableColumn};
use crate::carried;
use crate::catalog::{ColumnShape, TableShape};
use crate::column::{self, ColumnPlan, FULL_METADATA, Kind};
use crate::table_map::{MappedColumn, TableMap};

/// More versions than this within one run, and a table's shape is taken to flap.
const VERSIONS_MAX: u32 = 100_000;

/// What is known of a table's shape beside its table map.
#[derive(Debug, Default)]
enum Described {
    /// Nobody was asked; what the checkpoint knows holds if the table map agrees.
    #[default]
    Unasked,
    /// The server's answer. Fresh until a table map was compiled with it.
    Asked { shape: Option<Arc<TableShape>>, fresh: bool },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: RelationName,
    /// What updated rows were before is handed out.
    before_images: bool,
    /// Versions of the checkpoint.
    known: Vec<Arc<Relation>>,
    current: Option<Arc<Relation>>,
    /// The greatest version there is.
    version: u32,
    described: Described,
    /// The body of the table map that `buffer` is compiled from.
    map: Vec<u8>,
    /// Raised whenever a table map is compiled, so that rows of a table map that no longer holds are noticed.
    pub(crate) generation: u64,
    columns: Vec<TableColumn>,
    pub(crate) buffer: Option<RowBuffer>,
    /// Changes cut off and not handed out yet, in order.
    pub(crate) parts: Vec<Part>,
    /// The version that was announced to the reader of this log last.
    pub(crate) announced: u32,
    /// Rows were appended in the transaction that is open.
    pub(crate) touched: bool,
    /// There are changes in the buffer or the parts.
    pub(crate) active: bool,
}

/// What compiling a table map comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Compiled {
    /// Rows can be read.
    Ready,
    /// No column of the table is wanted.
    Nothing,
    /// The server must be asked first.
    NeedsShape,
}

/// Columns and key of a relation.
struct Shape {
    columns: Vec<TableColumn>,
    carried: Vec<Column>,
    key: Vec<usize>,
}

impl Table {
    /// A table whose `known` versions were in the checkpoint; resumed behind `resume`. Before images are handed out of those
    /// that the patterns match.
    pub(crate) fn new(name: RelationName, mut known: Vec<Arc<Relation>>, resume: Option<LogPosition>, before_images: &[Pattern]) -> Self {
        known.sort_by_key(|relation| relation.version());
        let current = known.iter().rev().find(|relation| resume.is_some_and(|resume| relation.since() <= resume)).map(Arc::clone);
        let version = known.last().map_or(0, |relation| relation.version());
        Table {
            before_images: Pattern::any_matches(before_images, &name),
            name,
            known,
            current,
            version,
            described: Described::default(),
            map: Vec::new(),
            generation: 0,
            columns: Vec::new(),
            buffer: None,
            parts: Vec::new(),
            announced: 0,
            touched: false,
            active: false,
        }
    }

    pub(crate) fn current(&self) -> Option<&Arc<Relation>> {
        self.current.as_ref()
    }

    /// True if this table map is the one that the plan was made from.
    pub(crate) fn is_compiled_from(&self, map: &[u8]) -> bool {
        self.buffer.is_some() && self.map == map
    }

    /// A DDL statement may have touched the table: the next table map is compiled anew, with a new description.
    pub(crate) fn forget(&mut self) {
        self.described = Described::Asked { shape: None, fresh: false };
        self.map.clear();
    }

    /// True if the server must be asked although the checkpoint knows the table.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.map.is_empty() && matches!(self.described, Described::Asked { fresh: false, .. })
    }

    /// The server's answer.
    pub(crate) fn describe(&mut self, shape: Option<TableShape>) {
        self.described = Described::Asked { shape: shape.map(Arc::new), fresh: true };
    }

    /// Bytes in the buffer and in the parts.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.as_ref().map_or(0, RowBuffer::bytes) + self.parts.iter().map(|part| part.bytes).sum::<usize>()
    }

    /// Moves what is in the buffer to the parts.
    pub(crate) fn cut(&mut self) -> Result<()> {
        if let Some(part) = self.buffer.as_mut().map(RowBuffer::cut).transpose()?.flatten() {
            self.parts.push(part);
        }
        Ok(())
    }

    /// The open transaction is whole.
    pub(crate) fn commit(&mut self) {
        self.touched = false;
        if let Some(buffer) = &mut self.buffer {
            buffer.commit();
        }
        for part in &mut self.parts {
            part.committed = part.batch.rows();
        }
    }

    /// Changes of the open transaction that are held.
    pub(crate) fn open_rows(&self) -> usize {
        let in_parts: usize = self.parts.iter().map(|part| part.batch.rows() - part.committed).sum();
        in_parts + self.buffer.as_ref().map_or(0, RowBuffer::open_rows)
    }

    /// The open transaction never happened.
    pub(crate) fn roll_back(&mut self) -> Result<()> {
        self.touched = false;
        self.roll_back_to(0)
    }

    /// Of the open transaction only the first `kept` changes happened.
    pub(crate) fn roll_back_to(&mut self, mut kept: usize) -> Result<()> {
        self.cut()?;
        for mut part in std::mem::take(&mut self.parts) {
            let rows = part.batch.rows();
            let remaining = part.committed + kept.min(rows - part.committed);
            kept -= remaining - part.committed;
            if remaining == 0 {
                continue;
            }
            if remaining < rows {
                part.bytes = part.bytes / rows * remaining;
                part.batch = part.batch.slice(0, remaining);
            }
            self.parts.push(part);
        }
        Ok(())
    }

    /// Makes a plan for the rows behind a table map whose `body` is `map`. Changes from `since` on have its shape.
    pub(crate) fn compile(
        &mut self,
        body: &[u8],
        map: &TableMap,
        since: LogPosition,
        filter: &TableFilter,
        has_catalog: bool,
    ) -> Result<Compiled> {
        let shape = match &self.described {
            Described::Asked { shape: Some(shape), fresh } => {
                let (shape, fresh) = (Arc::clone(shape), *fresh);
                match self.shape(map, Some(&shape), filter) {
                    // Asked before an unnoticed change of the table: asked once more.
                    Err(_) if !fresh && has_catalog => return Ok(Compiled::NeedsShape),
                    result => result?,
                }
            }
            Described::Asked { shape: None, fresh: true } => self.shape(map, None, filter)?,
            Described::Asked { shape: None, fresh: false } if has_catalog => return Ok(Compiled::NeedsShape),
            Described::Asked { shape: None, .. } => self.shape(map, None, filter)?,
            Described::Unasked => match self.kept_shape(map, filter) {
                Some(shape) => shape,
                None if has_catalog => return Ok(Compiled::NeedsShape),
                None => self.shape(map, None, filter)?,
            },
        };
        if let Described::Asked { fresh, .. } = &mut self.described {
            *fresh = false;
        }
        if shape.carried.is_empty() {
            return Ok(Compiled::Nothing);
        }
        self.cut()?;
        let relation = self.version_of(shape.carried, shape.key, since)?;
        self.columns = shape.columns;
        self.generation += 1;
        self.install(relation);
        self.map.clear();
        self.map.extend_from_slice(body);
        Ok(Compiled::Ready)
    }

    /// Makes a new version whose geometry columns have other reference systems, and goes on with it.
    pub(crate) fn change_srids(&mut self, srids: &[(usize, u32)], since: LogPosition) -> Result<()> {
        let unused = self.buffer.as_ref().is_some_and(RowBuffer::is_empty) && self.parts.is_empty();
        self.cut()?;
        for (index, srid) in srids {
            if let Some(ColumnPlan { kind: Kind::Geometry { srid: declared }, .. }) =
                self.columns.get_mut(*index).and_then(|c| c.plan.as_mut())
            {
                *declared = *srid;
            }
        }
        let key = self.current.as_ref().filter(|relation| relation.key_declared()).map_or(Vec::new(), |relation| relation.key().to_vec());
        // A version made from a guess that no row was read with is as good as never made.
        let guessed = self.current.as_ref().is_some_and(|relation| {
            unused && relation.version() != self.announced && relation.version() == self.version && !self.known.contains(relation)
        });
        if guessed {
            self.version -= 1;
        }
        let skipped = self.current.as_ref().map_or(Vec::new(), |relation| column::skipped_of(relation.columns()));
        let relation = self.version_of(carried_columns(&self.columns, &skipped), key, since)?;
        self.install(relation);
        Ok(())
    }

    /// Starts a version from the server's description alone: there was no table map yet.
    pub(crate) fn describe_relation(&mut self, since: LogPosition, filter: &TableFilter) -> Result<Option<Arc<Relation>>> {
        let Described::Asked { shape: Some(shape), .. } = &self.described else { return Ok(None) };
        let relation = carried::relation(&self.name, shape, filter)?;
        if relation.columns().is_empty() {
            return Ok(None);
        }
        let key = if relation.key_declared() { relation.key().to_vec() } else { Vec::new() };
        let relation = self.version_of(relation.columns().to_vec(), key, since)?;
        self.current = Some(Arc::clone(&relation));
        Ok(Some(relation))
    }

    /// True if the server was asked for this table.
    pub(crate) fn was_asked(&self) -> bool {
        matches!(&self.described, Described::Asked { shape, fresh } if *fresh || shape.is_some())
    }

    fn install(&mut self, relation: Arc<Relation>) {
        self.current = Some(Arc::clone(&relation));
        self.buffer = Some(RowBuffer::new(relation, &self.columns, self.before_images));
    }

    /// The version with this shape at this place.
    fn version_of(&mut self, columns: Vec<Column>, key: Vec<usize>, since: LogPosition) -> Result<Arc<Relation>> {
        let relation = Relation::new(self.name.clone(), self.version + 1, since, columns, key);
        if let Some(current) = self.current.as_ref().filter(|current| current.same_shape(&relation)) {
            return Ok(Arc::clone(current));
        }
        if let Some(known) = self.known.iter().find(|known| known.since() == since && known.same_shape(&relation)) {
            return Ok(Arc::clone(known));
        }
        if self.version >= VERSIONS_MAX {
            return Err(Error::schema("the shape of a table changes without end").context("relation", &self.name));
        }
        self.version += 1;
        Ok(Arc::new(relation))
    }

    /// What the checkpoint's description and the table map come to, if they come to the checkpoint's relation.
    fn kept_shape(&self, map: &TableMap, filter: &TableFilter) -> Option<Shape> {
        let current = self.current.as_ref()?;
        let mut columns: Vec<Option<ColumnShape>> = vec![None; map.columns.len()];
        for column in current.columns() {
            let (ordinal, shape) = column::shape_of(column)?;
            *columns.get_mut(ordinal)? = Some(shape);
        }
        for (ordinal, name) in column::skipped_of(current.columns()) {
            let shape = ColumnShape { name, data_type: String::new(), column_type: String::new(), charset: None, srid: None };
            *columns.get_mut(ordinal)? = Some(shape);
        }
        let columns = columns.into_iter().collect::<Option<Vec<_>>>()?;
        let key = if current.key_declared() { current.key() } else { &[] };
        let key = key.iter().filter_map(|i| current.columns().get(*i)).map(|column| column.name().to_owned()).collect();
        let shape = self.shape(map, Some(&TableShape { columns, key }), filter).ok()?;
        let relation = Relation::new(self.name.clone(), 0, LogPosition::MIN, shape.carried.clone(), shape.key.clone());
        current.same_shape(&relation).then_some(shape)
    }

    /// Merges a table map with a description.
    fn shape(&self, map: &TableMap, described: Option<&TableShape>, filter: &TableFilter) -> Result<Shape> {
        let shapes = match described {
            Some(shape) => pair(map, shape).ok_or_else(|| self.error("the table is no longer the one that the binlog describes"))?,
            None => vec![None; map.columns.len()],
        };
        let mut columns = Vec::with_capacity(map.columns.len());
        let mut skipped = Vec::new();
        let mut names = Vec::with_capacity(map.columns.len());
        if filter.exact_names && map.columns.iter().any(|column| column.name.is_none()) {
            return Err(Error::config("the binlog does not say the names of a table's columns, and masks go by names")
                .context("relation", &self.name)
                .remedy(
                    "run SET GLOBAL binlog_row_metadata = FULL on the server and let sessions reconnect; changes logged before are without: \
                     begin behind them, or, if no followed table was altered since and none is while the stream is behind, set mask.names: server",
                ));
        }
        for (mapped, shape) in map.columns.iter().zip(&shapes) {
            let name = mapped.name.as_deref().or(shape.map(|shape| shape.name.as_str()));
            let name = name.ok_or_else(|| self.error("the binlog does not say the names of a table's columns"))?;
            let wanted = filter.accepts_column(&self.name, name);
            let plan = if wanted {
                let told = shape.filter(|shape| column::fits(mapped, shape));
                let plan = ColumnPlan::merge(mapped, name, told);
                let plan = if map.mariadb && told.is_none() { plan.map(|plan| plan.undescribed(mapped)) } else { plan };
                let mut plan = plan.map_err(|error| {
                    let place = Error::schema(error.problem).context("relation", &self.name).context("column", name);
                    match error.remedy {
                        Some(remedy) => place.remedy(remedy),
                        None => place.remedy("leave the column out with exclude_columns"),
                    }
                })?;
                self.keep_srid(&mut plan, *shape);
                Some(plan)
            } else {
                skipped.push((columns.len(), name.to_owned()));
                None
            };
            names.push(name);
            columns.push(TableColumn { wire: column::wire(mapped), plan });
        }
        let ordinals: Vec<usize> = match (&map.key, described) {
            (Some(key), _) => key.clone(),
            (None, Some(shape)) => shape.key.iter().filter_map(|key| names.iter().position(|name| name == key)).collect(),
            (None, None) => Vec::new(),
        };
        let carried = carried_columns(&columns, &skipped);
        let key = if carried.is_empty() { Vec::new() } else { self.key(&columns, &ordinals, &names)? };
        Ok(Shape { columns, carried, key })
    }

    /// Where nobody declares the reference system of a geometry column, the one its values had goes on.
    fn keep_srid(&self, plan: &mut ColumnPlan, shape: Option<&ColumnShape>) {
        if let Kind::Geometry { srid } = &mut plan.kind
            && shape.is_none_or(|shape| shape.srid.is_none())
            && let Some(column) = self.current.iter().flat_map(|relation| relation.columns()).find(|column| column.name() == plan.name)
            && let Some((_, kept)) = column::shape_of(column)
        {
            *srid = kept.srid.unwrap_or(*srid);
        }
    }

    /// Indexes of the key in the relation.
    fn key(&self, columns: &[TableColumn], ordinals: &[usize], names: &[&str]) -> Result<Vec<usize>> {
        let mut key = Vec::with_capacity(ordinals.len());
        for ordinal in ordinals {
            if columns.get(*ordinal).is_none_or(|column| column.plan.is_none()) {
                return Err(Error::config("a column of a table's key is left out")
                    .context("relation", &self.name)
                    .context("column", names.get(*ordinal).copied().unwrap_or_default())
                    .remedy("take it out of exclude_columns, or exclude the table"));
            }
            key.push(columns.iter().take(*ordinal).filter(|column| column.plan.is_some()).count());
        }
        Ok(key)
    }

    fn error(&self, message: &'static str) -> Error {
        Error::schema(message).context("relation", &self.name).remedy(FULL_METADATA)
    }
}

/// The columns of a relation from those of its table.
fn carried_columns(columns: &[TableColumn], skipped: &[(usize, String)]) -> Vec<Column> {
    let mut carried = Vec::with_capacity(columns.len());
    for (ordinal, column) in columns.iter().enumerate() {
        if let Some(plan) = &column.plan {
            let skipped = if carried.is_empty() { Some(skipped) } else { None };
            carried.push(plan.column(ordinal, skipped));
        }
    }
    carried
}

/// Finds the description of each column of a table map: by name where the log says names, else by place, and then every
/// type must agree.
fn pair<'s>(map: &TableMap, shape: &'s TableShape) -> Option<Vec<Option<&'s ColumnShape>>> {
    if map.columns.iter().all(|column| column.name.is_some()) {
        let find = |mapped: &MappedColumn| {
            let name = mapped.name.as_deref().unwrap_or_default();
            shape.columns.iter().find(|column| column.name == name)
        };
        return Some(map.columns.iter().map(find).collect());
    }
    if map.columns.len() != shape.columns.len() {
        return None;
    }
    let agrees = |(mapped, shape): (&MappedColumn, &ColumnShape)| shape.data_type.is_empty() || column::fits(mapped, shape);
    map.columns.iter().zip(&shape.columns).all(agrees).then(|| shape.columns.iter().map(Some).collect())
}
