//! Opening a log: from what the server is to a walsender that sends, with every check on the way that keeps a gap from
//! going unnoticed.

use std::collections::HashMap;
use std::sync::Arc;

use logweir_core::{Clock as _, Error, LogMark, Pattern, Relation, Result, SystemClock, TableFilter};

use crate::backfill::{BackfillState, PendingPart, Pool, look_up};
use crate::decoder::{DecoderOptions, PgoutputDecoder};
use crate::lsn::Lsn;
use crate::offset::PostgresOffset;
use crate::options::{PostgresOptions, Start};
use crate::publication::{self, Publication};
use crate::quote::literal;
use crate::server::{self, Facts, Identity};
use crate::session::{Session, SessionParts};
use crate::slots::{self, START_ANEW, Slot, SlotOptions};
use crate::transactions::Transactions;
use crate::types::{Oid, TypeCatalog, TypeOptions};
use crate::wire::{Connection, Mode, sqlstate};

/// The share of the memory budget that the decoder may hold before it cuts batches: it is not counted until then.
const DECODER_BUDGET_SHARE: usize = 16;

/// Bounds of that: batches below waste what comes after them, above they only cost latency.
const FLUSH_BYTES: std::ops::RangeInclusive<usize> = 256 * 1024..=16 * 1024 * 1024;

/// Somebody else holds a lock for longer than a question waits: `lock_not_available`.
const LOCKED: &str = "55P03";

/// The oldest server whose log can be read.
const VERSION_MIN: u32 = 100_000;
/// The oldest whose slots can be read on a standby.
const STANDBY_VERSION_MIN: u32 = 160_000;

/// What is needed to open the log, for as long as that takes.
pub(crate) struct Opening {
    pub(crate) options: Arc<PostgresOptions>,
    pub(crate) tables: TableFilter,
    pub(crate) before_images: Vec<Pattern>,
    pub(crate) relations: Vec<Arc<Relation>>,
    pub(crate) resume: Option<LogMark>,
    pub(crate) memory_bytes: usize,
    /// Whether values may come in binary form.
    pub(crate) binary: bool,
}

/// What opening the log gives.
pub(crate) struct Opened {
    pub(crate) session: Session,
    pub(crate) mark: LogMark,
    pub(crate) query: Connection,
    pub(crate) backfill: BackfillState,
    /// Connections with the exact snapshot of a slot that is new.
    pub(crate) pool: Option<Pool>,
    /// The published tables were looked at.
    pub(crate) surveyed: bool,
}

/// Where reading begins.
struct Place {
    from: PostgresOffset,
    commit_time: Option<logweir_core::TimestampMicros>,
    two_phase: bool,
    pool: Option<Pool>,
    surveyed: bool,
    /// Where the timeline of the checkpoint was left, if the server was promoted since.
    left: Option<Lsn>,
}

impl Opening {
    pub(crate) async fn open(self) -> Result<Opened> {
        let options = &self.options;
        let mut query = Connection::connect(options, Mode::Query).await?;
        let facts = Arc::new(server::facts(&mut query).await?);
        verify_server(options, &facts)?;
        let mut walsender = Connection::connect(options, Mode::Replication).await?;
        let identity = server::identity(&mut walsender).await?;
        let slot = Slot::named(&mut query, &options.slot).await?;
        let place = match &self.resume {
            Some(mark) => place_of_mark(options, mark, &identity, slot.as_ref(), &mut walsender).await?,
            None => self.place_of_start(&facts, &identity, slot.as_ref(), &mut query, &mut walsender).await?,
        };
        let Place { from, commit_time, two_phase, mut pool, mut surveyed, left } = place;
        match left {
            Some(left) if self.resume.as_ref().is_some_and(|mark| mark.position.incarnation() == from.incarnation) => {
                tracing::info!(to = identity.timeline, left = %left, "the log goes on on another timeline");
            }
            Some(left) => tracing::warn!(to = identity.timeline, left = %left, "the log goes on on another timeline, at an earlier place"),
            None => {}
        }
        let mut backfill = from.backfill.clone();
        if let (Some(pool), Some(settings)) = (&mut pool, &options.backfill) {
            // As the snapshot sees it: what came later is found by a later look.
            let found = pool.survey(&options.publication, &self.tables, &settings.exclude).await?;
            backfill.known = found.known;
            backfill.pending.extend(found.found);
            backfill.unverified = pool.ahead_of_server(&mut query, &facts).await?;
            surveyed = true;
        }
        let binary = self.binary && self.all_binary(&mut query, &facts).await?;
        // Before the walsender begins, which wants answers from then on. A locked table leaves it to be asked table by table.
        let cut_keys = match publication::cut_keys(&mut query, &options.publication).await {
            Err(error) if sqlstate(&error) == Some(LOCKED) => HashMap::new(),
            cut_keys => cut_keys?,
        };
        let statement = server::start_statement(options, &facts, from.begin(), binary, two_phase);
        let both = walsender.copy_both(&statement).await.map_err(|error| error.context("slot", &options.slot))?;
        let flush_bytes = (self.memory_bytes / DECODER_BUDGET_SHARE).clamp(*FLUSH_BYTES.start(), *FLUSH_BYTES.end());
        let mut decoder = PgoutputDecoder::new(DecoderOptions {
            tables: self.tables.clone(),
            before_images: self.before_images.clone(),
            incarnation: from.incarnation,
            from: from.lsn,
            changed: from.changed,
            commit_time,
            relations: self.relations.clone(),
            resume: self.resume.as_ref().map(|mark| mark.position),
            types: TypeOptions { arrays: options.arrays, money_scale: facts.money_scale },
            flush_bytes,
            flush_bytes_max: flush_bytes * 2,
        });
        decoder.learn_cut_keys(cut_keys);
        if decoder.commit_time().is_none() {
            // Rows that were there before the first change have a time of the log, too.
            decoder.advance_clock(SystemClock.now().min(server_time(&mut query).await?));
        }
        let spill = options.spill.clone().unwrap_or_else(std::env::temp_dir);
        tracing::info!(server = options.address(), slot = options.slot, from = %from.lsn, timeline = identity.timeline, binary, "reading the log");
        let session = Session::new(SessionParts {
            both,
            decoder,
            transactions: Transactions::new(Arc::new(spill)),
            facts,
            identity,
            incarnation: from.incarnation,
        });
        let mark = match &self.resume {
            // At the very same position, also behind rows of a backfill.
            Some(mark) if mark.position.incarnation() == from.incarnation => mark.clone(),
            _ => session.mark(from.lsn, session.decoder.commit_time(), &backfill)?,
        };
        Ok(Opened { session, mark, query, backfill, pool, surveyed })
    }

    /// Where a stream without a checkpoint begins.
    async fn place_of_start(
        &self,
        facts: &Facts,
        identity: &Identity,
        slot: Option<&Slot>,
        query: &mut Connection,
        walsender: &mut Connection,
    ) -> Result<Place> {
        let options = &self.options;
        if let Some(slot) = slot {
            slot.verify(options)?;
        }
        // Before the slot: at its place the publication must be there.
        if Publication::find(query, &options.publication).await?.is_none() {
            if !options.create {
                return Err(Error::config("the publication does not exist")
                    .context("publication", &options.publication)
                    .remedy("CREATE PUBLICATION … FOR TABLE …, before the slot is created (drop a slot that is there); or let it be created: create: true"));
            }
            if slot.is_some() {
                return Err(Error::config("the replication slot is older than the publication: it cannot be read with it")
                    .context("slot", &options.slot)
                    .context("publication", &options.publication)
                    .remedy(format!(
                        "drop the slot, so that it is made anew: SELECT pg_drop_replication_slot({})",
                        literal(&options.slot)
                    )));
            }
            publication::create(query, options, &self.tables).await?;
        }
        let offset = |lsn: Lsn| PostgresOffset {
            lsn,
            changed: Lsn::default(),
            hold: None,
            incarnation: 0,
            system: identity.system.clone(),
            timeline: identity.timeline,
            backfill: BackfillState::default(),
        };
        if let Some(slot) = slot {
            let confirmed = slot
                .confirmed_flush_lsn
                .ok_or_else(|| Error::transient("the replication slot is still being created").context("slot", &options.slot))?;
            let lsn = match &options.start {
                Start::Lsn(lsn) if *lsn < confirmed => {
                    return Err(Error::log_gone("the replication slot has passed the place to start at")
                        .context("slot is at", confirmed)
                        .context("start", lsn)
                        .remedy("choose start: earliest, which is where the slot is"));
                }
                Start::Lsn(lsn) => *lsn,
                Start::Now | Start::Earliest => confirmed,
            };
            return Ok(Place { from: offset(lsn), commit_time: None, two_phase: slot.two_phase, pool: None, surveyed: false, left: None });
        }
        if !options.create {
            return Err(Error::config("the replication slot does not exist").context("slot", &options.slot).remedy(format!(
                "SELECT pg_create_logical_replication_slot({}, 'pgoutput'); or let it be created: create: true",
                literal(&options.slot)
            )));
        }
        if let Start::Lsn(lsn) = &options.start {
            return Err(Error::config("a slot that is created now begins now, not at an earlier place")
                .context("start", lsn)
                .remedy("leave start: out, or name a slot that exists"));
        }
        let settings = SlotOptions {
            temporary: false,
            export_snapshot: options.backfill.is_some(),
            two_phase: options.two_phase,
            failover: options.failover,
        };
        let created = slots::create(walsender, query, facts, &options.slot, settings).await?;
        tracing::info!(slot = options.slot, at = %created.consistent, "created the replication slot");
        let pool = match (&created.snapshot, &options.backfill) {
            (Some(snapshot), Some(backfill)) => Some(Pool::import(options, snapshot, backfill.tasks).await?),
            _ => None,
        };
        let mut from = offset(created.consistent);
        if pool.is_some() {
            // The snapshot has seen what the log has before.
            from.changed = created.consistent;
        }
        Ok(Place { from, commit_time: None, two_phase: options.two_phase, pool, surveyed: false, left: None })
    }

    /// True if every column that is published can be read in binary form.
    async fn all_binary(&self, query: &mut Connection, facts: &Facts) -> Result<bool> {
        if !self.options.binary || facts.version < 140_000 {
            return Ok(false);
        }
        let asked = query
            .query(&format!(
                "SELECT DISTINCT a.atttypid, a.atttypmod FROM pg_catalog.pg_publication_tables AS p \
                 JOIN pg_catalog.pg_namespace AS n ON n.nspname = p.schemaname \
                 JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = p.tablename \
                 JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE p.pubname = {}",
                literal(&self.options.publication)
            ))
            .await;
        let rows = match asked {
            // From 16 on the server opens the tables to tell their columns, and somebody has locked one.
            Err(error) if sqlstate(&error) == Some(LOCKED) => {
                tracing::info!(slot = self.options.slot, "reading the log as text: a published table is locked");
                return Ok(false);
            }
            asked => asked?,
        };
        let columns: Vec<(Oid, i32)> =
            (0..rows.len()).filter_map(|row| Some((server::number(&rows, row, 0)?, server::number(&rows, row, 1)?))).collect();
        let mut types = TypeCatalog::new();
        let asked: Vec<Oid> = columns.iter().map(|(oid, _)| *oid).collect();
        for info in look_up(query, asked).await? {
            types.learn(info);
        }
        let type_options = TypeOptions { arrays: self.options.arrays, money_scale: facts.money_scale };
        Ok(columns.iter().all(|(oid, typmod)| types.column_type(*oid, *typmod, type_options).is_binary()))
    }
}

/// Says why a log cannot be opened at the mark of a checkpoint. Nothing is opened, and nothing changed.
pub(crate) async fn verify_mark(options: &PostgresOptions, mark: &LogMark, slot: Option<&Slot>) -> Result<()> {
    let mut walsender = Connection::connect(options, Mode::Replication).await?;
    let identity = server::identity(&mut walsender).await?;
    place_of_mark(options, mark, &identity, slot, &mut walsender).await?;
    walsender.close().await;
    Ok(())
}

/// Where a checkpoint goes on, if the slot still has everything behind it and the server is the one it was made with.
async fn place_of_mark(
    options: &PostgresOptions,
    mark: &LogMark,
    identity: &Identity,
    slot: Option<&Slot>,
    walsender: &mut Connection,
) -> Result<Place> {
    let mut from = PostgresOffset::of(mark)?;
    if from.system != identity.system {
        return Err(Error::log_gone("the server is another cluster than the one that the checkpoint was made with")
            .context("checkpoint", &from.system)
            .context("found", &identity.system)
            .remedy(format!("check the profile's host; if the data was moved to a new cluster, {START_ANEW}")));
    }
    let Some(slot) = slot else {
        return Err(Error::log_gone("the replication slot is gone: the changes since the checkpoint cannot be read any more")
            .context("slot", &options.slot)
            .context("server", options.address())
            .remedy(START_ANEW));
    };
    slot.verify(options)?;
    let mut left = None;
    if from.timeline != identity.timeline {
        let place;
        (from, place) = follow_timeline(from, identity, walsender).await?;
        left = Some(place);
    }
    // The server would begin where the slot is, without a word.
    if let Some(confirmed) = slot.confirmed_flush_lsn.filter(|confirmed| *confirmed > from.begin()) {
        return Err(Error::log_gone("the replication slot has moved on without this stream: another reader used it, or it was made anew")
            .context("slot", &options.slot)
            .context("slot is at", confirmed)
            .context("checkpoint", from.begin())
            .remedy(START_ANEW));
    }
    Ok(Place { from, commit_time: mark.commit_time, two_phase: slot.two_phase, pool: None, surveyed: false, left })
}

/// What a server must be.
fn verify_server(options: &PostgresOptions, facts: &Facts) -> Result<()> {
    if facts.version < VERSION_MIN {
        return Err(Error::config("the server is too old: logical replication begins with PostgreSQL 10").context("version", facts.version));
    }
    if facts.in_recovery && facts.version < STANDBY_VERSION_MIN {
        return Err(Error::config("the server is a standby, and before PostgreSQL 16 the log cannot be read on one")
            .context("version", facts.version)
            .remedy("name the primary in the profile's host"));
    }
    if facts.in_recovery && options.backfill.is_some() {
        return Err(Error::config(
            "rows that were there before cannot be read on a standby: it does not say which transactions are under way",
        )
        .remedy("name the primary in the profile's host, or write backfill: none"));
    }
    if facts.wal_level != "logical" {
        return Err(Error::config("wal_level must be logical")
            .context("found", &facts.wal_level)
            .remedy("ALTER SYSTEM SET wal_level = logical, then restart the server"));
    }
    Ok(())
}

/// The server was promoted since: goes on if what this stream has read lies on the way to the present timeline.
async fn follow_timeline(mut from: PostgresOffset, identity: &Identity, walsender: &mut Connection) -> Result<(PostgresOffset, Lsn)> {
    let left = server::left_at(walsender, identity.timeline, from.timeline).await?;
    let Some(left) = left.filter(|left| from.changed <= *left) else {
        return Err(Error::log_gone(
            "the server was promoted from a place before what this stream has landed: it lacks changes that were landed",
        )
        .context("checkpoint", from.changed)
        .context("timeline left at", left.map_or_else(|| "never".to_owned(), |left| left.to_string()))
        .remedy(START_ANEW));
    };
    // Transactions that are lost have given their numbers to others, which may have put other rows where theirs lay.
    from.backfill.pending.iter_mut().filter(|part| part.place.is_some()).for_each(PendingPart::start_over);
    if from.lsn <= left {
        return Ok((PostgresOffset { timeline: identity.timeline, ..from }, left));
    }
    // Nothing of interest lay between: the places are given anew.
    Ok((PostgresOffset { lsn: left, timeline: identity.timeline, incarnation: from.incarnation + 1, ..from }, left))
}

async fn server_time(query: &mut Connection) -> Result<logweir_core::TimestampMicros> {
    let rows = query.query("SELECT (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8").await?;
    let micros = server::number(&rows, 0, 0).ok_or_else(|| Error::corrupt("the server did not say what time it is"))?;
    Ok(logweir_core::TimestampMicros(micros))
}
