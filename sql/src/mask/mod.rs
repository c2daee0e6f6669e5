//! Masks: columns that leave the database unreadable, or not at all.
//!
//! A kind of mask maps whole arrays, in a file of its own; [`transform`] says which columns have which, and [`functions`] are the
//! same masks in SQL.

mod canonical;
mod date;
mod email;
mod functions;
mod hash;
mod keys;
mod null;
mod number;
mod partial;
mod rules;
mod tokenize;
mod transform;

use arrow::array::{Array, ArrayRef, AsArray, new_null_array};
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use logweir_core::{Error, Result};

pub use date::DateUnit;
pub use functions::mask_functions;
pub(crate) use functions::query_functions;
pub use keys::{MaskKey, MaskKeys};
pub use number::Step;
pub use rules::{ColumnNames, MASK, MaskRule};
pub use transform::{MaskProblem, MaskTransform};

use keys::Prepared;
use tokenize::Direction;

/// What becomes of the values of a masked column.
#[derive(Debug, Clone)]
pub enum MaskKind {
    /// HMAC-SHA-256 of the value's text under a key, as 64 lower-case hexadecimal digits. The same value has the same hash in every
    /// column and table under the key, so hashes can be joined and grouped. For every type but lists and structs.
    Hash {
        /// The key. Who has it can try values.
        key: MaskKey,
    },
    /// `****` and the last four characters of a value that has eight or more, else `****`. For text and whole numbers.
    Partial,
    /// The first character and the domain of an e-mail address, `a***@example.com`; `***` for anything else. For text.
    Email,
    /// Another value of the same form, which the holder of the key can turn back. The same value has the same token under the key. For
    /// text, and whole numbers of 32 bits or more.
    Tokenize {
        /// The key. Who has it can turn tokens back.
        key: MaskKey,
    },
    /// The beginning of the year, quarter, month, day or hour. For dates and moments.
    Date {
        /// What is left.
        to: DateUnit,
    },
    /// The nearest multiple of a step. For numbers.
    Round {
        /// The step.
        step: Step,
    },
    /// At most a share of a number more or less; how much depends on the number and a key alone. For numbers.
    Noise {
        /// The share, more than 0 and at most 1.
        share: f64,
        /// The key. Who has it can try values.
        key: MaskKey,
    },
    /// NULL. For every type.
    Null,
    /// The value as it is: somebody decided that it may be seen.
    Keep,
}

impl MaskKind {
    /// The name in configuration and messages.
    pub fn name(&self) -> &'static str {
        match self {
            MaskKind::Hash { .. } => "hash",
            MaskKind::Partial => "partial",
            MaskKind::Email => "email",
            MaskKind::Tokenize { .. } => "tokenize",
            MaskKind::Date { .. } => "date",
            MaskKind::Round { .. } | MaskKind::Noise { .. } => "number",
            MaskKind::Null => "null",
            MaskKind::Keep => "keep",
        }
    }

    /// The name of the key, if it has one.
    fn key_id(&self) -> Option<&str> {
        match self {
            MaskKind::Hash { key } | MaskKind::Tokenize { key } | MaskKind::Noise { key, .. } => key.id.as_deref(),
            _ => None,
        }
    }
}

/// A mask, ready to be applied. The `_metadata_*` columns never have one.
#[derive(Clone)]
enum Mask {
    Hash(hash::KeyedHash),
    Partial,
    Email,
    Tokens(tokenize::Tokens, Direction),
    Date(DateUnit),
    Round(Step),
    Noise(number::Noise),
    Null,
}

impl Mask {
    /// The mask of a kind; `None` for the kind that is none.
    fn new(kind: &MaskKind) -> Result<Option<Self>> {
        let prepared = |key: &MaskKey| Prepared::new(&key.secret);
        Ok(Some(match kind {
            MaskKind::Hash { key } => Mask::Hash(prepared(key)?.hash),
            MaskKind::Partial => Mask::Partial,
            MaskKind::Email => Mask::Email,
            MaskKind::Tokenize { key } => Mask::Tokens(prepared(key)?.tokens, Direction::Encrypt),
            MaskKind::Date { to } => Mask::Date(*to),
            MaskKind::Round { step } => Mask::Round(*step),
            MaskKind::Noise { share, key } if number::Noise::is_share(*share) => {
                Mask::Noise(number::Noise::new(prepared(key)?.noise, *share))
            }
            MaskKind::Noise { .. } => {
                return Err(Error::config("the noise of a mask is a share, more than 0 and at most 1").remedy("write 0.1 for a tenth"));
            }
            MaskKind::Null => Mask::Null,
            MaskKind::Keep => return Ok(None),
        }))
    }

    /// The type of the masked column, or `None` if the mask cannot hide values of this type.
    fn output_type(&self, input: &DataType) -> Option<DataType> {
        let value_type = match input {
            DataType::Dictionary(_, value_type) => value_type,
            other => other,
        };
        let same = || if canonical::is_text(value_type) { DataType::Utf8 } else { value_type.clone() };
        let (possible, output) = match self {
            Mask::Hash(_) => (canonical::has_text(value_type), DataType::Utf8),
            Mask::Partial => (partial::masks(value_type), DataType::Utf8),
            Mask::Email => (email::masks(value_type), DataType::Utf8),
            Mask::Tokens(..) => (tokenize::masks(value_type), same()),
            Mask::Date(to) => (date::masks(value_type, *to), same()),
            Mask::Round(step) => (step.masks(value_type), same()),
            Mask::Noise(_) => (number::Noise::masks(value_type), same()),
            Mask::Null => return Some(input.clone()),
        };
        (possible || value_type.is_null()).then_some(output)
    }

    /// Why the mask cannot hide values of a type, and what can be done.
    fn refusal(&self) -> (&'static str, &'static str) {
        match self {
            Mask::Partial => ("a partial mask is for text and whole numbers", "mask the column with hash or null"),
            Mask::Email => ("an email mask is for text", "mask the column with hash or null"),
            Mask::Tokens(..) => (
                "tokens are for text, and for whole numbers of types with a million values and more: fewer are soon tried",
                "mask the column with hash or null",
            ),
            Mask::Date(_) => (
                "a date mask is for timestamps and, from month on, for dates",
                "mask a date to year, quarter or month, and other columns with hash or null",
            ),
            Mask::Round(_) => (
                "rounding is for numbers, and its step for some that are finer",
                "round to more than the last digit of the column, or mask it with hash or null",
            ),
            Mask::Noise(_) => ("noise is for numbers", "mask the column with hash or null"),
            Mask::Hash(_) | Mask::Null => ("a hash is for single values", "mask the column with null or exclude it"),
        }
    }

    /// True if different values stay different, so that a key remains one.
    fn keeps_apart(&self) -> bool {
        matches!(self, Mask::Hash(_) | Mask::Tokens(..))
    }

    fn apply(&self, array: &ArrayRef) -> Result<ArrayRef> {
        if array.data_type().is_null() {
            return Ok(new_null_array(&self.output_type(&DataType::Null).unwrap_or(DataType::Null), array.len()));
        }
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
                Mask::Tokens(tokens, direction) => tokens.apply(array, *direction),
                Mask::Date(to) => date::apply(array, *to),
                Mask::Round(step) => step.apply(array),
                Mask::Noise(noise) => noise.apply(array),
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
