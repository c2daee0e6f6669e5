//! An error of the log reader always ends the stream with that error, whichever task happens to end first.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logweir_core::{
    Error, ErrorKind, Finding, LogEvent, LogMark, LogPosition, LogReader, LogStart, Relation, Result, Source, SourceOffset, SystemClock,
    TableFilter,
};
use logweir_files::{FilesOptions, FilesSink};
use logweir_runtime::state::LocalStateStore;
use logweir_runtime::{Destination, Shutdown, StreamProgress, StreamSpec, no_transforms, run_stream};

/// A log that cannot be read behind its opening mark.
struct Unreadable;

struct UnreadableLog {
    opened: bool,
}

impl Drop for UnreadableLog {
    fn drop(&mut self) {
        // As a connection that is taken down: meanwhile the consumers find the change log ended, and end first.
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[async_trait]
impl Source for Unreadable {
    async fn check(&self, _: &TableFilter, _: Option<&LogMark>) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    async fn relations(&self, _: &TableFilter) -> Result<Vec<Relation>> {
        Ok(Vec::new())
    }

    async fn open_log(&self, _: LogStart) -> Result<Box<dyn LogReader>> {
        Ok(Box::new(UnreadableLog { opened: false }))
    }
}

#[async_trait]
impl LogReader for UnreadableLog {
    async fn next(&mut self) -> Result<Option<LogEvent>> {
        if std::mem::replace(&mut self.opened, true) {
            return Err(Error::config("a statement instead of rows"));
        }
        let offset = SourceOffset(serde_json::Value::Null);
        Ok(Some(LogEvent::Mark(LogMark { position: LogPosition::new(0, 1, 4, 0, false), offset, commit_time: None })))
    }

    async fn acknowledge(&mut self, _: &LogMark) -> Result<()> {
        Ok(())
    }

    async fn end(&mut self) -> Result<Option<LogPosition>> {
        Ok(None)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_the_stream_whichever_task_ends_first() {
    for attempt in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let lake = url::Url::from_directory_path(directory.path().join("lake")).unwrap();
        let spec = StreamSpec {
            rules: String::new(),
            name: "shop".to_owned(),
            source: Arc::new(Unreadable),
            tables: TableFilter::all(),
            before_images: Vec::new(),
            keep_before_images: Vec::new(),
            transforms: no_transforms(),
            destinations: vec![Destination {
                name: "lake".to_owned(),
                sink: Arc::new(FilesSink::new(FilesOptions::new(lake, "shop")).unwrap()),
                transforms: no_transforms(),
            }],
            change_log: None,
            state: Box::new(LocalStateStore::new(directory.path().join("state"), "shop").unwrap()),
            memory_bytes: 64 << 20,
            connect_timeout: Duration::from_secs(1),
            until_caught_up: attempt % 2 == 0,
            seed: attempt,
        };
        let ended = run_stream(spec, Arc::new(SystemClock), Shutdown::new(), Arc::new(StreamProgress::new("shop"))).await;
        assert_eq!(ended.map_err(|error| error.kind()), Err(ErrorKind::Config), "attempt {attempt}");
    }
}
