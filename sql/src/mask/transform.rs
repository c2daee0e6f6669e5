//! The transform that masks columns.
//!
//! A rule names columns by pattern, name or type, so it also catches a column that is added tomorrow. The transform plans a relation
//! once per schema version and then maps whole arrays; columns without a mask pass by reference. What a masked column
//! is declared as changes too: its source type, which for an ENUM spells out every value, and its field's metadata are
//! taken away with the values.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Field;
use logweir_core::{ChangeBatch, Column, Error, Relation, RelationName, Result, Transform};

use super::Mask;
use super::rules::{MaskRule, Rule};

/// What becomes of the columns of a relation at a schema version.
struct Plan {
    output: Arc<Relation>,
    /// Index of a column and its mask; empty if the relation has none.
    masks: Vec<(usize, Mask)>,
}

impl Plan {
    /// Puts masked columns in the place of clear ones.
    fn hide(&self, columns: &mut [ArrayRef]) -> Result<()> {
        for (i, mask) in &self.masks {
            let column = columns.get_mut(*i).ok_or_else(|| Error::internal("a batch has fewer columns than its relation"));
            let masked = column.and_then(|column| mask.apply(column).map(|masked| *column = masked));
            masked.map_err(|error| error.context("table", self.output.name()))?;
        }
        Ok(())
    }
}

/// Why a table cannot be masked as the rules say.
#[derive(Debug)]
pub struct MaskProblem {
    /// The rule, by its index among those that the transform was made of; none if no rule decides on a column that one must.
    pub rule: Option<usize>,
    /// What is wrong, with the table and the column.
    pub error: Error,
}

/// The [`Transform`] that applies mask rules.
///
/// Positions, keys, change types and the order of columns stay as they are; a masked key column is still a key column, so only
/// `hash` and `tokenize`, which keep different keys different, may stand on one.
pub struct MaskTransform {
    rules: Vec<Rule>,
    refuses_unlisted: bool,
    plans: HashMap<RelationName, HashMap<u32, Plan>>,
}

impl MaskTransform {
    /// A transform that applies `rules`. An error of kind `Config` if a key is empty or a rule names no column.
    pub fn new(rules: Vec<MaskRule>) -> Result<Self> {
        let rules = rules.into_iter().map(Rule::new).collect::<Result<_>>()?;
        Ok(MaskTransform { rules, refuses_unlisted: false, plans: HashMap::new() })
    }

    /// The same, but a table with a column that no rule is for is refused.
    #[must_use]
    pub fn refusing_unlisted(mut self) -> Self {
        self.refuses_unlisted = true;
        self
    }

    /// Patterns that have matched no column of any relation so far, and rules without patterns that were for none: worth a warning once
    /// the relations are known, for a pattern with a slip of the pen hides nothing.
    ///
    /// Each with the index of its rule.
    pub fn unmatched(&self) -> Vec<(usize, String)> {
        self.rules.iter().enumerate().flat_map(|(index, rule)| rule.unmatched().map(move |told| (index, told))).collect()
    }

    /// The columns of a planned table that are masked, by index.
    pub fn masked_columns(&self, relation: &Relation) -> Vec<usize> {
        let plan = self.plans.get(relation.name()).and_then(|versions| versions.get(&relation.version()));
        plan.map(|plan| plan.masks.iter().map(|(index, _)| *index).collect()).unwrap_or_default()
    }

    /// The index of the first rule that is for the column; every one that is is marked.
    fn rule_for(&mut self, name: &str, column: &Column) -> Option<usize> {
        let mut first = None;
        for (i, rule) in self.rules.iter_mut().enumerate() {
            if rule.is_for(name, column) {
                first = first.or(Some(i));
            }
        }
        first
    }

    /// What becomes of a relation as far as its masks can be, and why the others cannot: all that is wrong at once. Nothing is kept of it.
    pub fn plan(&mut self, relation: &Arc<Relation>) -> (Arc<Relation>, Vec<MaskProblem>) {
        let (plan, problems) = self.planned(relation);
        (plan.output, problems)
    }

    fn planned(&mut self, relation: &Arc<Relation>) -> (Plan, Vec<MaskProblem>) {
        let mut columns = relation.columns().to_vec();
        let (mut masks, mut problems) = (Vec::new(), Vec::new());
        let mut unlisted = Vec::new();
        for (i, column) in columns.iter_mut().enumerate() {
            let Some(index) = self.rule_for(&format!("{}.{}", relation.name(), column.name()), column) else {
                unlisted.push(column.name().to_owned());
                continue;
            };
            let rule = &self.rules[index];
            let Some(mask) = &rule.mask else { continue };
            let refuse = |message: &'static str, remedy: &'static str| {
                let error = Error::config(message)
                    .context("mask", rule)
                    .context("table", relation.name())
                    .context("column", column.name())
                    .context("type", column.field.data_type())
                    .remedy(remedy);
                MaskProblem { rule: Some(index), error }
            };
            let Some(data_type) = mask.output_type(column.field.data_type()) else {
                let (message, remedy) = mask.refusal();
                problems.push(refuse(message, remedy));
                continue;
            };
            if relation.key_declared() && relation.key().contains(&i) && !mask.keeps_apart() {
                problems.push(refuse("this mask would make different keys equal", "mask a key column with hash or tokenize"));
                continue;
            }
            masks.push((i, mask.clone()));
            *column = Column {
                field: Arc::new(Field::new(column.name(), data_type, true).with_metadata(rule.said())),
                source_type: format!("masked({})", rule.kind),
                detail: Default::default(),
            };
        }
        if self.refuses_unlisted && !unlisted.is_empty() {
            let error = Error::config("no mask rule decides on a column, and `unlisted: fail` refuses that")
                .context("table", relation.name())
                .context("columns", unlisted.join(", "))
                .remedy("add a rule for it: a mask, or `with: keep` if it may be seen");
            problems.push(MaskProblem { rule: None, error });
        }
        let output = if masks.is_empty() { Arc::clone(relation) } else { Arc::new(relation.with_columns(columns, declared_key(relation))) };
        (Plan { output, masks }, problems)
    }
}

/// The key as [`Relation::with_columns`] takes it.
fn declared_key(relation: &Relation) -> Vec<usize> {
    relation.key().to_vec()
}

impl Transform for MaskTransform {
    fn output(&mut self, relation: &Arc<Relation>) -> Result<Vec<Arc<Relation>>> {
        let (plan, problems) = self.planned(relation);
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem.error);
        }
        let output = Arc::clone(&plan.output);
        self.plans.entry(relation.name().clone()).or_default().insert(relation.version(), plan);
        Ok(vec![output])
    }

    fn apply(&self, batch: ChangeBatch) -> Result<Vec<ChangeBatch>> {
        let relation = &batch.relation;
        let plan = self.plans.get(relation.name()).and_then(|versions| versions.get(&relation.version())).ok_or_else(|| {
            // Nothing passes that no rule was held against.
            Error::internal("a batch came before its relation").context("table", relation.name()).context("version", relation.version())
        })?;
        if plan.masks.is_empty() {
            return Ok(vec![batch]);
        }
        let mut columns = batch.records.columns().to_vec();
        plan.hide(&mut columns)?;
        let mut before = batch.before;
        if let Some(before) = &mut before {
            plan.hide(&mut before.columns)?;
        }
        let records = RecordBatch::try_new(Arc::clone(plan.output.schema()), columns)
            .map_err(|_| Error::internal("a masked batch does not fit its relation").context("table", relation.name()))?;
        Ok(vec![ChangeBatch { relation: Arc::clone(&plan.output), records, before, ..batch }])
    }
}

impl fmt::Debug for MaskTransform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never a key.
        f.debug_list().entries(self.rules.iter().map(ToString::to_string)).finish()
    }
}
