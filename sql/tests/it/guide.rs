//! The user pages tell the truth: their queries are run and their answers compared (`UPDATE_EXPECT=1` writes them anew).

use arrow::datatypes::DataType;
use arrow::util::pretty::pretty_format_batches;
use expect_test::expect_file;
use logweir_core::ChangeType::{self, Delete, Insert, UpdateInsert};
use logweir_core::LogPosition;
use logweir_sql::{MaskKind, QueryEngine, printable};

use crate::lake::{Change, Lake, Version};
use crate::masks::masked_text;

/// 2026-11-20T10:00:00Z
const MORNING: i64 = 1_795_168_800_000_000;
const MINUTE: i64 = 60_000_000;
const KEY: &str = "0123456789abcdef0123456789abcdef";

fn at<const N: usize>(minute: u64, row: u64, change_type: ChangeType, values: [&str; N]) -> Change {
    Change {
        timestamp: MORNING + minute as i64 * MINUTE,
        position: LogPosition::new(0, 1, 1_000 + minute * 400, row, true),
        change_type,
        values: values.iter().map(|value| Some(value.to_string())).collect(),
        unchanged: Vec::new(),
    }
}

async fn shop() -> Lake {
    let lake = Lake::new();
    let customers = Version::new(
        1,
        &[("id", DataType::Int32), ("name", DataType::Utf8), ("email", DataType::Utf8), ("country", DataType::Utf8)],
        &["id"],
    );
    let email = |address: &str| masked_text(MaskKind::Hash { key: KEY.into() }, address);
    let changes = [
        at(0, 1, Insert, ["1", "Ada", &email("ada@example.com"), "GB"]),
        at(0, 2, Insert, ["2", "Grace", &email("grace@example.com"), "US"]),
        at(1, 1, Insert, ["3", "Konrad", &email("konrad@example.com"), "DE"]),
        at(4, 1, UpdateInsert, ["2", "Grace", &email("hopper@example.com"), "US"]),
    ];
    lake.write("shop/customers/dt=2026-11-20/a.parquet", "customers", &customers, &changes).await;
    let columns =
        [("id", DataType::Int32), ("customer_id", DataType::Int32), ("status", DataType::Utf8), ("total", DataType::Decimal128(10, 2))];
    let orders = Version::new(1, &columns, &["id"]);
    let first = [
        at(1, 2, Insert, ["1", "1", "new", "120.00"]),
        at(1, 3, Insert, ["2", "2", "new", "35.50"]),
        at(2, 1, UpdateInsert, ["2", "2", "paid", "35.50"]),
        at(2, 2, Insert, ["3", "3", "new", "9.99"]),
    ];
    let second = [
        at(3, 1, UpdateInsert, ["1", "1", "shipped", "120.00"]),
        at(3, 2, Delete, ["2", "2", "paid", "35.50"]),
        at(5, 1, Insert, ["4", "2", "new", "64.25"]),
    ];
    lake.write("shop/orders/dt=2026-11-20/a.parquet", "orders", &orders, &first).await;
    lake.write("shop/orders/dt=2026-11-20/b.parquet", "orders", &orders, &second).await;
    lake
}

async fn table(engine: &QueryEngine, sql: &str) -> String {
    let batches = engine.sql(sql).await.unwrap().collect().await.unwrap();
    let batches: Vec<_> = batches.iter().map(|batch| printable(batch).unwrap()).collect();
    pretty_format_batches(&batches).unwrap().to_string()
}

#[tokio::test]
async fn the_sql_page_is_true() {
    let page = include_str!("../../../docs/sql.md");
    let engine = shop().await.engine(&["customers", "orders"]);
    let mut written = String::new();
    let mut answer = None;
    // A fence opens a line; three backticks elsewhere are text.
    let mut blocks = page.split("\n```").enumerate().peekable();
    while let Some((i, block)) = blocks.next() {
        // Every other piece is a block of code, which begins with its language.
        if i % 2 == 1 && block.starts_with("sql\n") {
            answer = Some(table(&engine, block.trim_start_matches("sql\n")).await);
        }
        match answer.take_if(|_| i % 2 == 1 && block.lines().next() == Some("text")) {
            Some(answer) => written += &format!("text\n{answer}"),
            None => written += block,
        }
        if blocks.peek().is_some() {
            written += "\n```";
        }
    }
    assert!(answer.is_none(), "an answer follows every query");
    expect_file!["../../../docs/sql.md"].assert_eq(&written);
}

#[test]
fn the_masking_page_is_true() {
    let page = include_str!("../../../docs/masking.md");
    let mut examples = 0;
    let (_, tokens) = page.split_once("## tokenize").unwrap();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        if let ["", KEY, text, masked, ""] = cells[..] {
            let key = KEY.into();
            let with = if tokens.contains(line) { MaskKind::Tokenize { key } } else { MaskKind::Hash { key } };
            assert_eq!(masked_text(with, text), masked);
            examples += 1;
        }
    }
    assert_eq!(examples, 6);
}
