//! Masks: columns that leave the database unreadable, or not at all.
//!
//! A rule names columns by pattern, so it also catches a column that is added tomorrow. The transform plans a relation
//! once per schema version and then maps whole arrays; columns without a mask pass by reference. What a masked column
//! is declared as changes too: its source type, which for an ENUM spells out every value, and its field's metadata are
//! taken away with the values.

mod canonical;
mod email;
mod hash;
mod null;
mod partial;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field};
use logweir_core::{ChangeBatch, Column, Error, Pattern, Relation, RelationName, Result, Transform};
use secrecy::SecretString;

/// Columns, and what becomes of them. Of several rules that match a column the first holds.
#[derive(Debug, Clone)]
pub struct MaskRule {
    /// Patterns over `schema.table.column`; the rule holds for a column that any of them matches.
    pub columns: Vec<Pattern>,
    /// What becomes of the values. NULL stays NULL under every mask.
    pub with: MaskKind,
}

/// What becomes of the values of a masked column.
#[derive(Debug, Clone)]
pub enum MaskKind {
    /// HMAC-SHA-256 of the value's text under a key, as 64 lower-case hexadecimal digits. The same value has the same hash in every
    /// column and table under the key, so hashes can be joined and grouped. For every type but lists and structs.
    Hash {
        /// The key: a secret of at least 32 random bytes. Who has it can try values.
        key: SecretString,
    },
    /// `****` and the last four characters of a value that has eight or more, else `****`. For text and whole numbers.
    Partial,
    /// The first character and the domain of an e-mail address, `a***@example.com`; `***` for anything else. For text.
    Email,
    /// NULL. For every type.
    Null,
}

impl MaskKind {
    /// The name in configuration and messages.
    pub fn name(&self) -> &'static str {
        match self {
            MaskKind::Hash { .. } => "hash",
            MaskKind::Partial => "partial",
            MaskKind::Email => "email",
            MaskKind::Null => "null",
        }
    }
}

/// A mask, ready to be applied. The `_metadata_*` columns never have one.
#[derive(Clone)]
enum Mask {
    Hash(hash::KeyedHash),
    Partial,
    Email,
    Null,
}

impl Mask {
    /// The type of the masked column, or `None` if the mask cannot hide values of this type.
    fn output_type(&self, input: &DataType) -> Option<DataType> {
        let value_type = match input {
            DataType::Dictionary(_, value_type) => value_type,
            other => other,
        };
        let possible = match self {
            Mask::Hash(_) => canonical::has_text(value_type),
            Mask::Partial => partial::masks(value_type),
            Mask::Email => email::masks(value_type),
            Mask::Null => return Some(input.clone()),
        };
        possible.then_some(DataType::Utf8)
    }

    fn apply(&self, array: &ArrayRef) -> Result<ArrayRef> {
        match array.as_any_dictionary_opt() {
            // Each distinct value once, unless the dictionary is shared with far more rows than this batch has.
            Some(dictionary) if !matches!(self, Mask::Null) && dictionary.values().len() <= array.len() => {
                let masked = self.apply(dictionary.values())?;
                take(&masked, dictionary.keys(), None).map_err(unexpected)
            }
            Some(dictionary) if !matches!(self, Mask::Null) => {
                self.apply(&cast(array, dictionary.values().data_type()).map_err(unexpected)?)
            }
            _ => match self {
                Mask::Hash(hash) => hash.apply(array),
                Mask::Partial => partial::apply(array),
                Mask::Email => email::apply(array),
                Mask::Null => Ok(null::apply(array)),
            },
        }
    }
}

/// An array of a type that the plan has ruled out, or that Arrow refuses: our mistake. Arrow's own words are left out, for
/// they may quote a value.
fn unexpected(_: arrow::error::ArrowError) -> Error {
    Error::internal("could not mask an array")
}

struct Rule {
    columns: Vec<(Pattern, bool)>,
    kind: &'static str,
    mask: Mask,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (pattern, _)) in self.columns.iter().enumerate() {
            write!(f, "{}{pattern}", if i == 0 { "" } else { " " })?;
        }
        write!(f, " with {}", self.kind)
    }
}

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

/// The [`Transform`] that applies mask rules.
///
/// Positions, keys, change types and the order of columns stay as they are; a masked key column is still a key column, so only
/// `hash`, which keeps different keys different, may stand on one.
pub struct MaskTransform {
    rules: Vec<Rule>,
    plans: HashMap<RelationName, HashMap<u32, Plan>>,
}

impl MaskTransform {
    /// A transform that applies `rules`. An error of kind `Config` if a key is empty or a rule names no column.
    pub fn new(rules: Vec<MaskRule>) -> Result<Self> {
        let rules = rules
            .into_iter()
            .map(|MaskRule { columns, with }| {
                if columns.is_empty() {
                    return Err(Error::config("a mask rule must name columns").context("mask", with.name()));
                }
                let kind = with.name();
                let mask = match with {
                    MaskKind::Hash { key } => Mask::Hash(hash::KeyedHash::new(&key)?),
                    MaskKind::Partial => Mask::Partial,
                    MaskKind::Email => Mask::Email,
                    MaskKind::Null => Mask::Null,
                };
                Ok(Rule { columns: columns.into_iter().map(|pattern| (pattern, false)).collect(), kind, mask })
            })
            .collect::<Result<Vec<Rule>>>()?;
        Ok(MaskTransform { rules, plans: HashMap::new() })
    }

    /// Patterns that have matched no column of any relation so far: worth a warning once the relations are known, for a
    /// pattern with a slip of the pen hides nothing.
    pub fn unmatched(&self) -> Vec<&Pattern> {
        self.rules.iter().flat_map(|rule| &rule.columns).filter(|(_, matched)| !matched).map(|(pattern, _)| pattern).collect()
    }

    /// The first rule that matches; every pattern that does is marked.
    fn rule_for(&mut self, column: &str) -> Option<&Rule> {
        let mut first = None;
        for (i, rule) in self.rules.iter_mut().enumerate() {
            for (pattern, matched) in &mut rule.columns {
                if pattern.matches(column) {
                    *matched = true;
                    first = first.or(Some(i));
                }
            }
        }
        first.map(|i| &self.rules[i])
    }

    fn plan(&mut self, relation: &Arc<Relation>) -> Result<Plan> {
        let mut columns = relation.columns().to_vec();
        let mut masks = Vec::new();
        for (i, column) in columns.iter_mut().enumerate() {
            let Some(rule) = self.rule_for(&format!("{}.{}", relation.name(), column.name())) else { continue };
            let refuse = |message: &'static str, remedy: &'static str| {
                Error::config(message)
                    .context("mask", rule)
                    .context("table", relation.name())
                    .context("column", column.name())
                    .context("type", column.field.data_type())
                    .remedy(remedy)
            };
            let data_type = rule.mask.output_type(column.field.data_type()).ok_or_else(|| match rule.mask {
                Mask::Partial => refuse("a partial mask is for text and whole numbers", "mask the column with hash or null"),
                Mask::Email => refuse("an email mask is for text", "mask the column with hash or null"),
                Mask::Hash(_) | Mask::Null => refuse("a hash is for single values", "mask the column with null or exclude it"),
            })?;
            if relation.key_declared() && relation.key().contains(&i) && !matches!(rule.mask, Mask::Hash(_)) {
                return Err(refuse("this mask would make different keys equal", "mask a key column with hash"));
            }
            *column = Column {
                field: Arc::new(Field::new(column.name(), data_type, true)),
                source_type: format!("masked({})", rule.kind),
                detail: Default::default(),
            };
            masks.push((i, rule.mask.clone()));
        }
        let output = if masks.is_empty() { Arc::clone(relation) } else { Arc::new(relation.with_columns(columns, declared_key(relation))) };
        Ok(Plan { output, masks })
    }
}

/// The key as [`Relation::with_columns`] takes it.
fn declared_key(relation: &Relation) -> Vec<usize> {
    relation.key().to_vec()
}

impl Transform for MaskTransform {
    fn output(&mut self, relation: &Arc<Relation>) -> Result<Vec<Arc<Relation>>> {
        let plan = self.plan(relation)?;
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
