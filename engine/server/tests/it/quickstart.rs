//! The quickstart, from nothing to query results, and what can be done in its directory afterwards.

use crate::{Finished, logweir, run};

/// Row events in the recording, by table; see datasets/captures/shop/README.md. A key change is two rows.
const LANDED: [(&str, i64); 4] = [
    ("customers", 2_702 + 2_369 + 1 + 139),
    ("orders", 4_294 + 18_449),
    ("order_lines", 10_177 + 2 * 980 + 416),
    ("payments", 4_294 + 6_080),
];

/// Orders whose last status is that.
const CANCELLED: i64 = 106;

#[test]
fn the_whole_job_with_nothing_installed() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let first = run(here, &["quickstart", "--dir", "demo"]).code(0);
    for text in ["Parquet files", "DELETE", "UPDATE-INSERT", "gold", "2026-06", "logweir.yaml", "status"] {
        assert!(first.stdout.contains(text), "{text:?} is not in\n{}", first.stdout);
    }
    // A masked address and a clear one look nothing alike.
    assert!(!first.stdout.contains("@example"), "{}", first.stdout);

    let config = "demo/logweir.yaml";
    let query = |text: &str| run(here, &["sql", config, text, "--format", "csv"]).code(0).stdout;
    for (table, rows) in LANDED {
        assert_eq!(query(&format!("SELECT count(*) AS n FROM shop_changes.{table}")), format!("n\n{rows}\n"), "{table}");
        let distinct = query(&format!("SELECT count(DISTINCT _metadata_sequence) AS n FROM shop_changes.{table}"));
        assert_eq!(distinct, format!("n\n{rows}\n"), "{table}");
    }
    assert_eq!(query("SELECT count(*) AS n FROM shop.customers"), format!("n\n{}\n", 2_702 - 139));
    assert_eq!(query("SELECT count(*) AS n FROM shop.order_lines"), format!("n\n{}\n", 10_177 - 416));
    // What the filter keeps out is not there, and what it let through once is deleted.
    assert_eq!(query("SELECT count(*) AS n FROM shop.orders WHERE status = 'cancelled'"), "n\n0\n");
    assert_eq!(query("SELECT count(*) AS n FROM shop.orders"), format!("n\n{}\n", 4_294 - CANCELLED));
    let deletes = "SELECT count(*) AS n FROM shop_changes.orders WHERE _metadata_change_type = 'DELETE' AND status IS NULL";
    assert_eq!(query(deletes), format!("n\n{CANCELLED}\n"));
    assert_eq!(
        query("SELECT count(*) AS n FROM shop.orders WHERE placed_on = CAST(placed_at AS DATE)"),
        format!("n\n{}\n", 4_294 - CANCELLED)
    );
    assert_eq!(query("SELECT count(*) AS n FROM shop.customers WHERE email LIKE '%@%' OR length(email) <> 64"), "n\n0\n");
    let columns = query("SELECT column_name FROM information_schema.columns WHERE table_name = 'payments'");
    assert!(columns.contains("amount") && !columns.contains("card_number"), "{columns}");

    // Clear values are in no file, the checkpoint included.
    for path in files(&here.join("demo")).into_iter().filter(|path| !path.starts_with(here.join("demo/binlog"))) {
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"@example"), "{} holds an address", path.display());
    }

    // Again: the same, and nothing twice.
    let again = run(here, &["quickstart", "--dir", "demo"]).code(0);
    assert!(again.stdout.contains("Everything was landed by an earlier run"), "{}", again.stdout);
    assert_eq!(again.stdout.split("The customers as").nth(1), first.stdout.split("The customers as").nth(1));
    run(here, &["run", config, "--until-caught-up"]).code(0);
    assert_eq!(query("SELECT count(*) AS n FROM shop_changes.orders"), format!("n\n{}\n", 4_294 + 18_449));

    let checked = run(here, &["check", config]).code(0);
    assert!(checked.stdout.contains("0 errors") || checked.stdout.contains("everything is fine"), "{}", checked.stdout);

    let status = run(here, &["status", config, "--format", "json"]).code(0).stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let stream = &status["streams"][0];
    assert_eq!(stream["state"], "offline");
    assert_eq!(stream["destinations"][0]["rows_landed"], LANDED.iter().map(|(_, rows)| rows).sum::<i64>());
    assert_eq!(stream["tables"][0]["table"], "shop.customers");
    assert_eq!(stream["tables"][0]["rows_landed"]["lake"], LANDED[0].1);
    assert!(run(here, &["status", config]).code(0).stdout.contains("mysql-bin.000001"));

    let discovered = run(here, &["discover", config, "recording", "--format", "json"]);
    assert!(discovered.code == Some(0) || !discovered.stderr.is_empty());

    forms_of_a_result(here, config);
    wrong_queries(here, config);
}

fn forms_of_a_result(here: &std::path::Path, config: &str) {
    let query = "SELECT id, total, placed_at FROM shop.orders ORDER BY id LIMIT 2";
    let json = run(here, &["sql", config, query, "--format", "json"]).code(0).stdout;
    let rows: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["id"], 100_001);
    let table = run(here, &["sql", config, query]).code(0).stdout;
    assert!(table.starts_with("+--") && table.contains("| 100001 |"), "{table}");
    let arrow = logweir(here, &["sql", config, query, "--format", "arrow"]).output().unwrap().stdout;
    let batches: Vec<_> = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 2);
    let nothing = run(here, &["sql", config, "SELECT id FROM shop.orders WHERE false", "--format", "csv"]).code(0);
    assert_eq!(nothing.stdout, "id\n");
    let nested =
        run(here, &["sql", config, "SELECT 1 AS n, [1, 2] AS list", "--format", "csv"]).code(1).says(&["columns: list", "--format"]);
    assert_eq!(nested.stdout, "");
}

fn wrong_queries(here: &std::path::Path, config: &str) {
    run(here, &["sql", config, "SELECT * FROM shop.custmers"]).code(1).says(&["custmers"]);
    run(here, &["sql", config, "SELEC"]).code(1).says(&["SELEC"]);
    run(here, &["sql", config, "DROP TABLE shop.orders"]).code(1).says(&["read"]);
}

#[test]
fn a_directory_that_holds_something_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("demo")).unwrap();
    std::fs::write(directory.path().join("demo/thesis.txt"), "mine").unwrap();
    run(directory.path(), &["quickstart", "--dir", "demo"]).code(2).says(&["something else", "--dir"]);
    assert_eq!(std::fs::read_dir(directory.path().join("demo")).unwrap().count(), 1);
}

#[test]
fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    run(here, &["quickstart", "--dir", "demo"]).code(0);
    // Held as a running process holds it.
    let lock = files(&here.join("demo/state")).into_iter().find(|path| path.to_string_lossy().contains("lock")).unwrap();
    let held = std::fs::File::open(lock).unwrap();
    held.try_lock().unwrap();
    let refused: Finished = run(here, &["run", "demo/logweir.yaml", "--until-caught-up"]);
    refused.code(1).says(&["process"]);
    drop(held);
    run(here, &["run", "demo/logweir.yaml", "--until-caught-up"]).code(0);
}

fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}
