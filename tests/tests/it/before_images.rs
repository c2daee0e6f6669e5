//! Before images from real servers: what updated rows were, against what the server itself said just before each update.

use arrow_array::{Array, ArrayRef, RecordBatch};
use logweir_core::{ChangeType, Pattern, RelationName, Source, TableFilter};
use logweir_mysql::options::{MysqlOptions, Start};
use logweir_mysql::source::MysqlSource;
use logweir_postgres::options::PostgresOptions;
use logweir_postgres::source::PostgresSource;
use logweir_tests::servers::{DatabaseServer, Flavour, PostgresServer};
use logweir_tests::suite::{self, ReadRow};
use mysql_async::Value;
use mysql_async::prelude::Queryable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const UPDATES: usize = 60;
const ROWS: i32 = 8;

/// The columns of every table here: its key, and one that is stored apart at the end.
const COLUMNS: [&str; 5] = ["id", "n", "d", "v", "big"];

/// A row as text.
type Texts = Vec<Option<String>>;

/// What an update does, as SQL, and the row it is about. `n` always changes, so that every update is logged.
fn update(rng: &mut StdRng, table: &str, ids: &mut [i32], next_id: &mut i32, big: impl Fn(u32) -> String) -> (i32, String) {
    let place = rng.random_range(0..ids.len());
    let id = ids[place];
    let mut set = vec!["n = coalesce(n, 0) + 1".to_owned()];
    if rng.random_ratio(1, 4) {
        ids[place] = *next_id;
        set.push(format!("id = {next_id}"));
        *next_id += 1;
    }
    if rng.random_ratio(1, 3) {
        set.push(format!("d = {}.{:03}", rng.random_range(-9999..9999), rng.random_range(0..1000)));
    }
    if rng.random_ratio(1, 3) {
        set.push(if rng.random() { "v = NULL".to_owned() } else { format!("v = 'värde {}'", rng.random_range(0..1000)) });
    }
    if rng.random_ratio(1, 4) {
        set.push(format!("big = {}", big(rng.random_range(0..1000))));
    }
    (id, format!("UPDATE {table} SET {} WHERE id = {id}", set.join(", ")))
}

fn texts(values: &RecordBatch) -> Texts {
    let text = |column: &ArrayRef| column.is_valid(0).then(|| arrow_cast::display::array_value_to_string(column, 0).unwrap());
    values.columns().iter().map(text).collect()
}

/// Every update of a table against what its row was: each value is there, but for those of `absent` columns.
fn check(rows: &[ReadRow], expected: &[Texts], absent: &[usize], table: &str) {
    let updates: Vec<&ReadRow> = rows.iter().filter(|row| row.change_type == ChangeType::UpdateInsert.code()).collect();
    assert_eq!(updates.len(), expected.len(), "updates of {table}");
    for (update, expected) in updates.iter().zip(expected) {
        let before = update.before.as_ref().unwrap_or_else(|| panic!("an update of {table} has no before image"));
        assert_eq!(before.absent, absent, "{table}");
        let expected: Texts = expected.iter().enumerate().map(|(i, text)| text.clone().filter(|_| !absent.contains(&i))).collect();
        assert_eq!(texts(&before.values), expected, "{table} at {}", update.position);
    }
}

async fn mysql(flavour: Flavour) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = DatabaseServer::start(flavour, &[]).await;
    server.execute("CREATE DATABASE s").await;
    let mut connection = server.connect().await;
    let mut rng = StdRng::seed_from_u64(5);
    let mut written = Vec::new();
    for (image, absent) in [("FULL", vec![]), ("MINIMAL", vec![1, 2, 3, 4]), ("NOBLOB", vec![4]), ("FULL_NODUP", vec![])] {
        if let Err(error) = connection.query_drop(format!("SET SESSION binlog_row_image = '{image}'")).await {
            // MariaDB knows it from 11.4 on, MySQL does not.
            assert_eq!(image, "FULL_NODUP", "{error}");
            println!("binlog_row_image {image} is not known to this server: not tested");
            continue;
        }
        let table = format!("s.t_{}", image.to_lowercase());
        connection
            .query_drop(format!("CREATE TABLE {table} (id INT PRIMARY KEY, n INT, d DECIMAL(12,3), v VARCHAR(50), big TEXT)"))
            .await
            .unwrap();
        let mut ids: Vec<i32> = (1..=ROWS).collect();
        for id in &ids {
            connection.query_drop(format!("INSERT INTO {table} VALUES ({id}, NULL, {id}.125, 'v{id}', repeat('x', 5000))")).await.unwrap();
        }
        let mut next_id = ROWS + 1;
        let mut expected = Vec::new();
        for _ in 0..UPDATES {
            let (id, update) = update(&mut rng, &table, &mut ids, &mut next_id, |number| format!("repeat('{number}', 1500)"));
            let columns = COLUMNS.map(|column| format!("CAST({column} AS CHAR)")).join(", ");
            let row: mysql_async::Row =
                connection.query_first(format!("SELECT {columns} FROM {table} WHERE id = {id}")).await.unwrap().unwrap();
            let text = |value| match value {
                Value::NULL => None,
                Value::Bytes(bytes) => Some(String::from_utf8(bytes).unwrap()),
                other => panic!("{other:?} is no text"),
            };
            expected.push(row.unwrap().into_iter().map(text).collect::<Texts>());
            connection.query_drop(update).await.unwrap();
        }
        written.push((table, expected, absent, image.starts_with("FULL")));
    }
    let mut options = MysqlOptions::new("127.0.0.1", server.user());
    options.port = server.port();
    options.password = Some(server.password().into());
    options.start = Start::Earliest;
    let tables = TableFilter { include: vec![Pattern::new("s.*")], ..TableFilter::default() };
    let log = suite::log_reader(&MysqlSource::new(options), &tables).await;
    for (table, expected, absent, whole) in written {
        let (schema, name) = table.split_once('.').unwrap();
        let rows = &log.rows[&RelationName::new(schema, name)];
        check(rows, &expected, &absent, &table);
        assert!(!whole || rows.iter().all(|row| row.unchanged.is_empty()), "what is before and did not change is after");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_images() {
    mysql(Flavour::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_images() {
    mysql(Flavour::MySql).await;
}

async fn postgres(version: u32) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = PostgresServer::start(version, &[]).await;
    let client = server.connect().await;
    server.execute("CREATE PUBLICATION logweir FOR ALL TABLES").await;
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
    server.execute("CREATE SCHEMA s").await;
    let mut rng = StdRng::seed_from_u64(6);
    let mut written = Vec::new();
    for identity in ["FULL", "DEFAULT", "NOTHING"] {
        let table = format!("s.t_{}", identity.to_lowercase());
        client
            .batch_execute(&format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, n int, d numeric(12,3), v varchar(50), big text);
                 ALTER TABLE {table} ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY {identity};
                 INSERT INTO {table} SELECT i, NULL, i + 0.125, 'v' || i, repeat('x', 5000) FROM generate_series(1, {ROWS}) i"
            ))
            .await
            .unwrap();
        let mut ids: Vec<i32> = (1..=ROWS).collect();
        let mut next_id = ROWS + 1;
        let mut expected = Vec::new();
        for _ in 0..UPDATES {
            let (id, update) = update(&mut rng, &table, &mut ids, &mut next_id, |number| format!("repeat('{number}', 1500)"));
            if identity == "NOTHING" {
                let refused = client.batch_execute(&update).await.unwrap_err();
                assert!(refused.as_db_error().unwrap().message().contains("replica identity"), "{refused}");
                break;
            }
            let columns = COLUMNS.map(|column| format!("{column}::text")).join(", ");
            let row = client.query_one(&format!("SELECT {columns} FROM {table} WHERE id = {id}"), &[]).await.unwrap();
            expected.push((update.contains(", id = "), (0..COLUMNS.len()).map(|i| row.get(i)).collect::<Texts>()));
            client.batch_execute(&update).await.unwrap();
        }
        written.push((identity, table, expected));
    }
    let mut options = PostgresOptions::new("127.0.0.1", "postgres", server.database());
    options.port = server.port();
    options.start = logweir_postgres::options::Start::Earliest;
    let tables = TableFilter { include: vec![Pattern::new("s.*")], ..TableFilter::default() };
    let source: &dyn Source = &PostgresSource::new(options);
    let log = suite::log_reader(source, &tables).await;
    for (identity, table, expected) in written {
        let (schema, name) = table.split_once('.').unwrap();
        let rows = &log.rows[&RelationName::new(schema, name)];
        match identity {
            "FULL" => {
                check(rows, &expected.into_iter().map(|(_, texts)| texts).collect::<Vec<_>>(), &[], &table);
                assert!(rows.iter().all(|row| row.unchanged.is_empty()), "what is before and did not change is after");
            }
            // The old key, where it changed.
            "DEFAULT" => {
                let is_update = |row: &&ReadRow| row.change_type == ChangeType::UpdateInsert.code();
                let updates: Vec<ReadRow> = rows.iter().filter(is_update).cloned().collect();
                assert_eq!(updates.len(), expected.len());
                let mut changed = 0;
                for (update, (key_changed, texts)) in updates.into_iter().zip(expected) {
                    assert_eq!(update.before.is_some(), key_changed);
                    if key_changed {
                        changed += 1;
                        check(&[update], &[texts], &[1, 2, 3, 4], &table);
                    }
                }
                assert!(changed > 5, "{changed} updates changed the key");
            }
            _ => assert!(rows.iter().all(|row| row.before.is_none())),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_15_images() {
    postgres(15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_18_images() {
    postgres(18).await;
}
