//! The tables of `pg_catalog`, made when a query names them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider as _, SchemaProvider, Session, TableProvider};
use datafusion::common::Result as DataFusionResult;
use datafusion::datasource::{MemTable, TableType};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt as _;

use super::objects::{Object, Objects, ROLE_OID};
use crate::query::catalog::{INVENTORIES_MAX, StreamCatalog};

/// In the metadata of a field: the number of PostgreSQL's type, where Arrow's says less.
pub(crate) const OID_MARK: &str = "logweir.oid";

/// Tables with rows: names and columns. `o` is oid, `n` name or text, `b` boolean, `s` smallint, `i` integer, `l` bigint, `f` real,
/// `a` a list of text.
const FILLED: [(&str, &str); 10] = [
    (
        "pg_class",
        "oid:o relname:n relnamespace:o reltype:o reloftype:o relowner:o relam:o relfilenode:o reltablespace:o relpages:i reltuples:f \
         relallvisible:i reltoastrelid:o relhasindex:b relisshared:b relpersistence:n relkind:n relnatts:s relchecks:s relhasrules:b \
         relhastriggers:b relhassubclass:b relrowsecurity:b relforcerowsecurity:b relispopulated:b relreplident:n relispartition:b \
         relrewrite:o relfrozenxid:l relminmxid:l relacl:a reloptions:a relpartbound:n",
    ),
    ("pg_namespace", "oid:o nspname:n nspowner:o nspacl:a"),
    (
        "pg_attribute",
        "attrelid:o attname:n atttypid:o attstattarget:i attlen:s attnum:s attndims:i attcacheoff:i atttypmod:i attbyval:b attalign:n \
         attstorage:n attcompression:n attnotnull:b atthasdef:b atthasmissing:b attidentity:n attgenerated:n attisdropped:b attislocal:b \
         attinhcount:i attcollation:o attacl:a attoptions:a attfdwoptions:a attmissingval:a",
    ),
    (
        "pg_type",
        "oid:o typname:n typnamespace:o typowner:o typlen:s typbyval:b typtype:n typcategory:n typispreferred:b typisdefined:b typdelim:n \
         typrelid:o typsubscript:n typelem:o typarray:o typinput:n typoutput:n typreceive:n typsend:n typmodin:n typmodout:n typanalyze:n \
         typalign:n typstorage:n typnotnull:b typbasetype:o typtypmod:i typndims:i typcollation:o typdefaultbin:n typdefault:n typacl:a",
    ),
    (
        "pg_database",
        "oid:o datname:n datdba:o encoding:i datlocprovider:n datistemplate:b datallowconn:b datconnlimit:i datfrozenxid:l datminmxid:l \
         dattablespace:o datcollate:n datctype:n daticulocale:n datcollversion:n datacl:a",
    ),
    (
        "pg_roles",
        "rolname:n rolsuper:b rolinherit:b rolcreaterole:b rolcreatedb:b rolcanlogin:b rolreplication:b rolconnlimit:i rolpassword:n \
         rolvaliduntil:n rolbypassrls:b rolconfig:a oid:o",
    ),
    ("pg_user", "usename:n usesysid:o usecreatedb:b usesuper:b userepl:b usebypassrls:b passwd:n valuntil:n useconfig:a"),
    ("pg_settings", "name:n setting:n unit:n category:n short_desc:n context:n vartype:n source:n"),
    ("pg_tables", "schemaname:n tablename:n tableowner:n tablespace:n hasindexes:b hasrules:b hastriggers:b rowsecurity:b"),
    ("pg_views", "schemaname:n viewname:n viewowner:n definition:n"),
];

/// Tables that never have a row.
const EMPTY: [(&str, &str); 39] = [
    ("pg_am", "oid:o amname:n amhandler:n amtype:n"),
    ("pg_attrdef", "oid:o adrelid:o adnum:s adbin:n"),
    ("pg_auth_members", "roleid:o member:o grantor:o admin_option:b"),
    ("pg_authid", "oid:o rolname:n rolsuper:b rolcanlogin:b"),
    ("pg_cast", "oid:o castsource:o casttarget:o castfunc:o castcontext:n castmethod:n"),
    (
        "pg_collation",
        "oid:o collname:n collnamespace:o collowner:o collprovider:n collisdeterministic:b collencoding:i collcollate:n collctype:n",
    ),
    (
        "pg_constraint",
        "oid:o conname:n connamespace:o contype:n condeferrable:b condeferred:b convalidated:b conrelid:o contypid:o conindid:o conparentid:o \
         confrelid:o confupdtype:n confdeltype:n confmatchtype:n conislocal:b coninhcount:i connoinherit:b conkey:a confkey:a conbin:n",
    ),
    ("pg_conversion", "oid:o conname:n connamespace:o"),
    ("pg_default_acl", "oid:o defaclrole:o defaclnamespace:o defaclobjtype:n defaclacl:a"),
    ("pg_depend", "classid:o objid:o objsubid:i refclassid:o refobjid:o refobjsubid:i deptype:n"),
    ("pg_description", "objoid:o classoid:o objsubid:i description:n"),
    ("pg_enum", "oid:o enumtypid:o enumsortorder:f enumlabel:n"),
    ("pg_event_trigger", "oid:o evtname:n evtevent:n evtowner:o evtfoid:o evtenabled:n evttags:a"),
    ("pg_extension", "oid:o extname:n extowner:o extnamespace:o extrelocatable:b extversion:n extconfig:a extcondition:a"),
    ("pg_foreign_data_wrapper", "oid:o fdwname:n fdwowner:o fdwhandler:o fdwvalidator:o fdwacl:a fdwoptions:a"),
    ("pg_foreign_server", "oid:o srvname:n srvowner:o srvfdw:o srvtype:n srvversion:n srvacl:a srvoptions:a"),
    ("pg_foreign_table", "ftrelid:o ftserver:o ftoptions:a"),
    (
        "pg_index",
        "indexrelid:o indrelid:o indnatts:s indnkeyatts:s indisunique:b indisprimary:b indisexclusion:b indimmediate:b indisclustered:b \
         indisvalid:b indcheckxmin:b indisready:b indislive:b indisreplident:b indkey:a indcollation:a indclass:a indoption:a indexprs:n indpred:n",
    ),
    ("pg_indexes", "schemaname:n tablename:n indexname:n tablespace:n indexdef:n"),
    ("pg_inherits", "inhrelid:o inhparent:o inhseqno:i inhdetachpending:b"),
    ("pg_language", "oid:o lanname:n lanowner:o lanispl:b lanpltrusted:b"),
    ("pg_locks", "locktype:n database:o relation:o pid:i mode:n granted:b transactionid:l"),
    ("pg_matviews", "schemaname:n matviewname:n matviewowner:n definition:n"),
    ("pg_opclass", "oid:o opcmethod:o opcname:n opcnamespace:o"),
    ("pg_operator", "oid:o oprname:n oprnamespace:o oprleft:o oprright:o oprresult:o"),
    ("pg_partitioned_table", "partrelid:o partstrat:n partnatts:s partdefid:o"),
    ("pg_policy", "oid:o polname:n polrelid:o polcmd:n polpermissive:b polroles:a polqual:n polwithcheck:n"),
    (
        "pg_proc",
        "oid:o proname:n pronamespace:o proowner:o prolang:o prokind:n prosecdef:b proretset:b provolatile:n pronargs:s prorettype:o \
         proargtypes:a proargnames:a prosrc:n proacl:a",
    ),
    ("pg_publication", "oid:o pubname:n pubowner:o puballtables:b pubinsert:b pubupdate:b pubdelete:b pubtruncate:b pubviaroot:b"),
    ("pg_publication_namespace", "oid:o pnpubid:o pnnspid:o"),
    ("pg_publication_rel", "oid:o prpubid:o prrelid:o prqual:n prattrs:a"),
    ("pg_range", "rngtypid:o rngsubtype:o rngmultitypid:o rngcollation:o rngsubopc:o"),
    ("pg_rewrite", "oid:o rulename:n ev_class:o ev_type:n ev_enabled:n is_instead:b"),
    ("pg_sequence", "seqrelid:o seqtypid:o seqstart:l seqincrement:l seqmax:l seqmin:l seqcache:l seqcycle:b"),
    ("pg_shdescription", "objoid:o classoid:o description:n"),
    ("pg_stat_activity", "datid:o datname:n pid:i usename:n application_name:n state:n query:n backend_start:n"),
    ("pg_statistic_ext", "oid:o stxrelid:o stxname:n stxnamespace:o stxowner:o stxkeys:a stxkind:a stxstattarget:i"),
    ("pg_tablespace", "oid:o spcname:n spcowner:o spcacl:a spcoptions:a"),
    (
        "pg_trigger",
        "oid:o tgrelid:o tgparentid:o tgname:n tgfoid:o tgtype:s tgenabled:n tgisinternal:b tgconstrrelid:o tgconstrindid:o tgconstraint:o",
    ),
];

/// True for a table that never has a row.
pub(super) fn is_always_empty(name: &str) -> bool {
    EMPTY.iter().any(|(empty, _)| *empty == name)
}

/// Types that columns and parameters have: number, name, how people call it, bytes (-1: varies), category, the type of a list of it.
const TYPES: [(u32, &str, &str, i16, &str, u32); 21] = [
    (16, "bool", "boolean", 1, "B", 1000),
    (17, "bytea", "bytea", -1, "U", 1001),
    (18, "char", "\"char\"", 1, "Z", 1002),
    (19, "name", "name", 64, "S", 1003),
    (20, "int8", "bigint", 8, "N", 1016),
    (21, "int2", "smallint", 2, "N", 1005),
    (23, "int4", "integer", 4, "N", 1007),
    (25, "text", "text", -1, "S", 1009),
    (26, "oid", "oid", 4, "N", 1028),
    (114, "json", "json", -1, "U", 199),
    (700, "float4", "real", 4, "N", 1021),
    (701, "float8", "double precision", 8, "N", 1022),
    (1043, "varchar", "character varying", -1, "S", 1015),
    (1082, "date", "date", 4, "D", 1182),
    (1083, "time", "time without time zone", 8, "D", 1183),
    (1114, "timestamp", "timestamp without time zone", 8, "D", 1115),
    (1184, "timestamptz", "timestamp with time zone", 8, "D", 1185),
    (1186, "interval", "interval", 16, "T", 1187),
    (1700, "numeric", "numeric", -1, "N", 1231),
    (2950, "uuid", "uuid", 16, "U", 2951),
    (3802, "jsonb", "jsonb", -1, "U", 3807),
];

/// How people call a type.
pub(super) fn type_name(oid: u32) -> String {
    let known = TYPES.iter().find_map(|(one, _, shown, .., list)| match oid {
        oid if oid == *one => Some((*shown).to_owned()),
        oid if oid == *list => Some(format!("{shown}[]")),
        _ => None,
    });
    known.unwrap_or_else(|| "???".to_owned())
}

/// The number of a type, by either of its names.
pub(super) fn type_of_name(name: &str) -> Option<u32> {
    let name = name.trim().to_lowercase();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    TYPES.iter().find(|(_, short, shown, ..)| name == *short || name == *shown).map(|(oid, ..)| *oid)
}

/// The number of PostgreSQL's type that a column is shown as.
pub fn type_oid(field: &Field) -> u32 {
    if let Some(oid) = field.metadata().get(OID_MARK).and_then(|oid| oid.parse().ok()) {
        return oid;
    }
    let extension = field.metadata().get("ARROW:extension:name").map(String::as_str);
    match field.data_type() {
        DataType::Boolean => 16,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => 21,
        DataType::Int32 | DataType::UInt16 => 23,
        DataType::Int64 | DataType::UInt32 => 20,
        DataType::UInt64 | DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => 1700,
        DataType::Float16 | DataType::Float32 => 700,
        DataType::Float64 => 701,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if extension == Some("arrow.json") => 114,
        DataType::FixedSizeBinary(16) if extension == Some("arrow.uuid") => 2950,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => 17,
        DataType::Date32 | DataType::Date64 => 1082,
        DataType::Time32(_) | DataType::Time64(_) => 1083,
        DataType::Timestamp(_, None) => 1114,
        DataType::Timestamp(_, Some(_)) => 1184,
        DataType::Duration(_) | DataType::Interval(_) => 1186,
        DataType::Dictionary(_, values) => type_oid(&Field::new("", values.as_ref().clone(), true)),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => match item.data_type() {
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::Struct(_) | DataType::Map(..) => 114,
            _ => {
                let of = type_oid(item);
                TYPES.iter().find(|(oid, ..)| *oid == of).map_or(1009, |(.., list)| *list)
            }
        },
        DataType::Struct(_) | DataType::Map(..) => 114,
        _ => 25,
    }
}

/// A list of numbers that is shown as one of `oid`.
pub(in crate::query) fn oid_list() -> DataType {
    let mark = [(OID_MARK.to_owned(), "26".to_owned())].into();
    DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true).with_metadata(mark)))
}

/// The type of a list's items, if the number is that of a list.
pub fn item_oid(list: u32) -> Option<u32> {
    TYPES.iter().find(|(.., of)| *of == list).map(|(oid, ..)| *oid)
}

/// `pg_catalog` as a client sees it.
#[derive(Debug)]
pub(super) struct PgSchema {
    pub(super) objects: Arc<Objects>,
    pub(super) current: Arc<StreamCatalog>,
}

fn columns_of(name: &str) -> Option<&'static str> {
    FILLED.iter().chain(&EMPTY).find(|(known, _)| *known == name).map(|(_, columns)| *columns)
}

fn schema_of(columns: &str) -> Schema {
    let fields = columns.split_whitespace().filter_map(|column| column.split_once(':')).map(|(name, kind)| {
        let mut field = Field::new(
            name,
            match kind {
                "o" => DataType::UInt32,
                "b" => DataType::Boolean,
                "s" => DataType::Int16,
                "i" => DataType::Int32,
                "l" => DataType::Int64,
                "f" => DataType::Float32,
                "a" => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
                _ => DataType::Utf8,
            },
            true,
        );
        if kind == "o" {
            field = field.with_metadata(HashMap::from([(OID_MARK.to_owned(), "26".to_owned())]));
        }
        field
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// A row: what is not named is NULL, or what most rows have.
type Row = Vec<(&'static str, Cell)>;

#[derive(Debug, Clone)]
enum Cell {
    Oid(u32),
    Text(String),
    Bool(bool),
    Number(i64),
}

fn word(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

/// A table of rows.
fn batch(columns: &str, rows: &[Row]) -> DataFusionResult<RecordBatch> {
    let schema = schema_of(columns);
    let arrays = schema.fields().iter().map(|field| -> ArrayRef {
        let cells = || rows.iter().map(|row| row.iter().find(|(name, _)| name == field.name()).map(|(_, cell)| cell));
        let number = |cell: Option<&Cell>| match cell {
            Some(Cell::Number(number)) => *number,
            _ => 0,
        };
        match field.data_type() {
            DataType::UInt32 => Arc::new(UInt32Array::from_iter(cells().map(|cell| match cell {
                Some(Cell::Oid(oid)) => Some(*oid),
                _ => Some(0),
            }))),
            DataType::Boolean => Arc::new(BooleanArray::from_iter(cells().map(|cell| match cell {
                Some(Cell::Bool(value)) => Some(*value),
                _ => Some(false),
            }))),
            DataType::Int16 => Arc::new(Int16Array::from_iter_values(cells().map(|cell| i16::try_from(number(cell)).unwrap_or(i16::MAX)))),
            DataType::Int32 => Arc::new(Int32Array::from_iter_values(cells().map(|cell| i32::try_from(number(cell)).unwrap_or(i32::MAX)))),
            DataType::Int64 => Arc::new(Int64Array::from_iter_values(cells().map(number))),
            #[allow(clippy::cast_precision_loss)]
            DataType::Float32 => Arc::new(Float32Array::from_iter_values(cells().map(|cell| number(cell) as f32))),
            DataType::Utf8 => Arc::new(StringArray::from_iter(cells().map(|cell| match cell {
                Some(Cell::Text(text)) => Some(text.clone()),
                _ => None,
            }))),
            other => new_null_array(other, rows.len()),
        }
    });
    Ok(RecordBatch::try_new(Arc::new(schema.clone()), arrays.collect())?)
}

impl PgSchema {
    fn rows(&self, name: &str) -> Vec<Row> {
        let objects = &self.objects;
        match name {
            "pg_namespace" => {
                let row = |(oid, name): &(u32, String)| -> Row {
                    vec![("oid", Cell::Oid(*oid)), ("nspname", word(name)), ("nspowner", Cell::Oid(ROLE_OID))]
                };
                objects.schemas.iter().map(row).collect()
            }
            "pg_class" => objects
                .tables
                .iter()
                .map(|table| -> Row {
                    vec![
                        ("oid", Cell::Oid(table.oid)),
                        ("relname", word(&table.name)),
                        ("relnamespace", Cell::Oid(table.schema_oid)),
                        ("relowner", Cell::Oid(ROLE_OID)),
                        ("relpersistence", word("p")),
                        ("relkind", word(if table.is_ours { "v" } else { "r" })),
                        ("relreplident", word("d")),
                        ("relispopulated", Cell::Bool(true)),
                        ("reltuples", Cell::Number(-1)),
                    ]
                })
                .collect(),
            "pg_type" => types(),
            "pg_database" => objects
                .databases
                .iter()
                .map(|(oid, name)| -> Row {
                    vec![
                        ("oid", Cell::Oid(*oid)),
                        ("datname", word(name)),
                        ("datdba", Cell::Oid(ROLE_OID)),
                        ("encoding", Cell::Number(6)),
                        ("datlocprovider", word("c")),
                        ("datallowconn", Cell::Bool(true)),
                        ("datconnlimit", Cell::Number(-1)),
                        ("datcollate", word("C")),
                        ("datctype", word("C")),
                    ]
                })
                .collect(),
            "pg_roles" => vec![vec![
                ("rolname", word(&objects.user)),
                ("rolcanlogin", Cell::Bool(true)),
                ("rolinherit", Cell::Bool(true)),
                ("rolconnlimit", Cell::Number(-1)),
                ("oid", Cell::Oid(ROLE_OID)),
            ]],
            "pg_user" => vec![vec![("usename", word(&objects.user)), ("usesysid", Cell::Oid(ROLE_OID))]],
            "pg_settings" => objects
                .settings
                .iter()
                .map(|(name, setting)| {
                    vec![("name", word(name)), ("setting", word(setting)), ("context", word("user")), ("vartype", word("string"))]
                })
                .collect(),
            "pg_tables" => {
                let tables = objects.tables.iter().filter(|table| !table.is_ours);
                tables
                    .map(|table| {
                        vec![("schemaname", word(&table.schema)), ("tablename", word(&table.name)), ("tableowner", word("logweir"))]
                    })
                    .collect()
            }
            "pg_views" => {
                let views = objects.tables.iter().filter(|table| table.is_ours);
                views
                    .map(|table| vec![("schemaname", word(&table.schema)), ("viewname", word(&table.name)), ("viewowner", word("logweir"))])
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

/// `pg_attribute`: the columns of tables. Only those are looked at that a query asks for by their numbers, for each costs a look at its
/// files.
#[derive(Debug)]
struct Attributes {
    objects: Arc<Objects>,
    current: Arc<StreamCatalog>,
    schema: SchemaRef,
}

impl Attributes {
    const NAME: &str = "pg_attribute";

    /// A batch of the columns of the tables that `wanted` has; of one that cannot be read (now) there are none.
    async fn batch(&self, wanted: Option<&[u32]>) -> DataFusionResult<RecordBatch> {
        let tables = self.objects.tables.iter().filter(|table| wanted.is_none_or(|wanted| wanted.contains(&table.oid)));
        let looks: Vec<_> = tables.map(|table| self.rows(table)).collect();
        let rows: Vec<Row> = futures::stream::iter(looks).buffered(INVENTORIES_MAX).concat().await;
        batch(columns_of(Self::NAME).unwrap_or_default(), &rows)
    }

    async fn rows(&self, table: &Object) -> Vec<Row> {
        let Some(schema) = self.current.schema(&table.schema) else { return Vec::new() };
        let Ok(Some(provider)) = schema.table(&table.name).await else { return Vec::new() };
        let row = |(index, field): (usize, &Arc<Field>)| -> Row {
            let oid = type_oid(field);
            let length = TYPES.iter().find(|(known, ..)| *known == oid).map_or(-1, |(_, _, _, length, ..)| *length);
            vec![
                ("attrelid", Cell::Oid(table.oid)),
                ("attname", word(field.name())),
                ("atttypid", Cell::Oid(oid)),
                ("attlen", Cell::Number(length.into())),
                ("attnum", Cell::Number(i64::try_from(index + 1).unwrap_or(i64::MAX))),
                ("atttypmod", Cell::Number(-1)),
                ("attnotnull", Cell::Bool(!field.is_nullable())),
                ("attidentity", word("")),
                ("attgenerated", word("")),
                ("attstorage", word("p")),
                ("attislocal", Cell::Bool(true)),
            ]
        };
        provider.schema().fields().iter().enumerate().map(row).collect()
    }
}

#[async_trait]
impl TableProvider for Attributes {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let pushed = filters.iter().map(|filter| match tables_of(filter) {
            Some(_) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        });
        Ok(pushed.collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let wanted = filters.iter().filter_map(tables_of).reduce(|one, other| one.into_iter().filter(|oid| other.contains(oid)).collect());
        let rows = self.batch(wanted.as_deref()).await?;
        MemTable::try_new(self.schema(), vec![vec![rows]])?.scan(state, projection, &[], limit).await
    }
}

/// The tables that a filter on `attrelid` lets through, if it is one.
fn tables_of(filter: &Expr) -> Option<Vec<u32>> {
    fn is_table(expr: &Expr) -> bool {
        match expr {
            Expr::Column(column) => column.name == "attrelid",
            Expr::Cast(cast) => is_table(&cast.expr),
            _ => false,
        }
    }
    let number = |expr: &Expr| match expr {
        Expr::Literal(value, _) => value.to_string().parse().ok(),
        _ => None,
    };
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::Eq if is_table(left) => Some(vec![number(right)?]),
            Operator::Eq if is_table(right) => Some(vec![number(left)?]),
            Operator::Or => Some([tables_of(left)?, tables_of(right)?].concat()),
            _ => None,
        },
        Expr::InList(list) if !list.negated && is_table(&list.expr) => list.list.iter().map(number).collect(),
        _ => None,
    }
}

fn types() -> Vec<Row> {
    let mut rows = Vec::new();
    for (oid, name, _, length, category, list) in TYPES {
        let common = |oid: u32, name: String, length: i16, category: &str| -> Row {
            vec![
                ("oid", Cell::Oid(oid)),
                ("typname", Cell::Text(name)),
                ("typnamespace", Cell::Oid(super::objects::PG_CATALOG_OID)),
                ("typowner", Cell::Oid(ROLE_OID)),
                ("typlen", Cell::Number(length.into())),
                ("typtype", word("b")),
                ("typcategory", word(category)),
                ("typisdefined", Cell::Bool(true)),
                ("typdelim", word(",")),
                ("typinput", word("-")),
                ("typtypmod", Cell::Number(-1)),
            ]
        };
        let mut row = common(oid, name.to_owned(), length, category);
        row.push(("typarray", Cell::Oid(list)));
        rows.push(row);
        let mut row = common(list, format!("_{name}"), -1, "A");
        row.push(("typelem", Cell::Oid(oid)));
        // By this drivers tell arrays from others.
        row.retain(|(name, _)| *name != "typinput");
        row.push(("typinput", word("array_in")));
        rows.push(row);
    }
    rows
}

#[async_trait]
impl SchemaProvider for PgSchema {
    fn table_names(&self) -> Vec<String> {
        FILLED.iter().chain(&EMPTY).map(|(name, _)| (*name).to_owned()).collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        let Some(columns) = columns_of(name) else { return Ok(None) };
        if name == Attributes::NAME {
            let (objects, current) = (Arc::clone(&self.objects), Arc::clone(&self.current));
            return Ok(Some(Arc::new(Attributes { objects, current, schema: Arc::new(schema_of(columns)) })));
        }
        let batch = batch(columns, &self.rows(name))?;
        Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        columns_of(name).is_some()
    }
}
