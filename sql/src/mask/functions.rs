//! The masks as functions of SQL: `mask_hash(email)`, `mask_hash(email, 'pii-2026')`.
//!
//! They make what a rule of the same kind makes. What cannot be — a type that a mask cannot hide, a key that is not there — is
//! refused when the SQL is planned, and no argument is repeated in the refusal: it may be a value, or a key in the wrong place.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Diagnostic, Result as PlanResult, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::keys::{MaskKeys, Prepared};
use super::number::Noise;
use super::tokenize::Direction;
use super::{DateUnit, Mask};

/// `mask_hash`, `mask_partial`, `mask_email`, `mask_tokenize`, `mask_date`, `mask_number`, `mask_number_noise` and `mask_null`, with `keys`
/// for those that need one. A call names its key by a literal id; without an id there must be exactly one key.
pub fn mask_functions(keys: &MaskKeys) -> Vec<Arc<ScalarUDF>> {
    Kind::MASKS.map(|kind| function(kind, keys)).into()
}

/// The same for queries, and `unmask`, which turns tokens back. That has no place in a stream.
pub(crate) fn query_functions(keys: &MaskKeys) -> Vec<Arc<ScalarUDF>> {
    Kind::MASKS.into_iter().chain([Kind::Unmask]).map(|kind| function(kind, keys)).collect()
}

fn function(kind: Kind, keys: &MaskKeys) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(MaskFunction { kind, keys: keys.clone(), signature }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Hash,
    Partial,
    Email,
    Tokenize,
    Date,
    Number,
    Noise,
    Null,
    Unmask,
}

impl Kind {
    const MASKS: [Kind; 8] = [Kind::Hash, Kind::Partial, Kind::Email, Kind::Tokenize, Kind::Date, Kind::Number, Kind::Noise, Kind::Null];

    fn name(self) -> &'static str {
        match self {
            Kind::Hash => "mask_hash",
            Kind::Partial => "mask_partial",
            Kind::Email => "mask_email",
            Kind::Tokenize => "mask_tokenize",
            Kind::Date => "mask_date",
            Kind::Number => "mask_number",
            Kind::Noise => "mask_number_noise",
            Kind::Null => "mask_null",
            Kind::Unmask => "unmask",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Kind::Hash => "mask_hash(value) or mask_hash(value, 'key id')",
            Kind::Partial => "mask_partial(value)",
            Kind::Email => "mask_email(value)",
            Kind::Tokenize => "mask_tokenize(value) or mask_tokenize(value, 'key id')",
            Kind::Date => "mask_date(value, 'month'), with year, quarter, month, day or hour",
            Kind::Number => "mask_number(value, 100), with the step above zero to round to",
            Kind::Noise => "mask_number_noise(value, 0.1) or mask_number_noise(value, 0.1, 'key id'), with a share of at most 1",
            Kind::Null => "mask_null(value)",
            Kind::Unmask => "unmask(value) or unmask(value, 'key id')",
        }
    }

    fn has_key(self) -> bool {
        matches!(self, Kind::Hash | Kind::Tokenize | Kind::Noise | Kind::Unmask)
    }

    /// How many arguments stand between the value and the key, all literals.
    fn parameters(self) -> usize {
        usize::from(matches!(self, Kind::Date | Kind::Number | Kind::Noise))
    }
}

struct MaskFunction {
    kind: Kind,
    keys: MaskKeys,
    signature: Signature,
}

impl MaskFunction {
    /// The mask that a call asks for. `literals` are its arguments, `None` for what is no literal.
    fn mask(&self, literals: &[Option<&ScalarValue>]) -> Result<Mask, Refusal> {
        let least = 1 + self.kind.parameters();
        let most = least + usize::from(self.kind.has_key());
        if !(least..=most).contains(&literals.len()) {
            return Err(Refusal::new(format!("{} takes other arguments", self.kind.name()), format!("write {}", self.kind.usage())));
        }
        let wrong = || Refusal::new(format!("{} takes other arguments", self.kind.name()), format!("write {}", self.kind.usage()));
        let parameter = literals.get(1).copied().flatten();
        let key = || self.key(literals.get(least));
        Ok(match self.kind {
            Kind::Hash => Mask::Hash(key()?.hash.clone()),
            Kind::Partial => Mask::Partial,
            Kind::Email => Mask::Email,
            Kind::Tokenize => Mask::Tokens(key()?.tokens.clone(), Direction::Encrypt),
            Kind::Unmask => Mask::Tokens(key()?.tokens.clone(), Direction::Decrypt),
            Kind::Date => {
                let word = parameter.and_then(|literal| literal.try_as_str().flatten()).ok_or_else(wrong)?;
                Mask::Date(DateUnit::ALL.into_iter().find(|unit| unit.name() == word).ok_or_else(wrong)?)
            }
            Kind::Number => Mask::Round(number(parameter).and_then(|text| text.parse().ok()).ok_or_else(wrong)?),
            Kind::Noise => {
                let share = number(parameter).and_then(|text| text.parse().ok()).filter(|share| Noise::is_share(*share));
                Mask::Noise(Noise::new(key()?.noise.clone(), share.ok_or_else(wrong)?))
            }
            Kind::Null => Mask::Null,
        })
    }

    fn key(&self, id: Option<&Option<&ScalarValue>>) -> Result<&Prepared, Refusal> {
        let name = self.kind.name();
        let ids: Vec<&str> = self.keys.ids().collect();
        let there_are = match ids[..] {
            [] => "add one to `keys` in the configuration: keys: { pii: { env: NAME_OF_A_VARIABLE } }".to_owned(),
            _ => format!("keys are: {}", ids.join(", ")),
        };
        match id {
            None if ids.is_empty() => Err(Refusal::new(format!("{name} needs a key, and there is none"), there_are)),
            None => self.keys.only().ok_or_else(|| {
                Refusal::new(format!("{name} needs to know which key"), format!("name one, as in {}; {there_are}", self.kind.usage()))
            }),
            Some(literal) => {
                let id = literal.and_then(|literal| literal.try_as_str().flatten()).ok_or_else(|| {
                    Refusal::new(format!("the key id of {name} is not a text literal"), format!("write {}", self.kind.usage()))
                })?;
                // The id that was asked for is not repeated: it may be a key.
                self.keys.get(id).ok_or_else(|| Refusal::new(format!("there is no key of the id that {name} names"), there_are))
            }
        }
    }

    fn output(&self, input: &DataType, literals: &[Option<&ScalarValue>]) -> Result<DataType, Refusal> {
        let mask = self.mask(literals)?;
        mask.output_type(input).ok_or_else(|| {
            let (message, remedy) = mask.refusal();
            Refusal::new(format!("{message}, and {} got {input}", self.kind.name()), remedy)
        })
    }
}

/// The text of a literal number.
fn number(literal: Option<&ScalarValue>) -> Option<String> {
    literal.filter(|literal| literal.data_type().is_numeric() && !literal.is_null()).map(ToString::to_string)
}

/// Why a call cannot be planned.
struct Refusal {
    message: String,
    remedy: String,
}

impl Refusal {
    fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Refusal { message: message.into(), remedy: remedy.into() }
    }
}

impl From<Refusal> for DataFusionError {
    fn from(Refusal { message, remedy }: Refusal) -> Self {
        let diagnostic = Diagnostic::new_error(&message, None).with_help(&remedy, None);
        DataFusionError::Plan(format!("{message}; {remedy}")).with_diagnostic(diagnostic)
    }
}

impl ScalarUDFImpl for MaskFunction {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Err(DataFusionError::Internal("the type of a mask depends on its literals".to_owned()))
    }

    fn coerce_types(&self, types: &[DataType]) -> PlanResult<Vec<DataType>> {
        // What a mask cannot take is refused below, in words of ours.
        Ok(types.to_vec())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> PlanResult<FieldRef> {
        let value = args.arg_fields.first().map_or(&DataType::Null, |field| field.data_type());
        let output = self.output(value, args.scalar_arguments)?;
        Ok(Arc::new(Field::new(self.name(), output, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let literals: Vec<Option<&ScalarValue>> = args
            .args
            .iter()
            .map(|argument| match argument {
                ColumnarValue::Scalar(literal) => Some(literal),
                ColumnarValue::Array(_) => None,
            })
            .collect();
        let mask = self.mask(&literals)?;
        let ours = |error| DataFusionError::External(Box::new(error));
        match args.args.first() {
            Some(ColumnarValue::Array(array)) => Ok(ColumnarValue::Array(mask.apply(array).map_err(ours)?)),
            Some(ColumnarValue::Scalar(value)) => {
                let masked = mask.apply(&value.to_array()?).map_err(ours)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&masked, 0)?))
            }
            None => Err(DataFusionError::Internal("a mask was called without a value".to_owned())),
        }
    }
}

impl fmt::Debug for MaskFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())
    }
}

impl PartialEq for MaskFunction {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.keys.is_same(&other.keys)
    }
}

impl Eq for MaskFunction {}

impl Hash for MaskFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
    }
}
