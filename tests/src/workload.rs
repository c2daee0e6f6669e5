//! A seeded mixed workload over a small but awkward schema, run against any server.
//!
//! It knows which keys live, and nothing else: what the tables hold in the end is asked of the server itself. Every
//! kind of change a log can hold is in it: single and multi-row inserts, updates and deletes, changes of keys,
//! `REPLACE` and `ON DUPLICATE KEY UPDATE`, updates over a join, transactions over several tables, rolled back ones,
//! savepoints; truncates and added columns if asked for.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Value};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// The schema that the workload makes and fills.
pub const SCHEMA: &str = "shop";

/// Its tables.
pub const TABLES: [&str; 5] = ["accounts", "ledger", "tokens", "events", "counters"];

const CREATE: [&str; 6] = [
    "CREATE DATABASE IF NOT EXISTS shop CHARACTER SET utf8mb4",
    "CREATE TABLE shop.accounts (
        id BIGINT UNSIGNED NOT NULL PRIMARY KEY, name VARCHAR(80) NOT NULL, balance DECIMAL(20,4) NULL, rate DOUBLE NULL,
        score FLOAT NULL, level TINYINT NULL, visits MEDIUMINT UNSIGNED NULL, status ENUM('new','active','très actif','closed') NULL,
        flags SET('a','b','c','d','e') NULL, born DATE NULL, opened DATETIME(3) NULL, seen TIMESTAMP(6) NULL, pause TIME(2) NULL,
        year YEAR NULL, mask BIT(11) NULL, photo BLOB NULL, bio TEXT NULL, attributes JSON NULL, revision INT UNSIGNED NOT NULL DEFAULT 1,
        KEY status (status))",
    "CREATE TABLE shop.ledger (
        account_id BIGINT UNSIGNED NOT NULL, entry INT NOT NULL, amount DECIMAL(38,10) NOT NULL,
        memo VARCHAR(200) CHARACTER SET latin1 NULL, booked TIMESTAMP NULL, PRIMARY KEY (account_id, entry))",
    "CREATE TABLE shop.tokens (
        token VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY, account_id BIGINT UNSIGNED NULL,
        payload VARBINARY(300) NULL, digest BINARY(8) NULL, uses INT NOT NULL DEFAULT 0)",
    "CREATE TABLE shop.events (at DATETIME(6) NOT NULL, kind CHAR(8) NOT NULL, n BIGINT NOT NULL, body MEDIUMTEXT NULL)",
    "CREATE TABLE shop.counters (day DATE NOT NULL, name CHAR(12) NOT NULL, value BIGINT NOT NULL, PRIMARY KEY (day, name))",
];

/// What beyond plain row changes the workload may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct WorkloadOptions {
    /// `TRUNCATE TABLE`, now and then, of tables that fill up again.
    pub truncates: bool,
    /// `ALTER TABLE … ADD COLUMN`, a few times.
    pub columns: bool,
}

/// A workload under way.
#[derive(Debug)]
pub struct Workload {
    rng: StdRng,
    options: WorkloadOptions,
    keys: Keys,
    added_columns: u32,
}

/// The keys that live, as far as committed (or, inside a transaction, as far as done).
#[derive(Debug, Clone, Default)]
struct Keys {
    next: u64,
    accounts: Vec<u64>,
    ledger: Vec<(u64, i32)>,
    tokens: Vec<String>,
    events: u64,
}

const WORDS: [&str; 12] =
    ["Ada", "naïve", "Łódź", "東京", "O'Hara", "tab\there", "🦀🌊", "back\\slash", "\"quoted\"", "ÄÖÜß", "line\nbreak", ""];
const LATIN1_WORDS: [&str; 6] = ["rent", "café", "50 €", "Straße", "'quote'", ""];

impl Workload {
    /// A workload whose statements follow from the seed.
    pub fn new(seed: u64, options: WorkloadOptions) -> Self {
        Workload { rng: StdRng::seed_from_u64(seed), options, keys: Keys { next: 1, ..Keys::default() }, added_columns: 0 }
    }

    /// Makes the tables.
    pub async fn create(&mut self, connection: &mut Conn) {
        for statement in CREATE {
            run(connection, statement, Vec::new()).await;
        }
        let seed_rows = self.rng.random_range(20..60);
        self.insert_accounts(connection, seed_rows).await;
    }

    /// Runs this many transactions.
    pub async fn run(&mut self, connection: &mut Conn, transactions: usize) {
        for _ in 0..transactions {
            self.transaction(connection).await;
        }
    }

    /// One transaction; or, rarely, a statement that is none.
    async fn transaction(&mut self, connection: &mut Conn) {
        match self.rng.random_range(0..1000) {
            0..3 if self.options.truncates => return self.truncate(connection).await,
            3..5 if self.options.columns && self.added_columns < 5 => return self.add_column(connection).await,
            // Outside a transaction: the server commits it by itself.
            5..150 => return self.step(connection).await,
            _ => {}
        }
        let before = self.keys.clone();
        let next = |keys: &Keys| keys.next;
        run(connection, "BEGIN", Vec::new()).await;
        let steps = if self.rng.random_ratio(1, 60) { 40 } else { self.rng.random_range(1..6) };
        for _ in 0..steps {
            if self.rng.random_ratio(1, 15) {
                let saved = self.keys.clone();
                run(connection, "SAVEPOINT here", Vec::new()).await;
                self.step(connection).await;
                if self.rng.random_bool(0.6) {
                    run(connection, "ROLLBACK TO SAVEPOINT here", Vec::new()).await;
                    self.keys = Keys { next: next(&self.keys), ..saved };
                }
            } else {
                self.step(connection).await;
            }
        }
        if self.rng.random_ratio(1, 8) {
            run(connection, "ROLLBACK", Vec::new()).await;
            self.keys = Keys { next: next(&self.keys), ..before };
        } else {
            run(connection, "COMMIT", Vec::new()).await;
        }
    }

    async fn step(&mut self, connection: &mut Conn) {
        match self.rng.random_range(0..100) {
            0..14 => {
                let rows = if self.rng.random_ratio(1, 20) { 80 } else { self.rng.random_range(1..6) };
                self.insert_accounts(connection, rows).await;
            }
            14..34 => self.update_accounts(connection).await,
            34..38 => self.renumber_account(connection).await,
            38..44 => self.delete_accounts(connection).await,
            44..56 => self.insert_ledger(connection).await,
            56..62 => self.change_ledger(connection).await,
            62..66 => self.update_over_a_join(connection).await,
            66..80 => self.touch_tokens(connection).await,
            80..90 => self.insert_events(connection).await,
            _ => self.count(connection).await,
        }
    }

    async fn insert_accounts(&mut self, connection: &mut Conn, rows: usize) {
        let mut values = Vec::new();
        for _ in 0..rows {
            let id = self.new_key();
            self.keys.accounts.push(id);
            values.push(Value::from(id));
            values.push(Value::from(self.word(40)));
            for column in 2..18 {
                let value = if self.rng.random_ratio(1, 6) { Value::NULL } else { self.account_value(column) };
                values.push(value);
            }
            // Every column is named: a minimal row image has no value for one that is left to its default.
            values.push(Value::from(1));
        }
        let columns = "id,name,balance,rate,score,level,visits,status,flags,born,opened,seen,pause,year,mask,photo,bio,attributes,revision";
        let sql = format!("INSERT INTO shop.accounts ({columns}) VALUES {}", tuples(19, rows));
        run(connection, &sql, values).await;
    }

    /// A value of the account column with this number.
    fn account_value(&mut self, column: usize) -> Value {
        let rng = &mut self.rng;
        match column {
            2 => {
                format!("{}.{:04}", rng.random_range(-9_999_999_999_999_999i64..=9_999_999_999_999_999), rng.random_range(0..10_000)).into()
            }
            3 => (rng.random_range(-1.0..1.0f64) * 10f64.powi(rng.random_range(-300..300))).into(),
            4 => (rng.random_range(-1.0..1.0f32) * 10f32.powi(rng.random_range(-30..30))).into(),
            5 => rng.random::<i8>().into(),
            6 => rng.random_range(0..16_777_216u32).into(),
            7 => (*["new", "active", "très actif", "closed"].choose(rng).expect("there are labels")).into(),
            8 => rng.random_range(0..32u8).into(),
            9 => format!("{:04}-{:02}-{:02}", rng.random_range(1..10_000), rng.random_range(1..13), rng.random_range(1..29)).into(),
            10 => self.moment(1000, 9999, 3).into(),
            11 => self.moment(1971, 2037, 6).into(),
            12 => {
                let sign = if rng.random() { "-" } else { "" };
                let (hours, minutes) = (rng.random_range(0..839), rng.random_range(0..60));
                format!("{sign}{hours}:{minutes:02}:{:02}.{:02}", rng.random_range(0..59), rng.random_range(0..100)).into()
            }
            13 => rng.random_range(1901..2156u16).into(),
            14 => rng.random_range(0..2048u16).into(),
            15 => {
                let mut bytes = vec![0; if rng.random_ratio(1, 30) { 40_000 } else { rng.random_range(0..60) }];
                rng.fill(&mut bytes[..]);
                bytes.into()
            }
            16 => {
                let length = if rng.random_ratio(1, 30) { 20_000 } else { 90 };
                self.word(length).into()
            }
            _ => self.json().into(),
        }
    }

    async fn update_accounts(&mut self, connection: &mut Conn) {
        let column = self.rng.random_range(2..18);
        let name = [
            "",
            "",
            "balance",
            "rate",
            "score",
            "level",
            "visits",
            "status",
            "flags",
            "born",
            "opened",
            "seen",
            "pause",
            "year",
            "mask",
            "photo",
            "bio",
            "attributes",
        ][column];
        let value = if self.rng.random_ratio(1, 8) { Value::NULL } else { self.account_value(column) };
        let Some(&id) = self.keys.accounts.choose(&mut self.rng) else { return };
        if self.rng.random_ratio(1, 10) {
            // Many rows by one statement.
            let sql = format!("UPDATE shop.accounts SET {name} = ?, revision = revision + 1 WHERE id BETWEEN ? AND ?");
            run(connection, &sql, vec![value, id.into(), (id + 40).into()]).await;
        } else {
            let sql = format!("UPDATE shop.accounts SET {name} = ?, revision = revision + 1 WHERE id = ?");
            run(connection, &sql, vec![value, id.into()]).await;
        }
    }

    async fn renumber_account(&mut self, connection: &mut Conn) {
        if self.keys.accounts.is_empty() {
            return;
        }
        let place = self.rng.random_range(0..self.keys.accounts.len());
        let (old, new) = (self.keys.accounts[place], self.new_key());
        self.keys.accounts[place] = new;
        run(connection, "UPDATE shop.accounts SET id = ?, revision = revision + 1 WHERE id = ?", vec![new.into(), old.into()]).await;
    }

    async fn delete_accounts(&mut self, connection: &mut Conn) {
        let rows = self.rng.random_range(1..4).min(self.keys.accounts.len());
        for _ in 0..rows {
            let id = self.keys.accounts.swap_remove(self.rng.random_range(0..self.keys.accounts.len()));
            run(connection, "DELETE FROM shop.accounts WHERE id = ?", vec![id.into()]).await;
        }
    }

    async fn insert_ledger(&mut self, connection: &mut Conn) {
        let Some(&account) = self.keys.accounts.choose(&mut self.rng) else { return };
        let rows = self.rng.random_range(1..8);
        let mut values = Vec::new();
        for _ in 0..rows {
            let entry = self.new_key() as i32;
            self.keys.ledger.push((account, entry));
            let amount = format!("{}.{:010}", self.rng.random::<i64>(), self.rng.random_range(0..10_000_000_000u64));
            let memo = if self.rng.random_ratio(1, 5) {
                Value::NULL
            } else {
                Value::from(*LATIN1_WORDS.choose(&mut self.rng).expect("there are words"))
            };
            values.extend([account.into(), entry.into(), amount.into(), memo, self.moment(1971, 2037, 0).into()]);
        }
        run(connection, &format!("INSERT INTO shop.ledger VALUES {}", tuples(5, rows)), values).await;
    }

    async fn change_ledger(&mut self, connection: &mut Conn) {
        if self.keys.ledger.is_empty() {
            return;
        }
        let place = self.rng.random_range(0..self.keys.ledger.len());
        let (account, entry) = self.keys.ledger[place];
        let key = |account: u64, entry: i32| vec![Value::from(account), Value::from(entry)];
        match self.rng.random_range(0..3) {
            0 => {
                // Half of a composite key.
                let new = self.new_key() as i32;
                self.keys.ledger[place].1 = new;
                let mut values = vec![Value::from(new)];
                values.extend(key(account, entry));
                run(connection, "UPDATE shop.ledger SET entry = ? WHERE account_id = ? AND entry = ?", values).await;
            }
            1 => {
                self.keys.ledger.swap_remove(place);
                run(connection, "DELETE FROM shop.ledger WHERE account_id = ? AND entry = ?", key(account, entry)).await;
            }
            _ => {
                // To an equal value: the server writes no change at all.
                run(
                    connection,
                    "UPDATE shop.ledger SET amount = -amount, memo = memo WHERE account_id = ? AND entry = ?",
                    key(account, entry),
                )
                .await;
            }
        }
    }

    async fn update_over_a_join(&mut self, connection: &mut Conn) {
        let Some(&id) = self.keys.accounts.choose(&mut self.rng) else { return };
        let sql = "UPDATE shop.accounts a JOIN shop.ledger l ON l.account_id = a.id
            SET a.level = 7, a.revision = a.revision + 1, l.memo = 'joined' WHERE a.id BETWEEN ? AND ?";
        run(connection, sql, vec![id.into(), (id + 20).into()]).await;
    }

    async fn touch_tokens(&mut self, connection: &mut Conn) {
        match self.rng.random_range(0..10) {
            0..5 => {
                let token = self.token();
                let mut payload = vec![0; self.rng.random_range(0..300)];
                self.rng.fill(&mut payload[..]);
                // Ends in zeros, which the log leaves out and which must come back.
                let digest = vec![self.rng.random(), 0, self.rng.random(), 0, 0, 0, 0, 0];
                let account = self.keys.accounts.choose(&mut self.rng).copied();
                self.keys.tokens.push(token.clone());
                let values = vec![token.into(), account.into(), payload.into(), digest.into()];
                run(connection, "INSERT INTO shop.tokens (token, account_id, payload, digest, uses) VALUES (?,?,?,?,0)", values).await;
            }
            5..7 => {
                let Some(token) = self.keys.tokens.choose(&mut self.rng).cloned() else { return };
                run(
                    connection,
                    "REPLACE INTO shop.tokens (token, account_id, payload, digest, uses) VALUES (?,NULL,NULL,NULL,9)",
                    vec![token.into()],
                )
                .await;
            }
            7 => {
                if self.keys.tokens.is_empty() {
                    return;
                }
                let place = self.rng.random_range(0..self.keys.tokens.len());
                let new = self.token();
                let old = std::mem::replace(&mut self.keys.tokens[place], new.clone());
                run(connection, "UPDATE shop.tokens SET token = ?, uses = uses + 1 WHERE token = ?", vec![new.into(), old.into()]).await;
            }
            8 => {
                if self.keys.tokens.is_empty() {
                    return;
                }
                let token = self.keys.tokens.swap_remove(self.rng.random_range(0..self.keys.tokens.len()));
                run(connection, "DELETE FROM shop.tokens WHERE token = ?", vec![token.into()]).await;
            }
            _ => {
                let limit = self.rng.random_range(1..30u32);
                run(connection, "UPDATE shop.tokens SET uses = uses + 1 ORDER BY token LIMIT ?", vec![limit.into()]).await;
            }
        }
    }

    async fn insert_events(&mut self, connection: &mut Conn) {
        let rows = self.rng.random_range(1..10);
        let mut values = Vec::new();
        for _ in 0..rows {
            self.keys.events += 1;
            let body = if self.rng.random_ratio(1, 100) { self.word(200_000) } else { self.word(30) };
            let kind = *["login", "logout", "buy"].choose(&mut self.rng).expect("there are kinds");
            values.extend([self.moment(2020, 2026, 6).into(), kind.into(), (self.keys.events as i64).into(), body.into()]);
        }
        run(connection, &format!("INSERT INTO shop.events VALUES {}", tuples(4, rows)), values).await;
    }

    async fn count(&mut self, connection: &mut Conn) {
        let day = format!("2026-0{}-1{}", self.rng.random_range(1..10), self.rng.random_range(0..10));
        let name = *["in", "out", "Größe", "数"].choose(&mut self.rng).expect("there are names");
        let sql =
            "INSERT INTO shop.counters VALUES (?,?,1) ON DUPLICATE KEY UPDATE value = value * 3 + 1 - (value > 1000000000) * value * 3";
        run(connection, sql, vec![day.into(), name.into()]).await;
    }

    async fn truncate(&mut self, connection: &mut Conn) {
        match self.rng.random_range(0..3) {
            0 => {
                self.keys.tokens.clear();
                run(connection, "TRUNCATE TABLE shop.tokens", Vec::new()).await;
            }
            1 => run(connection, "/* tidy up */ truncate `shop` . `counters`", Vec::new()).await,
            _ => {
                run(connection, "USE shop", Vec::new()).await;
                run(connection, "TRUNCATE events", Vec::new()).await;
            }
        }
    }

    async fn add_column(&mut self, connection: &mut Conn) {
        self.added_columns += 1;
        let number = self.added_columns;
        let place = if self.rng.random() { "FIRST" } else { "AFTER id" };
        let (column, value) = match number % 3 {
            0 => ("DECIMAL(9,3)", "1.5"),
            1 => ("VARCHAR(20)", "'später'"),
            _ => ("INT UNSIGNED", "4294967295"),
        };
        run(connection, &format!("ALTER TABLE shop.accounts ADD COLUMN extra{number} {column} NULL {place}"), Vec::new()).await;
        run(connection, &format!("UPDATE shop.accounts SET extra{number} = {value}, revision = revision + 1 WHERE id % 3 = 0"), Vec::new())
            .await;
    }

    fn new_key(&mut self) -> u64 {
        self.keys.next += 1;
        self.keys.next
    }

    fn token(&mut self) -> String {
        format!("{}-{}", self.new_key(), WORDS.choose(&mut self.rng).expect("there are words"))
    }

    /// Words up to this many characters.
    fn word(&mut self, characters: usize) -> String {
        let length = self.rng.random_range(0..=characters);
        let mut text = String::new();
        while text.chars().count() < length {
            let word = WORDS.choose(&mut self.rng).expect("there are words");
            text.push_str(word);
            text.push(' ');
            // Long texts are long, not slow to make.
            if text.len() > 1000 {
                text = text.repeat(length / 1000 + 1);
            }
        }
        text.chars().take(length).collect::<String>().trim_end().to_owned()
    }

    fn json(&mut self) -> String {
        let value = serde_json::json!({
            "n": self.rng.random::<i32>(), "big": self.rng.random::<u64>(), "half": f64::from(self.rng.random_range(-1000..1000)) / 2.0,
            "list": [true, null, self.word(10), [], {}], "nested": { "text": self.word(40), "ünïcode": "\u{1F980}\u{7}" },
        });
        value.to_string()
    }

    fn moment(&mut self, from_year: u32, to_year: u32, digits: usize) -> String {
        let rng = &mut self.rng;
        let date = format!("{:04}-{:02}-{:02}", rng.random_range(from_year..=to_year), rng.random_range(1..13), rng.random_range(1..29));
        let time = format!("{:02}:{:02}:{:02}", rng.random_range(0..24), rng.random_range(0..60), rng.random_range(0..60));
        let fraction: String = (0..digits).map(|_| char::from(b'0' + rng.random_range(0..10u8))).collect();
        if digits == 0 { format!("{date} {time}") } else { format!("{date} {time}.{fraction}") }
    }
}

/// `(?,?),(?,?)`.
fn tuples(columns: usize, rows: usize) -> String {
    let tuple = format!("({})", vec!["?"; columns].join(","));
    vec![tuple; rows].join(",")
}

/// Statements go as text where they have no values: not all of them can be prepared.
async fn run(connection: &mut Conn, sql: &str, values: Vec<Value>) {
    let result = if values.is_empty() { connection.query_drop(sql).await } else { connection.exec_drop(sql, values).await };
    if let Err(error) = result {
        panic!("{sql}: {error}");
    }
}
