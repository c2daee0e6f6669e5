//! Reference tables: small tables that rules look values up in.
//!
//! A reference table is whole in memory. It is replaced as a whole, too, when it is read again; what was looked up before stays
//! as it was. A row without a match has NULL in its place, and is never lost.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use logweir_core::{Error, Result};

use super::evaluate::evaluate;
use super::plan::{Computed, Lookup};

/// The reference tables of a stream, by name.
#[derive(Debug, Clone, Default)]
pub struct References(BTreeMap<String, Arc<Reference>>);

impl References {
    /// No tables.
    pub fn none() -> Self {
        References::default()
    }

    /// The tables, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Reference>> {
        self.0.values()
    }
}

impl FromIterator<Reference> for References {
    fn from_iter<I: IntoIterator<Item = Reference>>(tables: I) -> Self {
        tables.into_iter().map(Arc::new).collect()
    }
}

impl FromIterator<Arc<Reference>> for References {
    fn from_iter<I: IntoIterator<Item = Arc<Reference>>>(tables: I) -> Self {
        References(tables.into_iter().map(|table| (table.name.clone(), table)).collect())
    }
}

/// A reference table.
pub struct Reference {
    name: String,
    schema: SchemaRef,
    rows: RwLock<(u64, RecordBatch)>,
    /// Those that an index was made of last: what a plan that is made when the newer ones cannot be used goes on with.
    usable: Mutex<Option<RecordBatch>>,
}

impl Reference {
    /// A table of these rows.
    pub fn new(name: impl Into<String>, rows: RecordBatch) -> Self {
        Reference { name: name.into(), schema: rows.schema(), rows: RwLock::new((0, rows)), usable: Mutex::new(None) }
    }

    /// The name that rules join it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Replaces its rows. Fails if they have other columns: the rules are planned for those that there were.
    pub fn replace(&self, rows: RecordBatch) -> Result<()> {
        let same = rows.num_columns() == self.schema.fields().len()
            && rows
                .schema()
                .fields()
                .iter()
                .zip(self.schema.fields())
                .all(|(new, old)| new.name() == old.name() && new.data_type() == old.data_type());
        if !same {
            return Err(Error::schema("a reference table came back with other columns")
                .context("reference", &self.name)
                .remedy("restart the stream, so that its rules are planned anew"));
        }
        let mut current = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        *current = (current.0 + 1, rows);
        Ok(())
    }

    fn usable(&self) -> Option<RecordBatch> {
        self.usable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_usable(&self, rows: RecordBatch) {
        *self.usable.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
    }

    fn current(&self) -> (u64, RecordBatch) {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the values.
        write!(f, "Reference({}, {} rows)", self.name, self.current().1.num_rows())
    }
}

/// Where the rows of a reference table are, by the key of a join.
#[derive(Debug)]
struct Index {
    generation: u64,
    rows: RecordBatch,
    types: Vec<DataType>,
    places: HashMap<Box<[u8]>, u32>,
}

/// A join's index, made anew when the table has been read again.
#[derive(Debug, Default)]
pub(super) struct IndexCache(Mutex<Option<Arc<Index>>>);

/// A lookup in rows that stay what they are while a batch goes through a rule, also where the table is read again meanwhile: a row
/// that passes a condition by one version of it must not be filled from another.
#[derive(Debug)]
pub(super) struct Pinned<'a> {
    lookup: &'a Lookup,
    index: Arc<Index>,
}

impl Pinned<'_> {
    /// What the table's side of the equations is.
    pub(super) fn source(&self) -> &[Computed] {
        &self.lookup.source
    }

    /// Looks up the rows of a batch by the values of the table's side of the equations.
    pub(super) fn find(&self, keys: Vec<ArrayRef>) -> Result<Found> {
        let rows = keys.first().map_or(0, |key| key.len());
        let mut places = Vec::with_capacity(rows);
        for_each_key(&keys, &self.index.types, |key| places.push(key.and_then(|key| self.index.places.get(key)).copied()))?;
        Ok(Found { rows: self.index.rows.clone(), places: UInt32Array::from(places) })
    }
}

/// Where each row of a batch found its match.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) rows: RecordBatch,
    pub(super) places: UInt32Array,
}

impl Lookup {
    /// Makes the index, so that a table whose keys are not unique is found out before the first change.
    pub(super) fn prepare(&self) -> Result<()> {
        self.index().map(|_| ())
    }

    /// The lookup in the table's rows of now.
    pub(super) fn pin(&self) -> Result<Pinned<'_>> {
        Ok(Pinned { lookup: self, index: self.index()? })
    }

    fn index(&self) -> Result<Arc<Index>> {
        let (generation, rows) = self.reference.current();
        let mut cached = self.cache();
        if let Some(index) = cached.as_ref().filter(|index| index.generation == generation) {
            return Ok(Arc::clone(index));
        }
        let index = match self.build(generation, rows.clone()) {
            Ok(index) => {
                self.reference.is_usable(rows);
                index
            }
            Err(error) => match cached.as_ref() {
                Some(earlier) => {
                    // Better what it was than nothing, and said once for each time that it is read.
                    tracing::warn!(error = %error.report(), "a reference table that was read again cannot be used; its earlier rows still are");
                    let Index { rows, types, places, .. } = earlier.as_ref();
                    Index { generation, rows: rows.clone(), types: types.clone(), places: places.clone() }
                }
                None => match self.reference.usable().map(|rows| self.build(generation, rows)) {
                    Some(Ok(index)) => index,
                    _ => return Err(error),
                },
            },
        };
        let index = Arc::new(index);
        *cached = Some(Arc::clone(&index));
        Ok(index)
    }

    fn build(&self, generation: u64, rows: RecordBatch) -> Result<Index> {
        let name = self.reference.name();
        let failed = |_| {
            Error::data("the join of a reference table cannot be computed over its rows")
                .context("reference", name)
                .remedy("text is compared with a number as a number: CAST the number to VARCHAR, or use TRY_CAST")
        };
        let rows = match &self.filter {
            Some(filter) => {
                let wanted = evaluate(filter, &rows).map_err(failed)?;
                let wanted = wanted.as_boolean_opt().ok_or_else(|| Error::internal("a condition of a join is neither true nor false"))?;
                filter_record_batch(&rows, wanted).map_err(|_| Error::internal("could not filter a reference table"))?
            }
            None => rows,
        };
        let keys: Vec<ArrayRef> = self.key.iter().map(|key| evaluate(key, &rows)).collect::<std::result::Result<_, _>>().map_err(failed)?;
        let types: Vec<DataType> = keys.iter().map(|key| key.data_type().clone()).collect();
        let mut places = HashMap::with_capacity(rows.num_rows());
        let mut twice = false;
        let mut row = 0;
        for_each_key(&keys, &types, |key| {
            if let Some(key) = key {
                twice |= places.insert(Box::from(key), row).is_some();
            }
            row += 1;
        })?;
        if twice {
            return Err(Error::config("a reference table has several rows for one key, so that one change would become several")
                .context("reference", name)
                .remedy("join by all columns of its key, or make its rows unique with a query: SELECT DISTINCT ON …"));
        }
        Ok(Index { generation, rows, types, places })
    }

    fn cache(&self) -> MutexGuard<'_, Option<Arc<Index>>> {
        self.index.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls `visit` with the bytes of each row's key; `None` if a part of it is NULL, which equals nothing.
fn for_each_key(keys: &[ArrayRef], types: &[DataType], mut visit: impl FnMut(Option<&[u8]>)) -> Result<()> {
    let unexpected = |_| Error::internal("the keys of a reference table cannot be compared");
    let keys: Vec<ArrayRef> =
        keys.iter().zip(types).map(|(key, data_type)| cast(key, data_type)).collect::<std::result::Result<_, _>>().map_err(unexpected)?;
    let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect()).map_err(unexpected)?;
    let rows = converter.convert_columns(&keys).map_err(unexpected)?;
    for (index, row) in rows.iter().enumerate() {
        let whole = keys.iter().all(|key| key.is_valid(index));
        visit(whole.then(|| row.data()));
    }
    Ok(())
}
