//! Exactly once, whatever fails when.

use std::sync::Arc;

use logweir_core::{ChangeBatch, ErrorKind, Result, Sink, Staged};
use logweir_files::FilesSink;
use object_store::path::Path;

use crate::fault::{Fault, FaultyStore};
use crate::rows::{Folder, MIDNIGHT, all_ids, consumer, context, inserts, leftovers, options, read_files, relation};

/// What the engine keeps: how many batches are decided on, and the files they are staged in.
#[derive(Debug, Default, Clone)]
struct Checkpoint {
    batches: usize,
    staged: Vec<Staged>,
}

fn batches() -> Vec<ChangeBatch> {
    let (orders, lines) = (relation("orders", 1), relation("lines", 1));
    (0..6).map(|i| inserts(if i % 2 == 0 { &orders } else { &lines }, i * 10..(i + 1) * 10, MIDNIGHT)).collect()
}

/// The engine, in short: two batches to a checkpoint.
async fn run(sink: &dyn Sink, checkpoint: &mut Checkpoint, run: u32) -> Result<()> {
    sink.recover(&consumer(), &checkpoint.staged).await?;
    let mut writer = sink.open(context(run, 1 << 20)).await?;
    let batches = batches();
    while checkpoint.batches < batches.len() {
        for batch in &batches[checkpoint.batches..checkpoint.batches + 2] {
            writer.evolve(Arc::clone(&batch.relation)).await?;
            writer.write(batch.slice(0, batch.rows())).await?;
        }
        let staged = writer.stage().await?;
        *checkpoint = Checkpoint { batches: checkpoint.batches + 2, staged };
        writer.commit(&checkpoint.staged).await?;
    }
    writer.close().await
}

#[tokio::test]
async fn a_request_that_fails_loses_nothing_and_doubles_nothing() {
    for fault in [Fault::RequestLost, Fault::AnswerLost] {
        let mut requests = 0;
        loop {
            let store = FaultyStore::new(requests, fault);
            let prefix = Path::from("lake");
            let open = || {
                let (objects, uploads) = (Arc::new(store.clone()), Arc::new(store.clone()));
                FilesSink::with_store(options("s3://bucket/lake"), objects, uploads, prefix.clone()).unwrap()
            };
            let mut checkpoint = Checkpoint::default();
            if let Err(error) = run(&open(), &mut checkpoint, 1).await {
                assert_eq!(error.kind(), ErrorKind::Transient, "{error:?}");
                run(&open(), &mut checkpoint, 2).await.unwrap();
            }
            let failed = store.has_failed();
            let files = read_files(store.inner(), &prefix).await;
            let case = format!("{fault:?} of request {requests}");
            assert_eq!(all_ids(&files), (0..60).collect::<Vec<_>>(), "{case}");
            assert_eq!(leftovers(store.inner(), &prefix).await, Vec::<String>::new(), "{case}");
            // An upload whose beginning was never heard of has no parts and cannot be known.
            let unknown = i64::from(fault == Fault::AnswerLost);
            assert!(store.open_uploads() <= unknown, "{case}: {} uploads are open", store.open_uploads());
            if !failed {
                assert!(requests > 30, "there were only {requests} requests to fail");
                break;
            }
            requests += 1;
        }
    }
}

/// Where the process dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Death {
    Writing,
    Staged,
    Decided,
    HalfCommitted,
    Committed,
}

#[tokio::test]
async fn a_death_at_any_step_on_a_disk_loses_nothing_and_doubles_nothing() {
    for death in [Death::Writing, Death::Staged, Death::Decided, Death::HalfCommitted, Death::Committed] {
        let folder = Folder::new();
        let mut checkpoint = Checkpoint::default();
        {
            let sink = folder.sink();
            // Little memory, so that some bytes reach the disk before the stage.
            let mut writer = sink.open(context(1, 8 * 1024)).await.unwrap();
            for batch in batches().into_iter().take(4) {
                writer.write(batch).await.unwrap();
            }
            if death != Death::Writing {
                let staged = writer.stage().await.unwrap();
                assert!(staged.len() >= 2);
                if death != Death::Staged {
                    checkpoint = Checkpoint { batches: 4, staged: staged.clone() };
                }
                match death {
                    Death::HalfCommitted => writer.commit(&staged[..1]).await.unwrap(),
                    Death::Committed => writer.commit(&staged).await.unwrap(),
                    _ => {}
                }
            }
            assert!(!folder.leftovers().await.is_empty() || death == Death::Committed, "{death:?}");
        }
        run(&folder.sink(), &mut checkpoint, 2).await.unwrap();
        // And once more after a clean end, with tokens that were committed long ago.
        run(&folder.sink(), &mut checkpoint, 3).await.unwrap();
        let files = folder.files().await;
        assert_eq!(all_ids(&files), (0..60).collect::<Vec<_>>(), "{death:?}");
        assert_eq!(folder.leftovers().await, Vec::<String>::new(), "{death:?}");
    }
}

#[tokio::test]
async fn what_another_consumer_staged_is_left_alone() {
    let folder = Folder::new();
    let sink = folder.sink();
    let mut other = context(1, 1 << 20);
    other.consumer.destination = "other".into();
    let mut writer = sink.open(other.clone()).await.unwrap();
    writer.write(inserts(&relation("orders", 1), 0..10, MIDNIGHT)).await.unwrap();
    let staged = writer.stage().await.unwrap();
    sink.recover(&consumer(), &[]).await.unwrap();
    sink.recover(&other.consumer, &staged).await.unwrap();
    assert_eq!(all_ids(&folder.files().await), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_upload_that_was_aborted_after_the_decision_is_not_passed_over() {
    let store = FaultyStore::new(i64::MAX, Fault::RequestLost);
    let bucket = FilesSink::with_store(options("s3://bucket"), Arc::new(store.clone()), Arc::new(store.clone()), Path::default()).unwrap();
    let mut writer = bucket.open(context(1, 1 << 20)).await.unwrap();
    writer.write(inserts(&relation("orders", 1), 0..10, MIDNIGHT)).await.unwrap();
    let staged = writer.stage().await.unwrap();
    bucket.recover(&consumer(), &[]).await.unwrap();
    let error = bucket.recover(&consumer(), &staged).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.get_context("path").unwrap().contains("shop/orders/"), "{error}");
}

#[tokio::test]
async fn nothing_accepted_is_nothing_staged() {
    let folder = Folder::new();
    let mut writer = folder.sink().open(context(1, 1 << 20)).await.unwrap();
    writer.evolve(relation("orders", 1)).await.unwrap();
    assert_eq!(writer.stage().await.unwrap(), Vec::new());
    writer.commit(&[]).await.unwrap();
    writer.close().await.unwrap();
    assert!(folder.files().await.is_empty() && folder.leftovers().await.is_empty());
}

#[tokio::test]
async fn a_checkpoint_of_another_place_is_refused() {
    let folder = Folder::new();
    let mut writer = folder.sink().open(context(1, 1 << 20)).await.unwrap();
    writer.write(inserts(&relation("orders", 1), 0..10, MIDNIGHT)).await.unwrap();
    let staged = writer.stage().await.unwrap();

    let store = FaultyStore::new(i64::MAX, Fault::RequestLost);
    let bucket = FilesSink::with_store(options("s3://bucket"), Arc::new(store.clone()), Arc::new(store), Path::default()).unwrap();
    assert_eq!(bucket.recover(&consumer(), &staged).await.unwrap_err().kind(), ErrorKind::Config);
    let nonsense = [Staged(serde_json::json!({"kind": "tape"}))];
    assert_eq!(bucket.recover(&consumer(), &nonsense).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_check_leaves_nothing_behind() {
    let folder = Folder::new();
    assert!(folder.sink().check().await.unwrap().iter().all(|finding| finding.code == "files_disk_space"));
    assert_eq!(std::fs::read_dir(folder.folder.path()).unwrap().count(), 0);

    let store = FaultyStore::new(i64::MAX, Fault::RequestLost);
    let bucket = FilesSink::with_store(options("s3://bucket"), Arc::new(store.clone()), Arc::new(store.clone()), Path::default()).unwrap();
    assert_eq!(bucket.check().await.unwrap(), Vec::new());
    assert_eq!((leftovers(&store, &Path::default()).await, store.open_uploads()), (Vec::<String>::new(), 0));
}

#[tokio::test]
async fn a_check_finds_a_folder_that_cannot_be() {
    let folder = Folder::new();
    let file = folder.folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let url = url::Url::from_directory_path(file.join("lake")).unwrap();
    let sink = FilesSink::new(options(url.as_str())).unwrap();
    let findings = sink.check().await.unwrap();
    assert_eq!(findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["files_place"]);
}
