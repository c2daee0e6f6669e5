//! A seeded mixed workload over a small but awkward schema, run against PostgreSQL of any version.
//!
//! It knows which keys live, and nothing else: what the tables hold in the end is asked of the server itself. Every kind
//! of change that the log can hold is in it: single and multi-row inserts, updates and deletes, changes of keys and of
//! partitions, `ON CONFLICT`, `COPY`, transactions over several tables, large ones, rolled back ones and prepared ones,
//! savepoints and subtransactions that fail, truncates of several tables and of those that refer to them, large values
//! that an update leaves as they are, messages of others; changes of the schema if asked for.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use crate::servers::reason;

use super::tables::{ACCOUNT_COLUMNS, CREATE, ODD_TABLE, PARTITIONS, PLAIN_TABLES};
use super::values::{self, LARGE, moment, word, words};
use super::{identifier, literal};

/// What beyond changes of rows the workload may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct WorkloadOptions {
    /// `TRUNCATE`, now and then, of tables that fill up again.
    pub truncates: bool,
    /// `ALTER TABLE`, a few times.
    pub alters: bool,
    /// Transactions that are prepared first and end later.
    pub prepared: bool,
}

impl WorkloadOptions {
    /// Everything.
    pub const ALL: WorkloadOptions = WorkloadOptions { truncates: true, alters: true, prepared: true };
}

/// A workload under way.
#[derive(Debug)]
pub struct Workload {
    schema: String,
    rng: StdRng,
    options: WorkloadOptions,
    keys: Keys,
    alters: u32,
    /// Transactions that are prepared, and the transfers they would make.
    prepared: Vec<(String, Vec<u64>)>,
    prepared_so_far: u32,
}

/// The keys that live, as far as committed (or, inside a transaction, as far as done).
#[derive(Debug, Clone, Default)]
struct Keys {
    next: u64,
    accounts: Vec<u64>,
    ledger: Vec<(u64, u64)>,
    tokens: Vec<String>,
    invoices: Vec<u64>,
    odd: Vec<u64>,
    measures: Vec<(&'static str, u64)>,
    transfers: Vec<u64>,
    events: u64,
}

const REGIONS: [&str; 4] = ["north", "south", "east", "west"];
const SETTING_NAMES: [&str; 6] = ["colour", "Größe", "limit", "path", "mode", "motto"];
impl Workload {
    /// A workload whose statements follow from the seed, in a schema of its own.
    pub fn new(seed: u64, schema: &str, options: WorkloadOptions) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let keys = Keys { next: 1, ..Keys::default() };
        Workload { schema: schema.to_owned(), rng, options, keys, alters: 0, prepared: Vec::new(), prepared_so_far: 0 }
    }

    /// Makes the tables. A connection has the schema on its search path from then on; another one is brought there by
    /// [`enter`](Self::enter).
    pub async fn create(&mut self, client: &Client) {
        run(client, &format!("CREATE SCHEMA {}", identifier(&self.schema))).await;
        self.enter(client).await;
        for statement in CREATE {
            run(client, statement).await;
        }
        run(client, &format!("ALTER TABLE odd RENAME TO {}", identifier(ODD_TABLE))).await;
        let rows = self.rng.random_range(20..60);
        self.insert_accounts(client, rows).await;
    }

    /// Puts the schema on a connection's search path.
    pub async fn enter(&self, client: &Client) {
        run(client, &format!("SET search_path = {}", identifier(&self.schema))).await;
    }

    /// The tables that land, by schema and name, by how a publication names the rows of partitions.
    pub fn tables(&self, via_partition_root: bool) -> Vec<(String, String)> {
        let plain = PLAIN_TABLES.iter().filter(|&&table| via_partition_root || table != "measures");
        let partitions = PARTITIONS.iter().filter(|_| !via_partition_root);
        plain.chain(partitions).chain(&[ODD_TABLE]).map(|&table| (self.schema.clone(), table.to_owned())).collect()
    }

    /// Runs this many transactions.
    pub async fn run(&mut self, client: &Client, transactions: usize) {
        for _ in 0..transactions {
            self.transaction(client).await;
        }
    }

    /// Ends the transactions that are prepared still.
    pub async fn settle(&mut self, client: &Client) {
        while !self.prepared.is_empty() {
            self.end_prepared(client).await;
        }
    }

    /// One transaction; or, rarely, a statement that is none.
    async fn transaction(&mut self, client: &Client) {
        match self.rng.random_range(0..1000) {
            0..8 if self.options.truncates => return self.truncate(client).await,
            8..24 if self.options.alters && self.alters < 12 => return self.alter(client).await,
            24..44 if self.options.prepared => return self.prepare(client).await,
            44..60 => return self.end_prepared(client).await,
            60..68 => return self.large(client).await,
            68..75 => return self.beside_the_rows(client).await,
            // Outside a transaction: the server commits it by itself.
            75..200 => return self.step(client).await,
            _ => {}
        }
        let before = self.keys.clone();
        run(client, "BEGIN").await;
        let steps = if self.rng.random_ratio(1, 60) { 40 } else { self.rng.random_range(1..6) };
        for _ in 0..steps {
            match self.rng.random_range(0..15) {
                0 => self.savepoint(client, 0).await,
                1 => self.failing_block(client).await,
                _ => self.step(client).await,
            }
        }
        let rolled_back = self.rng.random_ratio(1, 8);
        run(client, if rolled_back { "ROLLBACK" } else { "COMMIT" }).await;
        if rolled_back {
            self.forget(before);
        }
    }

    /// Goes back to the keys of an earlier moment; numbers that were given out stay so.
    fn forget(&mut self, before: Keys) {
        self.keys = Keys { next: self.keys.next, ..before };
    }

    async fn savepoint(&mut self, client: &Client, depth: usize) {
        let before = self.keys.clone();
        run(client, &format!("SAVEPOINT level{depth}")).await;
        self.step(client).await;
        if depth < 3 && self.rng.random_bool(0.4) {
            Box::pin(self.savepoint(client, depth + 1)).await;
        }
        if self.rng.random_bool(0.5) {
            run(client, &format!("ROLLBACK TO SAVEPOINT level{depth}")).await;
            self.forget(before);
            self.step(client).await;
        } else if self.rng.random() {
            run(client, &format!("RELEASE SAVEPOINT level{depth}")).await;
        }
    }

    /// A subtransaction that the server itself aborts, after it wrote.
    async fn failing_block(&mut self, client: &Client) {
        let n = self.new_key();
        let sql = format!(
            "DO $$ BEGIN
                INSERT INTO tokens (token) VALUES ('never {n}'); UPDATE accounts SET level = 1, revision = -1 WHERE id % 10 = 0; INSERT INTO audit VALUES (-1);
                PERFORM 1 / 0;
            EXCEPTION WHEN division_by_zero THEN INSERT INTO audit VALUES ({n}); END $$"
        );
        run(client, &sql).await;
    }

    async fn step(&mut self, client: &Client) {
        match self.rng.random_range(0..100) {
            0..10 => {
                let rows = if self.rng.random_ratio(1, 20) { 80 } else { self.rng.random_range(1..6) };
                self.insert_accounts(client, rows).await;
            }
            10..28 => self.update_accounts(client).await,
            28..32 => self.renumber_account(client).await,
            32..36 => self.delete_accounts(client).await,
            36..46 => self.touch_ledger(client).await,
            46..50 => self.update_over_a_join(client).await,
            50..60 => self.touch_tokens(client).await,
            60..66 => self.touch_invoices(client).await,
            66..74 => self.touch_events(client).await,
            74..80 => self.touch_settings(client).await,
            80..86 => self.touch_odd(client).await,
            86..95 => self.touch_measures(client).await,
            95..97 => self.touch_shapes(client).await,
            _ => self.count(client).await,
        }
    }

    async fn insert_accounts(&mut self, client: &Client, rows: usize) {
        let mut tuples = Vec::new();
        for _ in 0..rows {
            let id = self.new_key();
            self.keys.accounts.push(id);
            let mut values = vec![id.to_string(), literal(&words(&mut self.rng, 40))];
            for column in ACCOUNT_COLUMNS {
                let value = if self.rng.random_ratio(1, 6) { "NULL".to_owned() } else { values::account(&mut self.rng, column) };
                values.push(value);
            }
            tuples.push(format!("({})", values.join(", ")));
        }
        run(client, &format!("INSERT INTO accounts (id, name, {}) VALUES {}", ACCOUNT_COLUMNS.join(", "), tuples.join(", "))).await;
    }

    async fn update_accounts(&mut self, client: &Client) {
        let &column = ACCOUNT_COLUMNS.choose(&mut self.rng).expect("there are columns");
        let value = if self.rng.random_ratio(1, 8) { "NULL".to_owned() } else { values::account(&mut self.rng, column) };
        let Some(&id) = self.keys.accounts.choose(&mut self.rng) else { return };
        let rows = match self.rng.random_range(0..20) {
            // Many rows by one statement.
            0 | 1 => format!("id BETWEEN {id} AND {}", id + 40),
            _ => format!("id = {id}"),
        };
        run(client, &format!("UPDATE accounts SET {column} = {value}, revision = revision + 1 WHERE {rows}")).await;
    }

    async fn renumber_account(&mut self, client: &Client) {
        let Some(place) = self.place(self.keys.accounts.len()) else { return };
        let (old, new) = (self.keys.accounts[place], self.new_key());
        self.keys.accounts[place] = new;
        run(client, &format!("UPDATE accounts SET id = {new}, revision = revision + 1 WHERE id = {old}")).await;
        if self.rng.random_ratio(1, 3) {
            // And back: the key that went away in this transaction is there again.
            self.keys.accounts[place] = old;
            run(client, &format!("UPDATE accounts SET id = {old} WHERE id = {new}")).await;
        }
    }

    async fn delete_accounts(&mut self, client: &Client) {
        for _ in 0..self.rng.random_range(1..4) {
            let Some(place) = self.place(self.keys.accounts.len()) else { return };
            let id = self.keys.accounts.swap_remove(place);
            run(client, &format!("DELETE FROM accounts WHERE id = {id}")).await;
        }
    }

    async fn touch_ledger(&mut self, client: &Client) {
        if self.rng.random_bool(0.6) {
            let Some(&account) = self.keys.accounts.choose(&mut self.rng) else { return };
            let mut tuples = Vec::new();
            for _ in 0..self.rng.random_range(1..8) {
                let entry = self.new_key();
                self.keys.ledger.push((account, entry));
                let amount = format!("{}.{:010}", self.rng.random::<i64>(), self.rng.random_range(0..10_000_000_000u64));
                let memo = if self.rng.random_ratio(1, 5) { "NULL".to_owned() } else { literal(&words(&mut self.rng, 20)) };
                tuples.push(format!("({account}, {entry}, {amount}, {memo}, '{}Z')", moment(&mut self.rng, 1971, 2037)));
            }
            return run(client, &format!("INSERT INTO ledger VALUES {}", tuples.join(", "))).await;
        }
        let Some(place) = self.place(self.keys.ledger.len()) else { return };
        let (account, entry) = self.keys.ledger[place];
        let which = format!("WHERE account_id = {account} AND entry = {entry}");
        match self.rng.random_range(0..4) {
            0 => {
                // Half of a composite key.
                let new = self.new_key();
                self.keys.ledger[place].1 = new;
                run(client, &format!("UPDATE ledger SET entry = {new} {which}")).await;
            }
            1 => {
                self.keys.ledger.swap_remove(place);
                run(client, &format!("DELETE FROM ledger {which}")).await;
            }
            2 => run(client, &format!("UPDATE ledger SET memo = memo, entry = entry {which}")).await,
            _ => run(client, &format!("UPDATE ledger SET amount = -amount {which}")).await,
        }
    }

    async fn update_over_a_join(&mut self, client: &Client) {
        let Some(&id) = self.keys.accounts.choose(&mut self.rng) else { return };
        let sql = format!(
            "WITH touched AS (UPDATE ledger SET memo = 'joined' WHERE account_id BETWEEN {id} AND {0} RETURNING account_id)
            UPDATE accounts a SET level = 7, revision = a.revision + 1 FROM touched t WHERE t.account_id = a.id",
            id + 20
        );
        run(client, &sql).await;
    }

    async fn touch_tokens(&mut self, client: &Client) {
        match self.rng.random_range(0..10) {
            0..5 => {
                let token = self.token();
                self.keys.tokens.push(token.clone());
                let payload = values::account(&mut self.rng, "photo");
                run(client, &format!("INSERT INTO tokens (token, payload) VALUES ({}, {payload})", literal(&token))).await;
            }
            5..7 => {
                let Some(token) = self.keys.tokens.choose(&mut self.rng).cloned() else { return };
                run(
                    client,
                    &format!("DELETE FROM tokens WHERE token = {0}; INSERT INTO tokens (token, uses) VALUES ({0}, 9)", literal(&token)),
                )
                .await;
            }
            7 => {
                let Some(place) = self.place(self.keys.tokens.len()) else { return };
                let new = self.token();
                let old = std::mem::replace(&mut self.keys.tokens[place], new.clone());
                run(client, &format!("UPDATE tokens SET token = {}, uses = uses + 1 WHERE token = {}", literal(&new), literal(&old))).await;
            }
            8 => {
                let Some(place) = self.place(self.keys.tokens.len()) else { return };
                let token = self.keys.tokens.swap_remove(place);
                run(client, &format!("DELETE FROM tokens WHERE token = {}", literal(&token))).await;
            }
            _ => run(client, "UPDATE tokens SET uses = uses + 1 WHERE token IN (SELECT token FROM tokens ORDER BY token LIMIT 20)").await,
        }
    }

    async fn touch_invoices(&mut self, client: &Client) {
        match self.rng.random_range(0..10) {
            0..6 => {
                let id = self.new_key();
                self.keys.invoices.push(id);
                run(client, &format!("INSERT INTO invoices VALUES ({id}, {})", literal(&words(&mut self.rng, 20)))).await;
                let lines = self.rng.random_range(1..6);
                run(client, &format!("INSERT INTO invoice_lines SELECT {id}, n, 'item ' || n FROM generate_series(1, {lines}) n")).await;
            }
            6..8 => {
                // The server changes the key of the lines too.
                let Some(place) = self.place(self.keys.invoices.len()) else { return };
                let (old, new) = (self.keys.invoices[place], self.new_key());
                self.keys.invoices[place] = new;
                run(client, &format!("UPDATE invoices SET id = {new} WHERE id = {old}")).await;
            }
            _ => {
                let Some(place) = self.place(self.keys.invoices.len()) else { return };
                let id = self.keys.invoices.swap_remove(place);
                run(client, &format!("DELETE FROM invoices WHERE id = {id}")).await;
            }
        }
    }

    async fn touch_events(&mut self, client: &Client) {
        match self.rng.random_range(0..12) {
            0..8 => {
                let mut tuples = Vec::new();
                for _ in 0..self.rng.random_range(1..8) {
                    self.keys.events += 1;
                    let length = if self.rng.random_ratio(1, 12) { 2 * LARGE } else { 30 };
                    let body = if self.rng.random_ratio(1, 10) { "NULL".to_owned() } else { literal(&words(&mut self.rng, length)) };
                    // Some rows are there more than once.
                    let n = if self.rng.random_ratio(1, 10) { "NULL".to_owned() } else { (self.keys.events / 2).to_string() };
                    let kind = *["login", "logout", "buy"].choose(&mut self.rng).expect("there are kinds");
                    tuples.push(format!("('2026-01-0{} 12:00Z', '{kind}', {n}, {body})", self.rng.random_range(1..4)));
                }
                run(client, &format!("INSERT INTO events VALUES {}", tuples.join(", "))).await;
            }
            8 | 9 => {
                let n = self.rng.random_range(0..self.keys.events / 2 + 1);
                run(client, &format!("UPDATE events SET kind = 'changed' WHERE n = {n}")).await;
            }
            // As it was: the log holds it nevertheless.
            10 => {
                let n = self.rng.random_range(0..self.keys.events / 2 + 1);
                run(client, &format!("UPDATE events SET kind = kind WHERE n = {n}")).await;
            }
            _ => {
                let n = self.rng.random_range(0..self.keys.events / 2 + 1);
                run(client, &format!("DELETE FROM events WHERE n = {n}")).await;
            }
        }
    }

    async fn touch_settings(&mut self, client: &Client) {
        let name = literal(SETTING_NAMES.choose(&mut self.rng).expect("there are names"));
        match self.rng.random_range(0..10) {
            0..6 => {
                let length = if self.rng.random() { 2 * LARGE } else { 10 };
                let value = literal(&words(&mut self.rng, length));
                run(client, &format!("INSERT INTO settings VALUES ({name}, {value}) ON CONFLICT (name) DO UPDATE SET value = excluded.value"))
                    .await;
            }
            6 => run(client, &format!("DELETE FROM settings WHERE name = {name}")).await,
            7 => run(client, &format!("UPDATE settings SET name = name || '!' WHERE name = {name} AND NOT EXISTS (SELECT FROM settings WHERE name = {name} || '!')")).await,
            8 => run(client, &format!("UPDATE settings SET value = value WHERE name = {name}")).await,
            _ => run(client, &format!("UPDATE settings SET value = NULL WHERE name = {name}")).await,
        }
    }

    async fn touch_odd(&mut self, client: &Client) {
        let table = identifier(ODD_TABLE);
        let Some(place) = self.place(self.keys.odd.len()).filter(|_| self.rng.random_bool(0.6)) else {
            let key = self.new_key();
            self.keys.odd.push(key);
            let (text, more) = (literal(&words(&mut self.rng, 12)), literal(&words(&mut self.rng, 12)));
            return run(client, &format!("INSERT INTO {table} VALUES (-{key}, {text}, {key}, {more})")).await;
        };
        let key = self.keys.odd[place];
        match self.rng.random_range(0..5) {
            0 => {
                let new = self.new_key();
                self.keys.odd[place] = new;
                run(client, &format!("UPDATE {table} SET \"_leading\" = {new} WHERE \"_leading\" = {key}")).await;
            }
            1 => {
                self.keys.odd.swap_remove(place);
                run(client, &format!("DELETE FROM {table} WHERE \"_leading\" = {key}")).await;
            }
            // The primary key, which identifies nothing here.
            2 => {
                let new = self.new_key();
                run(client, &format!("UPDATE {table} SET \"Schlüssel \"\"α\"\"\" = -{new} WHERE \"_leading\" = {key}")).await;
            }
            3 => {
                let text = literal(&words(&mut self.rng, 12));
                run(client, &format!("UPDATE {table} SET \"select\" = {text} WHERE \"_leading\" = {key}")).await;
            }
            _ => {
                let text = literal(&words(&mut self.rng, 12));
                run(client, &format!("UPDATE {table} SET \"UPPER.dot\" = {text} WHERE \"_leading\" = {key}")).await;
            }
        }
    }

    async fn touch_measures(&mut self, client: &Client) {
        let Some(place) = self.place(self.keys.measures.len()).filter(|_| self.rng.random_bool(0.6)) else {
            let mut tuples = Vec::new();
            for _ in 0..self.rng.random_range(1..6) {
                let (region, id) = (*REGIONS.choose(&mut self.rng).expect("there are regions"), self.new_key());
                self.keys.measures.push((region, id));
                let length = if self.rng.random_ratio(1, 5) { LARGE } else { 20 };
                let (taken, note) = (moment(&mut self.rng, 1990, 2030), literal(&words(&mut self.rng, length)));
                tuples.push(format!("({id}, '{region}', '{taken}Z', {}, {note})", self.rng.random::<i16>()));
            }
            return run(client, &format!("INSERT INTO measures VALUES {}", tuples.join(", "))).await;
        };
        let (region, id) = self.keys.measures[place];
        let which = format!("WHERE region = '{region}' AND id = {id}");
        match self.rng.random_range(0..5) {
            0 => {
                // Into another partition: a delete in one and an insert in the other.
                let new = *REGIONS.choose(&mut self.rng).expect("there are regions");
                self.keys.measures[place].0 = new;
                run(client, &format!("UPDATE measures SET region = '{new}' {which}")).await;
            }
            1 => {
                let new = self.new_key();
                self.keys.measures[place].1 = new;
                run(client, &format!("UPDATE measures SET id = {new} {which}")).await;
            }
            2 => {
                self.keys.measures.swap_remove(place);
                run(client, &format!("DELETE FROM measures {which}")).await;
            }
            _ => run(client, &format!("UPDATE measures SET value = value + 1 {which}")).await,
        }
    }

    async fn touch_shapes(&mut self, client: &Client) {
        let id = self.rng.random_range(0..60);
        let sql = match self.rng.random_range(0..6) {
            0 => format!("DELETE FROM shapes WHERE id = {id}"),
            // A change of the key of many rows that pass by each other.
            1 => "UPDATE shapes SET id = id + 1000 WHERE id < 20".to_owned(),
            _ => format!("INSERT INTO shapes (id) VALUES ({id}) ON CONFLICT (id) DO UPDATE SET revision = shapes.revision + 1"),
        };
        // What was renumbered before may be in the way.
        if sql.starts_with("UPDATE") {
            run(client, "DELETE FROM shapes WHERE id >= 1000").await;
        }
        run(client, &sql).await;
    }

    async fn count(&mut self, client: &Client) {
        let day = format!("2026-0{}-1{}", self.rng.random_range(1..4), self.rng.random_range(0..3));
        let name = *["in", "out", "Größe", "数"].choose(&mut self.rng).expect("there are names");
        let sql = format!(
            "INSERT INTO counters VALUES ('{day}', '{name}', 1) ON CONFLICT (day, name) DO UPDATE SET value = counters.value % 1000000 * 3 + 1"
        );
        run(client, &sql).await;
    }

    /// More than a walsender keeps in memory where it is told to keep little.
    async fn large(&mut self, client: &Client) {
        let first = self.keys.next + 1;
        let rows = self.rng.random_range(500..2500);
        self.keys.next += rows;
        let last = self.keys.next;
        run(client, "BEGIN").await;
        let insert = "INSERT INTO transfers SELECT n, n * 0.01, repeat('transfer ', (n % 20)::int) FROM generate_series";
        run(client, &format!("{insert}({first}::bigint, {last}) n")).await;
        let before = self.keys.clone();
        run(client, "SAVEPOINT half").await;
        run(client, &format!("UPDATE transfers SET amount = -amount WHERE id BETWEEN {first} AND {last} AND id % 3 = 0")).await;
        self.step(client).await;
        if self.rng.random() {
            run(client, "ROLLBACK TO SAVEPOINT half").await;
            self.forget(before);
        }
        run(client, &format!("DELETE FROM transfers WHERE id BETWEEN {first} AND {last} AND id % 7 <> 0")).await;
        run(client, if self.rng.random_ratio(1, 4) { "ROLLBACK" } else { "COMMIT" }).await;
    }

    /// What the log holds that is no change of a row of ours.
    async fn beside_the_rows(&mut self, client: &Client) {
        let sql = match self.rng.random_range(0..6) {
            0 => "SELECT pg_logical_emit_message(true, 'somebody', 'else')",
            1 => "SELECT pg_logical_emit_message(false, 'somebody', repeat('else', 1000))",
            2 => "INSERT INTO scratch SELECT coalesce(max(n), 0) + 1 FROM scratch",
            3 => "VACUUM FULL counters",
            4 => "CREATE TEMP TABLE IF NOT EXISTS passing (n integer); INSERT INTO passing VALUES (1)",
            _ => "COPY audit (n) FROM PROGRAM 'seq 1 40'",
        };
        run(client, sql).await;
    }

    async fn prepare(&mut self, client: &Client) {
        if self.prepared.len() >= 3 {
            return self.end_prepared(client).await;
        }
        self.prepared_so_far += 1;
        let name = format!("{} {}", self.schema, self.prepared_so_far);
        let first = self.keys.next + 1;
        self.keys.next += 4;
        let ids: Vec<u64> = (first..=self.keys.next).collect();
        run(client, "BEGIN").await;
        for id in &ids {
            run(client, &format!("INSERT INTO transfers VALUES ({id}, {id}.5, 'prepared')")).await;
        }
        run(client, &format!("SAVEPOINT half; DELETE FROM transfers WHERE id = {first}; ROLLBACK TO SAVEPOINT half")).await;
        run(client, &format!("PREPARE TRANSACTION {}", literal(&name))).await;
        self.prepared.push((name, ids));
    }

    async fn end_prepared(&mut self, client: &Client) {
        let Some(place) = self.place(self.prepared.len()) else { return };
        let (name, ids) = self.prepared.swap_remove(place);
        let committed = self.rng.random_bool(0.7);
        run(client, &format!("{} PREPARED {}", if committed { "COMMIT" } else { "ROLLBACK" }, literal(&name))).await;
        if committed {
            self.keys.transfers.extend(ids);
        }
        if let Some(id) = self.keys.transfers.choose(&mut self.rng) {
            run(client, &format!("UPDATE transfers SET note = 'settled' WHERE id = {id}")).await;
        }
    }

    async fn truncate(&mut self, client: &Client) {
        let before = self.keys.clone();
        run(client, "BEGIN").await;
        match self.rng.random_range(0..5) {
            0 => {
                self.keys.tokens.clear();
                run(client, "TRUNCATE tokens, counters").await;
            }
            1 => {
                self.keys.invoices.clear();
                run(client, "TRUNCATE invoices CASCADE").await;
            }
            2 => {
                // Rows before and after it in the same transaction.
                self.touch_events(client).await;
                run(client, "TRUNCATE events, audit RESTART IDENTITY").await;
                self.touch_events(client).await;
            }
            3 => {
                self.keys.measures.clear();
                run(client, "TRUNCATE measures").await;
                self.touch_measures(client).await;
            }
            _ => run(client, "TRUNCATE ONLY settings").await,
        }
        let rolled_back = self.rng.random_ratio(1, 3);
        run(client, if rolled_back { "ROLLBACK" } else { "COMMIT" }).await;
        if rolled_back {
            self.forget(before);
        }
    }

    /// A change of a table's shape, after which every row of it is written anew: the log holds no rows for what the server
    /// rewrites by itself.
    async fn alter(&mut self, client: &Client) {
        self.alters += 1;
        let number = self.alters;
        run(client, "BEGIN").await;
        let sql = match number % 8 {
            0 => format!("ALTER TABLE shapes ADD extra{number} integer"),
            1 => format!("ALTER TABLE shapes ADD \"Extra {number}\" text"),
            2 => "ALTER TABLE shapes ALTER size TYPE bigint".to_owned(),
            3 => "ALTER TABLE shapes ALTER label TYPE text".to_owned(),
            4 => format!(
                "ALTER TABLE shapes ADD gone{number} date DEFAULT '2026-01-01'; UPDATE shapes SET revision = revision + 1;
                ALTER TABLE shapes DROP gone{number}"
            ),
            5 => format!("ALTER TABLE shapes RENAME label TO label{number}; ALTER TABLE shapes RENAME label{number} TO label"),
            6 => "ALTER TABLE shapes ALTER price TYPE numeric(14,4)".to_owned(),
            _ => format!(
                "ALTER TABLE shapes DROP label; ALTER TABLE shapes ADD label text; ALTER TABLE shapes RENAME size TO size{number};
                ALTER TABLE shapes RENAME size{number} TO size"
            ),
        };
        run(client, &sql).await;
        run(client, "UPDATE shapes SET revision = revision + 1, size = id, label = 'nr ' || id, price = id + 0.25").await;
        let rolled_back = self.rng.random_ratio(1, 4);
        run(client, if rolled_back { "ROLLBACK" } else { "COMMIT" }).await;
        if !rolled_back && number.is_multiple_of(3) {
            run(client, "ALTER TYPE status ADD VALUE IF NOT EXISTS 'dormant'").await;
        }
    }

    /// One of this many, if there are any.
    fn place(&mut self, length: usize) -> Option<usize> {
        (length > 0).then(|| self.rng.random_range(0..length))
    }

    fn new_key(&mut self) -> u64 {
        self.keys.next += 1;
        self.keys.next
    }

    fn token(&mut self) -> String {
        format!("{}-{}", self.new_key(), word(&mut self.rng))
    }
}

async fn run(client: &Client, sql: &str) {
    if let Err(error) = client.batch_execute(sql).await {
        panic!("{}: {}", reason(&error), sql.chars().take(500).collect::<String>());
    }
}
