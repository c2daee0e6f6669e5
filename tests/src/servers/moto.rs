//! An S3 emulator: moto, out of the Python environment that `scripts/install-test-tools` makes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{Process, free_port, installed, rigs_directory, wait_for_port};

/// A running emulator with one bucket.
#[derive(Debug)]
pub struct MotoServer {
    port: u16,
    _process: Process,
    _directory: TempDir,
}

/// The bucket that is there.
const BUCKET: &str = "lake";

impl MotoServer {
    /// Starts it.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("logweir-moto-").tempdir().expect("a temporary directory can be made");
        let program = std::env::var_os("LOGWEIR_MOTO").map(PathBuf::from);
        let program = program.unwrap_or_else(|| installed(rigs_directory().join("venv/bin/moto_server")));
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let process = Process::start(&mut command, &directory.path().join("moto.log"));
        wait_for_port(port);
        let server = MotoServer { port, _process: process, _directory: directory };
        let answer = server.request(&format!("PUT /{BUCKET} HTTP/1.1"));
        assert!(answer.starts_with("HTTP/1.1 200"), "the bucket could not be made: {answer}");
        server
    }

    fn request(&self, line: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the emulator listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
        let request = format!("{line}\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", self.port);
        stream.write_all(request.as_bytes()).expect("the emulator reads");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The bucket that is there.
    pub fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// The unfinished uploads that hold parts, which cost money. A kill between the beginning of an upload and its note
    /// leaves one without; every other is aborted by the next start.
    pub fn uploads_with_parts(&self) -> Vec<UnfinishedUpload> {
        self.unfinished_uploads().into_iter().filter(|upload| upload.parts > 0).collect()
    }

    /// The multipart uploads of the bucket that were begun and neither completed nor aborted.
    pub fn unfinished_uploads(&self) -> Vec<UnfinishedUpload> {
        let list = self.request(&format!("GET /{BUCKET}?uploads HTTP/1.1"));
        let uploads = list.split("<Upload>").skip(1).map(|upload| {
            let (key, id) = (element(upload, "Key"), element(upload, "UploadId"));
            let key = key.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
            let parts = self.request(&format!("GET /{BUCKET}/{}?uploadId={id} HTTP/1.1", in_url(&key)));
            assert!(parts.starts_with("HTTP/1.1 200"), "the parts of {key} cannot be listed: {parts}");
            UnfinishedUpload { parts: parts.matches("<Part>").count(), key }
        });
        uploads.collect()
    }
}

/// A multipart upload under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedUpload {
    /// The object that it would become.
    pub key: String,
    /// Parts that are there.
    pub parts: usize,
}

/// A key as the path of a URL.
fn in_url(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    key.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The text of the first element with this name.
fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let text = xml.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once('<'));
    text.map(|(text, _)| text).unwrap_or_else(|| panic!("no {name} in {xml}"))
}
