//! Functions of PostgreSQL that clients call when they look around.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array as _, new_empty_array};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result as PlanResult, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::SERVER_VERSION;
use super::objects::Objects;
use super::tables::{type_name, type_of_name};

/// The value of a call: its arguments, and what there is.
type Body = fn(&Objects, &[ScalarValue]) -> ScalarValue;

/// All of them.
pub(super) fn all(objects: &Arc<Objects>) -> impl Iterator<Item = ScalarUDF> {
    let texts = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let numbers = DataType::List(Arc::new(Field::new_list_field(DataType::UInt32, true)));
    let with_types: [(&'static str, DataType, Body); 64] = [
        ("version", DataType::Utf8, |_, _| text(format!("PostgreSQL {SERVER_VERSION} (logweir {})", env!("CARGO_PKG_VERSION")))),
        ("current_user", DataType::Utf8, |objects, _| text(&objects.user)),
        ("session_user", DataType::Utf8, |objects, _| text(&objects.user)),
        ("user", DataType::Utf8, |objects, _| text(&objects.user)),
        ("current_role", DataType::Utf8, |objects, _| text(&objects.user)),
        ("current_database", DataType::Utf8, |objects, _| text(&objects.database)),
        ("current_catalog", DataType::Utf8, |objects, _| text(&objects.database)),
        ("current_schema", DataType::Utf8, |objects, _| text(&objects.schema)),
        ("current_schemas", texts.clone(), |objects, arguments| {
            let implicit = matches!(arguments.first(), Some(ScalarValue::Boolean(Some(true))));
            let names = implicit.then_some("pg_catalog").into_iter().chain([objects.schema.as_str()]);
            ScalarValue::List(ScalarValue::new_list_nullable(&names.map(text).collect::<Vec<_>>(), &DataType::Utf8))
        }),
        ("logweir_no_texts", texts, |_, _| ScalarValue::new_null_list(DataType::Utf8, true, 1)),
        ("pg_backend_pid", DataType::Int32, |objects, _| ScalarValue::Int32(Some(objects.process))),
        ("current_setting", DataType::Utf8, |objects, arguments| {
            ScalarValue::Utf8(word(arguments, 0).and_then(|name| objects.settings.get(&name.to_lowercase()).cloned()))
        }),
        // Settings are set by SET; whoever asks is told that it worked where the value would not change an answer, and nothing where it would.
        ("set_config", DataType::Utf8, |_, arguments| {
            let counts = ["search_path", "statement_timeout", "logweir.as_of", "logweir.follow"];
            let name = word(arguments, 0).unwrap_or_default().to_lowercase();
            ScalarValue::Utf8(word(arguments, 1).filter(|_| !counts.contains(&name.as_str())))
        }),
        ("format_type", DataType::Utf8, |_, arguments| ScalarValue::Utf8(number(arguments, 0).map(type_name))),
        ("logweir_tables_named", numbers.clone(), |objects, arguments| {
            tables(objects, |name| arguments.iter().any(|argument| argument.try_as_str().flatten() == Some(name)))
        }),
        ("logweir_tables_like", numbers, |objects, arguments| {
            let pattern: Vec<char> = word(arguments, 0).unwrap_or_default().chars().collect();
            tables(objects, |name| is_like(&name.chars().collect::<Vec<_>>(), &pattern))
        }),
        ("logweir_to_regclass", DataType::UInt32, |objects, arguments| {
            let name = word(arguments, 0).unwrap_or_default();
            ScalarValue::UInt32(name.parse().ok().or_else(|| objects.table(&name).map(|table| table.oid)))
        }),
        ("to_regclass", DataType::UInt32, |objects, arguments| {
            ScalarValue::UInt32(word(arguments, 0).and_then(|name| objects.table(&name).map(|table| table.oid)))
        }),
        ("logweir_to_regtype", DataType::UInt32, |_, arguments| {
            ScalarValue::UInt32(word(arguments, 0).and_then(|name| type_of_name(&name)))
        }),
        ("to_regtype", DataType::UInt32, |_, arguments| ScalarValue::UInt32(word(arguments, 0).and_then(|name| type_of_name(&name)))),
        ("logweir_regclass_name", DataType::Utf8, |objects, arguments| {
            let table = number(arguments, 0).map(|oid| (oid, objects.table_of_oid(oid)));
            ScalarValue::Utf8(table.map(|(oid, table)| match table {
                Some(table) if table.is_visible => table.name.clone(),
                Some(table) => format!("{}.{}", table.schema, table.name),
                None => oid.to_string(),
            }))
        }),
        ("logweir_regnamespace_name", DataType::Utf8, |objects, arguments| {
            let oid = number(arguments, 0);
            let known = oid.and_then(|oid| objects.schemas.iter().find(|(known, _)| *known == oid));
            ScalarValue::Utf8(known.map(|(_, name)| name.clone()))
        }),
        ("pg_table_is_visible", DataType::Boolean, |objects, arguments| {
            yes(number(arguments, 0).is_some_and(|oid| objects.table_of_oid(oid).is_some_and(|table| table.is_visible)))
        }),
        ("pg_type_is_visible", DataType::Boolean, |_, _| yes(true)),
        ("pg_function_is_visible", DataType::Boolean, |_, _| yes(true)),
        ("pg_operator_is_visible", DataType::Boolean, |_, _| yes(true)),
        ("pg_get_userbyid", DataType::Utf8, |_, _| text("logweir")),
        ("pg_encoding_to_char", DataType::Utf8, |_, _| text("UTF8")),
        ("pg_char_to_encoding", DataType::Int32, |_, _| ScalarValue::Int32(Some(6))),
        ("pg_client_encoding", DataType::Utf8, |_, _| text("UTF8")),
        ("has_schema_privilege", DataType::Boolean, |_, arguments| reads(arguments)),
        ("has_table_privilege", DataType::Boolean, |_, arguments| reads(arguments)),
        ("has_column_privilege", DataType::Boolean, |_, arguments| reads(arguments)),
        ("has_any_column_privilege", DataType::Boolean, |_, arguments| reads(arguments)),
        ("has_database_privilege", DataType::Boolean, |_, arguments| reads(arguments)),
        ("has_function_privilege", DataType::Boolean, |_, _| yes(true)),
        ("pg_has_role", DataType::Boolean, |_, _| yes(false)),
        ("pg_is_in_recovery", DataType::Boolean, |_, _| yes(false)),
        ("pg_relation_is_publishable", DataType::Boolean, |_, _| yes(false)),
        ("pg_advisory_unlock_all", DataType::Utf8, |_, _| text("")),
        ("pg_my_temp_schema", DataType::UInt32, |_, _| ScalarValue::UInt32(Some(0))),
        ("array_upper", DataType::Int32, |_, arguments| {
            let length = match arguments.first() {
                Some(ScalarValue::List(list)) if !list.is_null(0) => i32::try_from(list.value(0).len()).ok(),
                _ => None,
            };
            ScalarValue::Int32(length.filter(|length| *length > 0))
        }),
        ("pg_collation_is_visible", DataType::Boolean, |_, _| yes(true)),
        ("pg_get_expr", DataType::Utf8, none),
        ("pg_get_indexdef", DataType::Utf8, none),
        ("pg_get_constraintdef", DataType::Utf8, none),
        ("pg_get_viewdef", DataType::Utf8, none),
        ("pg_get_partkeydef", DataType::Utf8, none),
        ("pg_get_partition_constraintdef", DataType::Utf8, none),
        ("pg_get_statisticsobjdef_columns", DataType::Utf8, none),
        ("pg_get_triggerdef", DataType::Utf8, none),
        ("pg_get_ruledef", DataType::Utf8, none),
        ("pg_get_function_result", DataType::Utf8, none),
        ("pg_get_function_arguments", DataType::Utf8, none),
        ("pg_get_function_identity_arguments", DataType::Utf8, none),
        ("pg_get_serial_sequence", DataType::Utf8, none),
        ("obj_description", DataType::Utf8, none),
        ("col_description", DataType::Utf8, none),
        ("shobj_description", DataType::Utf8, none),
        ("pg_tablespace_location", DataType::Utf8, none),
        ("pg_relation_size", DataType::Int64, |_, _| ScalarValue::Int64(None)),
        ("pg_table_size", DataType::Int64, |_, _| ScalarValue::Int64(None)),
        ("pg_total_relation_size", DataType::Int64, |_, _| ScalarValue::Int64(None)),
        ("pg_size_pretty", DataType::Utf8, none),
    ];
    let objects = Arc::clone(objects);
    with_types.into_iter().map(move |(name, returns, body)| {
        // Not folded into the plan where an argument is a column; the same for all rows of a query else.
        let signature = Signature::user_defined(Volatility::Stable);
        ScalarUDF::new_from_impl(PgFunction { name, returns, signature, body, objects: Arc::clone(&objects) })
    })
}

fn text(value: impl Into<String>) -> ScalarValue {
    ScalarValue::Utf8(Some(value.into()))
}

fn yes(value: bool) -> ScalarValue {
    ScalarValue::Boolean(Some(value))
}

fn none(_: &Objects, _: &[ScalarValue]) -> ScalarValue {
    ScalarValue::Utf8(None)
}

/// The numbers of the tables whose name is wanted.
fn tables(objects: &Objects, is_wanted: impl Fn(&str) -> bool) -> ScalarValue {
    let wanted = objects.tables.iter().filter(|table| is_wanted(&table.name));
    let numbers: Vec<ScalarValue> = wanted.map(|table| ScalarValue::UInt32(Some(table.oid))).collect();
    ScalarValue::List(ScalarValue::new_list_nullable(&numbers, &DataType::UInt32))
}

/// `LIKE`, with the backslash for an escape.
fn is_like(text: &[char], pattern: &[char]) -> bool {
    // After the last `%`: where the pattern goes on, and where the text is tried from. What went before it needs no other try.
    let (mut again, mut at, mut next) = (None, 0, 0);
    loop {
        let step = match (text.get(at), pattern.get(next)) {
            (_, Some('%')) => {
                next += 1;
                again = Some((next, at));
                continue;
            }
            (None, None) => return true,
            (Some(_), Some('_')) => Some(1),
            (Some(letter), Some('\\')) => (pattern.get(next + 1) == Some(letter)).then_some(2),
            (Some(letter), Some(sign)) => (letter == sign).then_some(1),
            (None, Some(_)) | (Some(_), None) => None,
        };
        match (step, again) {
            (Some(step), _) => (at, next) = (at + 1, next + step),
            (None, Some((from, tried))) if tried < text.len() => {
                again = Some((from, tried + 1));
                (at, next) = (tried + 1, from);
            }
            (None, _) => return false,
        }
    }
}

/// What is not to read is not allowed.
fn reads(arguments: &[ScalarValue]) -> ScalarValue {
    let last = arguments.last().and_then(|argument| argument.try_as_str().flatten()).unwrap_or_default().to_uppercase();
    yes(["SELECT", "USAGE", "CONNECT"].iter().any(|word| last.contains(word)))
}

fn word(arguments: &[ScalarValue], index: usize) -> Option<String> {
    arguments.get(index).and_then(|argument| argument.try_as_str().flatten()).map(str::to_owned)
}

fn number(arguments: &[ScalarValue], index: usize) -> Option<u32> {
    let argument = arguments.get(index)?;
    if argument.is_null() { None } else { argument.to_string().parse().ok() }
}

struct PgFunction {
    name: &'static str,
    returns: DataType,
    signature: Signature,
    body: Body,
    objects: Arc<Objects>,
}

impl ScalarUDFImpl for PgFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Ok(self.returns.clone())
    }

    fn coerce_types(&self, types: &[DataType]) -> PlanResult<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let constants: Option<Vec<ScalarValue>> = args
            .args
            .iter()
            .map(|argument| match argument {
                ColumnarValue::Scalar(value) => Some(value.clone()),
                ColumnarValue::Array(_) => None,
            })
            .collect();
        if let Some(constants) = constants {
            return Ok(ColumnarValue::Scalar((self.body)(&self.objects, &constants)));
        }
        if args.number_rows == 0 {
            return Ok(ColumnarValue::Array(new_empty_array(&self.returns)));
        }
        let mut values = Vec::with_capacity(args.number_rows);
        for row in 0..args.number_rows {
            let arguments = args.args.iter().map(|argument| match argument {
                ColumnarValue::Scalar(value) => Ok(value.clone()),
                ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row),
            });
            values.push((self.body)(&self.objects, &arguments.collect::<PlanResult<Vec<_>>>()?));
        }
        ScalarValue::iter_to_array(values).map(ColumnarValue::Array)
    }
}

impl fmt::Debug for PgFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

// The objects of a query are the same for all its calls.
impl PartialEq for PgFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for PgFunction {}

impl Hash for PgFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn patterns_are_those_of_like() {
        let like = |text: &str, pattern: &str| is_like(&text.chars().collect::<Vec<_>>(), &pattern.chars().collect::<Vec<_>>());
        for (text, pattern) in
            [("orders", "orders"), ("orders", "%"), ("", "%"), ("orders", "or%s"), ("aab", "%ab"), ("a_b", "a\\_b"), ("axb", "a_b")]
        {
            assert!(like(text, pattern), "{text} {pattern}");
        }
        for (text, pattern) in [("orders", "order"), ("order", "orders"), ("axb", "a\\_b"), ("", "_"), ("abc", "%b"), ("a", "")] {
            assert!(!like(text, pattern), "{text} {pattern}");
        }
    }
}
