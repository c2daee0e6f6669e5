//! `logweir schema`: JSON Schemas for editors and scripts.

use std::process::ExitCode;

use crate::cli::SchemaOf;
use crate::config::published_schema;
use crate::failure::Failure;
use crate::text::print;

/// Prints the schema.
pub(crate) fn run(of: SchemaOf) -> Result<ExitCode, Failure> {
    match of {
        SchemaOf::Config => print(&format!("{:#}\n", published_schema()))?,
    }
    Ok(ExitCode::SUCCESS)
}
