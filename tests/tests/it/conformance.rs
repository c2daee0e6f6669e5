//! The conformance suites, run by every implementation.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use futures::TryStreamExt;
use logweir_core::TableFilter;
use logweir_files::{FilesOptions, FilesSink};
use logweir_mysql::files::BinlogFilesSource;
use logweir_mysql::options::{BinlogFilesOptions, MysqlOptions, Start};
use logweir_mysql::source::MysqlSource;
use logweir_runtime::state::{LocalStateStore, ObjectStateStore};
use logweir_tests::servers::{DatabaseServer, Flavour, MotoServer};
use logweir_tests::sim::{Life, Setting, SimSink, SimSource, SimStore, World, simulate};
use logweir_tests::suite::{self, Fencing, LandedRow};
use logweir_tests::workload::{SCHEMA, Workload, WorkloadOptions};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use url::Url;

#[tokio::test]
async fn state_in_a_local_directory() {
    let directory = tempfile::tempdir().unwrap();
    suite::state(|| LocalStateStore::new(directory.path().join("below"), "shop").unwrap(), Fencing::Refuses).await;
}

#[tokio::test]
async fn state_in_an_object_store() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let prefix = Path::from("some/prefix");
    suite::state(|| ObjectStateStore::new(Arc::clone(&store), &prefix, "shop").unwrap(), Fencing::TakesOver).await;
}

#[test]
fn state_of_the_simulation() {
    simulate(1, |seed| async move {
        let world = World::new(seed, Setting::default());
        let life = Life::new(&world, None);
        suite::state(|| SimStore::new(Arc::clone(&world.disk), Arc::clone(&life)), Fencing::TakesOver).await;
    });
}

#[test]
fn sink_of_the_simulation() {
    simulate(1, |seed| async move {
        let world = World::new(seed, Setting::default());
        let life = Life::new(&world, None);
        let sink = SimSink::new(Arc::clone(&world), life, 0);
        let read = async || {
            let rows = world.lakes[0].rows();
            rows.iter().map(|row| (format!("suite.t{}", row.table), row.position.to_string())).collect()
        };
        suite::sink(&sink, read).await;
    });
}

#[test]
fn log_reader_of_the_simulation() {
    for seed in 0..20 {
        simulate(seed, |seed| async move {
            let world = World::new(seed, Setting::default());
            let life = Life::new(&world, None);
            suite::log_reader(&SimSource::new(Arc::clone(&world), life), &TableFilter::all()).await;
        });
    }
}

/// Every row of every data file in a store.
async fn landed(store: &dyn ObjectStore) -> Vec<LandedRow> {
    let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
    let hidden = |path: &Path| path.parts().any(|part| part.as_ref().starts_with(['_', '.']));
    let mut rows = Vec::new();
    for object in objects.iter().filter(|object| !hidden(&object.location)) {
        assert!(object.location.as_ref().ends_with(".parquet"), "{} is no data file", object.location);
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let sequences = arrow_cast::cast(batch.column_by_name("_metadata_sequence").unwrap(), &arrow_schema::DataType::Utf8).unwrap();
            let source = batch.column_by_name("_metadata_source").unwrap().as_struct();
            let text = |name: &str| arrow_cast::cast(source.column_by_name(name).unwrap(), &arrow_schema::DataType::Utf8).unwrap();
            let (schemas, tables) = (text("schema"), text("table"));
            for row in 0..batch.num_rows() {
                assert!(sequences.is_valid(row));
                let name = format!("{}.{}", schemas.as_string::<i32>().value(row), tables.as_string::<i32>().value(row));
                rows.push((name, sequences.as_string::<i32>().value(row).to_owned()));
            }
        }
    }
    rows
}

fn files_sink(directory: &FilePath) -> FilesSink {
    FilesSink::new(FilesOptions::new(Url::from_directory_path(directory).unwrap(), "suite")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_on_a_disk() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalFileSystem::new_with_prefix(directory.path()).unwrap();
    suite::sink(&files_sink(directory.path()), async || landed(&store).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_in_an_object_store() {
    let store = Arc::new(InMemory::new());
    let options = FilesOptions::new(Url::parse("s3://bucket/lake/").unwrap(), "suite");
    let sink =
        FilesSink::with_store(options, Arc::clone(&store) as Arc<dyn ObjectStore>, Arc::clone(&store) as _, Path::from("lake")).unwrap();
    suite::sink(&sink, async || landed(store.as_ref()).await).await;
}

/// A recording in `datasets/captures`.
fn recording(folder: &str, pattern: &str) -> BinlogFilesSource {
    let captures = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/captures").join(folder);
    let store = Arc::new(LocalFileSystem::new_with_prefix(captures).unwrap());
    BinlogFilesSource::new(BinlogFilesOptions { store, pattern: pattern.into(), start: Start::Earliest })
}

#[tokio::test]
async fn log_reader_over_the_recorded_shop() {
    let log = suite::log_reader(&recording("shop", "mysql-bin.*"), &TableFilter::all()).await;
    assert!(log.marks.len() > 3, "a small budget makes many marks");
    assert!(log.rows.values().map(Vec::len).sum::<usize>() > 10_000);
}

/// A live log of the workload, at rest.
async fn live_log(flavour: Flavour) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = DatabaseServer::start(flavour, &[]).await;
    let mut connection = server.connect().await;
    let mut workload = Workload::new(31, WorkloadOptions { truncates: true, columns: true });
    workload.create(&mut connection).await;
    workload.run(&mut connection, 120).await;
    let mut options = MysqlOptions::new("127.0.0.1", server.user());
    options.port = server.port();
    options.password = Some(server.password().into());
    options.start = Start::Earliest;
    let mut tables = TableFilter::all();
    tables.include.push(logweir_core::Pattern::new(format!("{SCHEMA}.*")));
    let log = suite::log_reader(&MysqlSource::new(options), &tables).await;
    assert!(log.rows.len() > 3, "the workload writes to several tables");
    assert!(log.rows.values().flatten().any(|row| row.before.is_some()), "the workload updates");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_reader_over_a_live_mariadb() {
    live_log(Flavour::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_reader_over_a_live_mysql() {
    live_log(Flavour::MySql).await;
}

/// The S3 emulator, as files and state see it.
fn s3(moto: &MotoServer) -> BTreeMap<String, String> {
    let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    BTreeMap::from([
        option("endpoint", &moto.endpoint()),
        option("allow_http", "true"),
        option("region", "us-east-1"),
        option("access_key_id", "test"),
        option("secret_access_key", "test"),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_in_s3() {
    let moto = MotoServer::start();
    let url = Url::parse(&format!("s3://{}/state", moto.bucket())).unwrap();
    let (store, prefix) = logweir_files::open_store(&url, &s3(&moto)).unwrap();
    suite::state(|| ObjectStateStore::new(Arc::clone(&store), &prefix, "shop").unwrap(), Fencing::TakesOver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_in_s3() {
    let moto = MotoServer::start();
    let url = Url::parse(&format!("s3://{}/lake/", moto.bucket())).unwrap();
    let (store, _) = logweir_files::open_store(&url, &s3(&moto)).unwrap();
    let mut options = FilesOptions::new(url, "suite");
    options.options = s3(&moto);
    let sink = FilesSink::new(options).unwrap();
    suite::sink(&sink, async || landed(store.as_ref()).await).await;
}
