//! What SQL rules and masks cost, beside the same expressions in plain DataFusion over the same batches.
//!
//! Both sides are planned once and run on one thread; each case is run several times in turn, so that a busy machine hurts
//! both alike. Printed is the median of CPU-seconds per million rows, with the spread. The rule also carries the metadata
//! columns, settles what becomes of each change and keeps its positions; the query is handed the table's columns alone.
//! `cargo run --profile bench-fast -p logweir-benches --bin transform -- [ROWS] [REPEATS]`

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use logweir_benches::orders::batches;
use logweir_benches::process::cpu_seconds;
use logweir_core::{ChangeBatch, LogPosition, MemoryPermit, Pattern, Relation, Transform};
use logweir_sql::{SqlContext, SqlRule, SqlTransform};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Batches = Vec<(Arc<Relation>, RecordBatch, LogPosition)>;

const CASES: [(&str, &str); 5] = [
    ("columns as they are", "SELECT id, customer, status, price FROM orders"),
    (
        "filter and projection",
        "SELECT id, upper(status) AS status, price * 1.19 AS gross, name FROM orders WHERE status <> 'new' AND quantity > 4",
    ),
    ("filter on text", "SELECT id, name FROM orders WHERE name LIKE '%77%'"),
    ("regular expression", "SELECT id, regexp_replace(name, '[0-9]{3,}', '***') AS name FROM orders"),
    (
        "CASE and dates",
        "SELECT id, CASE WHEN quantity > 10 THEN 'many' WHEN quantity > 2 THEN 'some' ELSE 'few' END AS amount, date_trunc('month', changed) AS month FROM orders",
    ),
];

fn transform(sql: &str, relation: &Arc<Relation>) -> Result<SqlTransform> {
    let rules = vec![SqlRule::new(Pattern::new("shop.orders"), sql)];
    let mut transform = SqlTransform::new(rules, SqlContext::default()).map_err(|problems| format!("{problems:?}"))?;
    transform.output(relation)?;
    Ok(transform)
}

fn ours(transform: &SqlTransform, batches: &Batches) -> Result<usize> {
    let mut rows = 0;
    for (relation, records, last) in batches {
        let batch = ChangeBatch {
            relation: Arc::clone(relation),
            records: records.clone(),
            unchanged: None,
            before: None,
            last: *last,
            memory: Arc::new(MemoryPermit::uncounted()),
        };
        rows += transform.apply(batch)?.iter().map(ChangeBatch::rows).sum::<usize>();
    }
    Ok(rows)
}

/// A plan over the table's columns in memory, on one thread.
async fn plain(context: &SessionContext, sql: &str) -> Result<Arc<dyn ExecutionPlan>> {
    Ok(context.sql(sql).await?.create_physical_plan().await?)
}

fn session(batches: &Batches) -> Result<SessionContext> {
    let width = batches[0].0.columns().len();
    let schema = Arc::new(Schema::new(batches[0].1.schema().fields()[..width].to_vec()));
    let table = |records: &RecordBatch| RecordBatch::try_new(Arc::clone(&schema), records.columns()[..width].to_vec());
    let rows = batches.iter().map(|(_, records, _)| table(records)).collect::<std::result::Result<_, _>>()?;
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    context.register_table("orders", Arc::new(MemTable::try_new(Arc::clone(&schema), vec![rows])?))?;
    Ok(context)
}

/// Median, least and most, per million rows.
fn shown(mut seconds: Vec<f64>, rows: usize) -> String {
    seconds.sort_by(f64::total_cmp);
    let per_million = |value: f64| value * 1e6 / rows as f64;
    let at = |index: usize| per_million(seconds[index]);
    format!("{:.4} ({:.4}-{:.4})", at(seconds.len() / 2), at(0), at(seconds.len() - 1))
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let rows = arguments.next().transpose()?.unwrap_or(2_000_000);
    let repeats = arguments.next().transpose()?.unwrap_or(7);
    let batches = batches(rows)?;
    let relation = Arc::clone(&batches[0].0);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let context = session(&batches)?;
    println!("{rows} rows, {repeats} runs each; CPU-seconds per million rows: median (least-most)");
    println!("{:<24} {:>26} {:>26} {:>7}", "", "rule", "plain DataFusion", "ratio");
    for (name, sql) in CASES {
        let began = Instant::now();
        let transform = transform(sql, &relation)?;
        let planned = began.elapsed();
        let (mut rule, mut query) = (Vec::new(), Vec::new());
        let mut counts = (0, 0);
        for _ in 0..repeats {
            let before = cpu_seconds()?;
            counts.0 = ours(&transform, &batches)?;
            rule.push(cpu_seconds()? - before);
            let plan = runtime.block_on(plain(&context, sql))?;
            let before = cpu_seconds()?;
            counts.1 = runtime.block_on(collect(plan, context.task_ctx()))?.iter().map(RecordBatch::num_rows).sum();
            query.push(cpu_seconds()? - before);
        }
        let updates_that_fail = counts.0 - counts.1.min(counts.0);
        let middle = |seconds: &[f64]| {
            let mut seconds = seconds.to_vec();
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        };
        let ratio = middle(&rule) / middle(&query).max(1e-9);
        println!("{name:<24} {:>26} {:>26} {ratio:>7.2}", shown(rule, rows), shown(query, rows));
        println!(
            "  {} rows out, {updates_that_fail} of them deletes that the filter makes; planned in {:.1} ms",
            counts.0,
            planned.as_secs_f64() * 1e3
        );
    }
    Ok(())
}
