//! The S3 protocol itself, against the emulator moto, and servers that only know how to fail.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, Int64Array, StringArray};
use logweir_core::{ChangeType, ErrorKind, Sink};
use logweir_files::{FilesOptions, FilesSink, open_store};

use crate::rows::{MIDNIGHT, all_ids, batch, consumer, context, inserts, leftovers, options, read_files, relation, write_all};

const BUCKET: &str = "lake";

/// The emulator, stopped when dropped.
struct Moto {
    process: Child,
    port: u16,
}

/// The program from `LOGWEIR_MOTO`, or from where the repository's script installs it, or from the path.
fn moto_program() -> std::path::PathBuf {
    if let Some(program) = std::env::var_os("LOGWEIR_MOTO") {
        return program.into();
    }
    let installed = crate::readers::rigs().join("venv/bin/moto_server");
    if installed.exists() { installed } else { "moto_server".into() }
}

impl Moto {
    fn start() -> Self {
        let port = free_port();
        let mut command = Command::new(moto_program());
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.unwrap_or_else(|error| {
            panic!(
                "moto_server does not start ({error}): run scripts/install-test-tools, or `pip install 'moto[server]'` and set LOGWEIR_MOTO"
            )
        });
        let moto = Moto { process, port };
        let deadline = Instant::now() + Duration::from_secs(90);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "moto_server did not listen within 90 s");
            std::thread::sleep(Duration::from_millis(50));
        }
        let answer = moto.request("PUT", &format!("/{BUCKET}"));
        assert!(answer.starts_with("HTTP/1.1 200"), "the bucket could not be made: {answer}");
        moto
    }

    fn request(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn unfinished_uploads(&self) -> usize {
        self.request("GET", &format!("/{BUCKET}?uploads")).matches("<Upload>").count()
    }

    fn options(&self, bucket: &str) -> FilesOptions {
        FilesOptions { options: s3_options(self.port), ..options(&format!("s3://{bucket}/raw/data")) }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn s3_options(port: u16) -> BTreeMap<String, String> {
    let options = [
        ("endpoint", format!("http://127.0.0.1:{port}")),
        ("allow_http", "true".to_owned()),
        ("region", "us-east-1".to_owned()),
        ("access_key_id", "test".to_owned()),
        ("secret_access_key", "test".to_owned()),
    ];
    options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[tokio::test]
async fn a_bucket_takes_the_whole_dialogue() {
    let moto = Moto::start();
    let options = moto.options(BUCKET);
    let sink = FilesSink::new(options.clone()).unwrap();
    let (store, prefix) = open_store(&options.url, &options.options).unwrap();
    assert_eq!(sink.check().await.unwrap(), Vec::new());
    assert_eq!((leftovers(store.as_ref(), &prefix).await, moto.unfinished_uploads()), (Vec::<String>::new(), 0));

    // A run that dies after its stage was not decided on.
    let mut writer = sink.open(context(1, 64 << 20)).await.unwrap();
    writer.write(inserts(&relation("orders", 1), 0..10, MIDNIGHT)).await.unwrap();
    writer.stage().await.unwrap();
    drop(writer);
    assert_eq!((moto.unfinished_uploads(), leftovers(store.as_ref(), &prefix).await.len()), (1, 1));
    sink.recover(&consumer(), &[]).await.unwrap();
    assert_eq!((moto.unfinished_uploads(), leftovers(store.as_ref(), &prefix).await.len()), (0, 0));

    // A run that dies between the decision and the commit, then commits again and again; a name that needs escaping.
    let mut writer = sink.open(context(2, 64 << 20)).await.unwrap();
    let tables = [relation("orders", 1), relation("_größe/100%", 1)];
    write_all(writer.as_mut(), vec![inserts(&tables[0], 0..10, MIDNIGHT), inserts(&tables[1], 10..20, MIDNIGHT)]).await;
    let staged = writer.stage().await.unwrap();
    assert!(read_files(store.as_ref(), &prefix).await.is_empty());
    drop(writer);
    for _ in 0..3 {
        sink.recover(&consumer(), &staged).await.unwrap();
        let files = read_files(store.as_ref(), &prefix).await;
        assert_eq!(all_ids(&files), (0..20).collect::<Vec<_>>());
    }
    assert_eq!((moto.unfinished_uploads(), leftovers(store.as_ref(), &prefix).await.len()), (0, 0));
}

#[tokio::test]
async fn a_large_file_goes_up_in_parts() {
    let moto = Moto::start();
    let options = moto.options(BUCKET);
    let sink = FilesSink::new(options.clone()).unwrap();
    let relation = relation("orders", 1);
    // Row groups of 8 MiB, so that parts leave while the file grows.
    let mut writer = sink.open(context(1, 32 << 20)).await.unwrap();
    let mut state = 1u64;
    for start in (0..24_000).step_by(1000) {
        let mut text = || {
            let next = |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                format!("{:014x}", state >> 8)
            };
            (0..100).map(next).collect::<String>()
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(start..start + 1000)),
            Arc::new(StringArray::from_iter_values((0..1000).map(|_| text()))),
        ];
        let changes = (start..start + 1000).map(|id| (ChangeType::Insert, id, MIDNIGHT));
        write_all(writer.as_mut(), vec![batch(&relation, columns, changes)]).await;
    }
    let staged = writer.stage().await.unwrap();
    let parts: usize = staged.iter().map(|staged| staged.0["parts"].as_array().unwrap().len()).sum();
    assert!(parts > staged.len(), "{parts} parts of {} files", staged.len());
    writer.commit(&staged).await.unwrap();
    let (store, prefix) = open_store(&options.url, &options.options).unwrap();
    let files = read_files(store.as_ref(), &prefix).await;
    assert_eq!(all_ids(&files), (0..24_000).collect::<Vec<_>>());
    assert_eq!(moto.unfinished_uploads(), 0);
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_a_mistake_of_the_configuration() {
    let moto = Moto::start();
    let sink = FilesSink::new(moto.options("nowhere")).unwrap();
    let findings = sink.check().await.unwrap();
    assert_eq!(findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["files_place"]);
    assert!(findings[0].remedy.contains("bucket"), "{:?}", findings[0]);
    let mut writer = sink.open(context(1, 1 << 20)).await.unwrap();
    writer.write(inserts(&relation("orders", 1), 0..10, MIDNIGHT)).await.unwrap();
    assert_eq!(writer.stage().await.unwrap_err().kind(), ErrorKind::Config);
}

/// A server that answers every request with `status` and nothing else, until the test ends.
fn failing_server(status: &'static str) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
            let _ = stream.read(&mut [0; 65536]);
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    port
}

async fn stage_at(port: u16) -> logweir_core::Error {
    let options = FilesOptions { options: s3_options(port), ..options("s3://lake/raw") };
    let mut writer = FilesSink::new(options).unwrap().open(context(1, 1 << 20)).await.unwrap();
    writer.write(inserts(&relation("orders", 1), 0..10, MIDNIGHT)).await.unwrap();
    writer.stage().await.unwrap_err()
}

#[tokio::test]
async fn a_busy_or_silent_store_is_transient_and_a_closed_one_denied() {
    assert_eq!(stage_at(failing_server("503 Slow Down")).await.kind(), ErrorKind::Transient);
    assert_eq!(stage_at(free_port()).await.kind(), ErrorKind::Transient);
    let error = stage_at(failing_server("403 Forbidden")).await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.get_remedy().unwrap().contains("PutObject"), "{error}");
    // Secrets are in no message.
    assert!(!error.report().contains("secret"), "{}", error.report());
}
