//! Sends the rows of a batch through a function.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int8Array, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{interleave, take};
use arrow::datatypes::{Int8Type, TimeUnit, TimestampMicrosecondType};
use jiter::Jiter;
use logweir_core::{ChangeBatch, ChangeType, Error, MetadataColumn, Result, UnchangedBuilder};

use super::engine::Returned;
use super::read::{Made, Reason};
use super::write::{Written, write_text};
use super::{METADATA_FIELDS, Plan, Rule};
use crate::civil::write_iso_timestamp;
use crate::transform::cases::{may_have_landed, resolve};
use crate::transform::quarantine::{SetAside, set_aside};
use crate::transform::rows::unexpected;
use crate::transform::{BadValue, Unresolved};

const NO_ROW: Reason = "the function returned no JSON object";
const TWICE: Reason = "the function returned a field twice";
const NO_FIELD: Reason = "the table has no such column, and the rule adds none";
const NO_FIELD_UNNAMED: Reason = "the function returned a field that is no column, under a name that is not in its script";
const KEY_CHANGED: Reason = "a key stays as it is, for updates and deletes would not find the row";
const LEFT_OUT: Reason = "the log left out its value, and the function may not have let the row pass before";
const READ_ONLY: Reason = "what is told of a change cannot be changed";

/// A row that the function cannot carry.
struct Bad {
    field: Option<String>,
    reason: Cow<'static, str>,
}

/// How a change is carried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carried {
    Whole,
    Key,
    Bare,
}

/// Where the value of a field comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pick {
    Missing,
    Same,
    Made(usize),
}

/// Applies a rule.
pub(super) fn apply(rule: &Rule, plan: &Plan, bad_value: BadValue, batch: ChangeBatch) -> Result<Vec<ChangeBatch>> {
    let batch = resolve(batch)?;
    let mut run = Run::new(plan, &rule.settings.script, &batch)?;
    let mut aside = Vec::new();
    {
        // A panic in between has left nothing that can be trusted.
        let mut loaded = rule.engine.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            let mut loaded = poisoned.into_inner();
            *loaded = None;
            loaded
        });
        for row in 0..batch.rows() {
            let change_type = run.change_type(row);
            match change_type {
                ChangeType::Truncate => run.carry(row, change_type, Carried::Bare),
                ChangeType::Delete | ChangeType::UpdateDelete if batch.relation.key_declared() => {
                    run.carry(row, change_type, Carried::Key);
                }
                _ => {
                    let now = run.write(row);
                    let json = std::str::from_utf8(&run.json).map_err(|_| Error::internal("a row as JSON is not UTF-8"))?;
                    let made = match rule.call(&mut loaded, json, now) {
                        Ok(Returned::Nothing) => {
                            run.drop_row(row);
                            continue;
                        }
                        Ok(Returned::Json(json)) => run.read(&json).and_then(|()| run.resolved(row, rule.settings.unresolved)),
                        Err(failed) => Err(Bad { field: None, reason: failed.reason.into() }),
                    };
                    match made {
                        Ok(()) => run.carry(row, change_type, Carried::Whole),
                        Err(bad) if bad_value == BadValue::Fail => return Err(refusal(rule, &batch, row, bad)),
                        Err(Bad { field, reason }) => {
                            let reason = field.map_or_else(|| reason.to_string(), |field| format!("{field}: {reason}"));
                            aside.push(SetAside { row, reason, key_only: true });
                            run.drop_row(row);
                        }
                    }
                }
            }
        }
    }
    let mut out = Vec::new();
    if !aside.is_empty() {
        // What the function would have hidden nobody knows; the key, which it may not change, finds the row.
        out.push(set_aside(&batch, &format!("{} {}", rule.settings.file, rule.settings.function), batch.relation.key(), &aside)?);
    }
    out.extend(run.finish()?);
    Ok(out)
}

fn refusal(rule: &Rule, batch: &ChangeBatch, row: usize, bad: Bad) -> Error {
    let remedy = match bad.reason == LEFT_OUT {
        true => {
            "let the source log whole rows (REPLICA IDENTITY FULL, binlog_row_image=FULL), set unresolved: keep in the udf rule if the function \
             lets all rows pass, or on_bad_value: quarantine"
        }
        false => "make the function take such rows, or set on_bad_value: quarantine; what it throws is not shown, for it may hold values",
    };
    let mut error = Error::data("a change cannot be carried by a UDF")
        .context("reason", bad.reason)
        .context("table", batch.relation.name())
        .context("file", &rule.settings.file)
        .context("function", &rule.settings.function);
    if let Some(field) = bad.field {
        error = error.context("field", field);
    }
    error.context("position", batch.position(row)).remedy(remedy)
}

/// A batch on its way.
struct Run<'a> {
    plan: &'a Plan,
    script: &'a str,
    batch: &'a ChangeBatch,
    columns: Vec<Written<'a>>,
    /// The row that is sent, and where in it each field's value stands; nowhere if the log left it out.
    json: Vec<u8>,
    places: Vec<Option<Range<usize>>>,
    picks: Vec<Pick>,
    made: Vec<Option<Made>>,
    /// For each field and row carried: from the batch (0), made (1), null (2), and which.
    chosen: Vec<Vec<(usize, usize)>>,
    rows: Vec<usize>,
    change_types: Vec<i8>,
    unchanged: UnchangedBuilder,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, script: &'a str, batch: &'a ChangeBatch) -> Result<Self> {
        let columns = batch.records.columns().iter().zip(&plan.fields).filter(|(_, field)| field.of_table);
        let columns = columns.map(|(column, field)| Written::new(&field.kind, column)).collect::<std::result::Result<_, _>>();
        let fields = plan.fields.len();
        Ok(Run {
            plan,
            script,
            batch,
            columns: columns.map_err(unexpected)?,
            json: Vec::new(),
            places: Vec::new(),
            picks: Vec::new(),
            made: plan.fields.iter().map(|_| None).collect(),
            chosen: vec![Vec::with_capacity(batch.rows()); fields],
            rows: Vec::with_capacity(batch.rows()),
            change_types: Vec::with_capacity(batch.rows()),
            unchanged: UnchangedBuilder::new(fields),
        })
    }

    fn change_type(&self, row: usize) -> ChangeType {
        ChangeType::from_code(self.batch.change_type_codes()[row]).unwrap_or(ChangeType::Truncate)
    }

    fn is_left_out(&self, field: usize, row: usize) -> bool {
        self.plan.fields[field].of_table && self.batch.unchanged.as_ref().is_some_and(|unchanged| unchanged.is_unchanged(field, row))
    }

    /// Writes a row as JSON. Returns when it changed, in milliseconds since 1970.
    fn write(&mut self, row: usize) -> i64 {
        self.json.clear();
        self.places.clear();
        self.json.push(b'{');
        let mut left_out = Vec::new();
        for (index, field) in self.plan.fields.iter().enumerate() {
            if !field.of_table {
                self.places.push(None);
                continue;
            }
            if self.is_left_out(index, row) {
                self.places.push(None);
                left_out.push(&field.name);
                continue;
            }
            self.json.extend_from_slice(&field.json_name);
            let start = self.json.len();
            self.columns[index].write(row, &mut self.json);
            self.places.push(Some(start..self.json.len()));
            self.json.push(b',');
        }
        let timestamp = self.batch.metadata(MetadataColumn::Timestamp).as_primitive::<TimestampMicrosecondType>().value(row);
        let change_type = self.change_type(row).name();
        let name = self.batch.relation.name();
        self.tell(0, |json| write_text(change_type, json));
        self.tell(1, |json| {
            json.push(b'"');
            write_iso_timestamp(json, timestamp, TimeUnit::Microsecond, true);
            json.push(b'"');
        });
        self.tell(2, |json| write_text(&name.schema, json));
        self.tell(3, |json| write_text(&name.table, json));
        if !left_out.is_empty() {
            self.tell(4, |json| {
                for (index, name) in left_out.into_iter().enumerate() {
                    json.push(if index == 0 { b'[' } else { b',' });
                    write_text(name, json);
                }
                json.push(b']');
            });
        }
        // In the place of the last comma.
        if let Some(last) = self.json.last_mut() {
            *last = b'}';
        }
        timestamp.div_euclid(1000)
    }

    fn tell(&mut self, index: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.json.push(b'"');
        self.json.extend_from_slice(METADATA_FIELDS[index].as_bytes());
        self.json.extend_from_slice(b"\":");
        let start = self.json.len();
        write(&mut self.json);
        self.places.push(Some(start..self.json.len()));
        self.json.push(b',');
    }

    /// The value of a field as it was sent.
    fn sent(&self, field: usize) -> Option<&[u8]> {
        self.json.get(self.places.get(field)?.clone()?)
    }

    /// Takes what the function returned.
    fn read(&mut self, returned: &str) -> std::result::Result<(), Bad> {
        let bad = |reason: Reason| Bad { field: None, reason: reason.into() };
        let plan = self.plan;
        self.picks.clear();
        self.picks.resize(plan.fields.len(), Pick::Missing);
        let mut told = 0_u8;
        let mut json = Jiter::new(returned.as_bytes());
        // Fields come back in the order in which they went, nearly always.
        let mut expected = 0;
        let mut name = json.next_object().map_err(|_| bad(NO_ROW))?;
        while let Some(known) = name {
            let index = match plan.fields.get(expected) {
                Some(field) if field.name == known => expected,
                _ => *plan.by_name.get(known).ok_or_else(|| self.unknown(known))?,
            };
            expected = index + 1;
            let named = |reason: Reason| {
                let mut names = plan.fields.iter().map(|field| field.name.as_str()).chain(METADATA_FIELDS);
                Bad { field: names.nth(index).map(str::to_owned), reason: reason.into() }
            };
            json.peek().map_err(|_| bad(NO_ROW))?;
            let start = json.current_index();
            json.next_skip().map_err(|_| bad(NO_ROW))?;
            let value = json.slice_to_current(start);
            let same = self.sent(index) == Some(value);
            let Some(field) = plan.fields.get(index) else {
                let bit = 1 << (index - plan.fields.len());
                if told & bit != 0 {
                    return Err(named(TWICE));
                }
                if !same {
                    return Err(named(READ_ONLY));
                }
                told |= bit;
                name = json.next_key().map_err(|_| bad(NO_ROW))?;
                continue;
            };
            if self.picks[index] != Pick::Missing {
                return Err(named(TWICE));
            }
            self.picks[index] = match same {
                true => Pick::Same,
                false if field.key => return Err(named(KEY_CHANGED)),
                false => {
                    let made = self.made[index].get_or_insert_with(|| Made::new(&field.kind));
                    let place = made.len();
                    made.append(&mut Jiter::new(value)).map_err(named)?;
                    Pick::Made(place)
                }
            };
            name = json.next_key().map_err(|_| bad(NO_ROW))?;
        }
        json.finish().map_err(|_| bad(NO_ROW))?;
        match plan.fields.iter().zip(&self.picks).find(|(field, pick)| field.key && **pick == Pick::Missing) {
            Some((field, _)) => Err(Bad { field: Some(field.name.clone()), reason: KEY_CHANGED.into() }),
            None => Ok(()),
        }
    }

    /// Refuses a row that lacks values which the target may not have either.
    fn resolved(&self, row: usize, unresolved: Unresolved) -> std::result::Result<(), Bad> {
        if unresolved == Unresolved::Keep || self.batch.unchanged.is_none() {
            return Ok(());
        }
        let missing = self.picks.iter().enumerate().position(|(index, pick)| *pick == Pick::Missing && self.is_left_out(index, row));
        match missing {
            Some(index) => Err(Bad { field: Some(self.plan.fields[index].name.clone()), reason: LEFT_OUT.into() }),
            None => Ok(()),
        }
    }

    /// A field that is none. What it is called may be made of values: it is shown if it stands in the script.
    fn unknown(&self, name: &str) -> Bad {
        let field = self.script.contains(name).then(|| name.to_owned());
        Bad { field, reason: if self.script.contains(name) { NO_FIELD } else { NO_FIELD_UNNAMED }.into() }
    }

    /// Carries a row.
    fn carry(&mut self, row: usize, change_type: ChangeType, carried: Carried) {
        let place = self.rows.len();
        self.rows.push(row);
        self.change_types.push(change_type.code());
        for (index, field) in self.plan.fields.iter().enumerate() {
            let in_batch = (0, row);
            // Where there is no value, the batch has as good a null as any.
            let null = if field.of_table && self.batch.records.column(index).is_null(row) { in_batch } else { (2, 0) };
            let choice = match carried {
                Carried::Whole => match self.picks[index] {
                    Pick::Same => in_batch,
                    Pick::Made(made) => (1, made),
                    Pick::Missing => {
                        if self.is_left_out(index, row) {
                            self.unchanged.mark(index, place);
                        }
                        null
                    }
                },
                Carried::Key if field.key => in_batch,
                Carried::Key => {
                    self.unchanged.mark(index, place);
                    null
                }
                Carried::Bare => null,
            };
            self.chosen[index].push(choice);
        }
    }

    /// The row is not carried. What may have been landed of it goes, as it does behind a filter.
    fn drop_row(&mut self, row: usize) {
        if may_have_landed(self.batch, row) {
            self.carry(row, ChangeType::Delete, Carried::Key);
        }
    }

    /// The batch of what was carried.
    fn finish(mut self) -> Result<Option<ChangeBatch>> {
        let Some(last) = self.rows.last() else { return Ok(None) };
        let last = self.batch.position(*last);
        let count = self.rows.len();
        let all = count == self.batch.rows();
        let places = UInt32Array::from_iter_values(self.rows.iter().map(|row| *row as u32));
        let carried = |column: &ArrayRef| match all {
            true => Ok(Arc::clone(column)),
            false => take(column, &places, None).map_err(unexpected),
        };
        let mut columns = Vec::with_capacity(self.plan.output.schema().fields().len());
        for (index, field) in self.plan.fields.iter().enumerate() {
            let of_batch = field.of_table.then(|| self.batch.records.column(index));
            let chosen = &self.chosen[index];
            columns.push(match of_batch {
                Some(column) if chosen.iter().all(|(from, _)| *from == 0) => carried(column)?,
                _ => {
                    let data_type = self.plan.output.columns()[index].field.data_type();
                    let made = self.made[index].as_mut().map(|made| made.finish(data_type)).transpose().map_err(unexpected)?;
                    let empty = new_null_array(data_type, 0);
                    let null = new_null_array(data_type, 1);
                    let sources = [of_batch.unwrap_or(&empty).as_ref(), made.as_ref().unwrap_or(&empty).as_ref(), null.as_ref()];
                    interleave(&sources, chosen).map_err(unexpected)?
                }
            });
        }
        let codes = self.batch.change_type_codes();
        for column in 0..MetadataColumn::COUNT {
            let source = self.batch.records.column(self.batch.relation.columns().len() + column);
            let retyped = column == MetadataColumn::ChangeType as usize && self.change_types != codes;
            columns.push(if retyped {
                let names = Arc::clone(source.as_dictionary::<Int8Type>().values());
                let codes = Int8Array::from(std::mem::take(&mut self.change_types));
                Arc::new(DictionaryArray::<Int8Type>::try_new(codes, names).map_err(unexpected)?)
            } else {
                carried(source)?
            });
        }
        let records = RecordBatch::try_new(Arc::clone(self.plan.output.schema()), columns)
            .map_err(|_| Error::internal("a batch behind a UDF does not fit its relation").context("table", self.batch.relation.name()))?;
        Ok(Some(ChangeBatch {
            relation: Arc::clone(&self.plan.output),
            records,
            unchanged: self.unchanged.finish(count),
            before: None,
            last,
            memory: Arc::clone(&self.batch.memory),
        }))
    }
}
