//! PostgreSQL's clients against a process that runs: psql, tokio-postgres and psycopg.

use std::process::Command;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use logweir_tests::engine::{Engine, Running};
use logweir_tests::servers::{DatabaseServer, free_port};
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

pub(crate) const A_MINUTE: Duration = Duration::from_secs(60);
pub(crate) const PASSWORD: &str = "correct horse battery";

/// An engine with an endpoint that two may ask: `ann` everything, `bob` the schema `t` alone.
pub(crate) fn with_endpoint(engine: Engine, port: u16, more: &[(&str, Value)]) -> Engine {
    let mut sql = json!({
        "listen": format!("127.0.0.1:{port}"),
        "users": [
            { "name": "ann", "password": { "env": "WEIR_TEST_SQL_PASSWORD" }, "schemas": ["*"] },
            { "name": "bob", "password": { "env": "WEIR_TEST_SQL_PASSWORD" }, "schemas": ["t"] },
        ],
    });
    for (key, value) in more {
        sql[*key] = value.clone();
    }
    engine.set("/sql", sql).environment("WEIR_TEST_SQL_PASSWORD", PASSWORD)
}

pub(crate) fn config(port: u16, user: &str) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user(user).password(PASSWORD).dbname("shop");
    config
}

pub(crate) async fn connect(port: u16, user: &str) -> Client {
    let (client, connection) = config(port, user).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) fn code(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |state| state.code().to_owned())
}

pub(crate) async fn refused(client: &Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Ok(_) => "no error".to_owned(),
        Err(error) => code(&error),
    }
}

/// The first column of the rows, as text.
pub(crate) async fn texts(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    rows.collect()
}

/// Waits for an answer, whatever is in the way until then.
pub(crate) async fn wait_for(client: &Client, sql: &str, expected: &str) {
    let deadline = Instant::now() + A_MINUTE;
    loop {
        let found = match client.simple_query(sql).await {
            Ok(_) => texts(client, sql).await.join("\n"),
            Err(error) => format!("{error:?}"),
        };
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "expected\n{expected}\nfound\n{found}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn psql(port: u16, user: &str, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new("psql")
        .args(["-X", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", user, "-d", "shop", "-v", "ON_ERROR_STOP=1"])
        .args(arguments)
        .envs([("PGPASSWORD", PASSWORD), ("PGCONNECT_TIMEOUT", "60"), ("PAGER", "")])
        .output()
        .expect("psql is installed");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// What psql prints without decoration.
pub(crate) fn psql_says(port: u16, arguments: &[&str]) -> String {
    let (fine, stdout, stderr) = psql(port, "ann", arguments);
    assert!(fine, "psql {arguments:?}: {stderr}");
    stdout
}

pub(crate) fn python(port: u16, script: &str) -> String {
    let python = std::env::var("LOGWEIR_PYTHON").expect("LOGWEIR_PYTHON names a Python with psycopg");
    let output = Command::new(python)
        .args(["-c", script])
        .envs([("PGPASSWORD", PASSWORD), ("PGHOST", "127.0.0.1"), ("PGUSER", "ann"), ("PGDATABASE", "shop")])
        .env("PGPORT", port.to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) async fn shop() -> DatabaseServer {
    let server = DatabaseServer::mariadb(&[]).await;
    for sql in [
        "CREATE DATABASE t",
        "CREATE DATABASE secret",
        "CREATE TABLE t.people (id INT PRIMARY KEY, name VARCHAR(40), paid DECIMAL(12,3), born DATE, seen DATETIME(6), face VARBINARY(8), \
         score DOUBLE, visits BIGINT UNSIGNED, wakes TIME)",
        "INSERT INTO t.people VALUES (1, 'Ada', 120.500, '1815-12-10', '2026-11-20 10:00:00.25', x'00ff', 1.5, 18446744073709551615, '-838:59:59'), \
         (2, 'Bob \"B\"', -0.001, '1970-01-01', NULL, NULL, NULL, 0, NULL), (3, NULL, NULL, NULL, NULL, x'', -2e30, NULL, '00:00:01')",
        "CREATE TABLE t.numbers (id INT PRIMARY KEY)",
        "INSERT INTO t.numbers SELECT seq FROM t.seq_1_to_2000",
        "CREATE TABLE secret.plans (id INT PRIMARY KEY)",
        "INSERT INTO secret.plans VALUES (7)",
    ] {
        server.execute(sql).await;
    }
    server
}

pub(crate) fn started(engine: &Engine) -> Running {
    let mut running = engine.start(&["run"]);
    running.wait_for_message("answering SQL", A_MINUTE);
    running
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_see_what_the_source_has() {
    let server = shop().await;
    let port = free_port();
    let engine = with_endpoint(Engine::new(&server, "*"), port, &[])
        .set("/streams/shop/tables/include", json!(["t.*", "secret.*"]))
        // Nothing is landed while the test runs: what is seen is in flight.
        .set("/streams/shop/destinations/0/rotate", json!({ "interval": "1h" }));
    let running = started(&engine);
    let client = connect(port, "ann").await;
    wait_for(&client, "SELECT count(*) FROM t.numbers", "2000").await;
    wait_for(&client, "SELECT id FROM secret.plans", "7").await;

    // Text, by psql.
    let rows = psql_says(port, &["-At", "-c", "SELECT * FROM t.people ORDER BY id"]);
    let expected = "1|Ada|120.500|1815-12-10|2026-11-20 10:00:00.25|\\x00ff|1.5|18446744073709551615|-838:59:59\n\
                    2|Bob \"B\"|-0.001|1970-01-01||||0|\n3|||||\\x|-2e+30||00:00:01\n";
    assert_eq!(rows, expected);
    let of_source: Vec<String> = server.query("SELECT CONCAT_WS('|', id, name, paid, born) FROM t.people WHERE id = 1").await;
    assert!(rows.starts_with(&of_source[0]), "{of_source:?}");

    // A list that has one expression twice, by the names that PostgreSQL gives.
    for (sql, expected) in [
        ("SELECT 1, 1, 1::bigint", "?column?|?column?|int8\n1|1|1\n"),
        ("SELECT count(*), COUNT(*) FROM t.numbers ORDER BY count(*)", "count|count\n2000|2000\n"),
        ("SELECT id, id, name, id::text FROM t.people ORDER BY 1 LIMIT 1", "id|id|name|id\n1|1|Ada|1\n"),
        ("SELECT *, id FROM t.numbers ORDER BY 2 LIMIT 1", "id|id\n1|1\n"),
        ("SELECT max(id), max(id) FROM t.people UNION ALL SELECT 4, 4 ORDER BY 1", "max|max\n3|3\n4|4\n"),
        ("SELECT * FROM (SELECT id, id FROM t.people) s ORDER BY 1 LIMIT 1", "id|id\n1|1\n"),
        ("SELECT 1 AS a, 2 AS a", "a|a\n1|2\n"),
    ] {
        assert_eq!(psql_says(port, &["-A", "-P", "footer=off", "-c", sql]), expected, "{sql}");
    }
    let twice = client.query_one("SELECT $1::int, $1::int, count(*), count(*) FROM t.numbers", &[&5_i32]).await.unwrap();
    assert_eq!((twice.get::<_, i32>(1), twice.get::<_, i64>(3)), (5, 2000));
    assert_eq!(twice.columns().iter().map(|column| column.name()).collect::<Vec<_>>(), ["int4", "int4", "count", "count"]);

    // A double stays one beside a number with a point.
    assert_eq!(texts(&client, "SELECT coalesce(score, 0.0) FROM t.people ORDER BY id").await, ["1.5", "0", "-2e+30"]);
    let far = "SELECT id FROM t.people WHERE score < -0.5 OR CASE WHEN id = 1 THEN score ELSE 0.0 END = 1.5 ORDER BY id";
    assert_eq!(texts(&client, far).await, ["1", "3"]);
    assert_eq!(texts(&client, "SELECT a.id FROM t.people a JOIN t.people b ON a.score = b.paid - 119.0").await, ["1"]);

    // Binary, with parameters, by tokio-postgres: every statement is prepared.
    let rows = client
        .query("SELECT id, name, face, score FROM t.people WHERE id = $1 OR name = $2 ORDER BY id", &[&1_i32, &"nobody"])
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].get::<_, i32>(0), rows[0].get::<_, &str>(1)), (1, "Ada"));
    assert_eq!((rows[0].get::<_, &[u8]>(2), rows[0].get::<_, f64>(3)), (&[0_u8, 255][..], 1.5));
    let statement = client.prepare("SELECT count(*) AS n FROM t.numbers WHERE id BETWEEN $1 AND $2").await.unwrap();
    for (from, to, expected) in [(1, 10, 10_i64), (11, 13, 3)] {
        let row = client.query_one(&statement, &[&from, &to]).await.unwrap();
        assert_eq!(row.get::<_, i64>("n"), expected);
    }
    let lists = client.query_one("SELECT make_array(1, NULL, 3)::int4[] AS a, make_array('x', 'y') AS b", &[]).await;
    if let Ok(row) = lists {
        assert_eq!(row.get::<_, Vec<String>>("b"), ["x", "y"]);
    }
    assert_eq!(client.query("SELECT $1::text", &[&"as it is"]).await.unwrap()[0].get::<_, &str>(0), "as it is");

    // Lists of which the statement alone says what they are.
    for (sql, expected) in [
        ("SELECT count(*) FROM t.numbers WHERE id = ANY($1)", 2_i64),
        ("SELECT count(*) FROM t.numbers WHERE id <> ALL($1)", 1998),
        ("SELECT count(*) FROM t.numbers WHERE id > ALL($1)", 1998),
        ("SELECT count(*) FROM t.numbers WHERE id <= ANY($1)", 2),
    ] {
        let row = client.query_one(sql, &[&vec![1_i32, 2]]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(row.get::<_, i64>(0), expected, "{sql}");
    }

    // A portal that is read in parts, in a transaction.
    let mut client = client;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT id FROM t.numbers ORDER BY id", &[]).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let part = transaction.query_portal(&portal, 700).await.unwrap();
        if part.is_empty() {
            break;
        }
        seen.push(part.len());
    }
    assert_eq!(seen, [700, 700, 600]);
    drop(portal);
    transaction.commit().await.unwrap();

    // A cursor.
    let cursor = "BEGIN; DECLARE c CURSOR FOR SELECT id FROM t.numbers ORDER BY id; FETCH 2 FROM c; MOVE 10 IN c; FETCH NEXT FROM c; CLOSE c; COMMIT";
    assert_eq!(texts(&client, cursor).await, ["1", "2", "13"]);
    assert_eq!(refused(&client, "DECLARE c CURSOR FOR SELECT 1").await, "25P01");
    assert_eq!(refused(&client, "BEGIN; SELECT * FROM nowhere").await, "42P01");
    assert_eq!(refused(&client, "SELECT 1").await, "25P02");
    client.simple_query("ROLLBACK").await.unwrap();

    // A savepoint, and what is set for a transaction or in one that is undone.
    client.simple_query("BEGIN; SET LOCAL search_path = secret; SAVEPOINT a").await.unwrap();
    assert_eq!(refused(&client, "SELECT nothing FROM t.people").await, "42703");
    assert_eq!(refused(&client, "ROLLBACK TO b").await, "3B001");
    client.simple_query("ROLLBACK TO SAVEPOINT a; RELEASE a").await.unwrap();
    assert_eq!(
        texts(&client, "SHOW search_path; SELECT current_setting('search_path'); SELECT id FROM plans").await,
        ["secret", "secret", "7"]
    );
    client.simple_query("COMMIT").await.unwrap();
    assert_eq!(texts(&client, "SHOW search_path").await, ["\"$user\", public"]);
    client.simple_query("BEGIN; SET search_path = secret; ROLLBACK").await.unwrap();
    assert_eq!(texts(&client, "SHOW search_path").await, ["\"$user\", public"]);
    let kept = client.prepare("SELECT 1").await.unwrap();
    client.simple_query("DISCARD TEMP; DISCARD SEQUENCES; DISCARD PLANS").await.unwrap();
    client.query(&kept, &[]).await.unwrap();

    // COPY, in all its forms.
    let copied = |sql: &'static str| {
        let client = &client;
        async move {
            let parts: Vec<_> = client.copy_out(sql).await.unwrap().map(|part| part.map(|part| part.to_vec())).try_collect().await.unwrap();
            parts.concat()
        }
    };
    let csv = copied("COPY (SELECT id, name FROM t.people ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER)").await;
    assert_eq!(String::from_utf8(csv).unwrap(), "id,name\n1,Ada\n2,\"Bob \"\"B\"\"\"\n3,\n");
    assert_eq!(copied("COPY (SELECT id, name FROM t.people ORDER BY id) TO STDOUT").await, b"1\tAda\n2\tBob \"B\"\n3\t\\N\n");
    let binary = copied("COPY (SELECT id FROM t.people WHERE id = 1) TO STDOUT (FORMAT binary)").await;
    assert_eq!(binary, b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x04\0\0\0\x01\xff\xff");

    // psycopg: its own types, a server-side cursor, binary results.
    let said = python(
        port,
        "
import psycopg, datetime, decimal
with psycopg.connect() as connection:
    row = connection.execute('SELECT paid, born, seen, visits, wakes FROM t.people WHERE id = %s', [1]).fetchone()
    print(row[:4], row[4].total_seconds())
    row = connection.cursor(binary=True).execute('SELECT paid, born, seen, visits, wakes FROM t.people WHERE name = %s', ['Ada']).fetchone()
    print(row[:4], row[4].total_seconds())
    with connection.cursor('named') as cursor:
        cursor.itersize = 300
        print(sum(row[0] for row in cursor.execute('SELECT id FROM t.numbers')))
    print(connection.execute('SELECT count(*) FROM t.numbers WHERE id = ANY(%s)', [[1, 2, 5000]]).fetchone())
    print(connection.execute('SELECT paid > %s FROM t.people WHERE id = 1', [decimal.Decimal('1.25')]).fetchone())
    print(connection.execute('SELECT count(*) FROM t.people WHERE born = %b', [datetime.date(1815, 12, 10)]).fetchone())
",
    );
    let one = "(Decimal('120.500'), datetime.date(1815, 12, 10), datetime.datetime(2026, 11, 20, 10, 0, 0, 250000), \
               Decimal('18446744073709551615')) -3020399.0\n";
    assert_eq!(
        said.replace(", 18446744073709551615)", ", Decimal('18446744073709551615'))"),
        format!("{one}{one}2001000\n(2,)\n(True,)\n(1,)\n")
    );

    // What is in flight is seen at the latest position; with as_of, as it was.
    server.execute("DO SLEEP(1.1)").await;
    let moment: Vec<String> = server.query("SELECT DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%dT%H:%i:%SZ')").await;
    server.execute("DO SLEEP(1.1)").await;
    server.execute("UPDATE t.people SET name = 'Grace' WHERE id = 1").await;
    wait_for(&client, "SELECT name FROM t.people WHERE id = 1", "Grace").await;
    client.simple_query(&format!("SET logweir.as_of = '{}'", moment[0])).await.unwrap();
    assert_eq!(texts(&client, "SELECT name FROM t.people WHERE id = 1").await, ["Ada"]);
    assert_eq!(texts(&client, "SHOW logweir.as_of").await, [moment[0].clone()]);
    client.simple_query("RESET logweir.as_of").await.unwrap();
    assert_eq!(texts(&client, "SELECT name FROM t.people WHERE id = 1").await, ["Grace"]);
    assert_eq!(refused(&client, "SET logweir.as_of = 'yesterday'").await, "22023");

    let ended = running.terminate(A_MINUTE);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(client.simple_query("SELECT 1").await.is_err(), "it ended with the process");
    assert!(!ended.stderr.contains(PASSWORD) && !ended.stderr.contains("Grace"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_find_their_way_around() {
    let server = shop().await;
    let port = free_port();
    let engine = with_endpoint(Engine::new(&server, "t"), port, &[]);
    let running = started(&engine);
    let client = connect(port, "ann").await;
    wait_for(&client, "SELECT count(*) FROM t.numbers", "2000").await;

    let shown = psql_says(port, &["-c", "\\d"]);
    assert!(shown.contains(" t      | numbers | table | logweir") && shown.contains("people"), "{shown}");
    let shown = psql_says(port, &["-c", "\\dt"]);
    assert!(shown.contains("| people  | table |") && !shown.contains("_changes"), "{shown}");
    let shown = psql_says(port, &["-c", "\\dt t_changes.*"]);
    assert!(shown.contains("| people  | table |"), "{shown}");
    let shown = psql_says(port, &["-c", "\\d people"]);
    for line in [
        " id     | integer                     |           |",
        " paid   | numeric  ",
        " face   | bytea ",
        " seen   | timestamp without time zone |",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let shown = psql_says(port, &["-c", "\\dn"]);
    assert!(shown.contains(" t         |") && shown.contains(" t_changes |") && shown.contains(" logweir   |"), "{shown}");
    let shown = psql_says(port, &["-c", "\\l"]);
    assert!(shown.contains(" shop | logweir | UTF8"), "{shown}");
    for command in ["\\du", "\\di", "\\dv logweir.*", "\\df", "\\dT", "\\conninfo", "\\dx", "\\ds"] {
        psql_says(port, &["-c", command]);
    }

    // What drivers ask when they connect.
    for (sql, expected) in [
        ("SELECT current_schema()", "t"),
        ("SELECT current_database()", "shop"),
        ("SELECT current_user", "ann"),
        ("SHOW transaction isolation level", "read committed"),
        ("SHOW standard_conforming_strings", "on"),
        ("SHOW server_version", "15.0"),
        ("select pg_catalog.version() LIKE 'PostgreSQL 15.%'", "t"),
        ("SELECT typname FROM pg_type WHERE oid = 23", "int4"),
        (
            "SELECT 'people'::regclass::oid = c.oid FROM pg_class c WHERE relname = 'people' AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 't')",
            "t",
        ),
        ("SELECT table_name FROM information_schema.tables WHERE table_schema = 't' ORDER BY 1 LIMIT 1", "numbers"),
        ("SELECT count(*) FROM information_schema.columns WHERE table_schema = 't' AND table_name = 'people'", "9"),
        ("SELECT set_config('bytea_output', 'hex', false)", "hex"),
        ("SELECT pg_catalog.has_schema_privilege('t', 'USAGE')", "t"),
        // asyncpg, when a connection goes back to its pool.
        ("SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL", ""),
        // The driver of Java.
        ("SET extra_float_digits = 3; SET application_name = 'PostgreSQL JDBC Driver'; SHOW application_name", "PostgreSQL JDBC Driver"),
        // SQLAlchemy.
        (
            "SELECT pg_catalog.pg_class.relname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_catalog.pg_namespace.oid = \
             pg_catalog.pg_class.relnamespace WHERE pg_catalog.pg_class.relname = 'people' AND pg_catalog.pg_table_is_visible(pg_catalog.pg_class.oid) \
             AND pg_catalog.pg_namespace.nspname != 'pg_catalog' AND pg_catalog.pg_class.relkind = ANY (ARRAY['r', 'p', 'f', 'v', 'm'])",
            "people",
        ),
        // DBeaver.
        (
            "SELECT n.nspname FROM pg_catalog.pg_namespace n LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass WHERE n.nspname = 't'",
            "t",
        ),
    ] {
        assert_eq!(texts(&client, sql).await.join("\n"), expected, "{sql}");
    }
    // A type that a client does not know by itself is looked up; all of ours are PostgreSQL's own.
    let row = client.query_one("SELECT _metadata_source, _metadata_unchanged FROM t_changes.people LIMIT 1", &[]).await.unwrap();
    assert_eq!(row.columns()[0].type_().name(), "json");
    assert_eq!(row.columns()[1].type_().name(), "_text");
    assert_eq!(running.terminate(A_MINUTE).code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_allowed_is_refused_with_its_code() {
    let server = shop().await;
    let port = free_port();
    let limits = [("connections", json!(4)), ("concurrent_queries", json!(2)), ("memory", json!("16MiB"))];
    let engine = with_endpoint(Engine::new(&server, "*"), port, &limits).set("/streams/shop/tables/include", json!(["t.*", "secret.*"]));
    let running = started(&engine);
    let client = connect(port, "bob").await;
    wait_for(&client, "SELECT count(*) FROM t.numbers", "2000").await;

    for (wrong, name) in [("nonsense", "bob"), (PASSWORD, "mallory"), ("", "ann")] {
        let outcome = config(port, name).password(wrong).connect(NoTls).await;
        assert_eq!(code(&outcome.err().unwrap()), "28P01", "{name}");
    }
    let outcome = config(port, "ann").dbname("elsewhere").connect(NoTls).await;
    assert_eq!(code(&outcome.err().unwrap()), "3D000");

    // Bob sees his schemas, and no word of others.
    for (sql, expected) in [
        ("SELECT * FROM secret.plans", "42501"),
        ("SELECT * FROM secret_changes.plans", "42501"),
        ("SELECT * FROM t.nothing", "42P01"),
        ("SELECT nothing FROM t.people", "42703"),
        ("SELECT nothing(1)", "42883"),
        ("SELECT (1", "42601"),
        ("SELECT 1 / 0", "22012"),
        ("SELECT 'x'::int", "22P02"),
        ("INSERT INTO t.people (id) VALUES (9)", "25006"),
        ("DROP TABLE t.people", "25006"),
        ("SELECT 1; DELETE FROM t.people", "25006"),
        ("EXPLAIN INSERT INTO t.people (id) VALUES (9)", "25006"),
        ("WITH x AS (SELECT 1) INSERT INTO t.people (id) SELECT * FROM x", "25006"),
        ("WITH x AS (DELETE FROM t.people RETURNING id) SELECT * FROM x", "25006"),
        ("SELECT * INTO t.others FROM t.people", "25006"),
        ("COPY t.people FROM STDIN", "25006"),
        ("COPY t.people TO '/tmp/people'", "42501"),
        ("SET default_transaction_read_only = off", "25006"),
        ("SET ROLE ann", "0A000"),
        // Keys are not lent over the network.
        ("SELECT unmask(name) FROM t.people", "42883"),
        ("SELECT mask_hash('guess')", "42883"),
        ("LISTEN something", "0A000"),
    ] {
        assert_eq!(refused(&client, sql).await, expected, "{sql}");
    }
    for deep in [
        format!("SELECT {}1", "1 + ".repeat(3000)),
        format!("SELECT NULL::int{}", "[]".repeat(8000)),
        format!("SELECT NULL::int{}", "[]".repeat(400_000)),
        format!("SELECT a{} FROM t.people", "[1]".repeat(6000)),
    ] {
        assert_eq!(refused(&client, &deep).await, "54001", "{}", &deep[..40]);
    }
    assert_eq!(texts(&client, "SELECT count(*) FROM logweir.schema_versions WHERE schema = 'secret'").await, ["0"]);
    assert_eq!(texts(&client, "SELECT count(*) FROM logweir.tables WHERE schema = 'secret'").await, ["0"]);
    assert_eq!(texts(&client, "SELECT count(*) FROM information_schema.tables WHERE table_schema LIKE 'secret%'").await, ["0"]);
    assert_eq!(texts(&client, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'secret%'").await, ["0"]);

    // A statement that takes long ends by its timeout, and by a cancel; the session goes on.
    let slow = "SELECT count(*) FROM generate_series(1, 4000000000) a";
    client.simple_query("SET statement_timeout = '300ms'").await.unwrap();
    assert_eq!(refused(&client, slow).await, "57014");
    client.simple_query("RESET statement_timeout").await.unwrap();
    let cancel = client.cancel_token();
    let (outcome, ()) = tokio::join!(refused(&client, slow), async {
        // One that comes before the statement is begun does nothing.
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = cancel.cancel_query(NoTls).await;
        }
    });
    assert_eq!(outcome, "57014");
    // Nobody says when the last of them has come.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(texts(&client, "SELECT 1").await, ["1"]);

    let other = connect(port, "ann").await;
    let _more = (connect(port, "ann").await, connect(port, "ann").await);
    let outcome = config(port, "ann").connect(NoTls).await;
    assert_eq!(code(&outcome.err().unwrap()), "53300");
    drop(other);
    let deadline = Instant::now() + A_MINUTE;
    while config(port, "ann").connect(NoTls).await.is_err() {
        assert!(Instant::now() < deadline, "a seat becomes free");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ended = running.terminate(A_MINUTE);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// The engine with a certificate of its own making for its endpoints, and where that lies.
pub(crate) fn with_certificate(engine: Engine) -> (Engine, String) {
    let file = |name: &str| engine.directory().join(name).display().to_string();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &file("key.pem"), "-out", &file("certificate.pem")])
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let root = file("certificate.pem");
    (engine.set("/sql/tls", json!({ "certificate": "certificate.pem", "key": "key.pem" })), root)
}

/// Memory of a process that is in use, in KiB.
pub(crate) fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_others_reach_is_encrypted() {
    let server = shop().await;
    let port = free_port();
    let engine = with_endpoint(Engine::new(&server, "t"), port, &[("listen", json!(format!("0.0.0.0:{port}")))]);
    for command in ["check", "run"] {
        let refused = engine.run(&[command], A_MINUTE);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains("`listen` is an address that other machines reach, and there is no `tls`"), "{}", refused.stderr);
    }
    let (engine, root) = with_certificate(engine);
    let running = started(&engine);
    let conninfo = |mode: &str| format!("sslmode={mode} sslrootcert={root}");
    let deadline = Instant::now() + A_MINUTE;
    loop {
        let arguments = ["-At", "-c", "SELECT count(*) FROM t.numbers"];
        let (fine, stdout, stderr) =
            psql(port, "ann", &[&["-d", &format!("dbname=shop {}", conninfo("verify-full"))], &arguments[..]].concat());
        if fine && stdout == "2000\n" {
            break;
        }
        assert!(Instant::now() < deadline, "{stdout} {stderr}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (fine, _, stderr) = psql(port, "ann", &["-d", &format!("dbname=shop {}", conninfo("disable")), "-c", "SELECT 1"]);
    assert!(!fine && stderr.contains("the connection must be encrypted"), "{stderr}");
    assert_eq!(running.terminate(A_MINUTE).code, Some(0));
}
