//! Standard error as a screen: log lines scroll, and below them a block of progress lines is refreshed in place.
//!
//! Both go through one lock, because a log line in the middle of the block would tear it.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Standard error, shared.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    /// The lines of the block; `None` if standard error is no terminal.
    block: Option<Arc<Mutex<Vec<String>>>>,
}

impl Screen {
    /// Of this process.
    pub(crate) fn new() -> Self {
        Screen { block: io::stderr().is_terminal().then(Arc::default) }
    }

    /// True if there is somebody to refresh lines for.
    pub(crate) fn is_terminal(&self) -> bool {
        self.block.is_some()
    }

    /// Replaces the block. An empty one takes it away.
    pub(crate) fn show(&self, lines: Vec<String>) {
        let Some(block) = &self.block else { return };
        let mut block = block.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = erase(&block);
        draw(&lines, &mut text);
        *block = lines;
        write(&text);
    }

    /// Writes `bytes` above the block.
    fn log(&self, bytes: &[u8]) {
        let Some(block) = &self.block else { return write(bytes) };
        let block = block.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = erase(&block);
        text.extend_from_slice(bytes);
        draw(&block, &mut text);
        write(&text);
    }
}

/// Goes up to where the block begins and clears from there.
fn erase(block: &[String]) -> Vec<u8> {
    if block.is_empty() { Vec::new() } else { format!("\x1b[{}A\x1b[J", block.len()).into_bytes() }
}

fn draw(lines: &[String], text: &mut Vec<u8>) {
    for line in lines {
        // Not wrapped at the edge, else a line would count as two.
        text.extend_from_slice(b"\x1b[?7l");
        text.extend_from_slice(line.as_bytes());
        text.extend_from_slice(b"\x1b[?7h\n");
    }
}

/// Standard error may be closed; then there is nobody to tell.
fn write(text: &[u8]) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text).and_then(|()| stderr.flush());
}

/// Collects a log line and writes it whole.
pub(crate) struct LogLine {
    screen: Screen,
    bytes: Vec<u8>,
}

impl io::Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        self.screen.log(&self.bytes);
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine { screen: self.clone(), bytes: Vec::new() }
    }
}
