//! A table of every type that a server has, with values at the edges.
//!
//! Values that cannot be carried (a timestamp beyond what microseconds since 1970 reach, an array of several dimensions) are not
//! in it: they have tests of their own.

use super::identifier;
use crate::servers::{PostgresServer, reason};

/// The schema of the tables.
pub const SCHEMA: &str = "types";

/// What there is before the tables: types of users, and of extensions.
const BEFORE: &[&str] = &[
    "CREATE TYPE mood AS ENUM ('sad', 'très happy', 'it''s, \"so\"', '')",
    "CREATE TYPE pair AS (n integer, \"the text\" text, at timestamptz)",
    "CREATE TYPE nested AS (pair pair, moods mood[])",
    "CREATE DOMAIN positive AS integer CHECK (value > 0)",
    "CREATE DOMAIN cents AS numeric(12,2)",
    "CREATE DOMAIN more_cents AS cents CHECK (value > -100)",
    "CREATE DOMAIN numbers AS integer[]",
    "CREATE TYPE float_range AS RANGE (subtype = float8)",
    "CREATE EXTENSION hstore SCHEMA public",
    "CREATE EXTENSION citext SCHEMA public",
    "CREATE EXTENSION ltree SCHEMA public",
    "CREATE EXTENSION cube SCHEMA public",
    "CREATE EXTENSION isn SCHEMA public",
];

/// The first version that has it, the type, and values as SQL.
type TypeCase = (u32, &'static str, &'static [&'static str]);

const CASES: &[TypeCase] = &[
    (12, "boolean", &["true", "false"]),
    (12, "smallint", &["-32768", "32767"]),
    (12, "integer", &["-2147483648", "2147483647", "0"]),
    (12, "bigint", &["-9223372036854775808", "9223372036854775807"]),
    (12, "oid", &["0", "4294967295"]),
    (12, "real", &["'-3.4028235e38'", "'1.17549435e-38'", "'1e-45'", "0.1", "'-0'", "16777217", "'NaN'", "'Infinity'", "'-Infinity'"]),
    (
        12,
        "double precision",
        &[
            "'-1.7976931348623157e308'",
            "'2.2250738585072014e-308'",
            "'5e-324'",
            "0.1",
            "'-0'",
            "9007199254740993",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
        ],
    ),
    (12, "numeric(1,0)", &["-9", "9", "0"]),
    (12, "numeric(10,2)", &["-99999999.99", "0.01", "-0.01", "12345678.90", "0"]),
    (12, "numeric(9,9)", &["0.999999999", "-0.000000001"]),
    (12, "numeric(18,9)", &["123456789.123456789"]),
    (12, "numeric(19,0)", &["9999999999999999999"]),
    (12, "numeric(38,0)", &["-99999999999999999999999999999999999999"]),
    (12, "numeric(38,10)", &["9999999999999999999999999999.9999999999", "-0.0000000001"]),
    (12, "numeric(39,3)", &["-999999999999999999999999999999999999.999", "1.001"]),
    (12, "numeric(76,30)", &["9999999999999999999999999999999999999999999999.999999999999999999999999999999"]),
    (12, "numeric(100,50)", &["1234567890.00000000000000000000000000000000000000000000000001", "-1"]),
    (
        12,
        "numeric",
        &[
            "0",
            "0.000",
            "-1.50",
            "1e-20",
            "1e30",
            "'NaN'",
            "123456789012345678901234567890.123456789",
            "10000",
            "0.0001",
            "1e131071",
            "100000000000000000000000",
        ],
    ),
    (14, "numeric", &["'Infinity'", "'-Infinity'", "7"]),
    (15, "numeric(3,-2)", &["12345", "-99900", "0"]),
    (15, "numeric(2,5)", &["0.00099", "-0.00001"]),
    (12, "money", &["'-92233720368547758.08'", "'92233720368547758.07'", "0", "12.34"]),
    (12, "text", &["''", "'ÄÖÜß€ 東京 🦀'", "E'line\\nbreak\\ttab \\\\ back'", "'NULL'", "repeat('0123456789', 50000)", "'trailing  '"]),
    (12, "varchar(10)", &["'trailing  '", "''", "'🦀🌊'"]),
    (12, "varchar", &["repeat('x', 300)"]),
    (12, "char(5)", &["'ab'", "''", "'ÄÖÜß€'"]),
    (12, "char", &["'x'", "' '"]),
    (12, "\"char\"", &["'x'", "''", "'\\'"]),
    (12, "name", &["'a_name'", "''"]),
    (12, "bytea", &["''", "'\\x00'", "'\\xdeadbeef00ff'", "decode(repeat('00ff', 40000), 'hex')", "'\\x5c27'"]),
    (
        12,
        "date",
        &[
            "'0001-01-01'",
            "'9999-12-31'",
            "'1582-10-10'",
            "'2000-02-29'",
            "'1969-12-31'",
            "'4713-01-01 BC'",
            "'5874897-12-31'",
            "'infinity'",
            "'-infinity'",
            "'0001-12-31 BC'",
        ],
    ),
    (
        12,
        "timestamp",
        &[
            "'0001-01-01 00:00:00'",
            "'9999-12-31 23:59:59.999999'",
            "'1969-12-31 23:59:59.999999'",
            "'4713-01-01 00:00:00 BC'",
            "'294246-12-31 23:59:59.999999'",
            "'infinity'",
            "'-infinity'",
            "'2026-03-29 02:30:00'",
        ],
    ),
    (12, "timestamp(0)", &["'2026-02-03 04:05:06'"]),
    (12, "timestamp(3)", &["'2026-02-03 04:05:06.789'", "'0044-03-15 12:00:00.001 BC'"]),
    (
        12,
        "timestamptz",
        &[
            "'1970-01-01 00:00:00Z'",
            "'2026-10-25 01:30:00.25+02:00'",
            "'4713-01-02 00:00:00Z BC'",
            "'294246-12-31 23:59:59.999999Z'",
            "'infinity'",
            "'-infinity'",
            "'1883-11-18 12:00:00-04:56:02'",
            "'0001-01-01 00:00:00Z'",
        ],
    ),
    (12, "timestamptz(2)", &["'2026-02-03 04:05:06.78Z'"]),
    (12, "time", &["'00:00:00'", "'23:59:59.999999'", "'24:00:00'", "'12:34:56.7'"]),
    (12, "time(3)", &["'12:34:56.789'"]),
    (12, "timetz", &["'00:00:00+00'", "'23:59:59.999999-15:59:59'", "'24:00:00+15:59:59'", "'12:00:00.5+05:30'"]),
    (
        12,
        "interval",
        &[
            "'0'",
            "'1 year 2 months -3 days 04:05:06.000007'",
            "'-178000000 years'",
            "'178000000 years 11 months 30 days 23:59:59.999999'",
            "'-00:00:00.000001'",
            "'1 month -1 second'",
            "'-1 year -2 months +3 days -4:05:06.7'",
        ],
    ),
    (17, "interval", &["'infinity'", "'-infinity'"]),
    (12, "interval day to second(2)", &["'3 04:05:06.78'"]),
    (12, "interval year to month", &["'-1-2'"]),
    (
        12,
        "uuid",
        &["'123e4567-e89b-12d3-a456-426655440000'", "'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    ),
    (12, "json", &["'{\"a\": 1,  \"a\": [1, 2.50, \"x\", true, null, {}, []], \"ü\": \"🦀\"}'", "'null'", "' 1e400 '", "'\"\\u0041\"'"]),
    (
        12,
        "jsonb",
        &[
            "'{\"b\": 1, \"a\": [1, 2.50, \"x\", true, null, {}, []], \"ü\": \"🦀\"}'",
            "'null'",
            "'123456789012345678901234567890.10'",
            "'\"text\\n\"'",
        ],
    ),
    (12, "jsonpath", &["'$.a[*] ? (@ > 1)'"]),
    (12, "xml", &["'<a b=\"c\">text &amp; more</a>'", "'content only'"]),
    (12, "inet", &["'10.1.2.3'", "'10.1.2.3/8'", "'2001:db8::ff00:42:8329'", "'::ffff:192.0.2.1/120'", "'0.0.0.0/0'"]),
    (12, "cidr", &["'10.0.0.0/8'", "'2001:db8::/32'", "'192.0.2.1/32'"]),
    (12, "macaddr", &["'08:00:2b:01:02:03'"]),
    (12, "macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    (12, "bit(1)", &["B'0'", "B'1'"]),
    (12, "bit(9)", &["B'100000001'"]),
    (12, "varbit", &["B''", "B'101'", "repeat('10', 100)::varbit"]),
    (12, "varbit(5)", &["B'10101'"]),
    (12, "point", &["'(1.5,-2.5)'", "'(NaN,Infinity)'", "'(0.1,1e-300)'"]),
    (12, "line", &["'{1,2,3}'"]),
    (12, "lseg", &["'[(0,0),(1,1)]'"]),
    (12, "box", &["'(3,4),(1,2)'"]),
    (12, "path", &["'[(0,0),(1,1),(2,0)]'", "'((0,0),(1,1),(2,0))'"]),
    (12, "polygon", &["'((0,0),(4,0),(4,4))'"]),
    (12, "circle", &["'<(1,2),3.5>'"]),
    (12, "tsvector", &["'a fat cat'", "'it''s:1A,2B \"quoted\"'"]),
    (12, "tsquery", &["'fat & (cat:AB | !dog:*)'"]),
    (12, "pg_lsn", &["'16/B374D848'", "'0/0'"]),
    (13, "xid8", &["'18446744073709551615'"]),
    (12, "xid", &["'4294967295'"]),
    (12, "cid", &["'7'"]),
    (12, "tid", &["'(4294967295,65535)'"]),
    (12, "txid_snapshot", &["'10:20:10,14,15'"]),
    (13, "pg_snapshot", &["'10:20:10,14,15'"]),
    (12, "regclass", &["'pg_class'"]),
    (12, "regtype", &["'integer'", "'character varying'"]),
    (12, "int2vector", &["'1 2 -3'"]),
    (12, "oidvector", &["'1 2 3'", "''"]),
    (12, "int4range", &["'[1,10)'", "'empty'", "'(,5]'", "'[,]'"]),
    (12, "int8range", &["'[1,9223372036854775807)'"]),
    (12, "numrange", &["'[1.5,2.50]'", "'(,)'"]),
    (12, "daterange", &["'[2026-01-01,2026-02-01]'", "'[infinity,infinity]'"]),
    (12, "tsrange", &["'[\"2026-01-01 00:00:00\",\"2026-01-01 12:30:00.5\")'"]),
    (12, "tstzrange", &["'[\"2026-01-01 00:00:00+02\",)'"]),
    (14, "int4multirange", &["'{[1,3),[5,9)}'", "'{}'"]),
    (14, "tstzmultirange", &["'{[\"2026-01-01 00:00:00+02\",\"2026-01-02 00:00:00+02\")}'"]),
    (12, "types.float_range", &["'[0.1,1e300]'"]),
    (12, "types.mood", &["'sad'", "'très happy'", "'it''s, \"so\"'", "''"]),
    (12, "types.pair", &["(1, 'a \"quoted\", (text)\\', '2026-01-01 12:00Z')", "(NULL, '', NULL)", "(NULL, NULL, NULL)"]),
    (12, "types.nested", &["((1, 'x', NULL), ARRAY['sad', '']::types.mood[])"]),
    (12, "types.positive", &["1", "2147483647"]),
    (12, "types.cents", &["-0.01", "1234567890.12"]),
    (12, "types.more_cents", &["1.5"]),
    (12, "types.numbers", &["'{1,2,NULL}'"]),
    (12, "boolean[]", &["'{}'", "'{t,f,NULL}'"]),
    (12, "smallint[]", &["'{-32768,32767,NULL}'"]),
    (12, "integer[]", &["'{}'", "'{NULL}'", "'{-2147483648,0,2147483647}'"]),
    (12, "bigint[]", &["'{-9223372036854775808,NULL}'"]),
    (12, "real[]", &["'{0.1,NaN,-Infinity,-0}'"]),
    (12, "double precision[]", &["'{0.1,NaN,-Infinity,5e-324}'"]),
    (12, "numeric(10,2)[]", &["'{1.50,NULL,-0.01}'"]),
    (12, "numeric[]", &["'{1.50,NaN,1e30}'"]),
    (12, "text[]", &["'{}'", "'{\"\",NULL,\"NULL\",\"a,b\",\"c\\\"d\",\"e\\\\f\",\"{g}\",\" h \"}'", "ARRAY['🦀', E'new\\nline']"]),
    (12, "varchar(5)[]", &["'{abc,NULL}'"]),
    (12, "char(3)[]", &["'{a,abc}'"]),
    (12, "bytea[]", &["ARRAY['\\x00ff'::bytea, '', NULL]"]),
    (12, "date[]", &["'{2026-01-02,infinity,NULL}'"]),
    (12, "timestamp[]", &["'{\"2026-01-02 03:04:05.000006\",NULL}'"]),
    (12, "timestamptz[]", &["'{\"2026-01-02 03:04:05.000006+02\",-infinity}'"]),
    (12, "time[]", &["'{03:04:05,24:00:00}'"]),
    (12, "timetz[]", &["'{03:04:05+02}'"]),
    (12, "interval[]", &["'{\"1 day 02:00:00\",NULL}'"]),
    (12, "uuid[]", &["'{123e4567-e89b-12d3-a456-426655440000}'"]),
    (12, "jsonb[]", &["ARRAY['{\"a\": [1, \"x\\\"y\"]}'::jsonb, 'null', NULL]"]),
    (12, "inet[]", &["'{10.1.2.3,::1}'"]),
    (12, "money[]", &["'{1.50,-2}'"]),
    (12, "box[]", &["ARRAY['(3,4),(1,2)'::box, '(1,1),(0,0)']"]),
    (12, "int4range[]", &["ARRAY['[1,5)'::int4range, 'empty', NULL]"]),
    (12, "types.mood[]", &["ARRAY['sad', '', NULL, 'it''s, \"so\"']::types.mood[]"]),
    (12, "types.pair[]", &["ARRAY[(1, 'a,b', NULL)::types.pair, NULL]"]),
    (12, "types.positive[]", &["'{1,2}'"]),
    (12, "types.cents[]", &["'{1.5,NULL}'"]),
    (12, "public.hstore", &["'a=>1, \"b c\"=>NULL, \"\"=>\"q\\\"\"'", "''"]),
    (12, "public.hstore[]", &["ARRAY['a=>1'::public.hstore, NULL]"]),
    (12, "public.citext", &["'MiXed'", "''"]),
    (12, "public.citext[]", &["'{MiXed,NULL}'"]),
    (12, "public.ltree", &["'Top.Science.Astronomy'"]),
    (12, "public.cube", &["'(1,2),(3,4.5)'"]),
    (12, "public.isbn", &["'0-393-04002-X'"]),
];

/// What only a server with PostGIS has.
const POSTGIS: &[TypeCase] = &[
    (
        12,
        "public.geometry",
        &[
            "'POINT(1.5 -2.5)'",
            "'SRID=4326;LINESTRING Z (0 0 1,1 1 2)'",
            "'POINT EMPTY'",
            "'GEOMETRYCOLLECTION(POINT(1 2),CIRCULARSTRING(0 0,1 1,2 0))'",
        ],
    ),
    (12, "public.geometry(Point,4326)", &["'SRID=4326;POINT(16.37 48.2)'"]),
    (12, "public.geography", &["'POINT(16.37 48.2)'", "'POLYGON((0 0,4 0,4 4,0 0))'"]),
    (12, "public.geometry[]", &["ARRAY['POINT(1 2)'::public.geometry, NULL]"]),
    (12, "public.box2d", &["'BOX(1 2,3 4)'"]),
];

/// What the tables stand on: to be run before a publication or a slot looks at them.
pub async fn prepare(server: &PostgresServer) {
    server.execute(&format!("CREATE SCHEMA {SCHEMA}")).await;
    for statement in BEFORE {
        server.execute(&format!("SET search_path = {SCHEMA}, public; {statement}")).await;
    }
    if has_postgis(server) {
        server.execute("CREATE EXTENSION postgis SCHEMA public").await;
    }
}

/// The version of the distribution has it, those of npm have not.
fn has_postgis(server: &PostgresServer) -> bool {
    server.version() == 15
}

/// Makes a table for every type (`id`, `value`) and one that has them all, and fills them: an insert per value, and
/// NULL; then an update of every row to another row's value, a key change and a delete. Returns the tables, by schema and
/// name.
pub async fn create_and_fill(server: &PostgresServer) -> Vec<(String, String)> {
    let own = if has_postgis(server) { POSTGIS } else { &[] };
    let cases: Vec<&TypeCase> = CASES.iter().chain(own).filter(|(since, _, _)| *since <= server.version()).collect();
    let client = server.connect().await;
    let run = async |sql: String| client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {}", reason(&error)));
    let mut tables = Vec::new();
    for (number, (_, definition, values)) in cases.iter().enumerate() {
        let table = format!("t{number:03} {definition}");
        let quoted = format!("{SCHEMA}.{}", identifier(&table));
        run(format!("CREATE TABLE {quoted} (id integer PRIMARY KEY, value {definition})")).await;
        let rows = values.iter().chain(&["NULL"]).enumerate();
        let rows = rows.map(|(id, value)| format!("({id}, {value})")).collect::<Vec<_>>();
        // One by one: a list of rows would need one type for all of them.
        for row in rows {
            run(format!("INSERT INTO {quoted} VALUES {row}")).await;
        }
        let all = values.len();
        for (id, value) in values.iter().enumerate() {
            run(format!("INSERT INTO {quoted} VALUES ({}, NULL)", 100 + id)).await;
            run(format!("UPDATE {quoted} SET value = {value} WHERE id = {}", 100 + (id + 1) % all)).await;
        }
        run(format!("UPDATE {quoted} SET value = NULL WHERE id = 0")).await;
        run(format!("UPDATE {quoted} SET id = 50 WHERE id = 1")).await;
        run(format!("DELETE FROM {quoted} WHERE id = 100")).await;
        tables.push((SCHEMA.to_owned(), table));
    }
    let columns = cases.iter().enumerate().map(|(number, (_, definition, _))| format!("c{number:03} {definition}")).collect::<Vec<_>>();
    run(format!("CREATE TABLE {SCHEMA}.every_type (id bigint PRIMARY KEY, {})", columns.join(", "))).await;
    for round in 0..4 {
        let values = cases.iter().map(|(_, _, values)| values[round % values.len()]).collect::<Vec<_>>();
        run(format!("INSERT INTO {SCHEMA}.every_type VALUES ({round}, {})", values.join(", "))).await;
    }
    run(format!("INSERT INTO {SCHEMA}.every_type (id) VALUES (10)")).await;
    run(format!("UPDATE {SCHEMA}.every_type SET id = -1 WHERE id = 1")).await;
    run(format!("DELETE FROM {SCHEMA}.every_type WHERE id = 2")).await;
    tables.push((SCHEMA.to_owned(), "every_type".to_owned()));
    tables
}
