//! The types that every server has under the same OIDs.
//!
//! Those of PostgreSQL 18, which has all that those before it have (13 brought `xid8`, 14 multiranges). The OIDs of a few more, row
//! types of the catalog and domains of the information schema, are given out when a database is made: they are asked for like
//! the types of users.

use super::Oid;

/// Base types: their OIDs, names, and the OIDs of their arrays (0 where there are none).
pub(crate) const BASES: [(Oid, &str, Oid); 70] = [
    (16, "bool", 1000),
    (17, "bytea", 1001),
    (18, "char", 1002),
    (19, "name", 1003),
    (20, "int8", 1016),
    (21, "int2", 1005),
    (22, "int2vector", 1006),
    (23, "int4", 1007),
    (24, "regproc", 1008),
    (25, "text", 1009),
    (26, "oid", 1028),
    (27, "tid", 1010),
    (28, "xid", 1011),
    (29, "cid", 1012),
    (30, "oidvector", 1013),
    (114, "json", 199),
    (142, "xml", 143),
    (194, "pg_node_tree", 0),
    (600, "point", 1017),
    (601, "lseg", 1018),
    (602, "path", 1019),
    (603, "box", 1020),
    (604, "polygon", 1027),
    (628, "line", 629),
    (650, "cidr", 651),
    (700, "float4", 1021),
    (701, "float8", 1022),
    (718, "circle", 719),
    (774, "macaddr8", 775),
    (790, "money", 791),
    (829, "macaddr", 1040),
    (869, "inet", 1041),
    (1033, "aclitem", 1034),
    (1042, "bpchar", 1014),
    (1043, "varchar", 1015),
    (1082, "date", 1182),
    (1083, "time", 1183),
    (1114, "timestamp", 1115),
    (1184, "timestamptz", 1185),
    (1186, "interval", 1187),
    (1266, "timetz", 1270),
    (1560, "bit", 1561),
    (1562, "varbit", 1563),
    (1700, "numeric", 1231),
    (1790, "refcursor", 2201),
    (2202, "regprocedure", 2207),
    (2203, "regoper", 2208),
    (2204, "regoperator", 2209),
    (2205, "regclass", 2210),
    (2206, "regtype", 2211),
    (2950, "uuid", 2951),
    (2970, "txid_snapshot", 2949),
    (3220, "pg_lsn", 3221),
    (3361, "pg_ndistinct", 0),
    (3402, "pg_dependencies", 0),
    (3614, "tsvector", 3643),
    (3615, "tsquery", 3645),
    (3642, "gtsvector", 3644),
    (3734, "regconfig", 3735),
    (3769, "regdictionary", 3770),
    (3802, "jsonb", 3807),
    (4072, "jsonpath", 4073),
    (4089, "regnamespace", 4090),
    (4096, "regrole", 4097),
    (4191, "regcollation", 4192),
    (4600, "pg_brin_bloom_summary", 0),
    (4601, "pg_brin_minmax_multi_summary", 0),
    (5017, "pg_mcv_list", 0),
    (5038, "pg_snapshot", 5039),
    (5069, "xid8", 271),
];

/// Ranges, likewise.
pub(crate) const RANGES: [(Oid, &str, Oid); 6] = [
    (3904, "int4range", 3905),
    (3906, "numrange", 3907),
    (3908, "tsrange", 3909),
    (3910, "tstzrange", 3911),
    (3912, "daterange", 3913),
    (3926, "int8range", 3927),
];

/// Multiranges, likewise.
pub(crate) const MULTIRANGES: [(Oid, &str, Oid); 6] = [
    (4451, "int4multirange", 6150),
    (4532, "nummultirange", 6151),
    (4533, "tsmultirange", 6152),
    (4534, "tstzmultirange", 6153),
    (4535, "datemultirange", 6155),
    (4536, "int8multirange", 6157),
];

/// The OIDs that something depends on by name.
pub(crate) mod oids {
    use super::Oid;

    pub(crate) const BOOL: Oid = 16;
    pub(crate) const BYTEA: Oid = 17;
    pub(crate) const CHAR: Oid = 18;
    pub(crate) const NAME: Oid = 19;
    pub(crate) const INT8: Oid = 20;
    pub(crate) const INT2: Oid = 21;
    pub(crate) const INT4: Oid = 23;
    pub(crate) const TEXT: Oid = 25;
    pub(crate) const OID: Oid = 26;
    pub(crate) const TID: Oid = 27;
    pub(crate) const XID: Oid = 28;
    pub(crate) const CID: Oid = 29;
    pub(crate) const JSON: Oid = 114;
    pub(crate) const BOX: Oid = 603;
    pub(crate) const CIDR: Oid = 650;
    pub(crate) const FLOAT4: Oid = 700;
    pub(crate) const FLOAT8: Oid = 701;
    pub(crate) const MACADDR8: Oid = 774;
    pub(crate) const MONEY: Oid = 790;
    pub(crate) const MACADDR: Oid = 829;
    pub(crate) const INET: Oid = 869;
    pub(crate) const BPCHAR: Oid = 1042;
    pub(crate) const VARCHAR: Oid = 1043;
    pub(crate) const DATE: Oid = 1082;
    pub(crate) const TIME: Oid = 1083;
    pub(crate) const TIMESTAMP: Oid = 1114;
    pub(crate) const TIMESTAMPTZ: Oid = 1184;
    pub(crate) const INTERVAL: Oid = 1186;
    pub(crate) const TIMETZ: Oid = 1266;
    pub(crate) const BIT: Oid = 1560;
    pub(crate) const VARBIT: Oid = 1562;
    pub(crate) const NUMERIC: Oid = 1700;
    pub(crate) const REFCURSOR: Oid = 1790;
    pub(crate) const UUID: Oid = 2950;
    pub(crate) const TXID_SNAPSHOT: Oid = 2970;
    pub(crate) const PG_LSN: Oid = 3220;
    pub(crate) const JSONB: Oid = 3802;
    pub(crate) const JSONPATH: Oid = 4072;
    pub(crate) const PG_SNAPSHOT: Oid = 5038;
    pub(crate) const XID8: Oid = 5069;
}
