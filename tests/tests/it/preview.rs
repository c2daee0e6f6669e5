//! `logweir preview` and reference tables that are queries, on real servers: what is shown is what lands.

use std::time::{Duration, Instant};

use logweir_tests::engine::{Engine, Finished};
use logweir_tests::servers::{DatabaseServer, PostgresServer};
use serde_json::{Value, json};

const A_MINUTE: Duration = Duration::from_secs(60);

const STATEMENTS: [&str; 5] = [
    "CREATE TABLE shop.customers (id int PRIMARY KEY, name varchar(40), email varchar(60), phone varchar(20), country varchar(2), credit decimal(30,10), born date)",
    "CREATE TABLE shop.countries (code varchar(2) PRIMARY KEY, label varchar(40))",
    "INSERT INTO shop.countries VALUES ('DE', 'Germany'), ('FR', 'France')",
    "INSERT INTO shop.customers VALUES (1, 'Ada', 'ada@example.com', '555-0100', 'DE', 12345678901234567890.0123456789, '1999-12-31'), (2, 'Bob', NULL, NULL, 'FR', -0.5, NULL), (3, 'Cid', 'cid@example.com', '555-0101', 'XX', NULL, '2001-02-03'), (4, 'Dot', 'dot@example.com', '555-0102', 'DE', 0, '0001-01-01')",
    "CREATE VIEW shop.seen AS SELECT id, name FROM shop.customers",
];

fn with_rules(engine: Engine) -> Engine {
    std::fs::write(
        engine.directory().join("customers.js"),
        "function process(text) { const row = JSON.parse(text); row.initial = row.name[0]; return JSON.stringify(row); }",
    )
    .unwrap();
    engine
        .set("/streams/shop/mask", json!([{ "columns": ["*.customers.email"], "with": "email" }]))
        .set("/streams/shop/udf", json!([{ "table": "shop.customers", "file": "customers.js", "columns": { "initial": "text" } }]))
        .set(
            "/streams/shop/references",
            json!({ "countries": { "profile": "source", "query": "SELECT code, label FROM shop.countries", "refresh": "1h" } }),
        )
        .set(
            "/streams/shop/transforms",
            json!([
                { "table": "shop.customers", "into": "lake.known",
                  "sql": "SELECT c.id, c.initial, c.email, mask_partial(c.phone) AS phone, n.label, c.credit, c.born, 10 / (c.id - 4) AS share FROM customers c LEFT JOIN countries n ON n.code = c.country WHERE c.country <> 'XX'" },
                { "table": "shop.customers", "into": "lake.names", "sql": "SELECT id, name FROM customers" },
            ]),
        )
        .set("/streams/shop/on_bad_value", json!("quarantine"))
}

fn preview(engine: &Engine, rest: &[&str]) -> Finished {
    let arguments: Vec<&str> = ["preview"].iter().chain(rest).copied().collect();
    engine.run(&arguments, A_MINUTE)
}

fn shown(engine: &Engine, rest: &[&str]) -> Value {
    let arguments: Vec<&str> = rest.iter().chain(&["--format", "json"]).copied().collect();
    let preview = preview(engine, &arguments);
    assert_eq!(preview.code, Some(0), "{}", preview.stderr);
    serde_json::from_str(&preview.stdout).unwrap_or_else(|error| panic!("{error}: {}", preview.stdout))
}

fn sorted(rows: &Value) -> Vec<Value> {
    let mut rows = rows.as_array().expect("rows are a list").clone();
    rows.sort_by_key(|row| row["id"].as_i64());
    rows
}

/// The preview shows what then lands.
fn holds(engine: Engine) {
    let engine = with_rules(engine);
    let checked = engine.run(&["check"], A_MINUTE);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    let preview_of_all = shown(&engine, &["--table", "shop.customers"]);
    let before = sorted(&preview_of_all["before"]);
    assert_eq!(before.len(), 4);
    for row in &before {
        assert_eq!((row["email"].as_str(), row["phone"].as_str()), (Some("(masked)"), Some("(masked)")), "{row}");
    }
    assert_eq!((before[0]["name"].as_str(), before[0]["country"].as_str()), (Some("Ada"), Some("DE")));
    assert_eq!(preview_of_all["bad"].as_array().map(Vec::len), Some(1), "{preview_of_all}");
    assert!(preview_of_all["bad"][0]["reason"].as_str().is_some_and(|reason| reason.starts_with("share: ")), "{preview_of_all}");

    engine.catch_up();
    for (number, table) in ["lake.known", "lake.names"].into_iter().enumerate() {
        let after = &preview_of_all["after"][number];
        assert_eq!(after["table"], table);
        let columns = if number == 0 { "id, initial, email, phone, label, credit, born, share" } else { "id, name" };
        let answer = engine.run(&["sql", &format!("SELECT {columns} FROM {table}"), "--format", "json"], A_MINUTE);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        let without_nulls = |mut row: Value| {
            row.as_object_mut().expect("a row is an object").retain(|_, value| !value.is_null());
            row
        };
        let landed: Vec<Value> = answer.stdout.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
        let previewed: Vec<Value> = sorted(&after["rows"]).into_iter().map(without_nulls).collect();
        assert_eq!(sorted(&Value::from(landed)), previewed, "{table}");
    }
    let known = sorted(&preview_of_all["after"][0]["rows"]);
    assert_eq!(known.len(), 2, "{known:?}");
    assert_eq!(
        (known[0]["email"].as_str(), known[0]["phone"].as_str(), known[0]["label"].as_str()),
        (Some("a***@example.com"), Some("****0100"), Some("Germany"))
    );
    assert_eq!(known[1]["label"], "France");

    let text = preview(&engine, &["--table", "shop.customers", "--limit", "1"]);
    assert_eq!(text.code, Some(0), "{}", text.stderr);
    for expected in ["shop.customers in stream shop, before: 1 row\n", "(masked)", "lake.known, after: ", "lake.names, after: 1 row\n"] {
        assert!(text.stdout.contains(expected), "{expected} is not in {}", text.stdout);
    }
    // A table that nothing is for.
    let plain = preview(&engine, &["--table", "shop.countries"]);
    assert!(plain.stdout.contains("It lands as it is") && plain.stdout.contains("Germany"), "{}", plain.stdout);

    for (rest, code, says) in [
        (vec!["--table", "customers"], 2, "is not schema.table"),
        (vec!["--table", "shop.nobody"], 2, "shows no table shop.nobody"),
        (vec!["--table", "shop.seen"], 2, "shows no table shop.seen"),
        (vec!["--table", "other.customers"], 2, "no stream follows other.customers"),
        (vec!["--table", "other.customers", "--stream", "shop"], 2, "stream shop does not follow other.customers"),
        (vec!["--table", "shop.customers", "--stream", "shopp"], 2, "there is no stream `shopp`"),
        (vec!["--table", "shop.customers", "--limit", "0"], 2, "0 is not in 1..=1000"),
    ] {
        let finished = preview(&engine, &rest);
        assert_eq!(finished.code, Some(code), "{rest:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(says), "{rest:?}: {}", finished.stderr);
    }

    // What is wrong with the SQL is shown where it stands; a bad value that stops the stream is told.
    let stops = engine.set("/streams/shop/on_bad_value", json!("fail"));
    let text = preview(&stops, &["--table", "shop.customers"]);
    assert!(text.stdout.contains("1 row cannot be carried, and would stop the stream"), "{}", text.stdout);
    let wrong =
        stops.set("/streams/shop/transforms", json!([{ "table": "shop.customers", "sql": "SELECT id, upper(nmae) AS n FROM customers" }]));
    let finished = preview(&wrong, &["--table", "shop.customers"]);
    assert_eq!(finished.code, Some(1), "{}", finished.stdout);
    assert!(finished.stderr.contains("nmae") && finished.stderr.contains('^'), "{}", finished.stderr);
    assert!(finished.stdout.is_empty());
    // A query that the database refuses.
    let refused = wrong
        .set(
            "/streams/shop/transforms",
            json!([{ "table": "shop.customers", "sql": "SELECT c.id, n.code FROM customers c LEFT JOIN n ON n.code = c.country" }]),
        )
        .set("/streams/shop/references", json!({ "n": { "profile": "source", "query": "SELECT code FROM shop.nothing" } }));
    let checked = refused.run(&["check"], A_MINUTE);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    assert!(checked.stdout.contains("reference=n") || checked.stdout.contains("reference: n"), "{}", checked.stdout);

    // What is masked on the way to the only destination is hidden before, whatever the stream does to other columns; and what the destination
    // cannot carry is shown beside what the stream cannot.
    let by_destination = refused
        .set("/streams/shop/references", json!({}))
        .set(
            "/streams/shop/transforms",
            json!([{ "table": "shop.customers", "sql": "SELECT id, name, phone AS called, 10 / (id - 4) AS share FROM customers" }]),
        )
        .set(
            "/streams/shop/destinations/0/transforms",
            json!([{ "table": "shop.customers", "sql": "SELECT id, name, mask_partial(called) AS called, 10 / (id - 3) AS other FROM customers" }]),
        )
        .set("/streams/shop/on_bad_value", json!("quarantine"));
    let shown = shown(&by_destination, &["--table", "shop.customers"]);
    for row in sorted(&shown["before"]) {
        assert_eq!((row["email"].as_str(), row["phone"].as_str()), (Some("(masked)"), Some("(masked)")), "{row}");
    }
    let reasons: Vec<&str> = shown["bad"].as_array().unwrap().iter().map(|bad| bad["reason"].as_str().unwrap()).collect();
    assert!(reasons.len() == 2 && reasons[0].starts_with("share: ") && reasons[1].starts_with("other: "), "{shown}");
    let text = preview(&by_destination, &["--table", "shop.customers"]).stdout;
    assert!(text.contains("1 row cannot be carried, and would go to logweir.quarantine in lake\n"), "{text}");

    // All that is wrong with masks is told at once, each with its place, and beside it what is wrong with the SQL behind them.
    let masks = [
        json!({ "columns": ["shop.customers.id"], "with": "null" }),
        json!({ "columns": ["shop.customers.country", "shop.customers.contry"], "with": "date", "to": "year" }),
    ];
    let wrong = json!([{ "table": "shop.customers", "sql": "SELECT id, upper(calld) AS called FROM customers" }]);
    let wrong = by_destination.set("/streams/shop/destinations/0/transforms", wrong);
    let checked = wrong.set("/streams/shop/mask", json!(masks)).run(&["check", "--format", "json"], A_MINUTE);
    let checked: Value = serde_json::from_str(&checked.stdout).unwrap();
    for says in ["different keys equal", "a date mask is for", "shop.customers.contry", "calld"] {
        let found = checked["findings"].as_array().unwrap().iter().find(|found| found["message"].as_str().unwrap().contains(says));
        assert!(found.is_some_and(|found| found["place"]["line"].is_u64()), "{says}: {checked}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_shows_what_lands_from_mariadb() {
    let server = DatabaseServer::mariadb(&[]).await;
    server.execute("CREATE DATABASE shop").await;
    for sql in STATEMENTS {
        server.execute(sql).await;
    }
    holds(Engine::new(&server, "shop"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_shows_what_lands_from_postgres() {
    let server = PostgresServer::start(15, &[]).await;
    server.execute("CREATE SCHEMA shop").await;
    server.execute("CREATE PUBLICATION weir FOR ALL TABLES").await;
    server.execute("SELECT pg_create_logical_replication_slot('weir', 'pgoutput')").await;
    for sql in STATEMENTS {
        server.execute(sql).await;
    }
    holds(Engine::postgres(&server, "shop"));
}

/// A reference table is asked for again while the stream runs, and stays as it was where that fails. What was landed can be looked at
/// when nobody answers any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_table_is_asked_for_again() {
    let mut server = DatabaseServer::mariadb(&[]).await;
    server.execute("CREATE DATABASE shop").await;
    for sql in STATEMENTS {
        server.execute(sql).await;
    }
    let engine = Engine::new(&server, "shop")
        .set("/streams/shop/tables", json!({ "include": ["shop.customers"] }))
        .set(
            "/streams/shop/references",
            json!({ "countries": { "profile": "source", "query": "SELECT code, label FROM shop.countries", "refresh": "1s" } }),
        )
        .set(
            "/streams/shop/transforms",
            json!([{ "table": "shop.customers", "into": "lake.labels", "sql": "SELECT c.id, n.label FROM customers c LEFT JOIN countries n ON n.code = c.country" }]),
        );
    let labels = |engine: &Engine| {
        let answer = engine.run(&["sql", "SELECT id, label FROM lake.labels ORDER BY id", "--format", "csv"], A_MINUTE);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        answer.stdout
    };
    engine.catch_up();
    assert_eq!(labels(&engine), "id,label\n1,Germany\n2,France\n3,\n4,Germany\n");

    let mut running = engine.start(&["run"]);
    running.wait_for_message("reading the binlog", A_MINUTE);
    server.execute("UPDATE shop.countries SET label = 'Deutschland' WHERE code = 'DE'").await;
    let deadline = Instant::now() + A_MINUTE;
    let mut id = 100;
    while !labels(&engine).contains(",Deutschland") {
        assert!(running.is_running() && Instant::now() < deadline, "{}", running.messages());
        id += 1;
        server.execute(&format!("INSERT INTO shop.customers (id, country) VALUES ({id}, 'DE')")).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // Those that came before keep what was true then.
    assert!(labels(&engine).contains("1,Germany\n"));
    server.execute("DROP TABLE shop.countries").await;
    running.wait_for_message("could not be read again; it stays as it is", A_MINUTE);
    server.execute("INSERT INTO shop.customers (id, country) VALUES (1000, 'DE')").await;
    while !labels(&engine).contains("1000,Deutschland") {
        assert!(running.is_running() && Instant::now() < deadline, "{}", running.messages());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let ended = running.terminate(A_MINUTE);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    server.stop();
    assert!(labels(&engine).contains("1000,Deutschland"));
}
