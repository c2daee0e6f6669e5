//! The names of types as the server writes them: `format_type()` with nothing but `pg_catalog` in the search path.

use std::fmt::Write as _;

use super::Oid;
use super::builtin::oids;
use super::catalog::{TypeCatalog, TypeInfo, TypeKind, numeric_typmod};

/// What the server writes for a type that is not there.
const GONE: &str = "???";

/// Keywords that no type can be called by without quotes (`pg_get_keywords()`, all but the unreserved ones).
const KEYWORDS: &str = "all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case cast \
    char character check coalesce collate collation column concurrently constraint create cross current_catalog current_date \
    current_role current_schema current_time current_timestamp current_user dec decimal default deferrable desc distinct do else end \
    except exists extract false fetch float for foreign freeze from full grant greatest group grouping having ilike in initially inner \
    inout int integer intersect interval into is isnull join json_array json_arrayagg json_exists json_object json_objectagg \
    json_query json_scalar json_serialize json_table json_value lateral leading least left like limit localtime localtimestamp \
    merge_action national natural nchar none normalize not notnull null nullif numeric offset on only or order out outer overlaps \
    overlay placing position precision primary real references returning right row select session_user setof similar smallint some \
    substring symmetric system_user table tablesample then time timestamp to trailing treat trim true union unique user using values \
    varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi \
    xmlroot xmlserialize xmltable";

/// `numeric(10,2)`, `timestamp(3) with time zone`, `character varying(20)[]`, `public.mood`.
pub(crate) fn type_name(catalog: &TypeCatalog, oid: Oid, typmod: i32) -> String {
    let mut name = String::new();
    match catalog.get(oid) {
        None => name.push_str(GONE),
        // The element of an array is never an array.
        Some(TypeInfo { kind: TypeKind::Array { element, .. }, .. }) => {
            match catalog.get(*element) {
                None => name.push_str(GONE),
                Some(info) => push_name(&mut name, info, typmod),
            }
            name.push_str("[]");
        }
        Some(info) => push_name(&mut name, info, typmod),
    }
    name
}

/// A type's name with its schema before it.
pub(crate) fn qualified(schema: &str, name: &str) -> String {
    let mut qualified = String::new();
    push_identifier(&mut qualified, schema);
    qualified.push('.');
    push_identifier(&mut qualified, name);
    qualified
}

fn push_name(name: &mut String, info: &TypeInfo, typmod: i32) {
    use oids::*;
    let builtin = info.schema == "pg_catalog";
    let (words, length) = match info.oid {
        BOOL => ("boolean", None),
        INT2 => ("smallint", None),
        INT4 => ("integer", None),
        INT8 => ("bigint", None),
        FLOAT4 => ("real", None),
        FLOAT8 => ("double precision", None),
        NUMERIC => {
            name.push_str("numeric");
            if let Some((precision, scale)) = numeric_typmod(typmod) {
                push(name, format_args!("({precision},{scale})"));
            }
            return;
        }
        // Without a length these are types that SQL has no words for.
        BPCHAR if typmod >= 0 => ("character", typmod.checked_sub(4)),
        BIT if typmod >= 0 => ("bit", Some(typmod)),
        VARCHAR => ("character varying", typmod.checked_sub(4)),
        VARBIT => ("bit varying", Some(typmod)),
        TIME => return push_time(name, "time", typmod, "without"),
        TIMETZ => return push_time(name, "time", typmod, "with"),
        TIMESTAMP => return push_time(name, "timestamp", typmod, "without"),
        TIMESTAMPTZ => return push_time(name, "timestamp", typmod, "with"),
        INTERVAL => return push_interval(name, typmod),
        _ => {
            if !builtin {
                push_identifier(name, &info.schema);
                name.push('.');
            }
            push_identifier(name, &info.name);
            if !builtin && info.kind == TypeKind::Base {
                push_extension_modifier(name, &info.name, typmod);
            }
            return;
        }
    };
    name.push_str(words);
    if let Some(length) = length.filter(|length| *length >= 0) {
        push(name, format_args!("({length})"));
    }
}

fn push(name: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = name.write_fmt(text);
}

fn push_time(name: &mut String, word: &str, typmod: i32, with: &str) {
    name.push_str(word);
    if typmod >= 0 {
        push(name, format_args!("({typmod})"));
    }
    push(name, format_args!(" {with} time zone"));
}

/// The fields in the upper half of the modifier, the digits after the seconds' point in the lower.
fn push_interval(name: &mut String, typmod: i32) {
    const FULL_PRECISION: i32 = 0xffff;
    name.push_str("interval");
    if typmod < 0 {
        return;
    }
    let (month, year, day, hour, minute, second) = (1 << 1, 1 << 2, 1 << 3, 1 << 10, 1 << 11, 1 << 12);
    let fields = typmod >> 16 & 0x7fff;
    for (mask, words) in [
        (year, " year"),
        (month, " month"),
        (day, " day"),
        (hour, " hour"),
        (minute, " minute"),
        (second, " second"),
        (year | month, " year to month"),
        (day | hour, " day to hour"),
        (day | hour | minute, " day to minute"),
        (day | hour | minute | second, " day to second"),
        (hour | minute, " hour to minute"),
        (hour | minute | second, " hour to second"),
        (minute | second, " minute to second"),
    ] {
        if mask == fields {
            name.push_str(words);
        }
    }
    let precision = typmod & 0xffff;
    if precision != FULL_PRECISION {
        push(name, format_args!("({precision})"));
    }
}

/// As `quote_identifier` does.
fn push_identifier(name: &mut String, identifier: &str) {
    let plain = identifier.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && identifier.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && !KEYWORDS.split_ascii_whitespace().any(|keyword| keyword == identifier);
    if plain {
        name.push_str(identifier);
    } else {
        push(name, format_args!("\"{}\"", identifier.replace('"', "\"\"")));
    }
}

/// The modifiers of extensions' types, for those that are known here: pgvector's and PostGIS's.
fn push_extension_modifier(name: &mut String, type_name: &str, typmod: i32) {
    const GEOMETRIES: [&str; 16] = [
        "Geometry",
        "Point",
        "LineString",
        "Polygon",
        "MultiPoint",
        "MultiLineString",
        "MultiPolygon",
        "GeometryCollection",
        "CircularString",
        "CompoundCurve",
        "CurvePolygon",
        "MultiCurve",
        "MultiSurface",
        "PolyhedralSurface",
        "Triangle",
        "Tin",
    ];
    match type_name {
        "vector" | "halfvec" | "sparsevec" if typmod >= 0 => push(name, format_args!("({typmod})")),
        // 21 bits of a signed SRID, six of the kind, Z and M.
        "geometry" | "geography" if typmod > 0 => {
            let srid = ((typmod & 0x0fff_ff00) - (typmod & 0x1000_0000)) >> 8;
            let Some(kind) = GEOMETRIES.get((typmod >> 2 & 63) as usize) else { return };
            let z = if typmod & 2 != 0 { "Z" } else { "" };
            let m = if typmod & 1 != 0 { "M" } else { "" };
            push(name, format_args!("({kind}{z}{m}"));
            if srid != 0 {
                push(name, format_args!(",{srid}"));
            }
            name.push(')');
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(oid: Oid, typmod: i32) -> String {
        type_name(&TypeCatalog::new(), oid, typmod)
    }

    #[test]
    fn built_in_types_have_the_names_of_sql() {
        for (oid, typmod, expected) in [
            (16, -1, "boolean"),
            (18, -1, "\"char\""),
            (19, -1, "name"),
            (21, -1, "smallint"),
            (1016, -1, "bigint[]"),
            (701, -1, "double precision"),
            (1042, 9, "character(5)"),
            (1042, -1, "bpchar"),
            (1043, 24, "character varying(20)"),
            (1015, 24, "character varying(20)[]"),
            (1043, -1, "character varying"),
            (1560, 3, "bit(3)"),
            (1560, -1, "\"bit\""),
            (1562, -1, "bit varying"),
            (1562, 12, "bit varying(12)"),
            (1083, 3, "time(3) without time zone"),
            (1266, -1, "time with time zone"),
            (1114, 0, "timestamp(0) without time zone"),
            (1185, 3, "timestamp(3) with time zone[]"),
            (1186, -1, "interval"),
            (1186, 0x7fff_0003, "interval(3)"),
            (1186, 0x0006_ffff, "interval year to month"),
            (1186, 0x1c08_0003, "interval day to second(3)"),
            (1700, -1, "numeric"),
            (1231, (10 << 16 | 2) + 4, "numeric(10,2)[]"),
            (3802, -1, "jsonb"),
            (114, -1, "json"),
            (99_999, -1, "???"),
        ] {
            assert_eq!(name(oid, typmod), expected);
        }
    }

    #[test]
    fn types_of_users_have_their_schema_and_quotes_where_they_need_them() {
        for (schema, type_name, expected) in [
            ("public", "mood", "public.mood"),
            ("Shop", "size", "\"Shop\".size"),
            ("public", "user", "public.\"user\""),
            ("public", "it\"s", "public.\"it\"\"s\""),
            ("public", "größe", "public.\"größe\""),
            ("public", "2d", "public.\"2d\""),
            ("public", "_x1", "public._x1"),
            ("public", "", "public.\"\""),
        ] {
            let mut catalog = TypeCatalog::new();
            let kind = TypeKind::Enum;
            catalog.learn(TypeInfo { oid: 20_001, schema: schema.into(), name: type_name.into(), kind, sendable: true });
            assert_eq!(super::type_name(&catalog, 20_001, -1), expected);
        }
    }

    #[test]
    fn modifiers_of_extensions() {
        for (type_name, typmod, expected) in [
            ("vector", 3, "public.vector(3)"),
            ("halfvec", -1, "public.halfvec"),
            ("geometry", 4326 << 8 | 1 << 2, "public.geometry(Point,4326)"),
            ("geometry", 4326 << 8 | 1 << 2 | 2, "public.geometry(PointZ,4326)"),
            ("geography", 6 << 2 | 3, "public.geography(MultiPolygonZM)"),
            ("geometry", 3857 << 8, "public.geometry(Geometry,3857)"),
            ("geometry", 63 << 2, "public.geometry"),
            ("geometry", 0, "public.geometry"),
            ("citext", 7, "public.citext"),
        ] {
            let mut catalog = TypeCatalog::new();
            let kind = TypeKind::Base;
            catalog.learn(TypeInfo { oid: 20_001, schema: "public".into(), name: type_name.into(), kind, sendable: true });
            assert_eq!(super::type_name(&catalog, 20_001, typmod), expected);
        }
    }
}
