//! Types by OID, and the decision how each is carried.

use std::collections::HashMap;
use std::fmt::Write as _;

use logweir_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::Oid;
use super::builtin::{self, oids};
use super::column::ColumnType;
use super::form::{Form, PRECISION_256, Rendering};
use super::format;
use crate::options::Arrays;

/// Domains over arrays of domains …: nobody nests them this deep, and no loop in what a server says goes on for ever.
const DEPTH_MAX: usize = 32;

/// What the catalog says of a type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeInfo {
    /// Its number.
    pub oid: Oid,
    /// The schema it is in.
    pub schema: String,
    /// Its name, without quotes.
    pub name: String,
    /// What it is made of.
    pub kind: TypeKind,
    /// Whether the server has a binary form of it.
    pub sendable: bool,
}

/// What a type is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypeKind {
    /// Nothing; it has functions of its own for its text and binary form.
    Base,
    /// Labels.
    Enum,
    /// Another type, with a modifier and checks.
    Domain {
        /// The type below.
        base: Oid,
        /// The modifier of the type below, -1 if it has none.
        typmod: i32,
    },
    /// Elements of another type.
    Array {
        /// That type.
        element: Oid,
        /// What stands between elements in its text.
        delimiter: u8,
    },
    /// Columns, as a table.
    Composite,
    /// Two bounds.
    Range,
    /// Ranges.
    Multirange,
    /// No type that a column can have.
    Pseudo,
}

/// What is chosen of how values are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeOptions {
    /// How arrays are carried.
    pub arrays: Arrays,
    /// Digits after the point that the server's `lc_monetary` gives money.
    pub money_scale: i8,
}

impl Default for TypeOptions {
    fn default() -> Self {
        TypeOptions { arrays: Arrays::default(), money_scale: 2 }
    }
}

/// Types by OID: the built-in ones are known, others are learnt from the server's catalog.
#[derive(Debug, Clone)]
pub struct TypeCatalog {
    types: HashMap<Oid, TypeInfo>,
}

impl Default for TypeCatalog {
    fn default() -> Self {
        TypeCatalog::new()
    }
}

/// A decision on its way through domains and arrays.
struct Carried {
    form: Form,
    text_only: bool,
    passthrough: bool,
}

impl Carried {
    fn known(form: Form) -> Self {
        Carried { form, text_only: false, passthrough: false }
    }

    fn passed_through() -> Self {
        Carried { form: Form::OPAQUE, text_only: false, passthrough: true }
    }
}

impl TypeCatalog {
    /// The built-in types.
    pub fn new() -> Self {
        let mut catalog = TypeCatalog { types: HashMap::new() };
        for (types, kind) in [
            (&builtin::BASES[..], TypeKind::Base),
            (&builtin::RANGES[..], TypeKind::Range),
            (&builtin::MULTIRANGES[..], TypeKind::Multirange),
        ] {
            for (oid, name, array) in types {
                let info = |oid, name: String, kind| TypeInfo { oid, schema: "pg_catalog".to_owned(), name, kind, sendable: true };
                catalog.learn(info(*oid, (*name).to_owned(), kind.clone()));
                if *array != 0 {
                    let delimiter = if *oid == oids::BOX { b';' } else { b',' };
                    catalog.learn(info(*array, format!("_{name}"), TypeKind::Array { element: *oid, delimiter }));
                }
            }
        }
        catalog
    }

    /// Adds a type, or replaces what was known of it.
    pub fn learn(&mut self, info: TypeInfo) {
        self.types.insert(info.oid, info);
    }

    /// The type that must be learnt next before it is known how `oid` is carried: itself, or one that it is made of.
    pub fn unknown(&self, oid: Oid) -> Option<Oid> {
        let mut oid = oid;
        for _ in 0..DEPTH_MAX {
            let Some(info) = self.types.get(&oid) else { return Some(oid) };
            match info.kind {
                TypeKind::Domain { base: below, .. } | TypeKind::Array { element: below, .. } => oid = below,
                _ => return None,
            }
        }
        None
    }

    /// How a column of this type is carried. A type that not even the server's catalog knows (it was dropped meanwhile)
    /// passes as text.
    pub fn column_type(&self, oid: Oid, typmod: i32, options: TypeOptions) -> ColumnType {
        let Carried { form, text_only, passthrough } = self.carried(oid, typmod, options, 0);
        ColumnType::new(format::type_name(self, oid, typmod), form, text_only, passthrough, self.other_names(oid))
    }

    /// What else a type may be called by who does not think of its schema, or of its being a domain.
    fn other_names(&self, mut oid: Oid) -> Vec<String> {
        let (mut names, mut suffix) = (Vec::new(), String::new());
        for _ in 0..DEPTH_MAX {
            let Some(info) = self.types.get(&oid) else { break };
            match info.kind {
                TypeKind::Array { element, .. } => {
                    oid = element;
                    suffix.push_str("[]");
                    continue;
                }
                _ if info.schema != "pg_catalog" => names.push(format!("{}{suffix}", info.name)),
                _ => {}
            }
            let TypeKind::Domain { base, typmod } = info.kind else { break };
            names.push(format!("{}{suffix}", format::type_name(self, base, typmod)));
            oid = base;
        }
        names
    }

    /// Names of a type by the one that the log has for it, where the catalog has another one by now. Of a domain the log names the type at its
    /// bottom, of an array the type that the server made for it; of what is built in no schema.
    pub(crate) fn names_of_its_time(&self, oid: Oid, schema: &str, name: &str) -> Vec<String> {
        let mut bottom = oid;
        for _ in 0..DEPTH_MAX {
            match self.types.get(&bottom).map(|info| &info.kind) {
                Some(TypeKind::Domain { base, .. }) => bottom = *base,
                _ => break,
            }
        }
        let Some(info) = self.types.get(&bottom) else { return Vec::new() };
        if schema.is_empty() || schema == "pg_catalog" || (info.schema == schema && info.name == name) {
            return Vec::new();
        }
        let (name, suffix) = match info.kind {
            TypeKind::Array { .. } => (name.trim_start_matches('_'), "[]"),
            _ => (name, ""),
        };
        vec![format!("{}{suffix}", format::qualified(schema, name)), format!("{name}{suffix}")]
    }

    pub(crate) fn get(&self, oid: Oid) -> Option<&TypeInfo> {
        self.types.get(&oid)
    }

    fn carried(&self, oid: Oid, typmod: i32, options: TypeOptions, depth: usize) -> Carried {
        let Some(info) = self.types.get(&oid).filter(|_| depth < DEPTH_MAX) else { return Carried::passed_through() };
        let mut carried = match &info.kind {
            // A column of a domain has no modifier of its own.
            TypeKind::Domain { base, typmod } => self.carried(*base, *typmod, options, depth + 1),
            TypeKind::Array { .. } if options.arrays == Arrays::Text => Carried::known(Form::OPAQUE),
            TypeKind::Array { element, delimiter } => {
                let element = self.carried(*element, typmod, options, depth + 1);
                Carried { form: Form::List { element: Box::new(element.form), delimiter: *delimiter }, ..element }
            }
            TypeKind::Enum => Carried::known(Form::Text(Rendering::Plain)),
            TypeKind::Range | TypeKind::Multirange => Carried::known(Form::OPAQUE),
            TypeKind::Composite | TypeKind::Pseudo => Carried::passed_through(),
            TypeKind::Base if info.schema == "pg_catalog" => Carried::known(builtin_form(oid, typmod, options)),
            TypeKind::Base => extension_form(&info.name).map_or_else(Carried::passed_through, Carried::known),
        };
        carried.text_only |= !info.sendable;
        carried
    }

    /// The statement that asks the catalog for types, one row each, to be read by [`TypeCatalog::parse_row`]. Types that
    /// are not there have no row.
    pub fn query(oids: &[Oid]) -> String {
        let mut list = String::new();
        for (i, oid) in oids.iter().enumerate() {
            // Writing to a string does not fail.
            let _ = write!(list, "{}{oid}", if i == 0 { "" } else { "," });
        }
        if list.is_empty() {
            list.push('0');
        }
        // A type with elements is an array only if it is the array type of its element: int2vector and point have elements too.
        format!(
            "SELECT t.oid, n.nspname, t.typname, t.typtype, t.typsend::pg_catalog.oid <> 0, t.typbasetype, t.typtypmod, e.oid, e.typdelim \
             FROM pg_catalog.pg_type t \
             JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
             LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid \
             WHERE t.oid IN ({list})"
        )
    }

    /// A row of the answer to [`TypeCatalog::query`].
    pub fn parse_row(row: &[Option<&str>]) -> Result<TypeInfo> {
        parse_row(row).ok_or_else(|| Error::corrupt("the server describes a type in a way not known here"))
    }
}

fn parse_row(row: &[Option<&str>]) -> Option<TypeInfo> {
    let &[Some(oid), Some(schema), Some(name), Some(kind), Some(sendable), base, typmod, element, delimiter] = row else { return None };
    let kind = match (kind, element) {
        (_, Some(element)) => {
            let &[delimiter] = delimiter?.as_bytes() else { return None };
            TypeKind::Array { element: element.parse().ok()?, delimiter }
        }
        ("b", None) => TypeKind::Base,
        ("e", None) => TypeKind::Enum,
        ("d", None) => TypeKind::Domain { base: base?.parse().ok()?, typmod: typmod?.parse().ok()? },
        ("c", None) => TypeKind::Composite,
        ("r", None) => TypeKind::Range,
        ("m", None) => TypeKind::Multirange,
        ("p", None) => TypeKind::Pseudo,
        _ => return None,
    };
    Some(TypeInfo { oid: oid.parse().ok()?, schema: schema.to_owned(), name: name.to_owned(), kind, sendable: sendable == "t" })
}

/// How a built-in base type is carried.
fn builtin_form(oid: Oid, typmod: i32, options: TypeOptions) -> Form {
    use oids::*;
    match oid {
        BOOL => Form::Bool,
        INT2 => Form::Int16,
        INT4 => Form::Int32,
        INT8 => Form::Int64,
        OID | XID | CID => Form::UInt32,
        XID8 => Form::UInt64,
        FLOAT4 => Form::Float32,
        FLOAT8 => Form::Float64,
        NUMERIC => numeric_form(typmod),
        MONEY => Form::Money { scale: options.money_scale },
        DATE => Form::Date,
        TIME => Form::Time,
        TIMESTAMP => Form::Timestamp,
        TIMESTAMPTZ => Form::TimestampTz,
        BYTEA => Form::Bytes,
        // The binary form of XML may name an encoding where the text form does not.
        NAME | TEXT | VARCHAR | BPCHAR | REFCURSOR => Form::Text(Rendering::Plain),
        CHAR => Form::Text(Rendering::Char),
        JSON => Form::Text(Rendering::Json),
        JSONB => Form::Text(Rendering::Jsonb),
        JSONPATH => Form::Text(Rendering::Versioned),
        TIMETZ => Form::Text(Rendering::TimeTz),
        INTERVAL => Form::Text(Rendering::Interval),
        UUID => Form::Text(Rendering::Uuid),
        INET | CIDR => Form::Text(Rendering::Network),
        MACADDR | MACADDR8 => Form::Text(Rendering::MacAddress),
        BIT | VARBIT => Form::Text(Rendering::Bits),
        PG_LSN => Form::Text(Rendering::Lsn),
        TID => Form::Text(Rendering::Tid),
        TXID_SNAPSHOT | PG_SNAPSHOT => Form::Text(Rendering::Snapshot),
        _ => Form::OPAQUE,
    }
}

/// Precision and scale of a numeric's modifier. Scales are signed since 15; before, they were never large enough to tell.
pub(crate) fn numeric_typmod(typmod: i32) -> Option<(i32, i32)> {
    let packed = typmod.checked_sub(4).filter(|packed| *packed >= 0)?;
    Some((packed >> 16 & 0xffff, (packed & 0x7ff ^ 1024) - 1024))
}

fn numeric_form(typmod: i32) -> Form {
    let text = Form::Text(Rendering::Numeric);
    let Some((precision, scale)) = numeric_typmod(typmod) else { return text };
    // Digits before the point that a negative scale keeps zero are digits; so are those after it that a large one does.
    let precision = if scale < 0 { precision - scale } else { precision.max(scale) };
    match (u8::try_from(precision), u8::try_from(scale.max(0))) {
        (Ok(precision @ 1..=PRECISION_256), Ok(scale)) => Form::Decimal { precision, scale },
        _ => text,
    }
}

/// How the types of widespread extensions are carried; they are known by name, in whatever schema they are.
fn extension_form(name: &str) -> Option<Form> {
    Some(match name {
        "citext" => Form::Text(Rendering::Plain),
        "ltree" | "lquery" | "ltxtquery" => Form::Text(Rendering::Versioned),
        "hstore" | "sparsevec" => Form::OPAQUE,
        "vector" => Form::Floats { half: false },
        "halfvec" => Form::Floats { half: true },
        "geometry" | "geography" => Form::Ewkb,
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow_schema::DataType;

    use super::*;

    fn numeric_typmod(precision: i32, scale: i32) -> i32 {
        (precision << 16 | scale & 0x7ff) + 4
    }

    fn learnt(oid: Oid, name: &str, kind: TypeKind) -> TypeInfo {
        TypeInfo { oid, schema: "public".into(), name: name.into(), kind, sendable: true }
    }

    fn shown(catalog: &TypeCatalog, oid: Oid, typmod: i32) -> String {
        let column = catalog.column_type(oid, typmod, TypeOptions::default());
        let binary = if column.is_binary() { ", binary" } else { "" };
        let passed = if column.metadata().contains_key("logweir.passthrough") { ", passed through" } else { "" };
        format!("{} {}{binary}{passed}", column.source_type(), column.data_type())
    }

    #[test]
    fn domains_and_arrays_are_followed_to_what_they_are_made_of() {
        let mut catalog = TypeCatalog::new();
        let money = TypeKind::Domain { base: oids::NUMERIC, typmod: numeric_typmod(12, 2) };
        assert_eq!(catalog.unknown(20_001), Some(20_001));
        catalog.learn(learnt(20_001, "wages", TypeKind::Array { element: 20_002, delimiter: b',' }));
        assert_eq!(catalog.unknown(20_001), Some(20_002));
        catalog.learn(learnt(20_002, "wage", TypeKind::Domain { base: 20_003, typmod: -1 }));
        assert_eq!(catalog.unknown(20_001), Some(20_003));
        catalog.learn(learnt(20_003, "amount", money));
        assert_eq!(catalog.unknown(20_001), None);
        assert_eq!(shown(&catalog, 20_001, -1), "public.wage[] List(Decimal128(12, 2)), binary");
        let names = |oid| catalog.column_type(oid, -1, TypeOptions::default()).may_be().join(" ");
        assert_eq!(names(20_001), "wage[] public.amount[] amount[] numeric(12,2)[]");
        assert_eq!((names(20_003), names(oids::NUMERIC)), ("amount numeric(12,2)".to_owned(), String::new()));
        assert_eq!(shown(&catalog, 20_002, -1), "public.wage Decimal128(12, 2), binary");
        assert_eq!(catalog.unknown(oids::INT4), None);
        assert_eq!(catalog.unknown(1007), None);
    }

    #[test]
    fn the_log_may_have_another_name() {
        let mut catalog = TypeCatalog::new();
        catalog.learn(learnt(20_001, "mood", TypeKind::Enum));
        catalog.learn(learnt(20_002, "_mood", TypeKind::Array { element: 20_001, delimiter: b',' }));
        catalog.learn(learnt(20_003, "state", TypeKind::Domain { base: 20_001, typmod: -1 }));
        let names = |oid, schema, name| catalog.names_of_its_time(oid, schema, name).join(" ");
        for (oid, schema, name, expected) in [
            (20_001, "public", "mood", ""),
            (20_001, "public", "feeling", "public.feeling feeling"),
            (20_001, "Old", "mood", "\"Old\".mood mood"),
            (20_002, "public", "_mood", ""),
            (20_002, "public", "__feeling", "public.feeling[] feeling[]"),
            (20_003, "public", "mood", ""),
            (20_003, "public", "feeling", "public.feeling feeling"),
            (20_003, "pg_catalog", "text", ""),
            (20_003, "", "int4", ""),
            (20_004, "public", "gone", ""),
        ] {
            assert_eq!(names(oid, schema, name), expected, "{oid} {schema}.{name}");
        }
    }

    #[test]
    fn what_is_not_known_passes_as_text() {
        let mut catalog = TypeCatalog::new();
        assert_eq!(shown(&catalog, 20_001, -1), "??? Utf8, passed through");
        catalog.learn(learnt(20_001, "_gone", TypeKind::Array { element: 20_002, delimiter: b',' }));
        assert_eq!(shown(&catalog, 20_001, -1), "???[] List(Utf8), passed through");
        catalog.learn(learnt(20_003, "pair", TypeKind::Composite));
        assert_eq!(shown(&catalog, 20_003, -1), "public.pair Utf8, passed through");
        catalog.learn(learnt(20_004, "cube", TypeKind::Base));
        assert_eq!(shown(&catalog, 20_004, -1), "public.cube Utf8, passed through");
        catalog.learn(learnt(20_005, "hstore", TypeKind::Base));
        assert_eq!(shown(&catalog, 20_005, -1), "public.hstore Utf8");
        catalog.learn(TypeInfo { sendable: false, ..learnt(20_006, "ltree", TypeKind::Base) });
        catalog.learn(learnt(20_007, "_ltree", TypeKind::Array { element: 20_006, delimiter: b',' }));
        assert_eq!(shown(&catalog, 20_007, -1), "public.ltree[] List(Utf8)");
    }

    #[test]
    fn a_type_that_is_made_of_itself_ends() {
        let mut catalog = TypeCatalog::new();
        catalog.learn(learnt(20_001, "a", TypeKind::Domain { base: 20_002, typmod: -1 }));
        catalog.learn(learnt(20_002, "b", TypeKind::Domain { base: 20_001, typmod: -1 }));
        assert_eq!(catalog.unknown(20_001), None);
        assert_eq!(shown(&catalog, 20_001, -1), "public.a Utf8, passed through");
    }

    #[test]
    fn precision_and_scale() {
        let catalog = TypeCatalog::new();
        for (precision, scale, data_type) in [
            (10, 2, DataType::Decimal128(10, 2)),
            (38, 38, DataType::Decimal128(38, 38)),
            (39, 0, DataType::Decimal256(39, 0)),
            (76, 76, DataType::Decimal256(76, 76)),
            (77, 0, DataType::Utf8),
            (1000, 1000, DataType::Utf8),
            (3, 5, DataType::Decimal128(5, 5)),
            (3, 76, DataType::Decimal256(76, 76)),
            (3, 77, DataType::Utf8),
            (3, -2, DataType::Decimal128(5, 0)),
            (38, -38, DataType::Decimal256(76, 0)),
            (1, -1000, DataType::Utf8),
            (1000, -1000, DataType::Utf8),
        ] {
            let column = catalog.column_type(oids::NUMERIC, numeric_typmod(precision, scale), TypeOptions::default());
            assert_eq!(column.data_type(), data_type, "({precision},{scale})");
            assert_eq!(column.source_type(), format!("numeric({precision},{scale})"));
        }
        for typmod in [-1, 0, 3, i32::MIN] {
            assert_eq!(shown(&catalog, oids::NUMERIC, typmod), "numeric Utf8, binary");
        }
        // Nothing that a server would say, and no panic.
        shown(&catalog, oids::NUMERIC, 4);
        shown(&catalog, oids::NUMERIC, i32::MAX);
    }

    #[test]
    fn arrays_and_money_as_chosen() {
        let catalog = TypeCatalog::new();
        let options = TypeOptions { arrays: Arrays::Text, money_scale: 0 };
        let array = catalog.column_type(1007, -1, options);
        assert_eq!((array.data_type(), array.is_binary(), array.metadata().len()), (DataType::Utf8, false, 0));
        assert_eq!(catalog.column_type(oids::MONEY, -1, options).data_type(), DataType::Decimal128(19, 0));
    }

    #[test]
    fn rows_of_the_catalog() {
        let row = |text: &str| {
            let row: Vec<_> = text.split(' ').map(|value| (value != "-").then_some(value)).collect();
            TypeCatalog::parse_row(&row).map(|info| (info.kind, info.sendable)).ok()
        };
        for (text, expected) in [
            ("20001 public mood e t 0 -1 - -", Some((TypeKind::Enum, true))),
            ("20001 public _mood b t 0 -1 20000 ,", Some((TypeKind::Array { element: 20_000, delimiter: b',' }, true))),
            ("20001 public price d t 1700 655366 - -", Some((TypeKind::Domain { base: 1700, typmod: 655_366 }, true))),
            ("20001 public pair c t 0 -1 - -", Some((TypeKind::Composite, true))),
            ("20001 public lquery b f 0 -1 - -", Some((TypeKind::Base, false))),
            ("4294967295 public r r t 0 -1 - -", Some((TypeKind::Range, true))),
            ("20001 public m m t 0 -1 - -", Some((TypeKind::Multirange, true))),
            ("20001 public p p t 0 -1 - -", Some((TypeKind::Pseudo, true))),
            ("20001 public x x t 0 -1 - -", None),
            ("20001 public x b t 0 -1 20000 -", None),
            ("20001 public x b t 0 -1 20000 ,,", None),
            ("20001 public x d t - - - -", None),
            ("x public x b t 0 -1 - -", None),
            ("- - - - - - - - -", None),
            ("20001 public x b t 0 -1 -", None),
        ] {
            assert_eq!(row(text), expected, "{text}");
        }
        assert!(TypeCatalog::query(&[20_001, 20_002]).ends_with("IN (20001,20002)"));
        assert!(TypeCatalog::query(&[]).ends_with("IN (0)"));
    }
}
