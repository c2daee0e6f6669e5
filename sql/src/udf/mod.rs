//! UDFs: JavaScript that rows go through, for what SQL is no language for.
//!
//! As in the templates of Google's Dataflow: a function gets a row as JSON and returns it as JSON, or null so that it does not pass.
//! It runs in QuickJS, in the process, behind limits of time and memory ([`engine`]). A table without a rule passes as it is, and
//! a stream without rules has no JavaScript in it.
//!
//! ```text
//! batch ── JSON of a row (kind, write) ── function (engine, prelude.js) ── values (read) ── batch (apply)
//! ```
//!
//! **What comes back as it went is what it was**, bit for bit: it is known by its bytes in the JSON and never made again from them.
//!
//! **Deletes do not go through**: of a row that is gone the key says enough, and most logs have no more. So a function leaves keys
//! alone. Only a table without a key, whose rows are found by all their values, has its deletes made by the function as its inserts were.

mod apply;
mod engine;
mod kind;
mod read;
mod types;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::datatypes::Field;
use logweir_core::{ChangeBatch, Column, Error, Pattern, Relation, RelationName, Result, Transform};

pub use engine::UdfLimits;
pub use types::UdfType;

use crate::transform::{BadValue, Unresolved, quarantine};
use engine::{Engine, Failed, LoadFailed, Returned};
use kind::Kind;

/// Tables, and the function that their rows go through. Of several rules that fit a table the first holds.
#[derive(Debug, Clone)]
pub struct UdfRule {
    /// Which tables: a pattern over `schema.table`.
    pub table: Pattern,
    /// The text of the script.
    pub script: String,
    /// The name of its file, for messages.
    pub file: String,
    /// The function, by its name.
    pub function: String,
    /// What a call may take.
    pub limits: UdfLimits,
    /// Columns that the function adds, in this order behind the table's.
    pub columns: Vec<(String, UdfType)>,
    /// What becomes of a row that passes and has values that the log left out: the function may not have let it pass before, and the
    /// target has no earlier values to keep then.
    pub unresolved: Unresolved,
}

/// What every name of a metadata column begins with.
const METADATA_PREFIX: &str = "_metadata_";

/// What a function is told of a change beside its row. It cannot change it.
const METADATA_FIELDS: [&str; 5] =
    ["_metadata_change_type", "_metadata_timestamp", "_metadata_schema", "_metadata_table", "_metadata_unchanged"];

/// A rule and its script.
struct Rule {
    settings: UdfRule,
    /// `None` after a limit was hit, until the next row comes.
    engine: Mutex<Option<Engine>>,
    matched: bool,
}

impl Rule {
    fn load(&self) -> std::result::Result<Engine, LoadFailed> {
        Engine::new(&self.settings.script, &self.settings.function, self.settings.limits)
    }

    /// Calls the function. Where memory ran out, earlier rows may have left it taken, so the row has another try in a fresh world.
    fn call(&self, loaded: &mut Option<Engine>, row: &str, now: i64) -> std::result::Result<Returned, Failed> {
        loop {
            let fresh = loaded.is_none();
            let engine = match loaded {
                Some(engine) => engine,
                None => loaded.insert(self.load().map_err(|failed| {
                    let reason = format!("the script could not be loaded again: {}", failed.message);
                    Failed { reason, spoilt: true, memory: false }
                })?),
            };
            match engine.call(row, now) {
                Err(failed) if failed.spoilt => {
                    *loaded = None;
                    if fresh || !failed.memory {
                        return Err(failed);
                    }
                }
                returned => return returned,
            }
        }
    }
}

/// A field of the JSON that is a column.
struct PlannedField {
    name: String,
    /// `"name":`
    json_name: Vec<u8>,
    kind: Kind,
    /// False for those that the function adds.
    of_table: bool,
    key: bool,
}

/// What a rule makes of a version of a table.
struct Plan {
    rule: usize,
    output: Arc<Relation>,
    fields: Vec<PlannedField>,
    /// Fields by name, then [`METADATA_FIELDS`].
    by_name: HashMap<String, usize>,
}

/// The [`Transform`] that sends rows through functions.
pub struct UdfTransform {
    rules: Vec<Rule>,
    bad_value: BadValue,
    /// `None` for tables that no rule fits.
    plans: HashMap<RelationName, HashMap<u32, Option<Plan>>>,
}

impl UdfTransform {
    /// A transform of these rules. An error of kind `Config` if a script does not run or has no such function: with file, line and
    /// column.
    pub fn new(rules: Vec<UdfRule>, bad_value: BadValue) -> Result<Self> {
        let rule = |settings: UdfRule| {
            let refuse = |message: &'static str| Error::config(message).context("file", &settings.file);
            if !is_identifier(&settings.function) {
                return Err(refuse("the function of a UDF is no name").context("function", &settings.function));
            }
            for (index, (name, _)) in settings.columns.iter().enumerate() {
                if name.is_empty() || name.starts_with(METADATA_PREFIX) {
                    return Err(refuse("a UDF cannot add a column of this name").context("column", name));
                }
                if settings.columns[..index].iter().any(|(other, _)| other == name) {
                    return Err(refuse("a UDF adds a column twice").context("column", name));
                }
            }
            let rule = Rule { settings, engine: Mutex::new(None), matched: false };
            let engine = rule.load().map_err(|failed| {
                let mut error = Error::config("the script of a UDF cannot be used").context("file", &rule.settings.file);
                if let Some((line, column)) = failed.place {
                    error = error.context("line", line).context("column", column);
                }
                error.context("problem", failed.message)
            })?;
            Ok(Rule { engine: Mutex::new(Some(engine)), ..rule })
        };
        Ok(UdfTransform { rules: rules.into_iter().map(rule).collect::<Result<_>>()?, bad_value, plans: HashMap::new() })
    }

    /// The same with another answer to a row that the function cannot do.
    #[must_use]
    pub fn with_bad_value(mut self, bad_value: BadValue) -> Self {
        self.bad_value = bad_value;
        self
    }

    /// Rules that have been for no table so far: worth a warning once the tables are known.
    pub fn unmatched(&self) -> Vec<&Pattern> {
        self.rules.iter().filter(|rule| !rule.matched).map(|rule| &rule.settings.table).collect()
    }

    /// What becomes of a table; `None` if no rule fits it.
    fn plan(&mut self, relation: &Arc<Relation>) -> Result<Option<Plan>> {
        let name = relation.name().to_string();
        let mut first = None;
        for (index, rule) in self.rules.iter_mut().enumerate() {
            if rule.settings.table.matches(&name) {
                rule.matched = true;
                first = first.or(Some(index));
            }
        }
        let Some(index) = first else { return Ok(None) };
        let settings = &self.rules[index].settings;
        let refuse = |message: &'static str, column: &str| {
            Error::config(message).context("table", relation.name()).context("column", column).context("file", &settings.file)
        };
        let mut columns = relation.columns().to_vec();
        for (name, data_type) in &settings.columns {
            if columns.iter().any(|column| column.name().eq_ignore_ascii_case(name)) {
                return Err(refuse("a UDF adds a column that the table has already", name)
                    .remedy("give it another name under `columns`, or a rule of its own for this table"));
            }
            columns.push(Column { field: Arc::new(data_type.field(name)), source_type: data_type.to_string(), detail: Default::default() });
        }
        let of_table = relation.columns().len();
        let mut fields = Vec::with_capacity(columns.len());
        for (index, column) in columns.iter().enumerate() {
            let field: &Field = &column.field;
            let kind = Kind::of(field).ok_or_else(|| {
                refuse("a UDF cannot have a column of this type", column.name())
                    .context("type", field.data_type())
                    .remedy("leave the column out with tables.exclude_columns")
            })?;
            let mut json_name = Vec::new();
            write::write_text(column.name(), &mut json_name);
            json_name.push(b':');
            let key = relation.key_declared() && relation.key().contains(&index);
            fields.push(PlannedField { name: column.name().to_owned(), json_name, kind, of_table: index < of_table, key });
        }
        let names = fields.iter().map(|field| field.name.as_str()).chain(METADATA_FIELDS);
        let by_name = names.enumerate().map(|(index, name)| (name.to_owned(), index)).collect();
        let key = if relation.key_declared() { relation.key().to_vec() } else { (0..columns.len()).collect() };
        let output = if columns.len() == of_table { Arc::clone(relation) } else { Arc::new(relation.with_columns(columns, key)) };
        Ok(Some(Plan { rule: index, output, fields, by_name }))
    }
}

fn is_identifier(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$');
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

impl Transform for UdfTransform {
    fn output(&mut self, relation: &Arc<Relation>) -> Result<Vec<Arc<Relation>>> {
        let plan = self.plan(relation)?;
        let mut output = vec![plan.as_ref().map_or_else(|| Arc::clone(relation), |plan| Arc::clone(&plan.output))];
        if plan.is_some() && self.bad_value == BadValue::Quarantine {
            output.push(Arc::clone(quarantine::relation()));
        }
        self.plans.entry(relation.name().clone()).or_default().insert(relation.version(), plan);
        Ok(output)
    }

    fn apply(&self, batch: ChangeBatch) -> Result<Vec<ChangeBatch>> {
        let relation = &batch.relation;
        match self.plans.get(relation.name()).and_then(|versions| versions.get(&relation.version())) {
            Some(Some(plan)) => apply::apply(&self.rules[plan.rule], plan, self.bad_value, batch),
            Some(None) => Ok(vec![batch]),
            // Nothing passes that no rule was held against.
            None => Err(Error::internal("a batch came before its relation")
                .context("table", relation.name())
                .context("version", relation.version())),
        }
    }
}

impl fmt::Debug for UdfTransform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rules.iter().map(|rule| format!("{} through {}", rule.settings.table, rule.settings.file))).finish()
    }
}
