//! Tables as they are landed: what masks, functions and transforms make of the source's.

use std::sync::Arc;

use logweir_core::{Relation, RelationName, Result, Transform, recall_all};
use logweir_runtime::checkpoint::CheckpointDocument;
use logweir_sql::{References, SqlTransform};

use crate::config::{Destination, Loaded, Stream};

/// A table that changes are landed in.
#[derive(Clone)]
pub(crate) struct Landed {
    pub(crate) name: RelationName,
    /// What it is where nothing was landed yet; else its files say themselves what they hold.
    pub(crate) relation: Option<Arc<Relation>>,
}

impl Landed {
    fn of(relation: Arc<Relation>) -> Self {
        Landed { name: relation.name().clone(), relation: Some(relation) }
    }
}

/// The tables with the columns that they have lost at their end, as masks and functions make them: what SQL may still name.
pub(crate) fn recalled(loaded: &Loaded, stream: &Stream, document: &CheckpointDocument) -> Result<Vec<Arc<Relation>>> {
    let mut before_sql: Vec<Box<dyn Transform>> = Vec::new();
    if let Some(mask) = loaded.mask(stream)? {
        before_sql.push(Box::new(mask));
    }
    if let Some(udf) = loaded.udf(stream)? {
        before_sql.push(Box::new(udf));
    }
    Ok(document.recalled().iter().flat_map(|relation| recall_all(&mut before_sql, relation)).collect())
}

/// The tables of a stream.
pub(crate) struct LandedByStream {
    pub(crate) tables: Vec<Landed>,
    /// Those of the source with the columns that they have lost, for the SQL of destinations.
    pub(crate) recalled: Vec<Arc<Relation>>,
}

/// What becomes of the tables of a stream, for looking at what was landed. Nothing outside is asked for it: of a version that a
/// transform does not fit (any more), or not without other reference tables than these, the name is known.
pub(crate) fn tables(loaded: &Loaded, stream: &Stream, document: &CheckpointDocument, references: &References) -> Result<LandedByStream> {
    let sources = &document.relations;
    let recalled = recalled(loaded, stream, document)?;
    let mut masked = Vec::with_capacity(sources.len());
    match loaded.mask(stream)? {
        Some(mut mask) => {
            for source in sources {
                match mask.output(source) {
                    Ok(outputs) => masked.extend(outputs),
                    // Nothing of this version was landed.
                    Err(error) => {
                        let (version, problem) = (source.version(), error.message());
                        tracing::debug!(table = %source.name(), version, problem, "a mask refuses a version of a table");
                    }
                }
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
    let Some(mut sql) = loaded.sql(stream, references, &[])? else {
        return Ok(LandedByStream { tables: masked.into_iter().map(Landed::of).collect(), recalled });
    };
    let recalled = recalled.iter().flat_map(|relation| sql.recall(relation)).collect();
    Ok(LandedByStream { tables: planned(sql, masked), recalled })
}

/// What becomes of them in a destination that has transforms of its own.
pub(crate) fn in_destination(
    loaded: &Loaded,
    stream: &Stream,
    destination: &Destination,
    landed: &LandedByStream,
    references: &References,
) -> Result<Vec<Landed>> {
    let LandedByStream { tables, recalled } = landed;
    let Some(mut sql) = loaded.destination_sql(stream, destination, references)? else { return Ok(tables.clone()) };
    for relation in recalled {
        sql.recall(relation);
    }
    let (known, mut unknown): (Vec<Landed>, Vec<Landed>) = tables.iter().cloned().partition(|landed| landed.relation.is_some());
    let names = unknown.iter().flat_map(|landed| sql.target_names(&landed.name)).collect::<Vec<_>>();
    unknown = planned(sql, known.into_iter().filter_map(|landed| landed.relation).collect());
    for name in names {
        if unknown.iter().all(|other| other.name != name) {
            unknown.push(Landed { name, relation: None });
        }
    }
    Ok(unknown)
}

fn planned(mut sql: SqlTransform, relations: Vec<Arc<Relation>>) -> Vec<Landed> {
    let mut landed: Vec<Landed> = Vec::new();
    for relation in relations {
        match sql.plan(&relation) {
            Ok((targets, _)) => landed.extend(targets.into_iter().map(Landed::of)),
            Err(problems) => {
                for name in sql.target_names(relation.name()) {
                    if landed.iter().all(|other| other.name != name) {
                        landed.push(Landed { name, relation: None });
                    }
                }
                let problem = problems.first().map(ToString::to_string).unwrap_or_default();
                tracing::debug!(table = %relation.name(), version = relation.version(), problem, "a transform does not fit a version of a table");
            }
        }
    }
    landed
}
