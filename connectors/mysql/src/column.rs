//! One column: what the log and the server say of it, merged into what it is carried as.
//!
//! The log decides how bytes are read and, where it has metadata, what they mean; the server's description (or the one kept
//! in the checkpoint) fills what the log leaves open, and tells apart what the log writes alike: a MariaDB UUID
//! is a BINARY(16) to the log, its JSON a LONGTEXT.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow_schema::{DataType, Field, TimeUnit};
use logweir_core::Column;
use serde_json::json;

use crate::catalog::ColumnShape;
use crate::table_map::{MappedColumn, types};
use crate::value::charset::Charset;
use crate::value::temporal;

/// Field metadata: the spatial reference system of a geometry column's values.
pub(crate) const SRID: &str = "logweir.srid";
const EXTENSION_NAME: &str = "ARROW:extension:name";

/// How a value lies in a row image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// In so many bytes.
    Fixed(usize),
    /// Behind its length, which is in so many bytes.
    Prefixed(usize),
}

/// What the bytes of a value mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Int {
        bytes: u8,
        unsigned: bool,
    },
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Bit,
    Year,
    Date,
    Datetime {
        fsp: u8,
    },
    Timestamp {
        fsp: u8,
    },
    Time {
        fsp: u8,
    },
    OldDatetime,
    OldTimestamp,
    OldTime,
    Text {
        charset: Charset,
    },
    /// Shorter values are filled up with zeros: those of a BINARY are cut off in the log.
    Binary {
        pad: usize,
    },
    CompressedText {
        charset: Charset,
    },
    CompressedBinary,
    Enum {
        labels: Arc<[String]>,
    },
    Set {
        labels: Arc<[String]>,
    },
    Json,
    Geometry {
        srid: u32,
    },
    Vector,
    Uuid,
    Inet4,
    Inet6,
}

/// A column that is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnPlan {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) source_type: String,
    /// The character set, for the columns that have one.
    charset: Option<Charset>,
    /// What else the server may call the type.
    may_be: &'static [&'static str],
}

/// Why a column cannot be carried: the problem, and what mends it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ColumnError {
    pub(crate) problem: String,
    pub(crate) remedy: Option<&'static str>,
}

impl ColumnError {
    fn new(problem: impl Into<String>) -> Self {
        ColumnError { problem: problem.into(), remedy: None }
    }

    fn lacks(what: &str) -> Self {
        ColumnError { problem: format!("the binlog does not say the {what} of a column"), remedy: Some(FULL_METADATA) }
    }
}

/// The remedy for everything that a table map leaves open.
pub(crate) const FULL_METADATA: &str = "run SET GLOBAL binlog_row_metadata = FULL on the server";

/// How the values of a column lie in row images.
pub(crate) fn wire(mapped: &MappedColumn) -> Wire {
    use types::*;
    let length = usize::from(mapped.length);
    let prefix = if length > 255 { 2 } else { 1 };
    match mapped.code {
        TINY | YEAR => Wire::Fixed(1),
        SHORT => Wire::Fixed(2),
        INT24 | DATE | NEWDATE | TIME => Wire::Fixed(3),
        LONG | FLOAT | TIMESTAMP => Wire::Fixed(4),
        LONGLONG | DOUBLE | DATETIME => Wire::Fixed(8),
        TIMESTAMP2 => Wire::Fixed(temporal::timestamp2_len(mapped.length as u8)),
        DATETIME2 => Wire::Fixed(temporal::datetime2_len(mapped.length as u8)),
        TIME2 => Wire::Fixed(temporal::time2_len(mapped.length as u8)),
        NEWDECIMAL => Wire::Fixed(crate::value::decimal::decimal_bytes(mapped.length as u8, mapped.scale)),
        BIT => Wire::Fixed(length + usize::from(mapped.scale > 0)),
        ENUM | SET => Wire::Fixed(length),
        VARCHAR | VAR_STRING | STRING | VARCHAR_COMPRESSED => Wire::Prefixed(prefix),
        // Every other type that the table map lets through is some blob, with the length of its length.
        _ => Wire::Prefixed(length),
    }
}

/// True if the server's name of a type can be what the log writes so.
pub(crate) fn fits(mapped: &MappedColumn, shape: &ColumnShape) -> bool {
    use types::*;
    let name = shape.data_type.as_str();
    match mapped.code {
        TINY => matches!(name, "tinyint" | "bool" | "boolean"),
        SHORT => name == "smallint",
        INT24 => name == "mediumint",
        LONG => matches!(name, "int" | "integer"),
        LONGLONG => matches!(name, "bigint" | "serial"),
        FLOAT => name == "float",
        DOUBLE => matches!(name, "double" | "real"),
        NEWDECIMAL => matches!(name, "decimal" | "numeric"),
        BIT => name == "bit",
        YEAR => name == "year",
        DATE | NEWDATE => name == "date",
        TIME | TIME2 => name == "time",
        DATETIME | DATETIME2 => name == "datetime",
        TIMESTAMP | TIMESTAMP2 => name == "timestamp",
        ENUM => name == "enum",
        SET => name == "set",
        JSON => name == "json",
        VECTOR => name == "vector",
        GEOMETRY => geometry_name(name).is_some(),
        VARCHAR | VAR_STRING => matches!(name, "varchar" | "nvarchar" | "varbinary" | "vector"),
        VARCHAR_COMPRESSED => matches!(name, "varchar" | "varbinary"),
        STRING => match name {
            "char" | "nchar" | "binary" => true,
            "uuid" | "inet6" => mapped.length == 16,
            "inet4" => mapped.length == 4,
            _ => false,
        },
        BLOB_COMPRESSED => blob_length(name).is_some(),
        _ => name == "json" || blob_length(name).is_some_and(|length| length == mapped.length),
    }
}

const GEOMETRIES: [&str; 8] =
    ["geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection"];

fn geometry_name(name: &str) -> Option<&'static str> {
    // MySQL's name for it from 8.0 on.
    let name = if name == "geomcollection" { "geometrycollection" } else { name };
    GEOMETRIES.into_iter().find(|known| *known == name)
}

/// The length of the length of a blob or text type.
fn blob_length(name: &str) -> Option<u16> {
    match name {
        "tinyblob" | "tinytext" => Some(1),
        "blob" | "text" => Some(2),
        "mediumblob" | "mediumtext" => Some(3),
        "longblob" | "longtext" => Some(4),
        _ => None,
    }
}

impl ColumnPlan {
    /// Merges what the log says with what the server says; where both speak, the log is right about its own place.
    pub(crate) fn merge(mapped: &MappedColumn, name: &str, shape: Option<&ColumnShape>) -> Result<Self, ColumnError> {
        use types::*;
        let data_type = shape.map_or("", |shape| shape.data_type.as_str());
        let fsp = mapped.length as u8;
        let mut charset = None;
        let (kind, source_type) = match mapped.code {
            TINY => integer(mapped, shape, 1, "tinyint")?,
            SHORT => integer(mapped, shape, 2, "smallint")?,
            INT24 => integer(mapped, shape, 3, "mediumint")?,
            LONG => integer(mapped, shape, 4, "int")?,
            LONGLONG => integer(mapped, shape, 8, "bigint")?,
            FLOAT => (Kind::Float, "float".to_owned()),
            DOUBLE => (Kind::Double, "double".to_owned()),
            NEWDECIMAL => (
                Kind::Decimal { precision: mapped.length as u8, scale: mapped.scale },
                format!("decimal({},{})", mapped.length, mapped.scale),
            ),
            BIT => (Kind::Bit, format!("bit({})", mapped.length * 8 + u16::from(mapped.scale))),
            YEAR => (Kind::Year, "year".to_owned()),
            DATE | NEWDATE => (Kind::Date, "date".to_owned()),
            DATETIME2 => (Kind::Datetime { fsp }, with_fraction("datetime", fsp)),
            TIMESTAMP2 => (Kind::Timestamp { fsp }, with_fraction("timestamp", fsp)),
            TIME2 => (Kind::Time { fsp }, with_fraction("time", fsp)),
            DATETIME | TIMESTAMP | TIME => old_temporal(mapped, shape)?,
            ENUM | SET => {
                let set = mapped.code == SET;
                let labels = labels(mapped, shape)?;
                let source_type = label_type(if set { "set" } else { "enum" }, &labels);
                (if set { Kind::Set { labels } } else { Kind::Enum { labels } }, source_type)
            }
            JSON => (Kind::Json, "json".to_owned()),
            VECTOR => (Kind::Vector, "vector".to_owned()),
            GEOMETRY => {
                let declared = mapped.geometry.and_then(|number| GEOMETRIES.get(usize::from(number)).copied());
                let name = declared.or_else(|| geometry_name(data_type)).unwrap_or("geometry");
                (Kind::Geometry { srid: shape.and_then(|shape| shape.srid).unwrap_or(0) }, name.to_owned())
            }
            STRING if data_type == "uuid" => (Kind::Uuid, "uuid".to_owned()),
            STRING if data_type == "inet4" => (Kind::Inet4, "inet4".to_owned()),
            STRING if data_type == "inet6" => (Kind::Inet6, "inet6".to_owned()),
            VARCHAR if data_type == "vector" => (Kind::Vector, "vector".to_owned()),
            BLOB | LONG_BLOB | MEDIUM_BLOB | TINY_BLOB if data_type == "json" => {
                charset = Some(column_charset(mapped, shape)?);
                (Kind::Text { charset: column_charset(mapped, shape)? }, "json".to_owned())
            }
            _ => {
                let set = column_charset(mapped, shape)?;
                charset = Some(set);
                string(mapped, set)
            }
        };
        Ok(ColumnPlan { name: name.to_owned(), kind, source_type, charset, may_be: &[] })
    }

    /// The same where MariaDB has logged the column and does not tell its type any more, or never did.
    pub(crate) fn undescribed(self, mapped: &MappedColumn) -> Self {
        use types::*;
        let may_be: &[&str] = match (mapped.code, mapped.length, &self.kind) {
            (BLOB | LONG_BLOB | MEDIUM_BLOB | TINY_BLOB, 4, Kind::Text { .. }) => &["json"],
            (STRING, 16, Kind::Binary { .. }) => &["uuid", "inet6"],
            (STRING, 4, Kind::Binary { .. }) => &["inet4"],
            _ => &[],
        };
        ColumnPlan { may_be, ..self }
    }

    /// The column as the engine carries it. `ordinal` is its index in row images, `skipped` the names of the columns that
    /// are not decoded, told on the first that is.
    pub(crate) fn column(&self, ordinal: usize, skipped: Option<&[(usize, String)]>) -> Column {
        let mut metadata = HashMap::new();
        if self.source_type == "json" {
            metadata.insert(EXTENSION_NAME.to_owned(), "arrow.json".to_owned());
        }
        if let Kind::Geometry { srid } = self.kind {
            metadata.insert(SRID.to_owned(), srid.to_string());
        }
        let field = Field::new(&self.name, self.kind.data_type(), true).with_metadata(metadata);
        let mut detail = json!({ "ordinal": ordinal });
        if let Some(charset) = self.charset {
            detail["charset"] = json!(charset.name());
        }
        if !self.may_be.is_empty() {
            detail[Column::MAY_BE] = json!(self.may_be);
        }
        if let Some(skipped) = skipped.filter(|skipped| !skipped.is_empty()) {
            detail["skipped"] = json!(skipped);
        }
        Column { field: Arc::new(field), source_type: self.source_type.clone(), detail }
    }
}

/// The shape of a column of a relation, and its index in row images, as [`ColumnPlan::column`] wrote them down.
pub(crate) fn shape_of(column: &Column) -> Option<(usize, ColumnShape)> {
    let ordinal = usize::try_from(column.detail.get("ordinal")?.as_u64()?).ok()?;
    let end = column.source_type.find(['(', ' ']).unwrap_or(column.source_type.len());
    Some((
        ordinal,
        ColumnShape {
            name: column.name().to_owned(),
            data_type: column.source_type[..end].to_owned(),
            column_type: column.source_type.clone(),
            charset: column.detail.get("charset").and_then(|name| name.as_str()).map(str::to_owned),
            srid: column.field.metadata().get(SRID).and_then(|srid| srid.parse().ok()),
        },
    ))
}

/// The columns that were skipped when a relation was made, as its first column tells.
pub(crate) fn skipped_of(columns: &[Column]) -> Vec<(usize, String)> {
    let skipped = columns.first().and_then(|column| column.detail.get("skipped"));
    skipped.and_then(|skipped| serde_json::from_value(skipped.clone()).ok()).unwrap_or_default()
}

impl Kind {
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Kind::Int { bytes: 1, unsigned: false } => DataType::Int8,
            Kind::Int { bytes: 1, unsigned: true } => DataType::UInt8,
            Kind::Int { bytes: 2, unsigned: false } => DataType::Int16,
            Kind::Int { bytes: 2, unsigned: true } => DataType::UInt16,
            Kind::Int { bytes: 3 | 4, unsigned: false } => DataType::Int32,
            Kind::Int { bytes: 3 | 4, unsigned: true } => DataType::UInt32,
            Kind::Int { unsigned: false, .. } => DataType::Int64,
            Kind::Int { unsigned: true, .. } | Kind::Bit => DataType::UInt64,
            Kind::Float => DataType::Float32,
            Kind::Double => DataType::Float64,
            Kind::Decimal { precision, scale } if *precision <= 38 => DataType::Decimal128(*precision, *scale as i8),
            Kind::Decimal { precision, scale } => DataType::Decimal256(*precision, *scale as i8),
            Kind::Year => DataType::Int16,
            Kind::Date => DataType::Date32,
            Kind::Datetime { .. } | Kind::OldDatetime => DataType::Timestamp(TimeUnit::Microsecond, None),
            Kind::Timestamp { .. } | Kind::OldTimestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Time { .. } | Kind::OldTime => DataType::Duration(TimeUnit::Microsecond),
            Kind::Text { .. }
            | Kind::CompressedText { .. }
            | Kind::Enum { .. }
            | Kind::Set { .. }
            | Kind::Json
            | Kind::Uuid
            | Kind::Inet4
            | Kind::Inet6 => DataType::Utf8,
            Kind::Binary { .. } | Kind::CompressedBinary | Kind::Geometry { .. } => DataType::Binary,
            Kind::Vector => DataType::List(Arc::new(Field::new_list_field(DataType::Float32, true))),
        }
    }
}

fn integer(mapped: &MappedColumn, shape: Option<&ColumnShape>, bytes: u8, name: &str) -> Result<(Kind, String), ColumnError> {
    let declared = || shape.map(|shape| shape.column_type.contains("unsigned") || shape.column_type.contains("zerofill"));
    let unsigned = mapped.unsigned.or_else(declared).ok_or_else(|| ColumnError::lacks("sign"))?;
    Ok((Kind::Int { bytes, unsigned }, if unsigned { format!("{name} unsigned") } else { name.to_owned() }))
}

fn with_fraction(name: &str, fsp: u8) -> String {
    if fsp == 0 { name.to_owned() } else { format!("{name}({fsp})") }
}

/// The types before MySQL 5.6.4, without fractions. With them their length is not in the log: MariaDB's own format.
fn old_temporal(mapped: &MappedColumn, shape: Option<&ColumnShape>) -> Result<(Kind, String), ColumnError> {
    if shape.is_some_and(|shape| shape.column_type.contains('(')) {
        return Err(ColumnError {
            problem: "a column has fractions of a second in MariaDB's format of before 10.1.2".to_owned(),
            remedy: Some("run SET GLOBAL mysql56_temporal_format = ON and ALTER TABLE … FORCE on the server"),
        });
    }
    Ok(match mapped.code {
        types::DATETIME => (Kind::OldDatetime, "datetime".to_owned()),
        types::TIMESTAMP => (Kind::OldTimestamp, "timestamp".to_owned()),
        _ => (Kind::OldTime, "time".to_owned()),
    })
}

fn column_charset(mapped: &MappedColumn, shape: Option<&ColumnShape>) -> Result<Charset, ColumnError> {
    if let Some(collation) = mapped.collation {
        return Charset::from_collation(collation)
            .ok_or_else(|| ColumnError::new(format!("a column has the collation number {collation}, which is not known here")));
    }
    let shape = shape.ok_or_else(|| ColumnError::lacks("character set"))?;
    match &shape.charset {
        Some(name) => Charset::from_name(name)
            .ok_or_else(|| ColumnError::new(format!("a column has the character set {name}, which is not known here"))),
        None => Ok(Charset::Binary),
    }
}

/// CHAR, VARCHAR, TEXT and their binary sisters.
fn string(mapped: &MappedColumn, charset: Charset) -> (Kind, String) {
    use types::*;
    let binary = charset == Charset::Binary;
    let length = usize::from(mapped.length);
    let characters = length / charset.max_bytes().max(1);
    let named = |text: &str, bytes: &str| if binary { format!("{bytes}({length})") } else { format!("{text}({characters})") };
    let source_type = match mapped.code {
        STRING => named("char", "binary"),
        VARCHAR | VAR_STRING => named("varchar", "varbinary"),
        VARCHAR_COMPRESSED => {
            // One byte of the length is the compression's own.
            let length = length.saturating_sub(1);
            if binary {
                format!("varbinary({length}) compressed")
            } else {
                format!("varchar({}) compressed", length / charset.max_bytes().max(1))
            }
        }
        code => {
            let size = match mapped.length {
                1 => "tiny",
                2 => "",
                3 => "medium",
                _ => "long",
            };
            let suffix = if code == BLOB_COMPRESSED { " compressed" } else { "" };
            format!("{size}{}{suffix}", if binary { "blob" } else { "text" })
        }
    };
    let kind = match (mapped.code, binary) {
        (VARCHAR_COMPRESSED | BLOB_COMPRESSED, true) => Kind::CompressedBinary,
        (VARCHAR_COMPRESSED | BLOB_COMPRESSED, false) => Kind::CompressedText { charset },
        (STRING, true) => Kind::Binary { pad: length },
        (_, true) => Kind::Binary { pad: 0 },
        (_, false) => Kind::Text { charset },
    };
    (kind, source_type)
}

fn labels(mapped: &MappedColumn, shape: Option<&ColumnShape>) -> Result<Arc<[String]>, ColumnError> {
    if let Some(labels) = &mapped.labels {
        let charset = column_charset(mapped, shape)?;
        let decode = |label: &Vec<u8>| {
            if charset == Charset::Binary {
                return String::from_utf8(label.clone()).map_err(|_| ColumnError::new("a label of a binary column is not UTF-8"));
            }
            let mut scratch = String::new();
            let text = charset.decode(label, &mut scratch).map_err(|error| ColumnError::new(error.reason()))?;
            Ok(text.to_owned())
        };
        return labels.iter().map(decode).collect();
    }
    let shape = shape.ok_or_else(|| ColumnError::lacks("labels"))?;
    parse_labels(&shape.column_type).ok_or_else(|| ColumnError::new("the server describes the labels of a column in a way not known here"))
}

/// `enum('a','b')` as the servers write it: a quote in a label is doubled, some characters stand behind a backslash.
fn parse_labels(column_type: &str) -> Option<Arc<[String]>> {
    let list = column_type.split_once('(')?.1.strip_suffix(')')?;
    let mut labels = Vec::new();
    let mut rest = list.chars();
    loop {
        if rest.next()? != '\'' {
            return None;
        }
        let mut label = String::new();
        let after = loop {
            match rest.next()? {
                '\'' => match rest.next() {
                    Some('\'') => label.push('\''),
                    after => break after,
                },
                '\\' => label.push(match rest.next()? {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    '0' => '\0',
                    other => other,
                }),
                other => label.push(other),
            }
        };
        labels.push(label);
        match after {
            None => return Some(labels.into()),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

fn label_type(name: &str, labels: &[String]) -> String {
    let mut text = format!("{name}(");
    for (i, label) in labels.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}'{}'", label.replace('\\', "\\\\").replace('\'', "''"));
    }
    text.push(')');
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use types::*;

    fn shape(column_type: &str, charset: Option<&str>) -> ColumnShape {
        let end = column_type.find(['(', ' ']).unwrap_or(column_type.len());
        ColumnShape {
            name: "c".into(),
            data_type: column_type[..end].into(),
            column_type: column_type.into(),
            charset: charset.map(str::to_owned),
            srid: None,
        }
    }

    fn mapped(code: u8, length: u16, scale: u8) -> MappedColumn {
        MappedColumn { code, length, scale, ..MappedColumn::default() }
    }

    #[test]
    fn the_server_fills_what_the_log_leaves_open() {
        for (mapped, shape, expected) in [
            (mapped(LONG, 0, 0), shape("int(10) unsigned", None), "int unsigned UInt32"),
            (mapped(INT24, 0, 0), shape("mediumint(9)", None), "mediumint Int32"),
            (mapped(LONGLONG, 0, 0), shape("bigint(20) unsigned zerofill", None), "bigint unsigned UInt64"),
            (mapped(STRING, 40, 0), shape("char(10)", Some("utf8mb4")), "char(10) Utf8"),
            (mapped(STRING, 16, 0), shape("binary(16)", None), "binary(16) Binary"),
            (mapped(STRING, 16, 0), shape("uuid", None), "uuid Utf8"),
            (mapped(BLOB, 4, 0), shape("json", Some("utf8mb4")), "json Utf8"),
            (mapped(BLOB, 3, 0), shape("mediumtext", Some("latin1")), "mediumtext Utf8"),
            (mapped(ENUM, 1, 0), shape(r"enum('a','it''s','x\\y')", Some("utf8mb4")), r"enum('a','it''s','x\\y') Utf8"),
            (mapped(NEWDECIMAL, 39, 3), shape("decimal(39,3)", None), "decimal(39,3) Decimal256(39, 3)"),
            (mapped(TIME2, 3, 0), shape("time(3)", None), "time(3) Duration(µs)"),
        ] {
            assert!(fits(&mapped, &shape), "{shape:?}");
            let plan = ColumnPlan::merge(&mapped, "c", Some(&shape)).unwrap();
            assert_eq!(format!("{} {}", plan.source_type, plan.kind.data_type()), expected);
            // What is written into the checkpoint says the same again.
            let (ordinal, kept) = shape_of(&plan.column(3, None)).unwrap();
            assert_eq!(ordinal, 3);
            assert!(fits(&mapped, &kept), "{kept:?}");
            assert_eq!(ColumnPlan::merge(&mapped, "c", Some(&kept)).unwrap(), plan);
        }
    }

    #[test]
    fn what_nobody_says_is_an_error() {
        for column in [mapped(LONG, 0, 0), mapped(VARCHAR, 40, 0), mapped(ENUM, 1, 0)] {
            assert_eq!(ColumnPlan::merge(&column, "c", None).unwrap_err().remedy, Some(FULL_METADATA));
        }
        assert!(ColumnPlan::merge(&mapped(DATETIME, 0, 0), "c", Some(&shape("datetime(3)", None))).is_err());
    }

    #[test]
    fn other_types_do_not_fit() {
        for (mapped, column_type) in [
            (mapped(LONG, 0, 0), "bigint"),
            (mapped(STRING, 10, 0), "uuid"),
            (mapped(BLOB, 2, 0), "longtext"),
            (mapped(VARCHAR, 10, 0), "text"),
            (mapped(DATETIME2, 0, 0), "timestamp"),
        ] {
            assert!(!fits(&mapped, &shape(column_type, None)), "{column_type}");
        }
    }

    #[test]
    fn malformed_labels() {
        for column_type in ["enum", "enum(", "enum()", "enum('a", "enum('a'x)", "enum(a)"] {
            assert!(parse_labels(column_type).is_none(), "{column_type}");
        }
    }
}
