//! A proxy in front of an HTTP server that can be told to answer 503 to everything, or to cut every connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// The proxy; its threads end with the process.
#[derive(Debug)]
pub struct FaultyProxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    unavailable: AtomicBool,
    refused: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
}

/// What S3 says when it has had enough.
const SLOW_DOWN: &str =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";

impl FaultyProxy {
    /// A proxy in front of a port of 127.0.0.1, which lets everything pass.
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port of the loopback interface can be had");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&for_thread);
                thread::spawn(move || {
                    // A broken connection is the client's business, and often what the test is about.
                    let _ = shared.serve(client, target);
                });
            }
        });
        FaultyProxy { port, shared }
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on every request is answered with 503 (or passes again); connections that are open are cut.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.shared.unavailable.store(unavailable, Ordering::SeqCst);
        self.cut();
    }

    /// Cuts every open connection.
    pub fn cut(&self) {
        for connection in self.shared.connections.lock().expect("no holder panics").drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// How many requests were answered with 503.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream, target: u16) -> std::io::Result<()> {
        if self.unavailable.load(Ordering::SeqCst) {
            return self.refuse(client);
        }
        let mut server = TcpStream::connect(("127.0.0.1", target))?;
        {
            let mut connections = self.connections.lock().expect("no holder panics");
            connections.push(client.try_clone()?);
            connections.push(server.try_clone()?);
        }
        let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
        let back = thread::spawn(move || {
            let _ = std::io::copy(&mut from_server, &mut to_client);
            let _ = to_client.shutdown(Shutdown::Both);
        });
        let _ = std::io::copy(&mut client, &mut server);
        let _ = server.shutdown(Shutdown::Both);
        let _ = back.join();
        Ok(())
    }

    /// Reads one request's head and refuses it.
    fn refuse(&self, mut client: TcpStream) -> std::io::Result<()> {
        let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
        while !head.windows(4).any(|window| window == b"\r\n\r\n") {
            let length = client.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            head.extend_from_slice(&buffer[..length]);
        }
        self.refused.fetch_add(1, Ordering::SeqCst);
        write!(
            client,
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{SLOW_DOWN}",
            SLOW_DOWN.len()
        )?;
        // The rest of an upload is read, or the client sees a reset instead of the answer.
        client.set_read_timeout(Some(std::time::Duration::from_millis(200)))?;
        client.shutdown(Shutdown::Write)?;
        while client.read(&mut buffer).is_ok_and(|length| length > 0) {}
        Ok(())
    }
}
