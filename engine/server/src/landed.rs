//! Tables as they are landed: what masks, functions and transforms make of the source's.

use std::sync::Arc;

use logweir_core::{Relation, Result, Transform as _};

use crate::config::{Loaded, Stream};
use crate::references;

/// What becomes of the tables of a stream, for looking at what was landed. A version that a transform does not fit (any more) is
/// left out: whatever was landed of it lies in files that say themselves what they hold.
pub(crate) async fn relations(loaded: &Loaded, name: &str, stream: &Stream, sources: &[Arc<Relation>]) -> Result<Vec<Arc<Relation>>> {
    let mut masked = Vec::with_capacity(sources.len());
    match loaded.mask(stream)? {
        Some(mut mask) => {
            for source in sources {
                masked.extend(mask.output(source)?);
            }
        }
        None => masked.extend(sources.iter().map(Arc::clone)),
    }
    if let Some(mut udf) = loaded.udf(stream)? {
        let mut made = Vec::with_capacity(masked.len());
        for relation in masked {
            match udf.output(&relation) {
                Ok(outputs) => made.extend(outputs),
                Err(error) => {
                    let (version, problem) = (relation.version(), error.message());
                    tracing::debug!(table = %relation.name(), version, problem, "a UDF does not fit a version of a table");
                }
            }
        }
        masked = made;
    }
    if stream.transforms.is_empty() {
        return Ok(masked);
    }
    let tables = references::load(loaded, name).await?;
    let Some(mut sql) = loaded.sql(stream, &tables, &[])? else { return Ok(masked) };
    let mut landed = Vec::new();
    for relation in masked {
        match sql.plan(&relation) {
            Ok((targets, _)) => landed.extend(targets),
            Err(problems) => {
                let problem = problems.first().map(ToString::to_string).unwrap_or_default();
                tracing::debug!(table = %relation.name(), version = relation.version(), problem, "a transform does not fit a version of a table");
            }
        }
    }
    Ok(landed)
}
