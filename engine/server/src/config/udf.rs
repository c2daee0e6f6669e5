//! The scripts that the file names: whether they are there, and run.

use std::io::Read as _;
use std::path::Path;

use logweir_core::{Error, Pattern, Result};
use logweir_sql::{BadValue, UdfLimits, UdfRule, UdfTransform};

use super::model::Udf;
use super::problem::Problem;
use super::tree::Node;

/// A script larger than this is a wrong file.
const SCRIPT_BYTES_MAX: u64 = 16 << 20;

impl Udf {
    /// The rule, with its script read; a relative path begins at `directory`.
    pub(crate) fn rule(&self, directory: &Path) -> Result<UdfRule> {
        let path = directory.join(&self.file);
        let unreadable = || Error::config("could not read the script of a UDF").context("file", path.display());
        let mut script = String::new();
        let file = std::fs::File::open(&path).map_err(|error| unreadable().source(error))?;
        file.take(SCRIPT_BYTES_MAX + 1).read_to_string(&mut script).map_err(|error| unreadable().source(error))?;
        if script.len() as u64 > SCRIPT_BYTES_MAX {
            return Err(unreadable().context("problem", "it is larger than 16 MiB"));
        }
        Ok(UdfRule {
            table: Pattern::new(&self.table.0),
            script,
            file: self.file.display().to_string(),
            function: self.function.clone(),
            limits: UdfLimits { time: self.time.0, memory_bytes: usize::try_from(self.memory.0).unwrap_or(usize::MAX) },
            unresolved: self.unresolved.into(),
            columns: self.columns.iter().map(|(name, data_type)| (name.clone(), data_type.0)).collect(),
        })
    }
}

/// All mistakes of the kind.
pub(super) fn check(root: &Node, directory: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (_, stream) in root.get("streams").map(Node::entries).unwrap_or_default() {
        if let (Some(udf), Some(images)) = (stream.get("udf"), stream.get("before_images"))
            && !udf.items().is_empty()
            && !images.items().is_empty()
        {
            let message = "`before_images` cannot go with `udf`: a function makes something of a row, and nobody knows what it was before";
            problems.push(Problem::new(images.place, message).help("give the tables with functions a stream of their own"));
        }
        for node in stream.get("udf").map(Node::items).unwrap_or_default() {
            // What is not even a rule has been found already.
            let (Some(file), Ok(udf)) = (node.get("file"), serde_json::from_value::<Udf>(node.to_json())) else { continue };
            let made = udf.rule(directory).and_then(|rule| UdfTransform::new(vec![rule], BadValue::Fail));
            if let Err(error) = made {
                let named = [("function", "function"), ("column", "columns")];
                // An error of the script has a column, too; of the file it does not.
                let of_script = error.get_context("line").is_some();
                let key = named.iter().find(|(context, _)| !of_script && error.get_context(context).is_some());
                let place = key.and_then(|(_, key)| node.get(key)).unwrap_or(file).place;
                problems.push(Problem::new(place, error.report()));
            }
        }
    }
    problems
}
