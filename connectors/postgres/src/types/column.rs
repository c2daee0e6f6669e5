//! How the values of one column are carried, and what is said of it beside them.

use std::collections::HashMap;

use arrow_schema::DataType;
use serde::{Deserialize, Serialize};

use super::form::{Form, Rendering};

/// Field metadata: a column of a type that is not known here, whose values are the server's text.
pub(crate) const PASSTHROUGH: &str = "logweir.passthrough";
/// Field metadata: a column of geometries, and how they are encoded.
pub(crate) const GEOMETRY: &str = "logweir.geometry";
const EXTENSION_NAME: &str = "ARROW:extension:name";

/// How the values of a column are carried. A checkpoint keeps it, so that a restart does not hang on what the server's
/// catalog has become meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnType {
    #[serde(rename = "type")]
    source_type: String,
    form: Form,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    text_only: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    passthrough: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    may_be: Vec<String>,
}

impl ColumnType {
    /// `text_only`: the server has no binary form. `passthrough`: not a type that is known here. `may_be`: other names of the type.
    pub(crate) fn new(source_type: String, form: Form, text_only: bool, passthrough: bool, may_be: Vec<String>) -> Self {
        ColumnType { source_type, form, text_only, passthrough, may_be }
    }

    pub(crate) fn form(&self) -> &Form {
        &self.form
    }

    /// The Arrow type of the column.
    pub fn data_type(&self) -> DataType {
        self.form.data_type()
    }

    /// Metadata of the column's Arrow field.
    pub fn metadata(&self) -> HashMap<String, String> {
        let mut metadata = HashMap::new();
        let mut add = |key: &str, value: &str| metadata.insert(key.to_owned(), value.to_owned());
        match self.form {
            Form::Text(Rendering::Json | Rendering::Jsonb) => add(EXTENSION_NAME, "arrow.json"),
            Form::Ewkb => add(GEOMETRY, "ewkb"),
            _ if self.passthrough => add(PASSTHROUGH, "text"),
            _ => None,
        };
        metadata
    }

    /// The type as the server writes it: `numeric(10,2)`, `timestamp(3) with time zone`, `character varying(20)[]`,
    /// `public.mood`. The schema stands before every type that is not built in.
    pub fn source_type(&self) -> &str {
        &self.source_type
    }

    /// What else the type may be called: without its schema, what a domain is made of, and by names that it had before.
    pub fn may_be(&self) -> &[String] {
        &self.may_be
    }

    /// The same with more names that the type may be called by.
    pub(crate) fn also_called(mut self, names: impl IntoIterator<Item = String>) -> Self {
        for name in names {
            if name != self.source_type && !self.may_be.contains(&name) {
                self.may_be.push(name);
            }
        }
        self
    }

    /// True if the type is not known here, and its values are the server's text of them.
    pub fn is_passthrough(&self) -> bool {
        self.passthrough
    }

    /// True if the binary form of its values can be read here. The server must be asked for text if one column of a
    /// relation has none.
    pub fn is_binary(&self) -> bool {
        !self.text_only && self.form.is_binary()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::types::{Oid, TypeCatalog, TypeInfo, TypeKind, TypeOptions};

    /// What stands in checkpoints must be understood for ever.
    #[test]
    fn the_form_in_checkpoints_stays() {
        let mut catalog = TypeCatalog::new();
        let learnt = |oid: Oid, name: &str, kind, sendable| TypeInfo { oid, schema: "public".into(), name: name.into(), kind, sendable };
        catalog.learn(learnt(20_001, "mood", TypeKind::Enum, true));
        catalog.learn(learnt(20_002, "cube", TypeKind::Base, true));
        catalog.learn(learnt(20_003, "vector", TypeKind::Base, true));
        catalog.learn(learnt(20_004, "geometry", TypeKind::Base, true));
        catalog.learn(learnt(20_005, "ltree", TypeKind::Base, false));
        for (oid, typmod, json) in [
            (16, -1, r#"{"type":"boolean","form":"bool"}"#),
            (21, -1, r#"{"type":"smallint","form":"int16"}"#),
            (23, -1, r#"{"type":"integer","form":"int32"}"#),
            (20, -1, r#"{"type":"bigint","form":"int64"}"#),
            (26, -1, r#"{"type":"oid","form":"uint32"}"#),
            (5069, -1, r#"{"type":"xid8","form":"uint64"}"#),
            (700, -1, r#"{"type":"real","form":"float32"}"#),
            (701, -1, r#"{"type":"double precision","form":"float64"}"#),
            (1700, (10 << 16 | 2) + 4, r#"{"type":"numeric(10,2)","form":{"decimal":{"precision":10,"scale":2}}}"#),
            (1700, -1, r#"{"type":"numeric","form":{"text":"numeric"}}"#),
            (790, -1, r#"{"type":"money","form":{"money":{"scale":2}}}"#),
            (1082, -1, r#"{"type":"date","form":"date"}"#),
            (1083, -1, r#"{"type":"time without time zone","form":"time"}"#),
            (1266, -1, r#"{"type":"time with time zone","form":{"text":"time_tz"}}"#),
            (1114, 3, r#"{"type":"timestamp(3) without time zone","form":"timestamp"}"#),
            (1184, -1, r#"{"type":"timestamp with time zone","form":"timestamp_tz"}"#),
            (1186, -1, r#"{"type":"interval","form":{"text":"interval"}}"#),
            (25, -1, r#"{"type":"text","form":{"text":"plain"}}"#),
            (18, -1, r#"{"type":"\"char\"","form":{"text":"char"}}"#),
            (17, -1, r#"{"type":"bytea","form":"bytes"}"#),
            (114, -1, r#"{"type":"json","form":{"text":"json"}}"#),
            (3802, -1, r#"{"type":"jsonb","form":{"text":"jsonb"}}"#),
            (4072, -1, r#"{"type":"jsonpath","form":{"text":"versioned"}}"#),
            (2950, -1, r#"{"type":"uuid","form":{"text":"uuid"}}"#),
            (869, -1, r#"{"type":"inet","form":{"text":"network"}}"#),
            (829, -1, r#"{"type":"macaddr","form":{"text":"mac_address"}}"#),
            (1562, -1, r#"{"type":"bit varying","form":{"text":"bits"}}"#),
            (3220, -1, r#"{"type":"pg_lsn","form":{"text":"lsn"}}"#),
            (27, -1, r#"{"type":"tid","form":{"text":"tid"}}"#),
            (5038, -1, r#"{"type":"pg_snapshot","form":{"text":"snapshot"}}"#),
            (600, -1, r#"{"type":"point","form":{"text":"opaque"}}"#),
            (1007, -1, r#"{"type":"integer[]","form":{"list":{"element":"int32","delimiter":44}}}"#),
            (20_001, -1, r#"{"type":"public.mood","form":{"text":"plain"},"may_be":["mood"]}"#),
            (20_002, -1, r#"{"type":"public.cube","form":{"text":"opaque"},"passthrough":true,"may_be":["cube"]}"#),
            (20_003, 3, r#"{"type":"public.vector(3)","form":{"floats":{"half":false}},"may_be":["vector"]}"#),
            (20_004, -1, r#"{"type":"public.geometry","form":"ewkb","may_be":["geometry"]}"#),
            (20_005, -1, r#"{"type":"public.ltree","form":{"text":"versioned"},"text_only":true,"may_be":["ltree"]}"#),
        ] {
            let column = catalog.column_type(oid, typmod, TypeOptions::default());
            assert_eq!(serde_json::to_string(&column).unwrap(), json);
            assert_eq!(serde_json::from_str::<ColumnType>(json).unwrap(), column);
        }
    }

    #[test]
    fn what_is_said_beside_a_column() {
        let catalog = TypeCatalog::new();
        let metadata = |oid| catalog.column_type(oid, -1, TypeOptions::default()).metadata().into_iter().collect::<Vec<_>>();
        assert_eq!(metadata(3802), [("ARROW:extension:name".to_owned(), "arrow.json".to_owned())]);
        assert_eq!(metadata(99_999), [("logweir.passthrough".to_owned(), "text".to_owned())]);
        assert_eq!(metadata(25), []);
        assert_eq!(metadata(3807), []);
    }
}
