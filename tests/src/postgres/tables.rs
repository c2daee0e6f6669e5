//! The tables of the workload: small, awkward, and with every way that PostgreSQL has of saying which row a change is about.

/// Names as nobody should choose them, and everybody may.
pub(super) const ODD_TABLE: &str = "Größen & \"Maße\"";

/// The tables, for a connection that has the schema on its search path.
pub(super) const CREATE: &[&str] = &[
    "CREATE TYPE status AS ENUM ('new', 'active', 'très actif', 'closed')",
    "CREATE TABLE accounts (
        id bigint PRIMARY KEY, name varchar(80) NOT NULL, balance numeric(20,4), wealth numeric, rate double precision, score real,
        level smallint, visits integer, active boolean, status status, born date, opened timestamp(3), seen timestamptz, pause time(2),
        stay interval, token uuid, address inet, photo bytea, bio text, attributes jsonb, raw json, tags text[], marks integer[],
        span int4range, price money, letter \"char\", code char(6), revision integer NOT NULL DEFAULT 1)",
    // Out of line as soon as it is large, so that updates of other columns leave it out of the log.
    "ALTER TABLE accounts ALTER bio SET STORAGE EXTERNAL, ALTER photo SET STORAGE EXTERNAL",
    "CREATE TABLE ledger (
        account_id bigint, entry integer, amount numeric(38,10) NOT NULL, memo text, booked timestamptz,
        doubled numeric GENERATED ALWAYS AS (amount * 2) STORED, PRIMARY KEY (entry, account_id))",
    "CREATE TABLE tokens (token text PRIMARY KEY, account_id bigint, payload bytea, uses integer NOT NULL DEFAULT 0)",
    "CREATE TABLE invoices (id integer PRIMARY KEY, customer text)",
    "CREATE TABLE invoice_lines (invoice integer REFERENCES invoices ON DELETE CASCADE ON UPDATE CASCADE, line smallint, item text,
        PRIMARY KEY (invoice, line))",
    // No key; every change carries the whole row as it was.
    "CREATE TABLE events (at timestamptz NOT NULL, kind char(8), n bigint, body text)",
    "ALTER TABLE events REPLICA IDENTITY FULL",
    "ALTER TABLE events ALTER body SET STORAGE EXTERNAL",
    // A key, and every change carries the whole row as it was all the same.
    "CREATE TABLE settings (name text PRIMARY KEY, value text)",
    "ALTER TABLE settings REPLICA IDENTITY FULL",
    "ALTER TABLE settings ALTER value SET STORAGE EXTERNAL",
    // No key and no identity: it only grows.
    "CREATE TABLE audit (n integer, at timestamp DEFAULT now())",
    // Identified by another index than the primary key's.
    "CREATE TABLE odd (\"Schlüssel \"\"α\"\"\" integer PRIMARY KEY, \"select\" text NOT NULL, \"_leading\" integer NOT NULL, \"UPPER.dot\" text)",
    "CREATE UNIQUE INDEX odd_identity ON odd (\"_leading\", \"select\")",
    "ALTER TABLE odd REPLICA IDENTITY USING INDEX odd_identity",
    "CREATE TABLE counters (day date, name varchar(12), value bigint NOT NULL, PRIMARY KEY (day, name))",
    "CREATE TABLE measures (id integer, region text, taken timestamptz, value real, note text, PRIMARY KEY (region, id)) PARTITION BY LIST (region)",
    "ALTER TABLE measures ALTER note SET STORAGE EXTERNAL",
    "CREATE TABLE measures_north PARTITION OF measures FOR VALUES IN ('north')",
    // Its columns lie in another order than its parent's.
    "CREATE TABLE measures_south (note text, value real, taken timestamptz, id integer NOT NULL, region text NOT NULL)",
    "ALTER TABLE measures_south ALTER note SET STORAGE EXTERNAL",
    "ALTER TABLE measures ATTACH PARTITION measures_south FOR VALUES IN ('south')",
    "CREATE TABLE measures_rest PARTITION OF measures DEFAULT PARTITION BY HASH (id)",
    "CREATE TABLE measures_rest_0 PARTITION OF measures_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
    "CREATE TABLE measures_rest_1 PARTITION OF measures_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    "CREATE TABLE transfers (id bigint PRIMARY KEY, amount numeric(12,2), note text)",
    "CREATE TABLE shapes (id integer PRIMARY KEY, size integer, label varchar(20), price numeric(10,2), revision integer NOT NULL DEFAULT 0)",
    // Never in any log.
    "CREATE UNLOGGED TABLE scratch (n integer PRIMARY KEY)",
];

/// The tables whose rows a publication carries under their own name, the odd one apart.
pub(super) const PLAIN_TABLES: [&str; 12] = [
    "accounts",
    "ledger",
    "tokens",
    "invoices",
    "invoice_lines",
    "events",
    "settings",
    "audit",
    "counters",
    "transfers",
    "shapes",
    "measures",
];
pub(super) const PARTITIONS: [&str; 4] = ["measures_north", "measures_south", "measures_rest_0", "measures_rest_1"];

/// The columns of accounts that change.
pub(super) const ACCOUNT_COLUMNS: [&str; 25] = [
    "balance",
    "wealth",
    "rate",
    "score",
    "level",
    "visits",
    "active",
    "status",
    "born",
    "opened",
    "seen",
    "pause",
    "stay",
    "token",
    "address",
    "photo",
    "bio",
    "attributes",
    "raw",
    "tags",
    "marks",
    "span",
    "price",
    "letter",
    "code",
];
