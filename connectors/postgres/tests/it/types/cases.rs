//! Every type, with the values that are at its edges, and what is to be said of it.

/// A type and values of it.
pub(crate) struct Case {
    /// As it stands in CREATE TABLE.
    pub(crate) sql: &'static str,
    /// The first version that has it.
    pub(crate) since: u32,
    /// The extension that has it.
    pub(crate) extension: Option<&'static str>,
    /// Expressions, each with the first version that has it.
    pub(crate) values: Vec<(u32, &'static str)>,
    /// What makes a value (`$`) an array that SQL can take apart, for types that are no arrays but are carried as lists.
    pub(crate) elements: Option<&'static str>,
}

impl Case {
    fn since(mut self, version: u32) -> Self {
        self.since = version;
        self
    }

    fn of(mut self, extension: &'static str) -> Self {
        self.extension = Some(extension);
        self
    }

    fn and(mut self, since: u32, values: &[&'static str]) -> Self {
        self.values.extend(values.iter().map(|value| (since, *value)));
        self
    }

    fn elements(mut self, sql: &'static str) -> Self {
        self.elements = Some(sql);
        self
    }
}

fn case(sql: &'static str, values: &[&'static str]) -> Case {
    Case { sql, since: 12, extension: None, values: Vec::new(), elements: None }.and(12, values)
}

/// What the types of users below need.
pub(crate) const SETUP: &[(u32, &str)] = &[
    (12, "CREATE TYPE public.mood AS ENUM ('sad', 'it''s \"fine\"', 'ü, {}', 'NULL', '')"),
    (12, "CREATE SCHEMA \"Other\""),
    (12, "CREATE TYPE \"Other\".\"user\" AS ENUM ('a')"),
    (12, "CREATE DOMAIN public.price AS numeric(12,2) CHECK (value > -1000)"),
    (12, "CREATE DOMAIN public.fine_price AS public.price NOT NULL DEFAULT 0"),
    (12, "CREATE DOMAIN public.scores AS int[] CHECK (array_length(value, 1) < 10)"),
    (12, "CREATE DOMAIN public.short AS varchar(5)"),
    (12, "CREATE TYPE public.pair AS (a int, b text)"),
    (12, "CREATE TYPE public.floats AS RANGE (subtype = float8)"),
    (12, "CREATE DOMAIN public.moods AS public.mood[]"),
    (12, "CREATE DOMAIN public.reals AS real[]"),
];

const LONG_NUMBER: &str = "repeat('9', 131072)::numeric";
const LONG_FRACTION: &str = "('0.' || repeat('1', 16383))::numeric";

/// Everything.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = numbers();
    cases.extend(texts());
    cases.extend(temporals());
    cases.extend(others());
    cases.extend(arrays());
    cases.extend(users());
    cases.extend(extensions());
    cases
}

fn numbers() -> Vec<Case> {
    let floats = &["'0'", "'-0'", "'NaN'", "'Infinity'", "'-Infinity'", "'0.1'", "'-1.5'", "'1e10'", "'123456789'", "'1e-5'"];
    vec![
        case("boolean", &["true", "false"]),
        case("smallint", &["0", "-1", "-32768", "32767"]),
        case("integer", &["0", "-1", "-2147483648", "2147483647", "1234567"]),
        case("bigint", &["0", "-1", "'-9223372036854775808'", "9223372036854775807", "1000000000000000000", "99999999"]),
        case("oid", &["0", "'4294967295'", "16384"]),
        case("xid", &["'0'", "'4294967295'"]),
        case("cid", &["'0'", "'4294967295'"]),
        case("xid8", &["'0'", "'18446744073709551615'"]).since(13),
        case("real", floats).and(12, &["'1.17549435e-38'", "'3.4028235e38'", "'1e-45'", "'-3.4028235e38'", "'16777217'"]),
        case("double precision", floats).and(
            12,
            &[
                "'2.2250738585072014e-308'",
                "'1.7976931348623157e308'",
                "'5e-324'",
                "'4.940656458412465e-324'",
                "'0.30000000000000004'",
                "'9007199254740993'",
                "'-1.7976931348623157e308'",
                "'1.0000000000000002'",
                "random()",
            ],
        ),
        case("numeric(1)", &["0", "9", "-9"]),
        case("numeric(10,2)", &["0", "0.01", "-0.01", "1", "'12345678.90'", "'-99999999.99'", "'99999999.99'", "100", "10000", "0.10"]),
        case("numeric(19,4)", &["'123456789012345.6789'", "'-999999999999999.9999'", "'0.0001'", "'1000000'", "'1.00010000'"]),
        case("numeric(38,0)", &["0", "'99999999999999999999999999999999999999'", "'-99999999999999999999999999999999999999'", "10000"]),
        case("numeric(38,37)", &["0", "'9.9999999999999999999999999999999999999'", "'-1e-37'", "'0.5'", "'1'"]),
        case("numeric(38,38)", &["0", "'0.99999999999999999999999999999999999999'", "'-1e-38'"]),
        case("numeric(39,2)", &["0", "'9999999999999999999999999999999999999.99'", "-0.01"]),
        case(
            "numeric(76,38)",
            &[
                "0",
                "'99999999999999999999999999999999999999.99999999999999999999999999999999999999'",
                "'-99999999999999999999999999999999999999.99999999999999999999999999999999999999'",
                "'1e-38'",
                "'1e37'",
                "'-12345.6789'",
            ],
        ),
        case(
            "numeric(76,0)",
            &["0", "'9999999999999999999999999999999999999999999999999999999999999999999999999999'", "'1e75'", "'-1e40'"],
        ),
        case(
            "numeric(77,2)",
            &["0", "'1.50'", "'-999999999999999999999999999999999999999999999999999999999999999999999999999.99'", "'NaN'"],
        ),
        case("numeric(3,5)", &["0", "'0.00999'", "'-0.00001'"]).since(15),
        case("numeric(3,-2)", &["0", "'99900'", "-100", "10000"]).since(15),
        case("numeric(2,-37)", &["0", "'99e37'", "'-1e37'"]).since(15),
        case(
            "numeric",
            &[
                "0",
                "'1.50'",
                "'-1.500'",
                "'0.00'",
                "'0.0000001'",
                "'-0.00010000'",
                "10000",
                "'10000.0001'",
                "'1e20'",
                "'1e-20'",
                "'NaN'",
                "'123456789.987654321'",
                "'9999.9999'",
                LONG_NUMBER,
                LONG_FRACTION,
                "('-1' || repeat('0', 100000) || '.5')::numeric",
                "1/3::numeric",
                "'0.000000000000000000000000000000000000'",
            ],
        )
        .and(14, &["'Infinity'", "'-Infinity'"]),
        case("money", &["0", "'12.34'", "'-0.01'", "'-92233720368547758.08'", "'92233720368547758.07'", "'1234567.89'"]),
    ]
}

fn texts() -> Vec<Case> {
    let texts = &["''", "'a'", "'é€😀'", "E'\\t\\n\\r\\\\ \"quoted\" ''too'''", "'  spaces  '", "'NULL'", "repeat('lang ', 100000)"];
    let json = r#"'{"b": 1, "a" : [1.50, 1e400, "\u00e9\ud83d\ude00"], "a": null}'"#;
    vec![
        case("\"char\"", &["''", "'a'", "' '", "'\\'"]).and(16, &["'\\351'"]),
        case("name", &["''", "'a'", "repeat('n', 63)"]),
        case("text", texts),
        case("character varying", texts),
        case("character varying(20)", &["''", "'a'", "'éééééééééééééééééééé'"]),
        case("character(5)", &["''", "'a'", "'  b'", "'éé'", "'12345'"]),
        case("character", &["''", "'x'"]),
        case("bpchar", &["''", "'a  '"]),
        case("json", &["'null'", "' { } '", json, "'\"\\u0000\"'", "'123456789012345678901234567890.10'"]),
        case("jsonb", &["'null'", "'{}'", json, "'123456789012345678901234567890.10'", "'[]'", "'\"a\\\\nb\"'"]),
        case("jsonpath", &["'$'", "'strict $.a[*] ? (@.b > 1 && @.c like_regex \"x\")'"]),
        case("xml", &["'<a b=\"c\">é</a>'", "'text'"]),
        case("tsvector", &["''", "'a:1A b:2,3 ''it''''s'''"]),
        case("tsquery", &["'a & !b | (c <-> d:*)'"]),
        case(
            "uuid",
            &["'00000000-0000-0000-0000-000000000000'", "'{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}'", "'ffffffffffffffffffffffffffffffff'"],
        ),
        case("bytea", &["''", "'\\x00'", "'\\xdeadBEEF5c27'", "decode(repeat('00ff5c', 100000), 'hex')"]),
        case("bit(1)", &["'0'", "'1'"]),
        case("bit(9)", &["'000000000'", "'101010101'", "'111111111'"]),
        case("bit varying", &["''", "'1'", "'1010'", "'10000000'", "'1000000001'", "repeat('10', 5000)::varbit"]),
        case("bit varying(12)", &["''", "'101'"]),
        case("refcursor", &["'c'"]),
    ]
}

fn temporals() -> Vec<Case> {
    let dates = &[
        "'1970-01-01'",
        "'2000-01-01'",
        "'1999-12-31'",
        "'0001-01-01'",
        "'0001-12-31 BC'",
        "'0044-03-15 BC'",
        "'4713-01-01 BC'",
        "'0101-02-28 BC'",
        "'0005-02-29 BC'",
        "'2024-02-29'",
        "'1582-10-10'",
        "'9999-12-31'",
        "'10000-01-01'",
        "'infinity'",
        "'-infinity'",
    ];
    let timestamps = &[
        "'1970-01-01 00:00:00'",
        "'1969-12-31 23:59:59.999999'",
        "'2000-01-01 00:00:00'",
        "'1999-12-31 23:59:59.5'",
        "'2024-02-29 12:34:56.789'",
        "'2024-02-29 12:34:56.000001'",
        "'0001-01-01 00:00:00'",
        "'0001-12-31 23:59:59.999999 BC'",
        "'4713-01-01 00:00:00 BC'",
        "'10000-01-01 01:02:03.040506'",
        "'294247-01-10 04:00:54.775806'",
        "'infinity'",
        "'-infinity'",
    ];
    let times = &["'00:00:00'", "'23:59:59.999999'", "'24:00:00'", "'12:34:56.7'", "'00:00:00.000001'"];
    let intervals = &[
        "'0'",
        "'1 year 2 months 3 days 4 hours 5 minutes 6.789 seconds'",
        "'-1 year -2 months +3 days -4:05:06.000001'",
        "'-0.5 seconds'",
        "'-1.000001 seconds'",
        "'1 microsecond'",
        "'178956969 years 11 months'",
        "'-178956969 years -11 months'",
        "'2147483647 days'",
        "'-2147483647:59:59.999999'",
        "'1 month -1 day 24 hours'",
        "'-13 months'",
    ];
    vec![
        case("date", dates).and(12, &["'5874897-12-31'"]),
        case("time without time zone", times),
        case("time(0) without time zone", &["'12:34:56'"]),
        case("time(3) without time zone", &["'12:34:56.789'"]),
        case(
            "time with time zone",
            &[
                "'00:00:00+00'",
                "'12:34:56.7+05:30:15'",
                "'23:59:59.999999-12'",
                "'24:00:00+15:59:59'",
                "'01:02:03-03:30'",
                "'00:00:00-15:59:59'",
            ],
        ),
        case("time(2) with time zone", &["'12:34:56.78+02'"]),
        case("timestamp without time zone", timestamps),
        case("timestamp(3) without time zone", &["'2024-02-29 12:34:56.789'"]),
        case("timestamp with time zone", timestamps).and(12, &["'2024-02-29 12:34:56.789+05:30'", "'0001-01-01 00:00:00-12:34:56 BC'"]),
        case("timestamp(0) with time zone", &["'2024-02-29 12:34:56'"]),
        case("interval", intervals)
            .and(15, &["'178956970 years 7 months'", "'-178956970 years -8 months'", "'2562047788:00:54.775807'"])
            .and(17, &["'infinity'", "'-infinity'"]),
        case("interval(3)", &["'1.234 seconds'"]),
        case("interval year to month", &["'1 year 2 months'"]),
        case("interval day to second(3)", &["'1 day 2.345 seconds'"]),
        case("interval hour", &["'1 hour'"]),
    ]
}

fn others() -> Vec<Case> {
    vec![
        case(
            "inet",
            &[
                "'0.0.0.0'",
                "'192.168.0.1'",
                "'192.168.0.1/24'",
                "'255.255.255.255/0'",
                "'::'",
                "'::1'",
                "'::2'",
                "'::ffff:192.0.2.1'",
                "'::192.0.2.1'",
                "'::1:0'",
                "'1:2:3:4:5:6:7:8'",
                "'1:0:0:4:0:0:0:8/64'",
                "'1:0:0:0:5:0:0:0'",
                "'1:2:3:4:5:6:7:0'",
                "'0:2:3:4:5:6:7:8'",
                "'0:0:3:4:5:6:0:0'",
                "'2001:db8::/32'",
                "'::ffff:0:0/96'",
                "'::fffe:1.2.3.4'",
                "'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/127'",
            ],
        ),
        case("cidr", &["'0.0.0.0/0'", "'192.168.0.0/24'", "'192.168.0.1'", "'10'", "'::/0'", "'2001:db8::/32'", "'::1'"]),
        case("macaddr", &["'08:00:2b:01:02:03'", "'ff:ff:ff:ff:ff:ff'", "'0:0:0:0:0:0'"]),
        case("macaddr8", &["'08:00:2b:01:02:03:04:05'", "'ff:ff:ff:ff:ff:ff:ff:ff'", "'08:00:2b:01:02:03'"]),
        case("pg_lsn", &["'0/0'", "'16/B374D848'", "'FFFFFFFF/FFFFFFFF'", "'0/A'"]),
        case("tid", &["'(0,0)'", "'(4294967295,65535)'"]),
        case("txid_snapshot", &["'10:20:10,14,15'", "'1:1:'"]),
        case("pg_snapshot", &["'10:20:10,14,15'", "'1:1:'", "'1:9223372036854775807:'"]).since(13),
        case("point", &["'(1,2)'", "'(0.1,-Infinity)'"]),
        case("line", &["'{1,2,3}'"]),
        case("lseg", &["'[(1,2),(3,4)]'"]),
        case("box", &["'(3,4),(1,2)'"]),
        case("path", &["'[(1,2),(3,4)]'", "'((1,2),(3,4))'"]),
        case("polygon", &["'((1,2),(3,4),(5,6))'"]),
        case("circle", &["'<(1,2),3>'"]),
        case("int4range", &["'empty'", "'[1,10)'", "'(,5]'", "'(,)'"]),
        case("int8range", &["'[1,10]'"]),
        case("numrange", &["'(1.50,2.500]'"]),
        case("tsrange", &["'[2020-01-01 00:00:00.5,infinity)'"]),
        case("tstzrange", &["'[2020-01-01 00:00:00+05:30,)'"]),
        case("daterange", &["'[2020-01-01,2020-12-31]'"]),
        case("int4multirange", &["'{}'", "'{[1,3),[5,8)}'"]).since(14),
        case("nummultirange", &["'{[1.5,2.5)}'"]).since(14),
        case("tsmultirange", &["'{[2020-01-01,2020-01-02)}'"]).since(14),
        case("tstzmultirange", &["'{[2020-01-01,2020-01-02)}'"]).since(14),
        case("datemultirange", &["'{[2020-01-01,2020-01-02)}'"]).since(14),
        case("int8multirange", &["'{(,5)}'"]).since(14),
        case("regclass", &["'pg_class'", "0", "4294967295"]),
        case("regtype", &["'int4'", "'numeric'"]),
        case("regproc", &["'now'"]),
        case("regprocedure", &["'now()'"]),
        case("regoper", &["'|/'"]),
        case("regoperator", &["'+(int4,int4)'"]),
        case("regrole", &["'postgres'"]),
        case("regnamespace", &["'public'"]),
        case("regconfig", &["'english'"]),
        case("regdictionary", &["'simple'"]),
        case("regcollation", &["'\"C\"'"]).since(13),
        case("int2vector", &["''", "'1 2 3'"]),
        case("oidvector", &["'1 2 4294967295'"]),
        case("aclitem", &["'postgres=r/postgres'"]),
    ]
}

fn arrays() -> Vec<Case> {
    vec![
        case("integer[]", &["'{}'", "'{1,2,3}'", "'{NULL,-1,NULL}'", "array_fill(7, ARRAY[1000])"]),
        case("boolean[]", &["'{t,f,NULL}'"]),
        case("bigint[]", &["'{-9223372036854775808,9223372036854775807}'"]),
        case("smallint[]", &["'{-32768,32767}'"]),
        case("real[]", &["'{NaN,Infinity,-0,0.1,NULL}'"]),
        case("double precision[]", &["'{NaN,-Infinity,-0,0.1,1e-300,NULL}'"]),
        case("numeric(10,2)[]", &["'{1.5,-0.01,NULL}'"]),
        case("numeric[]", &["'{1.50,NaN,NULL,-0.001}'"]),
        case(
            "text[]",
            &[
                "ARRAY['', 'NULL', 'null', NULL, 'a,b', '{', '}', '\"', '\\', ' ', 'é', E'\\n', 'plain']",
                "ARRAY['a\\b\"c', '\\\\', '\"\"']",
                "ARRAY[repeat('x\"\\', 10000)]",
            ],
        ),
        case("character varying(20)[]", &["'{a,b}'"]),
        case("character(3)[]", &["'{a,NULL}'"]),
        case("name[]", &["'{a,\"b c\"}'"]),
        case("\"char\"[]", &["'{a,NULL}'"]),
        case("bytea[]", &["ARRAY['\\x00ff'::bytea, '\\x'::bytea, NULL]"]),
        case("date[]", &["'{2020-01-01,infinity,0044-03-15 BC}'"]),
        case("time without time zone[]", &["'{12:34:56.7,24:00:00}'"]),
        case("time with time zone[]", &["'{12:34:56+02}'"]),
        case("timestamp without time zone[]", &["'{2020-01-01 12:00:00.5,-infinity}'"]),
        case("timestamp(3) with time zone[]", &["'{2020-01-01 12:00:00.5+02,NULL}'"]),
        case("interval[]", &["'{1 day,-1 hour}'"]),
        case("money[]", &["'{1.50,-1234.56}'"]),
        case("uuid[]", &["'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'"]),
        case("json[]", &[r#"ARRAY['{"a": [1, "x"]}'::json, 'null']"#]),
        case("jsonb[]", &[r#"ARRAY['{"a": [1, "x"]}'::jsonb, NULL]"#]),
        case("inet[]", &["'{192.168.0.1/24,::1}'"]),
        case("bit(3)[]", &["'{101,NULL}'"]),
        case("oid[]", &["'{1,4294967295}'"]),
        case("box[]", &["'{(1,2),(3,4);(5,6),(7,8)}'"]),
        case("point[]", &["'{\"(1,2)\",\"(3,4)\"}'"]),
        case("int4range[]", &["'{\"[1,3)\",empty}'"]),
        case("regclass[]", &["'{pg_class}'"]),
        case("xml[]", &["ARRAY['<a/>'::xml]"]),
    ]
}

fn users() -> Vec<Case> {
    vec![
        case("public.mood", &["'sad'", "'it''s \"fine\"'", "'ü, {}'", "''", "'NULL'"]),
        case("public.mood[]", &["ARRAY['sad', 'it''s \"fine\"', 'ü, {}', NULL, '', 'NULL']::public.mood[]"]),
        case("\"Other\".\"user\"", &["'a'"]),
        case("public.price", &["0", "'123.4'"]),
        case("public.price[]", &["'{1,2.50,NULL}'"]),
        case("public.fine_price", &["'0.01'"]),
        case("public.scores", &["'{1,2,NULL}'"]),
        case("public.scores[]", &["'{\"{1,2}\",NULL,\"{}\"}'"]),
        case("public.short", &["'abc'"]),
        case("public.moods", &["ARRAY['sad', NULL]::public.mood[]"]),
        case("public.pair", &["ROW(1, 'a \"b\" (c), \\')", "ROW(NULL, NULL)"]),
        case("public.pair[]", &["ARRAY[ROW(1, 'x,y')::public.pair, NULL]"]),
        case("public.floats", &["'[1.5,2.5)'"]),
        case("public.floats[]", &["'{\"[1.5,2.5)\"}'"]),
        case("information_schema.yes_or_no", &["'YES'"]),
        case("information_schema.sql_identifier", &["'a'"]),
    ]
}

fn extensions() -> Vec<Case> {
    vec![
        case("public.citext", &["''", "'Aé'"]).of("citext"),
        case("public.citext[]", &["'{A,\"b c\"}'"]).of("citext"),
        case("public.hstore", &["''", "'a=>1, \"b \\\"q\"=>NULL'"]).of("hstore"),
        case("public.hstore[]", &["ARRAY['a=>1'::public.hstore]"]).of("hstore"),
        case("public.ltree", &["'Top.Science.Astronomy'", "''"]).of("ltree"),
        case("public.lquery", &["'Top.*{1,2}.!a'"]).of("ltree"),
        case("public.cube", &["'(1,2),(3,4)'"]).of("cube"),
        case("public.isbn13", &["'978-0-393-04002-9'"]).of("isn"),
        case("public.vector", &["'[1,2.5,-0.1]'", "'[1e-20]'"]).of("vector").elements("$::real[]"),
        case("public.vector(3)", &["'[1,2,3]'"]).of("vector").elements("$::real[]"),
        case("public.vector[]", &["ARRAY['[1,2]'::public.vector, NULL]"])
            .of("vector")
            .elements("CASE WHEN $ IS NOT NULL THEN ARRAY[$[1]::real[]::text::public.reals, $[2]::real[]::text::public.reals] END"),
        case("public.halfvec(2)", &["'[1,-65504]'", "'[0.1,6e-8]'"]).of("vector").elements("$::public.vector::real[]"),
        case("public.sparsevec(5)", &["'{1:1,3:2.5}/5'"]).of("vector"),
        case("public.geometry", &["'POINT(1 2)'", "'SRID=4326;POINT ZM (1 2 3 4)'", "'POLYGON EMPTY'", "'CIRCULARSTRING(0 0,1 1,2 0)'"])
            .of("postgis"),
        case("public.geometry(PointZ,4326)", &["'SRID=4326;POINT Z (1 2 3)'"]).of("postgis"),
        case("public.geometry(Geometry,3857)", &["'SRID=3857;LINESTRING(0 0,1 1)'"]).of("postgis"),
        case("public.geography(Point,4326)", &["'POINT(1 2)'"]).of("postgis"),
        case("public.geometry[]", &["ARRAY['POINT(1 2)'::public.geometry, NULL]"]).of("postgis"),
        case("public.box2d", &["'BOX(1 2,3 4)'"]).of("postgis"),
    ]
}
