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
}

impl ColumnType {
    /// `text_only`: the server has no binary form. `passthrough`: not a type that is known here.
    pub(crate) fn new(source_type: String, form: Form, text_only: bool, passthrough: bool) -> Self {
        ColumnType { source_type, form, text_only, passthrough }
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
