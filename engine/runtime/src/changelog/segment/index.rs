//! What a segment holds, and where: by entry, by position and by time.

use logweir_core::{LogPosition, RelationName, TimestampMicros};
use serde::{Deserialize, Serialize};

use super::frame::{Header, Kind};

/// A point for each stretch of this many bytes: looking for a place reads no more than that in headers.
const POINT_BYTES: u64 = 64 * 1024;

/// The index of a segment; the last frame of a sealed one holds it as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Index {
    /// The first entry.
    pub(super) first_entry: u64,
    /// The entry behind the last.
    pub(super) next_entry: u64,
    /// Everything in the segment lies behind it.
    pub(super) opening: LogPosition,
    /// The commit time there.
    pub(super) opening_time: Option<TimestampMicros>,
    /// Nothing in the segment lies behind it.
    pub(super) last: LogPosition,
    /// The greatest commit time.
    pub(super) last_time: Option<TimestampMicros>,
    /// Changes.
    pub(super) rows: u64,
    /// The last time that something was appended, by our clock.
    pub(super) ended_at: TimestampMicros,
    /// By number: the relations that occur.
    pub(super) relations: Vec<RelationPlace>,
    /// Places to begin at, in their order.
    pub(super) points: Vec<Point>,
}

/// Where a relation is described.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RelationPlace {
    pub(super) offset: u64,
    pub(super) name: RelationName,
    pub(super) version: u32,
    /// Changes of it.
    pub(super) rows: u64,
}

/// A place where a frame begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) offset: u64,
    /// The number of the frame's entry, or of the one behind it.
    pub(super) entry: u64,
    /// Nothing before it lies behind this position.
    pub(super) before: LogPosition,
}

impl Index {
    /// Of a segment that begins with this frame, a mark.
    pub(super) fn begin(opening: &Header) -> Self {
        Index {
            first_entry: opening.entry,
            next_entry: opening.entry,
            opening: opening.last,
            opening_time: opening.time,
            last: opening.last,
            last_time: opening.time,
            rows: 0,
            ended_at: TimestampMicros(0),
            relations: Vec::new(),
            points: Vec::new(),
        }
    }

    /// Takes note of a frame at `offset`; of a relation's, its name and version are in `relation`.
    pub(super) fn note(&mut self, header: &Header, offset: u64, relation: Option<(&RelationName, u32)>) {
        let last_point = self.points.last().map_or(0, |point| point.offset);
        if offset >= last_point + POINT_BYTES {
            self.points.push(Point { offset, entry: header.entry, before: self.last });
        }
        if !header.repeats {
            self.next_entry = header.entry + 1;
        }
        match header.kind {
            Kind::Relation => {
                if let Some((name, version)) = relation
                    && header.relation as usize == self.relations.len()
                {
                    self.relations.push(RelationPlace { offset, name: name.clone(), version, rows: 0 });
                }
            }
            Kind::Changes => {
                if let Some(relation) = self.relations.get_mut(header.relation as usize) {
                    relation.rows += u64::from(header.rows);
                }
                self.rows += u64::from(header.rows);
                self.last = self.last.max(header.last);
                self.last_time = self.last_time.max(header.time);
            }
            Kind::Mark => {
                self.last = self.last.max(header.last);
                self.last_time = self.last_time.max(header.time);
            }
            Kind::Index => {}
        }
    }

    /// Where to begin to look for entry `entry`; `None`: at the beginning.
    pub(super) fn point_before_entry(&self, entry: u64) -> Option<&Point> {
        let after = self.points.partition_point(|point| point.entry <= entry);
        after.checked_sub(1).map(|index| &self.points[index])
    }

    /// Where to begin to look for what lies behind `position`; `None`: at the beginning.
    pub(super) fn point_behind(&self, position: LogPosition) -> Option<&Point> {
        let after = self.points.partition_point(|point| point.before <= position);
        after.checked_sub(1).map(|index| &self.points[index])
    }
}
