//! How far a backfill is, for eyes: kept in every mark, so that it is known of a stream that does not run, too.
//!
//! Nothing decides by it. Chunks are what parts are counted in, because nobody has counted rows before they are read.

use std::collections::{BTreeMap, HashMap, HashSet};

use logweir_core::{BackfillProgress, LogMark, RelationName, Result, TableBackfill};
use serde::{Deserialize, Serialize};

use crate::offset::PostgresOffset;
use crate::types::Oid;

use super::plan::TablePlan;
use super::standing::{Known, Parts};
use super::state::{BackfillState, PendingPart};

/// What is read of a part, or of several parts of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartProgress {
    /// The published table.
    pub(crate) table: RelationName,
    /// Parts of it.
    parts: u64,
    pub(crate) rows: u64,
    pub(crate) chunks_read: u64,
    /// About.
    pub(crate) chunks: u64,
}

impl PartProgress {
    /// Of a part of which nothing is read.
    pub(crate) fn new(plan: &TablePlan) -> Self {
        PartProgress { table: plan.relation.name().clone(), parts: 1, rows: 0, chunks_read: 0, chunks: plan.chunks }
    }

    fn add(&mut self, other: &PartProgress) {
        self.parts += other.parts;
        self.rows += other.rows;
        self.chunks_read += other.chunks_read;
        self.chunks += other.chunks;
    }
}

impl BackfillState {
    /// How far it is, together with what is being read at the moment, by part.
    pub(crate) fn progress(&self, reading: &HashMap<Oid, PartProgress>, complete: bool) -> BackfillProgress {
        /// Parts of a table: all, whether some are not read, and what is known of those that were looked at.
        #[derive(Default)]
        struct Table {
            parts: u64,
            unread: bool,
            seen: Option<PartProgress>,
        }
        impl Table {
            fn see(&mut self, progress: &PartProgress) {
                match &mut self.seen {
                    Some(seen) => seen.add(progress),
                    None => self.seen = Some(progress.clone()),
                }
            }
        }
        let mut tables: BTreeMap<Oid, Table> = BTreeMap::new();
        for part in &self.pending {
            let table = tables.entry(part.oid).or_default();
            table.parts += 1;
            table.unread |= part.is_unread();
            match (&part.progress, reading.get(&part.part)) {
                (Some(read), Some(now)) => {
                    table.see(&PartProgress { rows: read.rows + now.rows, chunks_read: read.chunks_read + now.chunks_read, ..read.clone() })
                }
                (Some(progress), None) | (None, Some(progress)) => table.see(progress),
                (None, None) => {}
            }
        }
        let unread = tables.values().filter(|table| table.unread).count() as u64;
        let all = tables.len() as u64 + self.read.iter().filter(|((oid, _), _)| !tables.contains_key(oid)).count() as u64;
        let mut under_way = Vec::new();
        let mut rows_read = self.rows;
        for (oid, mut table) in tables {
            if let Some(read) = self.partly.get(&oid) {
                table.parts += read.parts;
                table.see(read);
            }
            let Some(seen) = table.seen else { continue };
            rows_read += seen.rows;
            if table.unread {
                // What was not looked at is taken to be like the rest.
                let chunks = (seen.chunks as f64 * table.parts as f64 / seen.parts.max(1) as f64) as u64;
                under_way.push(TableBackfill {
                    table: seen.table.to_string(),
                    rows_read: seen.rows,
                    chunks_read: seen.chunks_read,
                    chunks: chunks.max(seen.chunks_read + 1),
                });
            }
        }
        under_way.sort_by(|a, b| a.table.cmp(&b.table));
        BackfillProgress { complete, tables: all, tables_read: all - unread, rows_read, under_way }
    }

    /// Takes the parts that are read off the list, and keeps count of them.
    pub(crate) fn retire(&mut self) {
        let unread: HashSet<Oid> = self.pending.iter().filter(|part| part.is_unread()).map(|part| part.oid).collect();
        // An exact reading that breaks off begins anew with all parts of its table.
        let stays = |part: &PendingPart| part.is_unread() || (part.exact && unread.contains(&part.oid));
        let (pending, read): (Vec<PendingPart>, Vec<PendingPart>) = std::mem::take(&mut self.pending).into_iter().partition(stays);
        self.pending = pending;
        let mut whole = Vec::new();
        for part in read {
            if unread.contains(&part.oid) {
                match (self.partly.get_mut(&part.oid), part.progress) {
                    (Some(table), Some(part)) => table.add(&part),
                    (None, Some(progress)) => drop(self.partly.insert(part.oid, progress)),
                    (_, None) => {}
                }
            } else {
                let parts = self.partly.remove(&part.oid).into_iter().chain(part.progress);
                self.rows += parts.map(|part| part.rows).sum::<u64>();
                whole.push(part.oid);
            }
        }
        if whole.iter().any(|oid| !self.read.is_published((*oid, *oid))) {
            self.read = tables(self.read.iter().map(|((oid, _), _)| oid).chain(whole));
        }
    }

    /// Tables that are not published any more do not count, and what was read of those that are read `again` is read anew.
    pub(crate) fn forget_tables(&mut self, again: impl Fn(Oid) -> bool) {
        let published: HashSet<Oid> =
            self.known.iter().filter(|(part, _)| self.known.is_published(*part)).map(|((_, table), _)| table).collect();
        self.partly.retain(|oid, _| published.contains(oid) && !again(*oid));
        let is_there = |oid: &Oid| published.contains(oid);
        if !self.read.iter().all(|((oid, _), _)| is_there(&oid)) {
            self.read = tables(self.read.iter().map(|((oid, _), _)| oid).filter(is_there));
        }
    }
}

fn tables(oids: impl Iterator<Item = Oid>) -> Parts {
    Parts::new(oids.map(|oid| ((oid, oid), Known::Somehow)).collect(), 0)
}

/// How far the backfill was at a mark; `None` if there was none.
pub fn backfill_progress(mark: &LogMark) -> Result<Option<BackfillProgress>> {
    let state = PostgresOffset::of(mark)?.backfill;
    let complete = !state.known.is_empty() && state.pending.is_empty() && state.reshaped.is_empty();
    let wanted = !state.known.is_empty() || !state.pending.is_empty();
    Ok(wanted.then(|| state.progress(&HashMap::new(), complete)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn part(oid: Oid, part: Oid, progress: Option<(u64, u64, u64)>) -> PendingPart {
        let progress = progress.map(|(rows, chunks_read, chunks)| PartProgress {
            table: RelationName::new("s", format!("t{oid}")),
            parts: 1,
            rows,
            chunks_read,
            chunks,
        });
        PendingPart { progress, ..PendingPart::new(oid, part, false) }
    }

    fn whole(part: PendingPart) -> PendingPart {
        PendingPart { next_block: PendingPart::READ, ..part }
    }

    fn shown(state: &BackfillState, reading: &HashMap<Oid, PartProgress>) -> String {
        let progress = state.progress(reading, false);
        let table = |table: &TableBackfill| format!("; {} {} rows {}/{}", table.table, table.rows_read, table.chunks_read, table.chunks);
        let tables: String = progress.under_way.iter().map(table).collect();
        format!("{}/{} tables, {} rows{tables}", progress.tables_read, progress.tables, progress.rows_read)
    }

    #[test]
    fn parts_add_up_to_tables() {
        let nothing = HashMap::new();
        let mut state = BackfillState {
            pending: vec![
                whole(part(1, 1, Some((10, 1, 1)))),
                part(2, 2, Some((300, 3, 8))),
                // Of three partitions one is read, and nothing is known of the others.
                whole(part(3, 31, Some((50, 4, 4)))),
                part(3, 32, None),
                part(3, 33, None),
                part(4, 4, None),
            ],
            ..BackfillState::default()
        };
        let expected = "1/4 tables, 360 rows; s.t2 300 rows 3/8; s.t3 50 rows 4/12";
        assert_eq!(shown(&state, &nothing), expected);
        state.retire();
        assert_eq!(state.pending.len(), 4);
        assert_eq!(shown(&state, &nothing), expected);
        // What is being read comes on top of what counts as read.
        let reading = part(2, 2, Some((40, 1, 8))).progress.unwrap();
        assert_eq!(shown(&state, &[(2, reading)].into()), "1/4 tables, 400 rows; s.t2 340 rows 4/8; s.t3 50 rows 4/12");
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<BackfillState>(&text).unwrap(), state);

        state.pending = vec![whole(part(2, 2, Some((800, 8, 8)))), whole(part(3, 32, Some((1, 1, 1)))), whole(part(3, 33, None))];
        state.retire();
        assert_eq!(shown(&state, &nothing), "3/3 tables, 861 rows");
        assert!(state.partly.is_empty() && state.pending.is_empty());
        // One of them is read again.
        state.pending = vec![part(3, 31, None)];
        assert_eq!(shown(&state, &nothing), "2/3 tables, 861 rows");
    }

    #[test]
    fn a_mark_without_backfill_has_no_progress() {
        let mark = |backfill: &str| {
            let offset = format!(r#"{{"lsn":"0/10","incarnation":0,"system":"7","timeline":1{backfill}}}"#);
            LogMark {
                position: logweir_core::LogPosition::MIN,
                offset: logweir_core::SourceOffset(serde_json::from_str(&offset).unwrap()),
                commit_time: None,
            }
        };
        assert_eq!(backfill_progress(&mark("")).unwrap(), None);
        let done = backfill_progress(&mark(r#","backfill":{"known":"5-6","read":"5","rows":7}"#)).unwrap().unwrap();
        assert_eq!((done.complete, done.tables, done.tables_read, done.rows_read), (true, 1, 1, 7));
        let begun = backfill_progress(&mark(r#","backfill":{"known":"5","pending":[{"oid":5,"part":5}]}"#)).unwrap().unwrap();
        assert_eq!((begun.complete, begun.tables, begun.tables_read), (false, 1, 0));
    }
}
