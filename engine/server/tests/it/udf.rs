//! Rows of the quickstart's recording through functions, with SQL behind them.

use crate::run;

/// Orders of the recording, and how many of them end as cancelled.
const ORDERS: i64 = 4_294;
const CANCELLED: i64 = 106;
/// One in a hundred of their numbers, which begin behind 100000.
const BAD: std::ops::RangeInclusive<i64> = 30..=60;

const SCRIPT: &str = "
function orders(json) {
  const row = JSON.parse(json);
  if (row.status === 'cancelled') return null;
  row.note = row.id % 100 === 0 ? missing : `${row._metadata_table} ${row.total}`;
  row.large = Number(row.total) > 100;
  return JSON.stringify(row);
}";

#[test]
fn a_function_filters_and_sql_sees_what_it_made() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    run(here, &["quickstart", "--dir", "demo"]).code(0);
    let config = std::fs::read_to_string(here.join("demo/logweir.yaml")).unwrap();
    let (before, rest) = config.split_once("    transforms:").unwrap();
    let (_, after) = rest.split_once("    destinations:").unwrap();
    let rules = "    on_bad_value: quarantine
    udf: [ { table: shop.orders, file: orders.js, function: orders, columns: { large: boolean } } ]
    transforms: [ { table: shop.orders, sql: \"SELECT id, note, large, total > 100 AS expected FROM orders\" } ]
    destinations:";
    let config = format!("{before}{rules}{after}").replace("demo/lake", "demo/other").replace("dir: state", "dir: other-state");
    std::fs::write(here.join("demo/udf.yaml"), config).unwrap();
    std::fs::create_dir(here.join("demo/other")).unwrap();

    let missing = run(here, &["check", "demo/udf.yaml"]).code(2);
    assert!(missing.stderr.contains("could not read the script of a UDF"), "{}", missing.stderr);
    std::fs::write(here.join("demo/orders.js"), SCRIPT).unwrap();
    run(here, &["check", "demo/udf.yaml"]).code(0);
    let ran = run(here, &["run", "demo/udf.yaml", "--until-caught-up"]).code(0);

    let query = |text: &str| run(here, &["sql", "demo/udf.yaml", text, "--format", "csv"]).code(0).stdout;
    let number = |text: &str| query(text).lines().nth(1).and_then(|line| line.parse::<i64>().ok()).unwrap_or_else(|| panic!("{text}"));
    let bad = number("SELECT count(DISTINCT row) AS n FROM logweir_changes.quarantine");
    assert!(BAD.contains(&bad), "{bad}");
    let kept = number("SELECT count(*) AS n FROM shop.orders");
    assert!((ORDERS - CANCELLED - bad..=ORDERS - CANCELLED).contains(&kept), "{kept}");
    assert_eq!(number("SELECT count(*) AS n FROM shop.orders WHERE large = expected AND note LIKE 'orders %.__'"), kept);
    assert_eq!(
        query("SELECT DISTINCT \"table\", rule, reason FROM logweir_changes.quarantine"),
        "table,rule,reason\norders,orders.js orders,the function threw a ReferenceError at line 5\n"
    );
    // What an exception says is nowhere.
    assert!(!ran.stderr.contains("missing"), "{}", ran.stderr);
}
