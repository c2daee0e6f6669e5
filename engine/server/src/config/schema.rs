//! The JSON Schema of the configuration: what files are checked against, and what editors are given.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value as Json;

use super::model::Config;

static FULL: LazyLock<Json> = LazyLock::new(|| {
    let mut settings = SchemaSettings::draft2020_12();
    // Without references it is simpler to walk, and it is small.
    settings.inline_subschemas = true;
    settings.into_generator().into_root_schema_for::<Config>().to_value()
});

/// The schema with everything that this version knows of, what it cannot do yet included and marked.
pub(super) fn full() -> &'static Json {
    &FULL
}

/// The schema of what this version takes: `logweir schema config`.
pub(crate) fn published() -> Json {
    let mut schema = FULL.clone();
    prune(&mut schema);
    schema
}

/// True if this cannot be had without something of a later version.
pub(super) fn is_later(schema: &Json) -> bool {
    let marked = |schema: &Json| schema.get("x-later").is_some();
    let mut required = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
    marked(schema) || required.any(|name| schema.get("properties").and_then(|properties| properties.get(name)).is_some_and(marked))
}

/// Removes what is marked `x-later`, and our own marks.
fn prune(schema: &mut Json) {
    match schema {
        Json::Object(object) => {
            object.remove("x-secret");
            if let Some(Json::Object(properties)) = object.get_mut("properties") {
                properties.retain(|_, schema| schema.get("x-later").is_none());
            }
            for choice in ["oneOf", "anyOf"] {
                if let Some(Json::Array(branches)) = object.get_mut(choice) {
                    branches.retain(|branch| !is_later(branch));
                }
            }
            object.values_mut().for_each(prune);
        }
        Json::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}
