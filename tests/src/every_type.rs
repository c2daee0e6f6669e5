//! A table of every type that a server has, with values at the edges.
//!
//! Values that cannot be carried (zero dates, for one) are not in it: they have tests of their own.

use crate::servers::{DatabaseServer, Flavour};

/// The schema of the tables.
pub const SCHEMA: &str = "types";

/// Column definition and the values that it holds, as SQL.
type TypeCase = (&'static str, &'static [&'static str]);

const COMMON: &[TypeCase] = &[
    ("TINYINT", &["-128", "127", "0"]),
    ("TINYINT UNSIGNED", &["0", "255"]),
    ("SMALLINT", &["-32768", "32767"]),
    ("SMALLINT UNSIGNED", &["65535"]),
    ("MEDIUMINT", &["-8388608", "8388607", "-1"]),
    ("MEDIUMINT UNSIGNED", &["16777215"]),
    ("INT", &["-2147483648", "2147483647"]),
    ("INT UNSIGNED", &["4294967295"]),
    ("INT(5) UNSIGNED ZEROFILL", &["7"]),
    ("BIGINT", &["-9223372036854775808", "9223372036854775807"]),
    ("BIGINT UNSIGNED", &["18446744073709551615", "9223372036854775808"]),
    ("BOOLEAN", &["TRUE", "FALSE"]),
    ("DECIMAL(1,0)", &["-9", "9", "0"]),
    ("DECIMAL(10,2)", &["-99999999.99", "0.01", "-0.01", "12345678.90"]),
    ("DECIMAL(9,9)", &["0.999999999", "-0.000000001"]),
    ("DECIMAL(18,9)", &["123456789.123456789", "-0.000000001"]),
    ("DECIMAL(20,6) UNSIGNED", &["99999999999999.999999"]),
    ("DECIMAL(38,0)", &["-99999999999999999999999999999999999999"]),
    ("DECIMAL(38,10)", &["9999999999999999999999999999.9999999999"]),
    ("DECIMAL(39,3)", &["-999999999999999999999999999999999999.999", "1.001"]),
    ("DECIMAL(65,30)", &["99999999999999999999999999999999999.999999999999999999999999999999", "-0.000000000000000000000000000001"]),
    ("DECIMAL(65,0)", &["99999999999999999999999999999999999999999999999999999999999999999"]),
    ("FLOAT", &["-3.402823e38", "1.17549e-38", "0.1", "-0.0", "16777217"]),
    ("DOUBLE", &["-1.7976931348623157e308", "2.2250738585072014e-308", "0.1", "-0.0", "9007199254740993", "5e-324"]),
    ("BIT(1)", &["b'0'", "b'1'"]),
    ("BIT(9)", &["b'100000001'"]),
    ("BIT(64)", &["0xFFFFFFFFFFFFFFFF", "0x8000000000000001"]),
    ("YEAR", &["1901", "2155", "0"]),
    ("DATE", &["'0001-01-01'", "'9999-12-31'", "'1582-10-10'", "'2000-02-29'", "'1969-12-31'"]),
    ("DATETIME", &["'0001-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'1969-12-31 23:59:59'"]),
    ("DATETIME(1)", &["'2026-03-29 02:30:00.9'"]),
    ("DATETIME(3)", &["'1000-01-01 00:00:00.001'"]),
    ("DATETIME(6)", &["'9999-12-31 23:59:59.999999'", "'1969-12-31 23:59:59.999999'"]),
    ("TIMESTAMP NULL", &["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"]),
    ("TIMESTAMP(2) NULL", &["'2026-10-25 01:30:00.25'"]),
    ("TIMESTAMP(6) NULL", &["'2038-01-19 03:14:07.499999'", "'1970-01-01 00:00:01.000001'"]),
    ("TIME", &["'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01'"]),
    ("TIME(1)", &["'-00:00:00.1'", "'12:34:56.7'"]),
    ("TIME(3)", &["'-00:00:01.999'", "'-12:00:00.001'"]),
    ("TIME(5)", &["'-100:00:00.00001'"]),
    ("TIME(6)", &["'-838:59:58.999999'", "'00:00:00.000001'", "'-00:00:00.000001'"]),
    ("CHAR(5)", &["'ab'", "''", "'ÄÖÜß€'"]),
    ("CHAR(200)", &["REPEAT('東', 200)"]),
    ("VARCHAR(10)", &["'trailing  '", "''", "'🦀🌊'"]),
    ("VARCHAR(300)", &["REPEAT('x', 300)"]),
    ("TINYTEXT", &["REPEAT('é', 127)", "''"]),
    ("TEXT", &["REPEAT('0123456789', 6553)"]),
    ("MEDIUMTEXT", &["REPEAT('mittel ', 20000)"]),
    ("LONGTEXT", &["REPEAT('long ', 200000)"]),
    ("VARCHAR(20) CHARACTER SET latin1", &["'café 50 €'", "'\u{201e}quoted\u{201c}'"]),
    ("VARCHAR(20) CHARACTER SET ascii", &["'plain'"]),
    ("VARCHAR(20) CHARACTER SET utf8mb3", &["'東京'"]),
    ("VARCHAR(20) CHARACTER SET ucs2", &["'ucs2 Ω'"]),
    ("VARCHAR(20) CHARACTER SET utf16", &["'utf16 🦀'"]),
    ("VARCHAR(20) CHARACTER SET utf32", &["'utf32 🦀'"]),
    ("VARCHAR(20) CHARACTER SET cp1251", &["'Привет'"]),
    ("VARCHAR(20) CHARACTER SET koi8r", &["'Привет'"]),
    ("VARCHAR(20) CHARACTER SET latin2", &["'Łódź'"]),
    ("VARCHAR(20) CHARACTER SET greek", &["'Ωμέγα'"]),
    ("VARCHAR(20) CHARACTER SET gbk", &["'汉字'"]),
    ("VARCHAR(20) CHARACTER SET sjis", &["'表示'"]),
    ("VARCHAR(20) CHARACTER SET euckr", &["'한국'"]),
    ("VARCHAR(20) CHARACTER SET big5", &["'漢字'"]),
    ("CHAR(5) CHARACTER SET latin1", &["'é'"]),
    ("TEXT CHARACTER SET latin1", &["'naïve'"]),
    ("BINARY(6)", &["x'000102'", "x'FF0000000000'", "''"]),
    ("VARBINARY(6)", &["x'00'", "''", "x'FFFE00'"]),
    ("VARBINARY(400)", &["REPEAT(x'00FF', 200)"]),
    ("TINYBLOB", &["x'00FF'"]),
    ("BLOB", &["REPEAT(x'DEADBEEF', 10000)"]),
    ("MEDIUMBLOB", &["REPEAT(x'00', 70000)"]),
    ("LONGBLOB", &["''", "REPEAT(x'01', 300000)"]),
    ("ENUM('a','','ü','it''s, \"so\"')", &["'a'", "''", "'ü'", "'it''s, \"so\"'"]),
    ("ENUM('é','x') CHARACTER SET latin1", &["'é'"]),
    ("SET('a','b','ü','d e')", &["''", "'a'", "'a,ü,d e'"]),
    ("POINT", &["ST_GeomFromText('POINT(1.5 -2.5)')"]),
    ("LINESTRING", &["ST_GeomFromText('LINESTRING(0 0,1 1,2 0)')"]),
    ("POLYGON", &["ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 4,0 0),(1 1,2 1,2 2,1 2,1 1))')"]),
    ("GEOMETRY", &["ST_GeomFromText('POINT(0 0)')", "ST_GeomFromText('MULTIPOINT(0 0,1 1)')"]),
    ("GEOMETRYCOLLECTION", &["ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1 1))')"]),
];

const MYSQL: &[TypeCase] = &[
    (
        "JSON",
        &[
            "'{\"a\": 1, \"b\": [1, 2.5, \"x\", true, null, {}, []], \"ü\": \"🦀\"}'",
            "'[]'",
            "'\"text with \\\\\"quotes\\\\\" and \\\\n\"'",
            "'18446744073709551615'",
            "'-9223372036854775808'",
            "'1e308'",
            "'0.1'",
            "'null'",
            "JSON_OBJECT('d', CAST('12.340' AS DECIMAL(10,3)), 'at', CAST('2026-02-03 04:05:06.000007' AS DATETIME(6)), 't', CAST('-01:02:03.5' AS TIME(1)))",
            "JSON_OBJECT('big', REPEAT('x', 70000), 'list', JSON_ARRAY(1, -1, 40000, 3000000000))",
        ],
    ),
    ("VECTOR(3)", &["TO_VECTOR('[1.5,-2,3e10]')"]),
    ("GEOMETRY SRID 4326", &["ST_GeomFromText('POINT(48.2 16.37)', 4326)"]),
    ("VARCHAR(20) CHARACTER SET gb18030", &["'汉字'"]),
    ("VARCHAR(20) COLLATE utf8mb4_0900_ai_ci", &["'äöü'"]),
];

const MARIADB: &[TypeCase] = &[
    ("JSON", &["'{\"a\": [1, 2.5, \"ü\"]}'", "'null'"]),
    (
        "UUID",
        &["'123e4567-e89b-12d3-a456-426655440000'", "'f47ac10b-58cc-4372-a567-0e02b2c3d479'", "'00000000-0000-0000-0000-000000000000'"],
    ),
    ("INET6", &["'2001:db8::ff00:42:8329'", "'::1'", "'::ffff:192.0.2.1'", "'::'"]),
    ("INET4", &["'192.0.2.255'", "'0.0.0.0'"]),
    ("TEXT COMPRESSED", &["REPEAT('compressible ', 500)", "'short'", "''"]),
    ("BLOB COMPRESSED", &["REPEAT(x'00FF', 5000)"]),
    ("VARCHAR(500) COMPRESSED", &["REPEAT('abc', 150)"]),
    ("VARBINARY(500) COMPRESSED", &["REPEAT(x'0102', 200)"]),
    ("VARCHAR(20) COLLATE utf8mb4_uca1400_ai_ci", &["'äöü'"]),
];

/// Makes a table for every type (`id`, `value`) and one that has them all, and fills them: an insert per value, and
/// NULL; then an update of every row to another row's value, and a delete. Returns the tables' names.
pub async fn create_and_fill(server: &DatabaseServer) -> Vec<String> {
    server.execute("CREATE DATABASE types CHARACTER SET utf8mb4").await;
    let own = match server.flavour() {
        Flavour::MariaDb => MARIADB,
        Flavour::MySql => MYSQL,
    };
    let cases: Vec<&TypeCase> = COMMON.iter().chain(own).collect();
    let mut tables = Vec::new();
    for (number, (definition, values)) in cases.iter().enumerate() {
        let table = format!("t{number:02}");
        server.execute(&format!("CREATE TABLE types.{table} (id INT NOT NULL PRIMARY KEY, value {definition})")).await;
        let rows = values.iter().chain(&["NULL"]).enumerate();
        let rows = rows.map(|(id, value)| format!("({id}, {value})")).collect::<Vec<_>>();
        server.execute(&format!("INSERT INTO types.{table} VALUES {}", rows.join(", "))).await;
        let all = values.len();
        for (id, value) in values.iter().enumerate() {
            server.execute(&format!("INSERT INTO types.{table} VALUES ({}, NULL)", 100 + id)).await;
            server.execute(&format!("UPDATE types.{table} SET value = {value} WHERE id = {}", 100 + (id + 1) % all)).await;
        }
        server.execute(&format!("UPDATE types.{table} SET value = NULL WHERE id = 0")).await;
        server.execute(&format!("DELETE FROM types.{table} WHERE id = 100")).await;
        tables.push(table);
    }
    // All of them in one row. Rows are bounded to 64 KiB, which none of these comes near.
    let columns = cases.iter().enumerate().map(|(number, (definition, _))| format!("c{number:02} {definition}")).collect::<Vec<_>>();
    server
        .execute(&format!("CREATE TABLE types.every_type (id BIGINT NOT NULL PRIMARY KEY, {}) ROW_FORMAT=DYNAMIC", columns.join(", ")))
        .await;
    for round in 0..4 {
        let values = cases.iter().map(|(_, values)| values[round % values.len()]).collect::<Vec<_>>();
        server.execute(&format!("INSERT INTO types.every_type VALUES ({round}, {})", values.join(", "))).await;
    }
    server.execute("INSERT INTO types.every_type (id) VALUES (10)").await;
    server.execute("UPDATE types.every_type SET id = -1 WHERE id = 1").await;
    server.execute("DELETE FROM types.every_type WHERE id = 2").await;
    tables.push("every_type".to_owned());
    tables
}
