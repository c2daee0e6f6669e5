//! One table from files of several schema versions.
//!
//! A column has the type that holds every value landed under any version: the wider one where one is wider, else text. So a
//! retyped column never fails a query and never silently loses a value. A column that was dropped and added again is
//! another column: what was landed before is not shown under the new one. Where several tables of the source go into one, that is so
//! for each of them, and the columns are those of all.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::functions::core::expr_fn::{get_field, named_struct};
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::{Expr, cast, lit};
use logweir_core::RelationName;

/// The type that both types' values can be cast to without loss, at worst their text.
pub(super) fn common_type(a: &DataType, b: &DataType) -> DataType {
    use DataType::*;
    if a == b {
        return a.clone();
    }
    if let (Some(a), Some(b)) = (Exact::of(a), Exact::of(b)) {
        return a.widest(b).data_type();
    }
    match (a, b) {
        (Null, other) | (other, Null) => other.clone(),
        // Bytes need not be text, but text is bytes.
        (LargeBinary, _) | (_, LargeBinary) => LargeBinary,
        (Binary | FixedSizeBinary(_), _) | (_, Binary | FixedSizeBinary(_)) => Binary,
        (Float32, Float64) | (Float64, Float32) => Float64,
        (float @ (Float32 | Float64), other) | (other, float @ (Float32 | Float64)) => {
            // A double holds every whole number of 32 bits, a float of 16.
            let digits_max = if *float == Float64 { 10 } else { 5 };
            match Exact::of(other) {
                Some(exact) if exact.integer.is_some() && exact.whole_digits <= digits_max => float.clone(),
                Some(exact) if exact.integer.is_some() && exact.whole_digits <= 10 => Float64,
                _ => Utf8,
            }
        }
        (LargeUtf8, Utf8) | (Utf8, LargeUtf8) => LargeUtf8,
        (Date32, Timestamp(unit, None)) | (Timestamp(unit, None), Date32) => Timestamp(*unit, None),
        (Timestamp(a, zone), Timestamp(b, other)) if zone == other => Timestamp(finer(*a, *b), zone.clone()),
        (Duration(a), Duration(b)) => Duration(finer(*a, *b)),
        (Struct(a), Struct(b)) => Struct(common_members(a, b)),
        _ => Utf8,
    }
}

/// The members of both, by name: those of `a` first.
fn common_members(a: &Fields, b: &Fields) -> Fields {
    let named = |fields: &Fields, name: &str| fields.iter().find(|field| field.name() == name).cloned();
    let common = |field: &FieldRef| match named(b, field.name()) {
        Some(other) => Arc::new(Field::new(field.name(), common_type(field.data_type(), other.data_type()), true)),
        None => Arc::new(Field::clone(field).with_nullable(true)),
    };
    let more = b.iter().filter(|field| named(a, field.name()).is_none()).map(|field| Arc::new(Field::clone(field).with_nullable(true)));
    a.iter().map(common).chain(more).collect()
}

/// `expr` of type `from` as a value of its common type `to`.
pub(super) fn cast_to_common(expr: Expr, from: &DataType, to: &DataType) -> Expr {
    use DataType::*;
    match (from, to) {
        (from, to) if from == to => expr,
        // Arrow casts a number to its bytes in memory; here bytes are those of its text.
        (Utf8 | LargeUtf8 | Binary | LargeBinary | FixedSizeBinary(_), Binary | LargeBinary) => cast(expr, to.clone()),
        (_, Binary | LargeBinary) => cast(cast(expr, Utf8), to.clone()),
        (Struct(from), Struct(members)) => struct_of(&expr, from, members),
        _ => cast(expr, to.clone()),
    }
}

/// The members of a struct, by their names, each as its common type; NULL where the struct is. One that it does not have is NULL.
fn struct_of(expr: &Expr, from: &Fields, to: &Fields) -> Expr {
    let member = |field: &FieldRef| {
        let value = match from.iter().find(|own| own.name() == field.name()) {
            Some(own) => cast_to_common(get_field(expr.clone(), own.name()), own.data_type(), field.data_type()),
            None => cast(lit(ScalarValue::Null), field.data_type().clone()),
        };
        [lit(field.name().as_str()), value]
    };
    let made = named_struct(to.iter().flat_map(member).collect());
    // Without a further branch it is NULL.
    Expr::Case(Case::new(None, vec![(Box::new(expr.clone().is_not_null()), Box::new(made))], None))
}

/// True for types whose values compare as they are: of one type, or exact numbers.
pub(super) fn exact_or_same(a: &DataType, b: &DataType) -> bool {
    a == b || (Exact::of(a).is_some() && Exact::of(b).is_some())
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    a.max(b)
}

/// Exact numbers: whole ones and decimals.
#[derive(Clone, Copy)]
struct Exact {
    /// Digits before the point, at most.
    whole_digits: u8,
    /// Digits behind it.
    scale: u8,
    /// Signed or not and bits, if it is an integer type.
    integer: Option<(bool, u8)>,
}

impl Exact {
    fn of(data_type: &DataType) -> Option<Self> {
        use DataType::*;
        let integer = |signed, bits, whole_digits| Some(Exact { whole_digits, scale: 0, integer: Some((signed, bits)) });
        match data_type {
            Int8 => integer(true, 8, 3),
            Int16 => integer(true, 16, 5),
            Int32 => integer(true, 32, 10),
            Int64 => integer(true, 64, 19),
            UInt8 => integer(false, 8, 3),
            UInt16 => integer(false, 16, 5),
            UInt32 => integer(false, 32, 10),
            UInt64 => integer(false, 64, 20),
            Decimal32(precision, scale) | Decimal64(precision, scale) | Decimal128(precision, scale) | Decimal256(precision, scale) => {
                let scale = u8::try_from(*scale).ok()?;
                Some(Exact { whole_digits: precision.saturating_sub(scale), scale, integer: None })
            }
            _ => None,
        }
    }

    fn widest(self, other: Exact) -> Exact {
        let integer = match (self.integer, other.integer) {
            (Some((a_signed, a_bits)), Some((b_signed, b_bits))) if a_signed == b_signed => Some((a_signed, a_bits.max(b_bits))),
            (Some((a_signed, a_bits)), Some((_, b_bits))) => {
                // The unsigned one needs a bit more for the sign.
                let (signed_bits, unsigned_bits) = if a_signed { (a_bits, b_bits) } else { (b_bits, a_bits) };
                let bits = signed_bits.max(unsigned_bits.saturating_mul(2));
                (bits <= 64).then_some((true, bits))
            }
            _ => None,
        };
        Exact { whole_digits: self.whole_digits.max(other.whole_digits), scale: self.scale.max(other.scale), integer }
    }

    fn data_type(self) -> DataType {
        let precision = u16::from(self.whole_digits) + u16::from(self.scale);
        match (self.integer, precision) {
            (Some((true, 8)), _) => DataType::Int8,
            (Some((true, 16)), _) => DataType::Int16,
            (Some((true, 32)), _) => DataType::Int32,
            (Some((true, _)), _) => DataType::Int64,
            (Some((false, 8)), _) => DataType::UInt8,
            (Some((false, 16)), _) => DataType::UInt16,
            (Some((false, 32)), _) => DataType::UInt32,
            (Some((false, _)), _) => DataType::UInt64,
            (None, ..=38) => DataType::Decimal128(precision as u8, self.scale as i8),
            (None, ..=76) => DataType::Decimal256(precision as u8, self.scale as i8),
            (None, _) => DataType::Utf8,
        }
    }
}

/// A column of a table over all its files.
#[derive(Debug, Clone)]
pub(super) struct UnifiedColumn {
    /// Name and common type.
    pub(super) field: FieldRef,
    /// For each schema, in their order: its name for this column, if it has it.
    pub(super) names: Vec<Option<String>>,
}

/// The fields of one schema version.
#[derive(Debug, Clone)]
pub(super) struct Version {
    /// The table in the source, where it has another name.
    pub(super) origin: Option<RelationName>,
    pub(super) fields: Vec<FieldRef>,
}

impl Version {
    fn field(&self, name: &str) -> Option<&FieldRef> {
        self.fields.iter().find(|field| field.name() == name)
    }
}

/// Which columns a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Columns {
    /// Those of the newest schema of each origin: what the table has now.
    Current,
    /// Those of any schema, the newest's first: what was ever landed.
    Ever,
}

/// The columns that `versions`, oldest first, add up to.
pub(super) fn unify(versions: &[Version], columns: Columns) -> Vec<UnifiedColumn> {
    let mut unified: Vec<UnifiedColumn> = Vec::new();
    for (i, version) in versions.iter().enumerate().rev() {
        if columns == Columns::Current && versions[i + 1..].iter().any(|newer| follows(version, newer)) {
            continue;
        }
        for field in &version.fields {
            if !unified.iter().any(|column| column.field.name() == field.name()) {
                unified.push(unified_column(versions, field, columns));
            }
        }
    }
    unified
}

/// True if a version is an earlier one of what `newer` is. Files of before do not say of which table they are: of any.
fn follows(version: &Version, newer: &Version) -> bool {
    version.origin == newer.origin || version.origin.is_none()
}

fn unified_column(versions: &[Version], newest: &FieldRef, columns: Columns) -> UnifiedColumn {
    let mut names = vec![None; versions.len()];
    let mut data_type = newest.data_type().clone();
    for (i, version) in versions.iter().enumerate().rev() {
        let Some(field) = version.field(newest.name()) else { continue };
        // Older ones of this name are another column.
        let later = versions[i + 1..].iter().filter(|newer| follows(version, newer));
        if columns == Columns::Current && !later.clone().all(|newer| newer.field(newest.name()).is_some()) {
            continue;
        }
        names[i] = Some(field.name().clone());
        data_type = common_type(&data_type, field.data_type());
    }
    let metadata = newest.metadata().clone();
    UnifiedColumn { field: Arc::new(Field::new(newest.name(), data_type, true).with_metadata(metadata)), names }
}

impl UnifiedColumn {
    /// The same, called `names` in `schemas`: a column that was renamed.
    pub(super) fn called(&self, versions: &[Version], names: Vec<Option<String>>) -> Self {
        let landed = versions.iter().zip(&names).filter_map(|(version, name)| version.field(name.as_ref()?));
        let data_type = landed.fold(self.field.data_type().clone(), |common, field| common_type(&common, field.data_type()));
        UnifiedColumn { field: Arc::new(Field::clone(&self.field).with_data_type(data_type)), names }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DataType::*;

    #[test]
    fn the_common_type_holds_both() {
        for (a, b, expected) in [
            (Int32, Int64, Int64),
            (UInt32, Int32, Int64),
            (UInt8, Int8, Int16),
            (UInt64, Int64, Decimal128(20, 0)),
            (Int32, Decimal128(10, 2), Decimal128(12, 2)),
            (Decimal128(10, 2), Decimal128(8, 4), Decimal128(12, 4)),
            (Decimal128(38, 2), Decimal256(60, 30), Decimal256(66, 30)),
            (Decimal256(76, 0), Decimal256(76, 30), Utf8),
            (Float32, Float64, Float64),
            (Int32, Float64, Float64),
            (Int32, Float32, Float64),
            (Int16, Float32, Float32),
            (Int64, Float64, Utf8),
            (Int32, Utf8, Utf8),
            (Utf8, Binary, Binary),
            (Int32, Binary, Binary),
            (Float64, Binary, Binary),
            (FixedSizeBinary(16), Binary, Binary),
            (Date32, Timestamp(TimeUnit::Microsecond, None), Timestamp(TimeUnit::Microsecond, None)),
            (Timestamp(TimeUnit::Microsecond, None), Timestamp(TimeUnit::Microsecond, Some("UTC".into())), Utf8),
            (Duration(TimeUnit::Second), Duration(TimeUnit::Microsecond), Duration(TimeUnit::Microsecond)),
        ] {
            assert_eq!(common_type(&a, &b), expected, "{a} {b}");
            assert_eq!(common_type(&b, &a), expected, "{b} {a}");
        }
    }

    fn version(origin: &str, columns: &[(&str, DataType)]) -> Version {
        let origin = (!origin.is_empty()).then(|| RelationName::new("shop", origin));
        let fields = columns.iter().map(|(name, data_type)| Arc::new(Field::new(*name, data_type.clone(), true))).collect();
        Version { origin, fields }
    }

    fn shown(versions: &[Version], columns: Columns) -> Vec<String> {
        let present = |c: &UnifiedColumn| c.names.iter().map(Option::is_some).collect::<Vec<bool>>();
        unify(versions, columns).iter().map(|c| format!("{} {} {:?}", c.field.name(), c.field.data_type(), present(c))).collect()
    }

    #[test]
    fn tables_that_go_into_one_have_their_own_versions() {
        let versions = [
            version("a", &[("id", Int32), ("gone", Int32), ("note", Utf8)]),
            version("b", &[("id", Int32)]),
            version("a", &[("id", Int32), ("note", Utf8), ("more", Int32)]),
            version("b", &[("id", Int64), ("own", Utf8)]),
        ];
        assert_eq!(
            shown(&versions, Columns::Current),
            [
                "id Int64 [true, true, true, true]",
                "own Utf8 [false, false, false, true]",
                "note Utf8 [true, false, true, false]",
                "more Int32 [false, false, true, false]"
            ]
        );
        // What older files hold is of any of them.
        let versions =
            [version("", &[("id", Int32), ("note", Utf8)]), version("a", &[("id", Int32)]), version("b", &[("id", Int32), ("note", Utf8)])];
        assert_eq!(shown(&versions, Columns::Current), ["id Int32 [true, true, true]", "note Utf8 [false, false, true]"]);
    }

    #[test]
    fn a_column_added_again_is_another_one() {
        let versions = [
            version("", &[("id", Int32), ("note", Int32), ("old", Utf8)]),
            version("", &[("id", Int64)]),
            version("", &[("id", Int64), ("note", Date32)]),
        ];
        let show = |columns| shown(&versions, columns);
        assert_eq!(show(Columns::Current), ["id Int64 [true, true, true]", "note Date32 [false, false, true]"]);
        assert_eq!(show(Columns::Ever), ["id Int64 [true, true, true]", "note Utf8 [true, false, true]", "old Utf8 [true, false, false]"]);
    }
}
