//! How far a backfill is: part of every mark, so that it is decided together with what was landed.

use std::collections::{BTreeMap, BTreeSet};

use logweir_core::Error;
use serde::{Deserialize, Serialize};

use crate::decoder::Reshaped;
use crate::lsn::Lsn;
use crate::types::Oid;

use super::key::KeyPlace;
use super::progress::PartProgress;
use super::standing::Parts;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BackfillState {
    /// Published tables that were looked at: read, or among `pending`, or not wanted.
    #[serde(skip_serializing_if = "Parts::is_empty")]
    pub(crate) known: Parts,
    /// The same while rows that were there before are not wanted: then nothing of them counts as read.
    #[serde(skip_serializing_if = "Parts::is_empty")]
    pub(crate) followed: Parts,
    /// Tables among `pending` of which rows were landed that may not be there any more: they are emptied before they are read.
    #[serde(skip_serializing_if = "Oids::is_empty")]
    pub(crate) emptied: Oids,
    /// What is still to be read, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) pending: Vec<PendingPart>,
    /// Transactions that the log has shown to be committed and that no snapshot has shown to be visible yet.
    #[serde(skip_serializing_if = "Unverified::is_empty")]
    pub(crate) unverified: Unverified,
    /// Tables that have another shape than before, of which it was not looked yet whether they must be read again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) reshaped: Vec<Reshaped>,
    /// For eyes: published tables that were read whole, the rows of them, and what is read of tables of which some parts are
    /// no longer pending.
    #[serde(skip_serializing_if = "Parts::is_empty")]
    pub(crate) read: Parts,
    #[serde(skip_serializing_if = "is_zero_rows")]
    pub(crate) rows: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) partly: BTreeMap<Oid, PartProgress>,
}

impl BackfillState {
    /// True if there is nothing to keep.
    pub(crate) fn is_idle(&self) -> bool {
        *self == BackfillState::default()
    }
}

/// Transactions that a snapshot must see. The first few by number; of more than that it is only known which is the newest,
/// and then all up to it must have ended, ours or not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Unverified {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    some: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    through: Option<u32>,
}

impl Unverified {
    /// Bounds what a mark holds. Between two snapshots a server commits far more, but then nearly all of them are visible
    /// to the next one.
    const SOME_MAX: usize = 256;

    pub(crate) fn new(transactions: Vec<u32>) -> Self {
        let mut unverified = Unverified::default();
        transactions.into_iter().for_each(|xid| unverified.push(xid));
        unverified
    }

    /// True if any snapshot will do.
    pub(crate) fn is_empty(&self) -> bool {
        self.some.is_empty() && self.through.is_none()
    }

    /// Takes note of a committed transaction.
    pub(crate) fn push(&mut self, xid: u32) {
        if self.some.len() < Self::SOME_MAX {
            self.some.push(xid);
        } else if self.through.is_none_or(|through| precedes(through, xid)) {
            self.through = Some(xid);
        }
    }

    /// True if a snapshot sees all of them.
    pub(crate) fn are_seen_by(&self, snapshot: &Snapshot) -> bool {
        self.some.iter().all(|xid| snapshot.sees(*xid)) && self.through.is_none_or(|through| snapshot.has_passed(through))
    }

    /// Forgets those that a snapshot sees.
    pub(crate) fn verify(&mut self, snapshot: &Snapshot) {
        self.some.retain(|xid| !snapshot.sees(*xid));
        self.through = self.through.filter(|through| !snapshot.has_passed(*through));
    }
}

/// True if the transaction `a` began before `b`: numbers go round.
fn precedes(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) > 0
}

/// A table, or a partition of one, that is still to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingPart {
    /// The table that its rows are published as.
    pub(crate) oid: Oid,
    /// Where they lie: the same one, or a partition.
    pub(crate) part: Oid,
    /// Everything before this block was read. [`PendingPart::READ`] if all is.
    #[serde(default)]
    pub(crate) next_block: u64,
    /// The file that blocks are counted in. A table that is rewritten has another one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) file: Oid,
    /// How far it is read by its key, where it is not read block by block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<KeyPlace>,
    /// How often it was started over because a row changed its key and the log left a value of it out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) overtaken: u32,
    /// Changes of the table are in the log from here on.
    #[serde(default)]
    pub(crate) after: Lsn,
    /// Transactions below this one may have changed it unnoticed: a snapshot must have seen their end.
    #[serde(default)]
    pub(crate) ended: u64,
    /// It has no key: its rows must be read at one exact place of the log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) exact: bool,
    /// Rows of it may have been landed that the next reading repeats.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) begun: bool,
    /// For eyes: what of it is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<PartProgress>,
}

impl PendingPart {
    /// All its blocks.
    pub(crate) const READ: u64 = u64::MAX;

    /// A part of which nothing is read.
    pub(crate) fn new(oid: Oid, part: Oid, exact: bool) -> Self {
        PendingPart {
            oid,
            part,
            next_block: 0,
            file: 0,
            place: None,
            overtaken: 0,
            after: Lsn::default(),
            ended: 0,
            exact,
            begun: false,
            progress: None,
        }
    }

    /// Nothing of it counts as read.
    pub(crate) fn start_over(&mut self) {
        self.next_block = 0;
        self.file = 0;
        self.place = None;
        self.progress = None;
    }

    /// True if there are rows to be read.
    pub(crate) fn is_unread(&self) -> bool {
        self.next_block != Self::READ
    }

    /// True if nothing of it counts as read.
    pub(crate) fn is_at_start(&self) -> bool {
        self.next_block == 0 && self.place.is_none()
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_zero_rows(number: &u64) -> bool {
    *number == 0
}

/// A set of OIDs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Oids(pub(crate) BTreeSet<Oid>);

impl Oids {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a snapshot sees, as `pg_current_snapshot()` says it: every transaction below `xmax` that is not `under_way`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Every transaction below has ended.
    pub(crate) xmin: u64,
    /// This one and all above had not begun, or not ended.
    pub(crate) xmax: u64,
    /// Sorted.
    pub(crate) under_way: Vec<u64>,
}

impl Snapshot {
    /// Parses `10:20:10,14,15`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let bad = || Error::corrupt("the server described a snapshot in an unknown form");
        let mut parts = text.split(':');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or_else(bad);
        let (xmin, xmax) = (number()?, number()?);
        let list = parts.next().ok_or_else(bad)?;
        let under_way = list.split(',').filter(|xid| !xid.is_empty()).map(|xid| xid.parse().map_err(|_| bad()));
        let mut under_way = under_way.collect::<Result<Vec<u64>, Error>>()?;
        under_way.sort_unstable();
        Ok(Snapshot { xmin, xmax, under_way })
    }

    /// The transactions that `other` sees and this one does not.
    pub(crate) fn lacks(&self, other: &Snapshot) -> Unverified {
        // Below its own bound those are under way; above it any may be, and if they are too many the newest stands for all.
        let above = self.xmax.max(other.xmax.saturating_sub(Unverified::SOME_MAX as u64 * 16))..other.xmax;
        let candidates = self.under_way.iter().copied().chain(above);
        Unverified::new(candidates.map(|xid| xid as u32).filter(|xid| other.sees(*xid) && !self.sees(*xid)).collect())
    }

    /// True if this transaction and all that began before it have ended.
    fn has_passed(&self, xid: u32) -> bool {
        precedes(xid, self.xmin as u32)
    }

    /// True if the snapshot sees what a committed transaction did. The log has the lower half of its number; the upper half
    /// is that of the transaction nearest to the snapshot.
    pub(crate) fn sees(&self, xid: u32) -> bool {
        let distance = (xid as i32).wrapping_sub(self.xmax as u32 as i32);
        let full = self.xmax.saturating_add_signed(i64::from(distance));
        full < self.xmax && self.under_way.binary_search(&full).is_err()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use logweir_core::RelationName;

    use super::*;

    #[test]
    fn a_snapshot_sees_what_has_ended() {
        let snapshot = Snapshot::parse("10:20:10,14").unwrap();
        let seen: Vec<u32> = (8..22).filter(|xid| snapshot.sees(*xid)).collect();
        assert_eq!(seen, [8, 9, 11, 12, 13, 15, 16, 17, 18, 19]);
        assert!(Snapshot::parse("10:20:").unwrap().sees(10));
        for text in ["", "10", "10:20", "a:b:", "10:20:x"] {
            assert!(Snapshot::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_an_exact_snapshot_is_ahead_of() {
        let exact = Snapshot::parse("10:30:12,28").unwrap();
        assert_eq!(Snapshot::parse("10:26:10,12,20").unwrap().lacks(&exact), Unverified::new(vec![10, 20, 26, 27, 29]));
        assert!(Snapshot::parse("30:30:").unwrap().lacks(&exact).is_empty());
    }

    #[test]
    fn the_log_has_half_of_the_number() {
        let epoch = 1 << 32;
        let snapshot = Snapshot { xmin: epoch - 5, xmax: epoch + 5, under_way: vec![epoch - 3] };
        assert!(snapshot.sees(u32::MAX) && snapshot.sees(4) && !snapshot.sees(u32::MAX - 2) && !snapshot.sees(5));
    }

    #[test]
    fn the_state_survives_the_checkpoint() {
        let state = BackfillState {
            known: "16385-16387,16400".parse().unwrap(),
            emptied: Oids([16400].into()),
            pending: vec![PendingPart { next_block: 7, after: Lsn(1), ended: 1 << 40, ..PendingPart::new(16400, 16401, true) }],
            unverified: Unverified::new(vec![5]),
            reshaped: vec![Reshaped {
                oid: 7,
                name: RelationName::new("s", "t"),
                added: vec!["c".to_owned()],
                retyped: false,
                recreated: false,
            }],
            ..BackfillState::default()
        };
        let text = serde_json::to_string(&state).unwrap();
        assert!(text.contains(r#""known":"16385-16387,16400""#), "{text}");
        assert_eq!(serde_json::from_str::<BackfillState>(&text).unwrap(), state);
        assert!(BackfillState::default().is_idle());
    }

    #[test]
    fn what_a_snapshot_has_seen_is_forgotten() {
        let mut unverified = Unverified::new(vec![8, 14]);
        let snapshot = Snapshot::parse("10:20:10,14").unwrap();
        assert!(!unverified.are_seen_by(&snapshot));
        unverified.verify(&snapshot);
        assert_eq!(unverified, Unverified::new(vec![14]));
        unverified.verify(&Snapshot::parse("20:20:").unwrap());
        assert!(unverified.is_empty());
    }

    #[test]
    fn of_many_all_must_have_ended() {
        let unverified = Unverified::new((1000..2000).collect());
        assert!(!unverified.are_seen_by(&Snapshot::parse("1500:3000:1500").unwrap()));
        assert!(!unverified.are_seen_by(&Snapshot::parse("1999:3000:1999").unwrap()));
        assert!(unverified.are_seen_by(&Snapshot::parse("2000:3000:2000").unwrap()));
        assert!(serde_json::to_string(&unverified).unwrap().len() < 2_000);
    }
}
