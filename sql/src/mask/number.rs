//! The mask `number`: how much, but not exactly.
//!
//! Either rounded to the nearest multiple of a step, or with a share of itself added or taken away. How much of it comes of a keyed
//! hash of the value's text, so that a change that is read again becomes the same again, and a value has one noise wherever it stands.
//! Whole numbers and decimals are computed exactly. A result that the type does not hold is not made: the other direction is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type, i256,
};
use logweir_core::{Error, Result};

use super::canonical::for_each_text;
use super::hash::KeyedHash;

/// Digits of a step, before and behind the point.
const STEP_DIGITS_MAX: usize = 30;
/// The finest part of a value that noise adds.
const NOISE_PARTS: i64 = 1_000_000_000;

/// What numbers are rounded to multiples of: more than zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Without trailing zeros behind the point: 25 for 0.25.
    digits: i128,
    /// How many of these stand behind the point.
    scale: u32,
    value: f64,
}

impl FromStr for Step {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let rule = "a step is a number above zero, such as 100 or 0.5";
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let fraction = fraction.trim_end_matches('0');
        let all = format!("{whole}{fraction}");
        if all.is_empty() || all.len() > STEP_DIGITS_MAX || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(rule);
        }
        let (digits, value) = (all.parse().map_err(|_| rule)?, text.parse().map_err(|_| rule)?);
        if digits == 0 { Err(rule) } else { Ok(Step { digits, scale: fraction.len() as u32, value }) }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value)
    }
}

impl Step {
    /// The step in units of a column with `scale` digits behind the point, if it is a whole number of them.
    fn units(self, scale: i8) -> Option<i256> {
        let shift = u32::try_from(i64::from(scale) - i64::from(self.scale)).ok()?;
        i256::from_i128(10).pow_checked(shift).ok()?.mul_checked(i256::from_i128(self.digits)).ok()
    }

    /// True if the step makes numbers of the type coarser.
    pub(super) fn masks(self, data_type: &DataType) -> bool {
        let coarser = |scale| self.units(scale).is_some_and(|units| units > i256::ONE);
        match data_type {
            DataType::Float32 | DataType::Float64 => true,
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale) => coarser(*scale),
            other => other.is_integer() && coarser(0),
        }
    }

    pub(super) fn apply(self, array: &ArrayRef) -> Result<ArrayRef> {
        let change = Round(self);
        numbers(array, &change)
    }
}

/// How a number becomes another, by its place in the array.
trait Change {
    /// The result, and the one to take where the type does not hold that.
    fn float(&self, row: usize, value: f64) -> (f64, f64);
    /// The result, and the one to take where the type does not hold that.
    fn exact(&self, row: usize, value: i256, scale: i8) -> (i256, i256);
}

struct Round(Step);

impl Change for Round {
    fn float(&self, _: usize, value: f64) -> (f64, f64) {
        let rounded = (value / self.0.value).round() * self.0.value;
        // Too large for the step to show: the value is a multiple of it as it is.
        (rounded, value)
    }

    fn exact(&self, _: usize, value: i256, scale: i8) -> (i256, i256) {
        let Some(step) = self.0.units(scale) else { return (i256::ZERO, i256::ZERO) };
        let rest = value.wrapping_rem(step);
        let toward_zero = value.wrapping_sub(rest);
        let distance = if rest.is_negative() { rest.wrapping_neg() } else { rest };
        if step.wrapping_sub(distance) > distance {
            return (toward_zero, toward_zero);
        }
        let away = if rest.is_negative() { toward_zero.checked_sub(step) } else { toward_zero.checked_add(step) };
        (away.unwrap_or(toward_zero), toward_zero)
    }
}

/// Noise of at most a share of the value, under a key.
#[derive(Clone)]
pub(super) struct Noise {
    hash: KeyedHash,
    /// The share in [`NOISE_PARTS`].
    most: i64,
}

impl Noise {
    /// True if it can be a share of noise.
    pub(super) fn is_share(share: f64) -> bool {
        share > 0.0 && share <= 1.0 && (share * NOISE_PARTS as f64).round() >= 1.0
    }

    pub(super) fn new(hash: KeyedHash, share: f64) -> Self {
        Noise { hash, most: (share.clamp(0.0, 1.0) * NOISE_PARTS as f64).round() as i64 }
    }

    pub(super) fn masks(data_type: &DataType) -> bool {
        data_type.is_integer() || data_type.is_decimal() || matches!(data_type, DataType::Float32 | DataType::Float64)
    }

    pub(super) fn apply(&self, array: &ArrayRef) -> Result<ArrayRef> {
        let mut parts = Vec::with_capacity(array.len());
        for_each_text(array, |text| parts.push(text.map_or(0, |text| self.parts(text))))?;
        numbers(array, &Parts(parts))
    }

    /// Between `-most` and `most`.
    fn parts(&self, text: &[u8]) -> i64 {
        let [a, b, c, d, e, f, g, h, ..] = self.hash.bytes(text);
        // Of 2^64 numbers; that some parts have one more of them than others shows nowhere.
        let among = u64::from_be_bytes([a, b, c, d, e, f, g, h]) % (2 * self.most as u64 + 1);
        among as i64 - self.most
    }
}

/// The parts of each row's value that are added to it.
struct Parts(Vec<i64>);

impl Change for Parts {
    fn float(&self, row: usize, value: f64) -> (f64, f64) {
        let share = self.0[row] as f64 / NOISE_PARTS as f64;
        if value.is_infinite() {
            return (value, value);
        }
        (value + value * share, value - value * share)
    }

    fn exact(&self, row: usize, value: i256, _: i8) -> (i256, i256) {
        let (parts, all) = (i256::from(self.0[row]), i256::from(NOISE_PARTS));
        // In two steps, none of which is larger than the value; toward zero, so that it is never more than the share.
        let rest = value.wrapping_rem(all).wrapping_mul(parts);
        let noise = value.wrapping_div(all).wrapping_mul(parts).wrapping_add(rest.wrapping_div(all));
        let (added, taken) = (value.checked_add(noise), value.checked_sub(noise));
        (added.or(taken).unwrap_or(value), taken.or(added).unwrap_or(value))
    }
}

fn numbers(array: &ArrayRef, change: &impl Change) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Int8 => integers::<Int8Type>(array, change),
        DataType::Int16 => integers::<Int16Type>(array, change),
        DataType::Int32 => integers::<Int32Type>(array, change),
        DataType::Int64 => integers::<Int64Type>(array, change),
        DataType::UInt8 => integers::<UInt8Type>(array, change),
        DataType::UInt16 => integers::<UInt16Type>(array, change),
        DataType::UInt32 => integers::<UInt32Type>(array, change),
        DataType::UInt64 => integers::<UInt64Type>(array, change),
        DataType::Decimal32(precision, scale) => decimals::<Decimal32Type>(array, *precision, *scale, change),
        DataType::Decimal64(precision, scale) => decimals::<Decimal64Type>(array, *precision, *scale, change),
        DataType::Decimal128(precision, scale) => decimals::<Decimal128Type>(array, *precision, *scale, change),
        DataType::Decimal256(precision, scale) => decimals::<Decimal256Type>(array, *precision, *scale, change),
        DataType::Float32 => mapped::<Float32Type>(array, |row, value| {
            let (first, second) = change.float(row, f64::from(value));
            let narrow = first as f32;
            if narrow.is_finite() { narrow } else { second as f32 }
        }),
        DataType::Float64 => mapped::<Float64Type>(array, |row, value| {
            let (first, second) = change.float(row, value);
            if first.is_finite() { first } else { second }
        }),
        other => return Err(Error::internal("a value of this type is no number").context("type", other)),
    })
}

/// Values as they are where there is no value: a zero.
fn mapped<T: ArrowPrimitiveType>(array: &ArrayRef, map: impl Fn(usize, T::Native) -> T::Native) -> ArrayRef {
    let array: &PrimitiveArray<T> = array.as_primitive();
    let values = array.iter().enumerate().map(|(row, value)| value.map(|value| map(row, value)));
    let made: PrimitiveArray<T> = values.collect();
    Arc::new(made.with_data_type(array.data_type().clone()))
}

fn integers<T: ArrowPrimitiveType<Native: Into<i128> + TryFrom<i128>>>(array: &ArrayRef, change: &impl Change) -> ArrayRef {
    let native = |number: i256| number.to_i128().and_then(|number| T::Native::try_from(number).ok());
    mapped::<T>(array, |row, value| {
        let (first, second) = change.exact(row, i256::from_i128(value.into()), 0);
        native(first).or_else(|| native(second)).unwrap_or_default()
    })
}

/// The numbers that decimals are kept in.
trait Unscaled: Sized {
    fn wide(self) -> i256;
    fn narrow(wide: i256) -> Option<Self>;
}

macro_rules! unscaled {
    ($($native:ty),*) => {$(
        impl Unscaled for $native {
            fn wide(self) -> i256 {
                i256::from_i128(self.into())
            }

            fn narrow(wide: i256) -> Option<Self> {
                wide.to_i128()?.try_into().ok()
            }
        }
    )*};
}

unscaled!(i32, i64, i128);

impl Unscaled for i256 {
    fn wide(self) -> i256 {
        self
    }

    fn narrow(wide: i256) -> Option<Self> {
        Some(wide)
    }
}

fn decimals<T: DecimalType<Native: Unscaled>>(array: &ArrayRef, precision: u8, scale: i8, change: &impl Change) -> ArrayRef {
    let native = |number: i256| T::Native::narrow(number).filter(|number| T::validate_decimal_precision(*number, precision, scale).is_ok());
    mapped::<T>(array, |row, value| {
        let (first, second) = change.exact(row, value.wide(), scale);
        native(first).or_else(|| native(second)).unwrap_or_default()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Decimal128Array, Decimal256Array, Float32Array, Float64Array, Int8Array, Int64Array, UInt8Array, UInt64Array};
    use proptest::prelude::*;
    use secrecy::SecretString;

    use super::*;

    fn round(step: &str, column: impl Array + 'static) -> ArrayRef {
        let step: Step = step.parse().unwrap();
        assert!(step.masks(column.data_type()));
        step.apply(&(Arc::new(column) as ArrayRef)).unwrap()
    }

    fn noise(share: f64) -> Noise {
        Noise::new(KeyedHash::new(&SecretString::from("0123456789abcdef0123456789abcdef")).unwrap(), share)
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest_multiple() {
        let rounded =
            round("100", Int64Array::from(vec![Some(149), Some(150), Some(-149), Some(-150), None, Some(i64::MAX), Some(i64::MIN)]));
        let expected = [Some(100), Some(200), Some(-100), Some(-200), None, Some(i64::MAX - 7), Some(i64::MIN + 8)];
        assert_eq!(rounded.as_primitive::<Int64Type>(), &Int64Array::from(expected.to_vec()));
        let rounded = round("100", Int8Array::from(vec![49, 50, 127, -128]));
        assert_eq!(rounded.as_primitive::<Int8Type>().values(), &[0, 100, 100, -100]);
        let rounded = round("1000", UInt8Array::from(vec![0, 255]));
        assert_eq!(rounded.as_primitive::<UInt8Type>().values(), &[0, 0]);
        let rounded = round("10", UInt64Array::from(vec![u64::MAX, 15]));
        assert_eq!(rounded.as_primitive::<UInt64Type>().values(), &[u64::MAX - 5, 20]);
        let decimals = Decimal128Array::from(vec![12_49, 12_50, -12_50, 99_99]).with_precision_and_scale(4, 2).unwrap();
        let rounded = round("0.5", decimals.clone());
        assert_eq!(rounded.as_primitive::<Decimal128Type>().values(), &[12_50, 12_50, -12_50, 99_50]);
        assert_eq!(rounded.data_type(), decimals.data_type());
        let wide = Decimal256Array::from(vec![i256::MAX]).with_precision_and_scale(76, 0).unwrap();
        assert_eq!(round("10", wide).len(), 1);
        let rounded = round("0.5", Float64Array::from(vec![1.3, -1.3, f64::INFINITY, f64::MAX]));
        assert_eq!(rounded.as_primitive::<Float64Type>().values(), &[1.5, -1.5, f64::INFINITY, f64::MAX]);
    }

    #[test]
    fn noise_goes_the_other_way_where_a_float_ends() {
        for seed in 0..20 {
            let noise = Noise::new(KeyedHash::new(&SecretString::from(format!("key {seed}"))).unwrap(), 1.0);
            let floats: ArrayRef = Arc::new(Float32Array::from(vec![f32::MAX, -3.4e38, 3.3e38]));
            let noisy = noise.apply(&floats).unwrap();
            for (made, value) in noisy.as_primitive::<Float32Type>().values().iter().zip(floats.as_primitive::<Float32Type>().values()) {
                assert!(made.is_finite() && made != value, "{value}");
            }
        }
    }

    #[test]
    fn a_step_that_hides_nothing_is_refused() {
        for (step, data_type, expected) in [
            ("1", DataType::Int32, false),
            ("1.0", DataType::Int32, false),
            ("1.5", DataType::Int32, false),
            ("2", DataType::Int32, true),
            ("0.01", DataType::Decimal128(10, 2), false),
            ("0.05", DataType::Decimal128(10, 2), true),
            ("0.005", DataType::Decimal128(10, 2), false),
            ("0.1", DataType::Float64, true),
            ("10", DataType::Utf8, false),
        ] {
            assert_eq!(step.parse::<Step>().unwrap().masks(&data_type), expected, "{step} {data_type}");
        }
        for step in ["0", "0.0", "-1", "1e3", "", ".", "NaN", "1234567890123456789012345678901"] {
            assert!(step.parse::<Step>().is_err(), "{step}");
        }
    }

    proptest! {
        #[test]
        fn noise_is_within_its_share_and_always_the_same(values in proptest::collection::vec(any::<i64>(), 1..20), share in 0.01..=1.0_f64) {
            let column: ArrayRef = Arc::new(Int64Array::from(values.clone()));
            let made = noise(share).apply(&column).unwrap();
            prop_assert_eq!(&made, &noise(share).apply(&column).unwrap());
            for (value, noisy) in values.iter().zip(made.as_primitive::<Int64Type>().values()) {
                let most = (value.unsigned_abs() as f64 * share * (1.0 + 1e-6)) as u128 + 1;
                prop_assert!((i128::from(*value) - i128::from(*noisy)).unsigned_abs() <= most, "{} {}", value, noisy);
            }
            // Whatever the type that holds it.
            let wide: ArrayRef = Arc::new(
                Decimal256Array::from_iter_values(values.iter().map(|value| i256::from(*value))).with_precision_and_scale(70, 0).unwrap(),
            );
            let wide = noise(share).apply(&wide).unwrap();
            for (value, noisy) in wide.as_primitive::<Decimal256Type>().values().iter().zip(made.as_primitive::<Int64Type>().values()) {
                let fits = value.to_i128().and_then(|value| i64::try_from(value).ok());
                prop_assert!(fits.is_none_or(|value| value == *noisy));
            }
        }

        #[test]
        fn the_ends_of_types_do_not_break_noise(share in 0.01..=1.0_f64) {
            for column in [
                Arc::new(Int8Array::from(vec![i8::MIN, i8::MAX, 0])) as ArrayRef,
                Arc::new(UInt64Array::from(vec![u64::MIN, u64::MAX])),
                Arc::new(Decimal128Array::from(vec![i128::MAX, i128::MIN, 99]).with_precision_and_scale(38, 2).unwrap()),
                Arc::new(Decimal256Array::from(vec![i256::MAX, i256::MIN]).with_precision_and_scale(76, 0).unwrap()),
                Arc::new(Float64Array::from(vec![f64::MAX, f64::MIN, f64::NAN, f64::NEG_INFINITY, -0.0])),
            ] {
                let made = noise(share).apply(&column).unwrap();
                prop_assert_eq!((made.len(), made.null_count()), (column.len(), 0));
            }
        }
    }
}
