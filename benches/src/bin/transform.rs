//! What SQL rules and masks cost, beside the same expressions in plain DataFusion over the same batches.
//!
//! Both sides are planned once and run on one thread; each case is run several times in turn, so that a busy machine hurts
//! both alike. Printed is the median of CPU-seconds per million rows, with the spread. The rule also carries the metadata
//! columns, settles what becomes of each change and keeps its positions, and its filters make deletes; the query is run over the table's
//! columns alone, and once more with the metadata columns carried along. Masks are the same functions on both sides. At the end: what a batch of one row costs, which is the constant part, and what a table costs
//! that no rule is for.
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
use logweir_sql::{
    BadValue, MaskKey, MaskKeys, MaskKind, MaskRule, MaskTransform, SqlContext, SqlRule, SqlTransform, UdfLimits, UdfRule, UdfTransform,
    Unresolved, mask_functions,
};
use secrecy::SecretString;

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Batches = Vec<(Arc<Relation>, RecordBatch, LogPosition)>;

const CASES: [(&str, &str); 8] = [
    ("columns as they are", "SELECT id, customer, status, price FROM orders"),
    (
        "filter and projection",
        "SELECT id, upper(status) AS status, price * 1.19 AS gross, name FROM orders WHERE status <> 'new' AND quantity > 4",
    ),
    ("filter on text", "SELECT id, name FROM orders WHERE name LIKE '%77%'"),
    ("regular expression", "SELECT id, regexp_replace(name, '[0-9]{3,}', '***') AS name FROM orders"),
    ("hash mask", "SELECT id, customer, status, price, mask_hash(name) AS name FROM orders"),
    ("tokenise", "SELECT id, customer, status, price, mask_tokenize(name) AS name FROM orders"),
    ("tokenise a number", "SELECT id, mask_tokenize(customer) AS customer FROM orders"),
    (
        "CASE and dates",
        "SELECT id, CASE WHEN quantity > 10 THEN 'many' WHEN quantity > 2 THEN 'some' ELSE 'few' END AS amount, date_trunc('month', changed) AS month FROM orders",
    ),
];

/// Functions of the user's own.
const FUNCTIONS: [(&str, &str); 4] = [
    ("text as it is", "function process(json) { return json; }"),
    ("parse and stringify", "function process(json) { return JSON.stringify(JSON.parse(json)); }"),
    (
        "and replace",
        "function process(json) { const row = JSON.parse(json); row.name = row.name.replace(/[0-9]+/, '***'); return JSON.stringify(row); }",
    ),
    ("parse, half dropped", "function process(json) { return JSON.parse(json).gift ? json : null; }"),
];
/// Batches that go through each: they take their time.
const FUNCTION_BATCHES: usize = 24;

fn keys() -> Result<MaskKeys> {
    Ok(MaskKeys::new(vec![("pii".to_owned(), SecretString::from("0123456789abcdef0123456789abcdef"))])?)
}

fn transform(table: &str, sql: &str, relation: &Arc<Relation>) -> Result<SqlTransform> {
    let rules = vec![SqlRule::new(Pattern::new(table), sql)];
    let context = SqlContext { functions: mask_functions(&keys()?), ..SqlContext::default() };
    let mut transform = SqlTransform::new(rules, context).map_err(|problems| format!("{problems:?}"))?;
    transform.output(relation)?;
    Ok(transform)
}

fn ours(transform: &dyn Transform, batches: &Batches) -> Result<usize> {
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

fn session(batches: &Batches, width: usize) -> Result<SessionContext> {
    let schema = Arc::new(Schema::new(batches[0].1.schema().fields()[..width].to_vec()));
    let table = |records: &RecordBatch| RecordBatch::try_new(Arc::clone(&schema), records.columns()[..width].to_vec());
    let rows = batches.iter().map(|(_, records, _)| table(records)).collect::<std::result::Result<_, _>>()?;
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    mask_functions(&keys()?).iter().for_each(|function| context.register_udf(function.as_ref().clone()));
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
    let width = relation.columns().len();
    let bare = session(&batches, width)?;
    let whole = session(&batches, relation.schema().fields().len())?;
    let metadata: String = relation.schema().fields()[width..].iter().map(|field| format!(", {}", field.name())).collect();
    println!("{rows} rows, {repeats} runs each; CPU-seconds per million rows: median (least-most)");
    println!("{:<24} {:>26} {:>26} {:>7} {:>26} {:>7}", "", "rule", "plain DataFusion", "ratio", "with metadata", "ratio");
    for (name, sql) in CASES {
        let began = Instant::now();
        let transform = transform("shop.orders", sql, &relation)?;
        let planned = began.elapsed();
        let (mut rule, mut query, mut query_whole) = (Vec::new(), Vec::new(), Vec::new());
        let sql_whole = sql.replacen(" FROM ", &format!("{metadata} FROM "), 1);
        let mut counts = (0, 0);
        for _ in 0..repeats {
            let before = cpu_seconds()?;
            counts.0 = ours(&transform, &batches)?;
            rule.push(cpu_seconds()? - before);
            for (context, sql, seconds) in [(&bare, sql, &mut query), (&whole, sql_whole.as_str(), &mut query_whole)] {
                let plan = runtime.block_on(plain(context, sql))?;
                let before = cpu_seconds()?;
                counts.1 = runtime.block_on(collect(plan, context.task_ctx()))?.iter().map(RecordBatch::num_rows).sum();
                seconds.push(cpu_seconds()? - before);
            }
        }
        let updates_that_fail = counts.0 - counts.1.min(counts.0);
        let middle = |seconds: &[f64]| {
            let mut seconds = seconds.to_vec();
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        };
        let ratio = |seconds: &[f64]| match middle(seconds) {
            0.0 => "-".to_owned(),
            other => format!("{:.2}", middle(&rule) / other),
        };
        let (ratio, ratio_whole) = (ratio(&query), ratio(&query_whole));
        println!(
            "{name:<24} {:>26} {:>26} {ratio:>7} {:>26} {ratio_whole:>7}",
            shown(rule, rows),
            shown(query, rows),
            shown(query_whole, rows)
        );
        println!(
            "  {} rows out, {updates_that_fail} of them deletes that the filter makes; planned in {:.1} ms",
            counts.0,
            planned.as_secs_f64() * 1e3
        );
    }
    println!("\nmasks by rule, CPU-seconds per million rows");
    let key = || MaskKey::from(SecretString::from("0123456789abcdef0123456789abcdef"));
    for (name, with) in
        [("hash", MaskKind::Hash { key: key() }), ("tokenize", MaskKind::Tokenize { key: key() }), ("partial", MaskKind::Partial)]
    {
        let rule = MaskRule::new(vec![Pattern::new("*.orders.name")], with);
        let mut mask = MaskTransform::new(vec![rule])?;
        mask.output(&relation)?;
        println!("{name:<24} {:>26}", timed(&mask, &batches, repeats, rows)?);
    }
    println!("\nfunctions in JavaScript, CPU-seconds per million rows");
    for (name, script) in FUNCTIONS {
        let rule = UdfRule {
            table: Pattern::new("shop.orders"),
            script: script.to_owned(),
            file: "bench.js".to_owned(),
            function: "process".to_owned(),
            limits: UdfLimits::default(),
            columns: Vec::new(),
            unresolved: Unresolved::default(),
        };
        let mut function = UdfTransform::new(vec![rule], BadValue::Fail)?;
        function.output(&relation)?;
        let few: Batches =
            batches.iter().take(FUNCTION_BATCHES).map(|(relation, records, last)| (Arc::clone(relation), records.clone(), *last)).collect();
        let rows = few.iter().map(|(_, records, _)| records.num_rows()).sum();
        println!("{name:<24} {:>26}", timed(&function, &few, repeats, rows)?);
    }
    let none = transform("shop.other", "SELECT * FROM source", &relation)?;
    println!("{:<24} {:>26}", "a table without a rule", timed(&none, &batches, repeats, rows)?);

    println!("\na batch of one row, microseconds");
    let (relation, records, last) = &batches[0];
    let single: Batches = (0..20_000).map(|row| (Arc::clone(relation), records.slice(row % records.num_rows(), 1), *last)).collect();
    for (name, sql) in CASES {
        let transform = transform("shop.orders", sql, relation)?;
        // CPU-seconds per million rows are microseconds a row.
        println!("{name:<24} {:>26}", timed(&transform, &single, repeats, single.len())?);
    }
    Ok(())
}

fn timed(transform: &dyn Transform, batches: &Batches, repeats: usize, rows: usize) -> Result<String> {
    let mut seconds = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let before = cpu_seconds()?;
        ours(transform, batches)?;
        seconds.push(cpu_seconds()? - before);
    }
    Ok(shown(seconds, rows))
}
