//! Arrow Flight SQL of a running process, asked by ADBC's client: what it reads is what the source has.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use logweir_tests::engine::{Engine, Running};
use logweir_tests::servers::{DatabaseServer, free_port};
use serde_json::json;

use crate::pgwire::{A_MINUTE, PASSWORD, connect, resident, shop, started, wait_for, with_certificate, with_endpoint};

struct Rig {
    server: DatabaseServer,
    engine: Engine,
    running: Running,
    port: u16,
}

impl Rig {
    /// A process that answers both protocols.
    async fn start(more: &[(&str, serde_json::Value)]) -> Self {
        let server = shop().await;
        let (sql, port) = (free_port(), free_port());
        let flight = ("flight", json!({ "listen": format!("127.0.0.1:{port}") }));
        let engine = Engine::new(&server, "shop").set("/streams/shop/tables/include", json!(["t.*", "secret.*"]));
        let engine = with_endpoint(engine, sql, &[&[flight], more].concat());
        let mut running = engine.start(&["run"]);
        running.wait_for_message("answering Flight SQL", A_MINUTE);
        running.wait_for_message("answering SQL", A_MINUTE);
        let client = connect(sql, "ann").await;
        wait_for(&client, "SELECT count(*) FROM t.people", "3").await;
        wait_for(&client, "SELECT count(*) FROM t.numbers", "2000").await;
        wait_for(&client, "SELECT count(*) FROM secret.plans", "1").await;
        Rig { server, engine, running, port }
    }

    fn client(&self, task: &str, arguments: &[&str]) -> Command {
        client(&format!("grpc://127.0.0.1:{}", self.port), task, arguments)
    }
}

fn client(uri: &str, task: &str, arguments: &[&str]) -> Command {
    let python = std::env::var("LOGWEIR_PYTHON").expect("LOGWEIR_PYTHON names a Python with ADBC");
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/flight.py")).args([task, uri, PASSWORD]).args(arguments);
    command
}

/// What it prints.
fn says(mut client: Command) -> String {
    let output = client.output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adbc_reads_what_the_source_has() {
    let rig = Rig::start(&[]).await;
    let read = says(rig.client("read", &[]));
    let (types, rows) = read.split_once('\n').unwrap();
    assert_eq!(
        types,
        "{'id': 'int32', 'name': 'string', 'paid': 'decimal128(12, 3)', 'born': 'date32[day]', 'seen': 'timestamp[us]', 'face': 'binary', \
         'score': 'double', 'visits': 'uint64'}"
    );
    let expected = [
        "1|Ada|120.500|1815-12-10|2026-11-20 10:00:00.250000|b'\\x00\\xff'|1.5|18446744073709551615",
        "2|Bob \"B\"|-0.001|1970-01-01|NULL|NULL|NULL|0",
        "3|NULL|NULL|NULL|NULL|b''|-2e+30|NULL",
    ];
    assert_eq!(rows.lines().collect::<Vec<_>>(), expected);
    says(rig.client("catalog", &[]));
    says(rig.client("strangers", &[]));

    // One position, and an earlier one.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let before: String = rig.server.query("SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')").await.remove(0);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut follower = rig.client("follow", &["77"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut seen = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut there: Vec<String> = seen.by_ref().take(3).map(Result::unwrap).collect();
    there.sort();
    assert_eq!(there, ["1", "2", "3"]);
    rig.server.execute("INSERT INTO t.people (id) VALUES (50)").await;
    assert_eq!(seen.next().unwrap().unwrap(), "50");
    assert_eq!(says(rig.client("as_of", &[&before])), "3\n");
    rig.server.execute("INSERT INTO t.people (id) VALUES (76), (77)").await;
    assert_eq!(seen.map(Result::unwrap).collect::<Vec<_>>(), ["76", "77"]);
    assert!(follower.wait().unwrap().success());

    // A client that follows does not keep the process.
    let mut follower = rig.client("follow", &["-1"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(follower.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ended = rig.running.terminate(A_MINUTE);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended_in_time(&mut follower).success());
    // With a port that somebody has, or without TLS where others reach it.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let engine = rig.engine.set("/sql/flight/listen", json!(taken.local_addr().unwrap().to_string()));
    let busy = engine.run(&["run"], A_MINUTE);
    assert!(busy.code != Some(0) && busy.stderr.contains("could not listen for clients (endpoint: Flight SQL"), "{}", busy.stderr);
    let open = engine.set("/sql/flight/listen", json!(format!("0.0.0.0:{}", rig.port))).run(&["check"], A_MINUTE);
    assert_eq!(open.code, Some(2));
    assert!(open.stderr.contains("is an address that other machines reach"), "{}", open.stderr);
}

fn ended_in_time(child: &mut Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + A_MINUTE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the client goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adbc_over_tls() {
    let server = shop().await;
    let (sql, port) = (free_port(), free_port());
    let engine = with_endpoint(Engine::new(&server, "t"), sql, &[("flight", json!({ "listen": format!("0.0.0.0:{port}") }))]);
    let (engine, root) = with_certificate(engine);
    let running = started(&engine);
    let client_of_postgres = connect(sql, "ann").await;
    wait_for(&client_of_postgres, "SELECT count(*) FROM t.people", "3").await;
    assert_eq!(says(client(&format!("grpc+tls://127.0.0.1:{port}"), "encrypted", &[&root])), "3\n");
    let plain = client(&format!("grpc://127.0.0.1:{port}"), "encrypted", &[]).output().unwrap();
    assert!(!plain.status.success());
    assert_eq!(running.terminate(A_MINUTE).code, Some(0));
}

/// Nobody takes more than their share of anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds() {
    let rig = Rig::start(&[
        ("statement_timeout", json!("3s")),
        ("connections", json!(4)),
        ("memory", json!("16MiB")),
        ("concurrent_queries", json!(1)),
    ])
    .await;
    says(rig.client("slow", &[]));
    let before = resident(rig.running.id());

    // Whoever says nothing, or nothing that makes sense, has a seat for a while only.
    let address = format!("127.0.0.1:{}", rig.port);
    let silent: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for _ in 0..2000 {
        let mut one_more = TcpStream::connect(&address).unwrap();
        let _ = one_more.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff");
        let _ = one_more.shutdown(Shutdown::Both);
    }
    for mut socket in silent {
        socket.set_read_timeout(Some(A_MINUTE)).unwrap();
        let mut left = Vec::new();
        // What it says of itself, and then nothing any more.
        let _ = socket.read_to_end(&mut left);
    }
    let deadline = Instant::now() + A_MINUTE;
    while !rig.client("encrypted", &[]).output().unwrap().status.success() {
        assert!(Instant::now() < deadline, "a seat becomes free");
    }
    let after = resident(rig.running.id());
    assert!(after < before + 100_000, "{before} KiB before, {after} KiB after");
    assert_eq!(rig.running.terminate(A_MINUTE).code, Some(0));
}
