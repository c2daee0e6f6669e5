//! PostgreSQL into Parquet, end to end: what landed equals what the server shows.

use crate::pg_live::{self, Manner};

/// Little memory for decoding, so that large transactions are streamed or spilt.
const LITTLE_MEMORY: &[&str] = &["logical_decoding_work_mem = 64kB"];

const OLDEST: Manner = Manner::plain(12);
const UNDER_ROOTS: Manner = Manner { under_roots: true, ..Manner::plain(15) };
const AS_TEXT: Manner = Manner { profile: &[("binary", "false")], ..Manner::plain(15) };
const STREAMED: Manner = Manner { server: LITTLE_MEMORY, profile: &[("streaming", "on")], under_roots: true, ..Manner::plain(17) };
const NEWEST: Manner = Manner { server: LITTLE_MEMORY, profile: &[("streaming", "parallel")], ..Manner::plain(18) };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_lands_from_12() {
    pg_live::workload(OLDEST, 11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_lands_from_15_with_partitions_under_their_roots() {
    pg_live::workload(UNDER_ROOTS, 12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_lands_from_15_as_text() {
    pg_live::workload(AS_TEXT, 13).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_lands_from_17_with_large_transactions_streamed() {
    pg_live::workload(STREAMED, 14).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_lands_from_18_with_large_transactions_streamed_in_parallel() {
    pg_live::workload(NEWEST, 15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_side_by_side_land() {
    pg_live::side_by_side(STREAMED, 21).await;
    pg_live::side_by_side(UNDER_ROOTS, 23).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_there_before_land_from_12() {
    pg_live::backfill(OLDEST, 31).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_there_before_land_from_17() {
    pg_live::backfill(STREAMED, 32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_lands_from_12() {
    pg_live::every_type_lands(OLDEST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_lands_from_15_as_text() {
    pg_live::every_type_lands(AS_TEXT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_lands_from_18() {
    pg_live::every_type_lands(NEWEST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_goes_on_over_restarts_of_the_server() {
    pg_live::restarts(OLDEST, 53).await;
    pg_live::restarts(UNDER_ROOTS, 51).await;
    pg_live::restarts(STREAMED, 54).await;
    pg_live::restarts(NEWEST, 52).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_in_a_bucket() {
    pg_live::bucket(UNDER_ROOTS).await;
}
