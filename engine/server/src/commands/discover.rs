//! `logweir discover`: what a source holds, and the types it would be carried as.

use std::process::ExitCode;

use logweir_core::{Error, Relation, TableFilter};
use serde_json::json;

use crate::cli::TextOrJson;
use crate::config::Loaded;
use crate::failure::Failure;
use crate::text::{print, table};

/// Runs the command.
pub(crate) async fn run(loaded: &Loaded, profile: &str, format: TextOrJson) -> Result<ExitCode, Failure> {
    let config = loaded.config();
    if !config.profiles.keys().any(|name| name.0 == profile) {
        let names: Vec<&str> = config.profiles.keys().map(|name| name.0.as_str()).collect();
        return Err(Failure::Usage(format!("there is no profile `{profile}` in {}; profiles are: {}", loaded.name, names.join(", "))));
    }
    let source = loaded.profile_source(profile)?;
    let mut relations = source.relations(&TableFilter::all()).await?;
    relations.sort_by(|a, b| a.name().cmp(b.name()));
    match format {
        TextOrJson::Json => print(&format!("{:#}\n", json!({ "tables": relations.iter().map(to_json).collect::<Vec<_>>() })))?,
        TextOrJson::Text if relations.is_empty() => {
            return Err(Error::denied("the source shows no tables")
                .context("profile", profile)
                .remedy("grant SELECT on the tables to follow; names are shown only of what may be read")
                .into());
        }
        TextOrJson::Text => {
            let mut table = table(["table", "column", "type", "arrow type", "key"]);
            for relation in &relations {
                for (i, column) in relation.columns().iter().enumerate() {
                    let key = key_place(relation, i).map(|place| place.to_string()).unwrap_or_default();
                    table.add_row([
                        relation.name().to_string(),
                        column.name().to_owned(),
                        column.source_type.clone(),
                        column.field.data_type().to_string(),
                        key,
                    ]);
                }
            }
            print(&format!("{table}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The place of a column in the declared key, from 1.
fn key_place(relation: &Relation, column: usize) -> Option<usize> {
    let place = relation.key().iter().position(|&key| key == column)?;
    relation.key_declared().then_some(place + 1)
}

fn to_json(relation: &Relation) -> serde_json::Value {
    let columns: Vec<_> = relation
        .columns()
        .iter()
        .map(|column| json!({ "name": column.name(), "type": column.source_type, "arrow_type": column.field.data_type().to_string() }))
        .collect();
    let key: Vec<&str> = match relation.key_declared() {
        true => relation.key().iter().map(|&i| relation.columns()[i].name()).collect(),
        false => Vec::new(),
    };
    json!({ "schema": relation.name().schema, "table": relation.name().table, "columns": columns, "key": key })
}
