//! MariaDB into Parquet, end to end: what landed equals what the server shows.

use crate::live;
use logweir_tests::servers::Flavour;

const SERVER: Flavour = Flavour::MariaDb;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_lands_as_the_server_shows_it() {
    live::workload(SERVER, &[], 11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_lands_from_compressed_events() {
    live::workload(SERVER, &["log_bin_compress=ON", "log_bin_compress_min_len=10"], 12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_lands_without_row_metadata_in_the_log() {
    live::workload(SERVER, &["binlog_row_metadata=MINIMAL"], 13).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_lands_from_minimal_row_images() {
    live::workload(SERVER, &["binlog_row_image=MINIMAL"], 14).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_lands_as_the_server_shows_it() {
    live::every_type(SERVER, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_lands_without_row_metadata_in_the_log() {
    live::every_type(SERVER, &["binlog_row_metadata=NO_LOG"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_gives_what_the_live_server_gives() {
    live::recorded(SERVER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_recording_lands_as_a_server_replays_it() {
    live::shop_recording().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_goes_on_over_rotations_and_a_restart_of_the_server() {
    live::rotations_and_restarts(SERVER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_in_a_bucket() {
    live::bucket(SERVER).await;
}
