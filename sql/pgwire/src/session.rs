//! A session: what a client says, in the order in which it says it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::DataType;
use bytes::{Bytes, BytesMut};
use logweir_sql::ClientSession;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use crate::frame::{Body, Broken, Connection, MESSAGE_BYTES_MAX};
use crate::reply::{Column, Failure, Outcome, Refusal, Reply as _, format_of, put_count};
use crate::running::{Interrupts, Patience, Planned, Rows, Step, columns, plan, stopping};
use crate::server::{Registered, Shared, StopLevel, Welcomed, reached};
use crate::settings::{APPLICATION_NAME, FIXED, Settings};
use crate::statement::{Command, CopyOptions, command, split};
use crate::value::Values;
use crate::{copy, parameter};

/// Statements that a session has prepared; drivers keep some hundred.
const STATEMENTS_MAX: usize = 1024;
/// The texts of all of them.
const STATEMENT_BYTES_MAX: usize = 4 << 20;
const PORTALS_MAX: usize = 256;
const CURSORS_MAX: usize = 64;
const SAVEPOINTS_MAX: usize = 1000;

/// How long a client may leave a cursor open and say nothing.
const IDLE_WITH_ROWS: Duration = Duration::from_secs(600);

/// How long a client may leave a portal on its place for queries before it says what to do with it; they say so at once.
const IDLE_ON_PLACE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transaction {
    None,
    Open,
    Failed,
}

/// A prepared statement.
#[derive(Clone)]
struct Prepared {
    text: Arc<str>,
    command: Command,
    /// The types that the client says its parameters have.
    declared: Arc<[u32]>,
}

/// A statement with its parameters.
struct Portal {
    command: Command,
    formats: Vec<i16>,
    rows: PortalRows,
}

enum PortalRows {
    /// Being read; with the count of those that were.
    Open(Box<Rows>, u64),
    /// Of a command of the session: made when it is run.
    Command,
    Done,
}

struct Cursor {
    rows: Rows,
    binary: bool,
    hold: bool,
}

pub(crate) struct Session {
    connection: Connection,
    shared: Arc<Shared>,
    user: usize,
    /// Who asks; what is set is added for each query.
    client: ClientSession,
    settings: Settings,
    transaction: Transaction,
    savepoints: Vec<String>,
    statements: HashMap<String, Prepared>,
    portals: HashMap<String, Portal>,
    cursors: HashMap<String, Cursor>,
    cancelled: watch::Receiver<u64>,
    stop: watch::Receiver<StopLevel>,
    _registered: Registered,
    _seat: OwnedSemaphorePermit,
}

impl Session {
    pub(crate) fn new(welcomed: Welcomed, stop: watch::Receiver<StopLevel>) -> Self {
        let Welcomed { connection, shared, user, name, parameters, database, registered, seat } = welcomed;
        let settings = Settings::new(shared.statement_timeout, &name, parameters);
        Session {
            connection,
            shared,
            user,
            client: ClientSession { user: name, database, schema: None, settings: BTreeMap::new(), process: registered.process },
            settings,
            transaction: Transaction::None,
            savepoints: Vec::new(),
            statements: HashMap::new(),
            portals: HashMap::new(),
            cursors: HashMap::new(),
            cancelled: registered.cancelled.clone(),
            stop,
            _registered: registered,
            _seat: seat,
        }
    }

    /// Serves the client until one of the two ends.
    pub(crate) async fn run(mut self) {
        for (name, value) in FIXED {
            self.connection.output.parameter_status(name, value);
        }
        self.connection.output.parameter_status("session_authorization", &self.client.user);
        self.connection.output.parameter_status(APPLICATION_NAME, self.settings.application_name());
        self.ready();
        let end = loop {
            match Box::pin(self.turn()).await {
                Ok(true) => {}
                Ok(false) => break None,
                Err(Failure::Ended(why)) => break why,
                Err(Failure::Refused(refusal)) => break Some(refusal),
            }
        };
        if let Some(refusal) = end {
            self.connection.output.error("FATAL", &refusal);
        }
        // Whoever does not read any more is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(5), self.connection.close()).await;
    }

    fn ready(&mut self) {
        self.connection.output.ready(match self.transaction {
            Transaction::None => b'I',
            Transaction::Open => b'T',
            Transaction::Failed => b'E',
        });
    }

    /// Takes a message and does what it says. False if it was the last one.
    async fn turn(&mut self) -> Outcome<bool> {
        self.send().await?;
        let (kind, body) = self.next_message().await?;
        match kind {
            b'Q' => {
                let outcome = self.simple(body).await;
                if let Err(failure) = outcome {
                    self.refuse(failure)?;
                }
                self.end_of_request()?;
                self.ready();
            }
            b'P' | b'B' | b'D' | b'E' | b'C' => {
                if let Err(failure) = self.extended(kind, body).await {
                    self.refuse(failure)?;
                    self.skip_to_sync().await?;
                }
            }
            b'S' => {
                self.end_of_request()?;
                self.ready();
            }
            b'H' => {}
            b'X' => return Ok(false),
            b'F' => return Err(Failure::Ended(Some(Refusal::new("0A000", "function calls of the protocol are not supported")))),
            // What is left of a COPY that was refused.
            b'd' | b'c' | b'f' => {}
            _ => return Err(Broken::Malformed.into()),
        }
        Ok(true)
    }

    /// Sends what has gathered; a client that does not read is given up after a while.
    async fn send(&mut self) -> Outcome {
        match tokio::time::timeout(self.settings.timeout().max(Duration::from_secs(60)), self.connection.flush()).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(Failure::Ended(None)),
        }
    }

    async fn next_message(&mut self) -> Outcome<(u8, Body)> {
        if self.open_portals().any(|rows| rows.has_place()) {
            match tokio::time::timeout(IDLE_ON_PLACE, self.connection.message(MESSAGE_BYTES_MAX)).await {
                Ok(message) => return Ok(message?),
                Err(_) => self.park_portals().map_err(|refusal| Failure::Ended(Some(refusal)))?,
            }
        }
        let holds_rows = !self.cursors.is_empty() || self.open_portals().next().is_some();
        let idle = async { if holds_rows { tokio::time::sleep(IDLE_WITH_ROWS).await } else { std::future::pending().await } };
        tokio::select! {
            biased;
            message = self.connection.message(MESSAGE_BYTES_MAX) => Ok(message?),
            () = reached(&mut self.stop, StopLevel::Drain) => Err(Failure::Ended(Some(stopping()))),
            () = idle => Err(Failure::Ended(Some(Refusal::new("25P03", "a cursor was left open for too long")))),
        }
    }

    /// Passes over what a client sent before it learned of an error.
    async fn skip_to_sync(&mut self) -> Outcome {
        self.send().await?;
        loop {
            match self.next_message().await?.0 {
                b'S' => break,
                b'X' => return Err(Failure::Ended(None)),
                _ => {}
            }
        }
        self.end_of_request()?;
        self.ready();
        Ok(())
    }

    /// Tells the client, if the session goes on.
    fn refuse(&mut self, failure: Failure) -> Outcome {
        match failure {
            Failure::Refused(refusal) => {
                tracing::debug!(process = self.client.process, sqlstate = refusal.code, "a statement was refused");
                self.connection.output.error("ERROR", &refusal);
                if self.transaction == Transaction::Open {
                    self.transaction = Transaction::Failed;
                }
                Ok(())
            }
            ended @ Failure::Ended(_) => Err(ended),
        }
    }

    /// Portals last as long as the transaction, and between two requests they are cursors.
    fn end_of_request(&mut self) -> Outcome {
        if self.transaction == Transaction::Open
            && let Err(refusal) = self.park_portals()
        {
            self.refuse(refusal.into())?;
        }
        if self.transaction != Transaction::Open {
            self.portals.clear();
            self.cursors.retain(|_, cursor| cursor.hold);
        }
        Ok(())
    }

    /// The rows of portals that were not read to their end.
    fn open_portals(&mut self) -> impl Iterator<Item = &mut Rows> {
        self.portals.values_mut().filter_map(|portal| match &mut portal.rows {
            PortalRows::Open(rows, _) => Some(rows.as_mut()),
            PortalRows::Command | PortalRows::Done => None,
        })
    }

    fn park_portals(&mut self) -> Result<(), Refusal> {
        let shared = Arc::clone(&self.shared);
        self.open_portals().try_for_each(|rows| rows.park(&shared))
    }

    fn interrupts(&mut self) -> Interrupts {
        // A cancel that came before is over.
        self.cancelled.borrow_and_update();
        let timeout = self.settings.timeout();
        Interrupts { deadline: Instant::now() + timeout, timeout, cancelled: self.cancelled.clone(), stop: self.stop.clone() }
    }

    async fn plan(&mut self, text: &str, interrupts: &mut Interrupts) -> Outcome<Planned> {
        let client = ClientSession { schema: self.settings.schema(), settings: self.settings.all(), ..self.client.clone() };
        plan(&self.shared, self.user, text, &client, self.settings.sees(), interrupts, &mut self.connection).await
    }

    /// Within a failed transaction nothing goes but its end.
    fn check_transaction(&self, command: &Command) -> Outcome {
        let ends_it = matches!(command, Command::Commit | Command::Rollback | Command::RollbackTo(_) | Command::Empty);
        if self.transaction == Transaction::Failed && !ends_it {
            let refusal = Refusal::new("25P02", "current transaction is aborted, commands ignored until end of transaction block");
            return Err(refusal.into());
        }
        Ok(())
    }

    // The simple protocol: a text, and all its answers.

    async fn simple(&mut self, mut body: Body) -> Outcome {
        let text = body.text()?;
        let statements = split(&text);
        if statements.is_empty() {
            self.connection.output.message(b'I', |_| {});
        }
        for statement in statements {
            let command = command(statement)?;
            self.check_transaction(&command)?;
            let mut interrupts = self.interrupts();
            match command {
                Command::Query => {
                    let planned = self.plan(statement, &mut interrupts).await?;
                    let mut rows = Rows::new(planned, &[])?;
                    self.connection.output.row_description(&rows.columns, &[]);
                    let (count, _) = self.send_rows(&mut rows, &[], None, Patience::Endless, &mut interrupts).await?;
                    self.connection.output.complete(&format!("SELECT {count}"));
                }
                command => {
                    if let Some(columns) = self.columns_of(&command)? {
                        let formats = self.own_formats(&command);
                        self.connection.output.row_description(&columns, &formats);
                    }
                    let formats = self.own_formats(&command);
                    self.act(command, &formats, &mut interrupts).await?;
                }
            }
        }
        Ok(())
    }

    /// Sends rows, all or so many. Returns how many, and whether there may be more.
    async fn send_rows(
        &mut self,
        rows: &mut Rows,
        formats: &[i16],
        most: Option<u64>,
        patience: Patience,
        interrupts: &mut Interrupts,
    ) -> Outcome<(u64, bool)> {
        let send = |output: &mut BytesMut, _, values: &[Values], row| {
            output.message(b'D', |body| {
                put_count(body, values.len());
                for (index, values) in values.iter().enumerate() {
                    values.write(row, format_of(formats, index), body);
                }
            });
        };
        self.take_rows(rows, most, patience, interrupts, send).await
    }

    /// Takes rows, all or so many, and does something with each of them and its number. Returns how many, and whether there may be more.
    async fn take_rows(
        &mut self,
        rows: &mut Rows,
        most: Option<u64>,
        patience: Patience,
        interrupts: &mut Interrupts,
        mut take: impl FnMut(&mut BytesMut, u64, &[Values], usize),
    ) -> Outcome<(u64, bool)> {
        let mut count = 0;
        let over = interrupts.deadline;
        while most.is_none_or(|most| count < most) {
            // What never pauses would never be all for now.
            if patience == Patience::Some && count > 0 && rows.follows_changes() && Instant::now() >= over {
                break;
            }
            match rows.step(interrupts, &mut self.connection).await? {
                Step::Row => {}
                Step::End => return Ok((count, false)),
                Step::Pause if self.goes_on(rows, count, patience, interrupts).await? => continue,
                Step::Pause => break,
            }
            let Some((values, row)) = rows.row() else { break };
            take(&mut self.connection.output, count, values, row);
            count += 1;
            if self.connection.is_full() {
                self.flush_within(interrupts).await?;
            }
        }
        Ok((count, true))
    }

    /// Waits for rows that are still to come. False if what was sent is to be all for now.
    async fn goes_on(&mut self, rows: &mut Rows, count: u64, patience: Patience, interrupts: &mut Interrupts) -> Outcome<bool> {
        if patience == Patience::Some && count > 0 {
            return Ok(false);
        }
        self.flush_within(interrupts).await?;
        rows.wait(patience, &self.shared, interrupts, &mut self.connection).await
    }

    /// Sends what has gathered within the time of the statement.
    async fn flush_within(&mut self, interrupts: &mut Interrupts) -> Outcome {
        tokio::select! {
            biased;
            sent = self.connection.flush() => Ok(sent?),
            () = reached(&mut interrupts.stop, StopLevel::Now) => Err(Failure::Ended(None)),
            // Part of a message may be on its way: nothing can be said any more.
            () = tokio::time::sleep_until(interrupts.deadline) => Err(Failure::Ended(None)),
        }
    }

    // What is about the session itself.

    /// The columns that a command of the session answers with.
    fn columns_of(&self, command: &Command) -> Result<Option<Vec<Column>>, Refusal> {
        Ok(match command {
            Command::Show(name) if name == "all" => {
                Some(["name", "setting", "description"].map(|name| Column { name: name.to_owned(), oid: 25 }).into())
            }
            Command::Show(name) => Some(vec![Column { name: name.clone(), oid: 25 }]),
            Command::Fetch { name, silent: false, .. } => Some(self.cursors.get(name).ok_or_else(|| no_cursor(name))?.rows.columns.clone()),
            _ => None,
        })
    }

    /// The formats that a command has by itself.
    fn own_formats(&self, command: &Command) -> Vec<i16> {
        match command {
            Command::Fetch { name, .. } if self.cursors.get(name).is_some_and(|cursor| cursor.binary) => vec![1],
            _ => vec![],
        }
    }

    /// Does a command of the session. Its columns have been announced.
    async fn act(&mut self, command: Command, formats: &[i16], interrupts: &mut Interrupts) -> Outcome {
        let tag = match command {
            Command::Empty => {
                self.connection.output.message(b'I', |_| {});
                return Ok(());
            }
            Command::Query => return Err(Refusal::new("XX000", "a query is not a command").into()),
            Command::Begin => {
                if self.transaction == Transaction::None {
                    self.settings.begin();
                } else {
                    self.connection.output.notice("25001", "there is already a transaction in progress");
                }
                self.transaction = Transaction::Open;
                "BEGIN"
            }
            Command::Commit | Command::Rollback => {
                if self.transaction == Transaction::None {
                    self.connection.output.notice("25P01", "there is no transaction in progress");
                }
                let undone = command == Command::Rollback || self.transaction == Transaction::Failed;
                self.transaction = Transaction::None;
                self.savepoints.clear();
                self.changing_settings(|settings| {
                    settings.end(undone);
                    Ok(())
                })?;
                self.cursors.retain(|_, cursor| cursor.hold);
                if undone { "ROLLBACK" } else { "COMMIT" }
            }
            Command::Nothing(tag) => tag,
            Command::Set { name, local: true, .. } if self.transaction == Transaction::None => {
                self.connection.output.notice("25P01", &format!("{name} is set for a transaction, and there is none"));
                "SET"
            }
            Command::Savepoint(_) | Command::Release(_) | Command::RollbackTo(_) if self.transaction == Transaction::None => {
                return Err(Refusal::new("25P01", "there is no transaction in progress").into());
            }
            Command::Savepoint(name) => {
                if self.savepoints.len() >= SAVEPOINTS_MAX {
                    return Err(Refusal::new("53400", format!("a transaction has at most {SAVEPOINTS_MAX} savepoints")).into());
                }
                self.savepoints.push(name);
                "SAVEPOINT"
            }
            Command::Release(name) => {
                self.savepoints.truncate(self.savepoint(&name)?);
                "RELEASE"
            }
            Command::RollbackTo(name) => {
                self.savepoints.truncate(self.savepoint(&name)? + 1);
                self.transaction = Transaction::Open;
                "ROLLBACK"
            }
            Command::Set { name, value, local } => {
                let is_reset = value.is_none();
                self.changing_settings(|settings| settings.set(&name, value, local))?;
                if is_reset { "RESET" } else { "SET" }
            }
            Command::ResetAll => {
                self.settings.reset_all();
                "RESET"
            }
            Command::Show(name) => {
                let mut rows = Rows::ready(&self.settings.show(&name)?)?;
                self.send_rows(&mut rows, formats, None, Patience::Some, interrupts).await?;
                "SHOW"
            }
            Command::Declare { name, binary, hold, query } => {
                self.declare(name, binary, hold, &query, interrupts).await?;
                "DECLARE CURSOR"
            }
            Command::Fetch { name, count, silent } => {
                let (count, _) = self.fetch(&name, formats, count, silent, interrupts).await?;
                self.connection.output.complete(&format!("{} {count}", if silent { "MOVE" } else { "FETCH" }));
                return Ok(());
            }
            Command::Close(Some(name)) => {
                self.cursors.remove(&name).ok_or_else(|| no_cursor(&name))?;
                "CLOSE CURSOR"
            }
            Command::Close(None) => {
                self.cursors.clear();
                "CLOSE CURSOR ALL"
            }
            Command::Copy { query, options } => return self.copy(&query, &options, interrupts).await,
            Command::DiscardAll => {
                if self.transaction != Transaction::None {
                    return Err(Refusal::new("25001", "DISCARD ALL cannot run inside a transaction block").into());
                }
                self.statements.clear();
                self.portals.clear();
                self.cursors.clear();
                self.settings.reset_all();
                "DISCARD ALL"
            }
            Command::Deallocate(Some(name)) => {
                self.statements.remove(&name).ok_or_else(|| no_statement(&name))?;
                "DEALLOCATE"
            }
            Command::Deallocate(None) => {
                self.statements.clear();
                "DEALLOCATE ALL"
            }
        };
        self.connection.output.complete(tag);
        Ok(())
    }

    /// Changes what is set, and tells the client of it as far as it is always told.
    fn changing_settings(&mut self, change: impl FnOnce(&mut Settings) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let before = self.settings.application_name().to_owned();
        change(&mut self.settings)?;
        if self.settings.application_name() != before {
            self.connection.output.parameter_status(APPLICATION_NAME, self.settings.application_name());
        }
        Ok(())
    }

    /// Rows of a cursor, passed over if that is wanted. Returns how many, and whether there may be more.
    async fn fetch(
        &mut self,
        name: &str,
        formats: &[i16],
        most: Option<u64>,
        silent: bool,
        interrupts: &mut Interrupts,
    ) -> Outcome<(u64, bool)> {
        // One that fails is none any more.
        let mut cursor = self.cursors.remove(name).ok_or_else(|| no_cursor(name))?;
        let rows = &mut cursor.rows;
        rows.resume(&self.shared, interrupts, &mut self.connection).await?;
        let taken = if silent {
            self.take_rows(rows, most, Patience::Some, interrupts, |_, _, _, _| {}).await?
        } else {
            self.send_rows(rows, formats, most, Patience::Some, interrupts).await?
        };
        rows.park(&self.shared)?;
        self.cursors.insert(name.to_owned(), cursor);
        Ok(taken)
    }

    async fn declare(&mut self, name: String, binary: bool, hold: bool, query: &str, interrupts: &mut Interrupts) -> Outcome {
        if self.transaction == Transaction::None && !hold {
            return Err(Refusal::new("25P01", "DECLARE CURSOR can only be used in transaction blocks").into());
        }
        if self.cursors.contains_key(&name) || self.portals.contains_key(&name) {
            return Err(Refusal::new("42P03", format!("cursor \"{name}\" already exists")).into());
        }
        if self.cursors.len() >= CURSORS_MAX {
            return Err(Refusal::new("53400", format!("a session has at most {CURSORS_MAX} cursors")).into());
        }
        if !matches!(command(query)?, Command::Query) {
            return Err(Refusal::new("42601", "a cursor is over a query").into());
        }
        let planned = self.plan(query, interrupts).await?;
        let mut rows = Rows::new(planned, &[])?;
        rows.park(&self.shared)?;
        self.cursors.insert(name, Cursor { rows, binary, hold });
        Ok(())
    }

    async fn copy(&mut self, query: &str, options: &CopyOptions, interrupts: &mut Interrupts) -> Outcome {
        let planned = self.plan(query, interrupts).await?;
        let mut rows = Rows::new(planned, &[])?;
        copy::begin(&rows.columns, options, &mut self.connection.output);
        let send = |output: &mut BytesMut, count, values: &[Values], row| copy::row(values, row, options, count == 0, output);
        let (count, _) = self.take_rows(&mut rows, None, Patience::Endless, interrupts, send).await?;
        copy::end(options, count == 0, &mut self.connection.output);
        self.connection.output.complete(&format!("COPY {count}"));
        Ok(())
    }

    /// The place of a savepoint: the last of that name.
    fn savepoint(&self, name: &str) -> Result<usize, Refusal> {
        let place = self.savepoints.iter().rposition(|known| known == name);
        place.ok_or_else(|| Refusal::new("3B001", format!("savepoint \"{name}\" does not exist")))
    }

    // The extended protocol: statements, portals, and what is done with them.

    async fn extended(&mut self, kind: u8, body: Body) -> Outcome {
        match kind {
            b'P' => self.parse(body),
            b'B' => self.bind(body).await,
            b'D' => self.describe(body).await,
            b'E' => self.execute(body).await,
            _ => self.close(body),
        }
    }

    fn parse(&mut self, mut body: Body) -> Outcome {
        let (name, text) = (body.text()?, body.text()?);
        let count = u16::from_ne_bytes(body.i16()?.to_ne_bytes());
        if usize::from(count) * 4 > body.0.len() {
            return Err(Broken::Malformed.into());
        }
        let declared =
            (0..count).map(|_| body.i32().map(|oid| u32::from_ne_bytes(oid.to_ne_bytes()))).collect::<Result<Arc<[u32]>, _>>()?;
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(Refusal::new("42P05", format!("prepared statement \"{name}\" already exists")).into());
        }
        self.statements.remove(&name);
        let held: usize = self.statements.values().map(|prepared| prepared.text.len()).sum();
        if self.statements.len() >= STATEMENTS_MAX || held + text.len() > STATEMENT_BYTES_MAX {
            let limit = Refusal::new("53400", "a session has too many prepared statements");
            return Err(limit.hint(format!("at most {STATEMENTS_MAX}, of 4 MiB together: DEALLOCATE those that are not needed")).into());
        }
        let statements = split(&text);
        let statement = match statements.as_slice() {
            [] => "",
            [one] => one,
            _ => return Err(Refusal::new("42601", "cannot insert multiple commands into a prepared statement").into()),
        };
        let command = command(statement)?;
        self.check_transaction(&command)?;
        let text = statement.into();
        self.statements.insert(name, Prepared { text, command, declared });
        self.connection.output.message(b'1', |_| {});
        Ok(())
    }

    async fn bind(&mut self, mut body: Body) -> Outcome {
        let (portal, name) = (body.text()?, body.text()?);
        let formats = body.i16s()?;
        let count = usize::from(u16::from_ne_bytes(body.i16()?.to_ne_bytes()));
        let mut values: Vec<Option<Bytes>> = Vec::new();
        for _ in 0..count {
            values.push(body.value()?);
        }
        let result_formats = body.i16s()?;
        if formats.iter().chain(&result_formats).any(|format| ![0, 1].contains(format)) {
            return Err(Refusal::new("08P01", "a format is 0 or 1").into());
        }
        let prepared = self.statements.get(&name).cloned().ok_or_else(|| no_statement(&name))?;
        self.check_transaction(&prepared.command)?;
        if !portal.is_empty() && (self.portals.contains_key(&portal) || self.cursors.contains_key(&portal)) {
            return Err(Refusal::new("42P03", format!("cursor \"{portal}\" already exists")).into());
        }
        self.portals.remove(&portal);
        if self.portals.len() >= PORTALS_MAX {
            return Err(Refusal::new("53400", format!("a session has at most {PORTALS_MAX} portals")).into());
        }
        let rows = if prepared.command == Command::Query {
            // A session does not wait for itself.
            self.park_portals()?;
            let mut interrupts = self.interrupts();
            let planned = self.plan(&prepared.text, &mut interrupts).await?;
            let inferred = planned.query.parameters();
            let wanted = inferred.len().max(prepared.declared.len());
            if values.len() != wanted {
                let message = format!("bind message supplies {} parameters, but the statement requires {wanted}", values.len());
                return Err(Refusal::new("08P01", message).into());
            }
            let read = values.into_iter().enumerate().map(|(index, value)| {
                let (declared, inferred) = (prepared.declared.get(index).copied(), inferred.get(index).and_then(Option::as_ref));
                let oid = parameter::oid_of(declared, inferred);
                // What the client declares is what it means.
                let cast_to = inferred.filter(|_| declared.is_none_or(|oid| [0, 705].contains(&oid)));
                parameter::read(oid, format_of(&formats, index), value, cast_to)
            });
            let values = read.collect::<Result<Vec<_>, _>>()?;
            PortalRows::Open(Box::new(Rows::new(planned, &values)?), 0)
        } else {
            if !values.is_empty() {
                return Err(Refusal::new("08P01", "the statement has no parameters").into());
            }
            PortalRows::Command
        };
        self.portals.insert(portal, Portal { command: prepared.command, formats: result_formats, rows });
        self.connection.output.message(b'2', |_| {});
        Ok(())
    }

    async fn describe(&mut self, mut body: Body) -> Outcome {
        let (kind, name) = (body.u8()?, body.text()?);
        match kind {
            b'S' => {
                let prepared = self.statements.get(&name).cloned().ok_or_else(|| no_statement(&name))?;
                self.check_transaction(&prepared.command)?;
                if prepared.command != Command::Query {
                    self.connection.output.parameter_description(&[]);
                    let columns = self.columns_of(&prepared.command)?;
                    self.announce(columns.as_deref(), &[]);
                    return Ok(());
                }
                let mut interrupts = self.interrupts();
                let planned = self.plan(&prepared.text, &mut interrupts).await?;
                let inferred = planned.query.parameters();
                let oids: Vec<u32> = (0..inferred.len().max(prepared.declared.len()))
                    .map(|index| parameter::oid_of(prepared.declared.get(index).copied(), inferred.get(index).and_then(Option::as_ref)))
                    .collect();
                let nulls: Vec<ArrayRef> = oids
                    .iter()
                    .enumerate()
                    .map(|(index, oid)| match inferred.get(index) {
                        Some(Some(data_type)) if *data_type != DataType::Null => new_null_array(data_type, 1),
                        _ => new_null_array(&parameter::data_type(*oid), 1),
                    })
                    .collect();
                let columns = columns(&planned.query.bind(&nulls)?.schema());
                self.connection.output.parameter_description(&oids);
                self.announce(Some(&columns), &[]);
            }
            // A cursor is a portal that SQL has made.
            b'P' if !self.portals.contains_key(&name) && self.cursors.contains_key(&name) => {
                let command = Command::Fetch { name, count: None, silent: false };
                let (columns, formats) = (self.columns_of(&command)?, self.own_formats(&command));
                self.announce(columns.as_deref(), &formats);
            }
            b'P' => {
                let portal = self.portals.get(&name).ok_or_else(|| no_portal(&name))?;
                let columns = match &portal.rows {
                    PortalRows::Open(rows, _) => Some(rows.columns.clone()),
                    _ => self.columns_of(&portal.command)?,
                };
                let formats = portal.formats.clone();
                self.announce(columns.as_deref(), &formats);
            }
            _ => return Err(Broken::Malformed.into()),
        }
        Ok(())
    }

    fn announce(&mut self, columns: Option<&[Column]>, formats: &[i16]) {
        match columns {
            Some(columns) => self.connection.output.row_description(columns, formats),
            None => self.connection.output.message(b'n', |_| {}),
        }
    }

    async fn execute(&mut self, mut body: Body) -> Outcome {
        let (name, most) = (body.text()?, body.i32()?);
        let most = u64::try_from(most).ok().filter(|most| *most > 0);
        if !self.portals.contains_key(&name) && self.cursors.contains_key(&name) {
            return self.execute_cursor(name, most).await;
        }
        let mut portal = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        self.check_transaction(&portal.command)?;
        let mut interrupts = self.interrupts();
        let formats = portal.formats.clone();
        match std::mem::replace(&mut portal.rows, PortalRows::Done) {
            PortalRows::Open(mut rows, before) => {
                rows.resume(&self.shared, &mut interrupts, &mut self.connection).await?;
                let patience = if most.is_some() { Patience::Some } else { Patience::Endless };
                let (count, more) = self.send_rows(&mut rows, &formats, most, patience, &mut interrupts).await?;
                if more {
                    self.connection.output.message(b's', |_| {});
                    portal.rows = PortalRows::Open(rows, before + count);
                } else {
                    self.connection.output.complete(&format!("SELECT {}", before + count));
                }
            }
            PortalRows::Command => self.act(portal.command.clone(), &formats, &mut interrupts).await?,
            PortalRows::Done => self.connection.output.complete("SELECT 0"),
        }
        self.portals.insert(name, portal);
        Ok(())
    }

    /// A cursor by its name among the portals.
    async fn execute_cursor(&mut self, name: String, most: Option<u64>) -> Outcome {
        let command = Command::Fetch { name: name.clone(), count: most, silent: false };
        self.check_transaction(&command)?;
        let formats = self.own_formats(&command);
        let mut interrupts = self.interrupts();
        let (count, more) = self.fetch(&name, &formats, most, false, &mut interrupts).await?;
        if more && most == Some(count) {
            self.connection.output.message(b's', |_| {});
        } else {
            self.connection.output.complete(&format!("SELECT {count}"));
        }
        Ok(())
    }

    fn close(&mut self, mut body: Body) -> Outcome {
        match (body.u8()?, body.text()?) {
            (b'S', name) => drop(self.statements.remove(&name)),
            (b'P', name) => {
                // One of the two has it.
                drop(self.portals.remove(&name));
                drop(self.cursors.remove(&name));
            }
            _ => return Err(Broken::Malformed.into()),
        }
        self.connection.output.message(b'3', |_| {});
        Ok(())
    }
}

fn no_cursor(name: &str) -> Refusal {
    Refusal::new("34000", format!("cursor \"{name}\" does not exist"))
}

fn no_portal(name: &str) -> Refusal {
    Refusal::new("34000", format!("portal \"{name}\" does not exist"))
}

fn no_statement(name: &str) -> Refusal {
    Refusal::new("26000", format!("prepared statement \"{name}\" does not exist"))
}
