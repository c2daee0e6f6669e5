//! Reading recorded files: the same changes at the same positions as the live log, and a clear end.

use std::path::Path;
use std::sync::Arc;

use logweir_core::{ErrorKind, LogStart, MemoryBudget, Source};
use logweir_mysql::files::BinlogFilesSource;
use logweir_mysql::options::{BinlogFilesOptions, Start};
use object_store::local::LocalFileSystem;
use tempfile::TempDir;

use crate::rig::{Reading, Rig, catch_up, copy, open, read_all, start, tables};

fn source(directory: &Path, start: Start) -> BinlogFilesSource {
    let store = Arc::new(LocalFileSystem::new_with_prefix(directory).unwrap());
    BinlogFilesSource::new(BinlogFilesOptions { store, pattern: "mysql-bin.*".into(), start })
}

/// A server's three files, one compressed, and what a live reader made of them.
async fn record() -> (TempDir, Reading) {
    let rig = Rig::mariadb(&[]).await;
    rig.execute("CREATE TABLE shop.a (id INT PRIMARY KEY, name VARCHAR(20))").await;
    for id in 0..30 {
        rig.execute(&format!("INSERT INTO shop.a VALUES ({id}, 'n{id}'), ({}, 'm')", 100 + id)).await;
        if id % 10 == 9 {
            rig.execute("FLUSH BINARY LOGS").await;
        }
    }
    rig.execute("DELETE FROM shop.a WHERE id >= 100").await;
    let mut reader = open(&rig.source(Start::Earliest), start(None)).await;
    let mut live = Reading::default();
    catch_up(reader.as_mut(), &mut live).await;
    assert_eq!(live.changes.len(), 90);

    let directory = TempDir::new().unwrap();
    let files: Vec<(String, u64)> = rig.query("SHOW BINARY LOGS").await;
    for (name, _) in &files {
        copy(&rig.data().join(name), &directory.path().join(name));
    }
    copy(&rig.data().join("mysql-bin.index"), &directory.path().join("mysql-bin.index"));
    let compressed = directory.path().join(&files[1].0);
    let bytes = std::fs::read(&compressed).unwrap();
    std::fs::write(compressed.with_extension("000002.zst"), zstd::encode_all(bytes.as_slice(), 3).unwrap()).unwrap();
    std::fs::remove_file(compressed).unwrap();
    (directory, live)
}

#[tokio::test]
async fn a_recording_is_the_log() {
    let (directory, live) = record().await;
    let source = source(directory.path(), Start::Earliest);
    assert_eq!(source.check(&tables(&["shop.*"]), None).await.unwrap(), []);
    let mut reader = open(&source, start(None)).await;
    let (reading, error) = read_all(reader.as_mut()).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(reading.changes, live.changes);
    assert_eq!(reading.last().position, live.last().position, "the final mark is the end of the log");
    assert!(reader.next().await.unwrap().is_none(), "the end stays the end");

    // Restarted at every mark.
    for mark in &reading.marks {
        let from = Reading { marks: vec![mark.clone()], relations: reading.relations.clone(), ..Reading::default() };
        let (again, error) = read_all(open(&source, start(Some(&from))).await.as_mut()).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(again.changes, reading.behind(mark.position), "from {}", mark.position);
        assert_eq!(again.marks[0].position, mark.position);
    }

    // And at marks in the middle of files, which a live reader gives.
    for mark in live.marks.iter().step_by(5) {
        let from = Reading { marks: vec![mark.clone()], relations: live.relations.clone(), ..Reading::default() };
        let (again, error) = read_all(open(&source, start(Some(&from))).await.as_mut()).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(again.changes, live.behind(mark.position), "from {}", mark.position);
    }

    let relations = source.relations(&tables(&["shop.*"])).await.unwrap();
    assert_eq!(relations.len(), 1);
    assert_eq!(relations[0].name().to_string(), "shop.a");
}

#[tokio::test]
async fn a_cut_recording_is_corrupt_behind_what_is_whole() {
    let (directory, live) = record().await;
    let last = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_str().unwrap().ends_with(".000004"))
        .unwrap();
    let whole = std::fs::read(&last).unwrap();
    std::fs::write(&last, &whole[..whole.len() - 7]).unwrap();
    let (reading, error) = read_all(open(&source(directory.path(), Start::Earliest), start(None)).await.as_mut()).await;
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(error.to_string().contains("mysql-bin.000004") && error.get_context("offset").is_some(), "{error}");
    let expected: Vec<_> = live.changes.iter().take(60).collect();
    assert_eq!(reading.changes.iter().collect::<Vec<_>>(), expected, "the transaction that was cut is not handed out");
    assert!(reading.changes.keys().all(|at| *at <= reading.last().position), "a mark covers what is whole");

    // Cut between two events of the transaction: not an error, but not a change either.
    let (again, error) = {
        let mut end = whole.len();
        // The last event is the transaction's XID: 19 bytes of header, 8 of number, 4 of checksum.
        end -= 31;
        std::fs::write(&last, &whole[..end]).unwrap();
        read_all(open(&source(directory.path(), Start::Earliest), start(None)).await.as_mut()).await
    };
    assert!(error.is_none(), "{error:?}");
    assert_eq!(again.changes.len(), 60);

    // A flipped byte is found by its checksum.
    let mut flipped = whole.clone();
    let at = flipped.len() - 40;
    flipped[at] ^= 1;
    std::fs::write(&last, &flipped).unwrap();
    let (again, error) = read_all(open(&source(directory.path(), Start::Earliest), start(None)).await.as_mut()).await;
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(error.report().contains("mysql-bin.000004"), "{error:?}");
    assert_eq!(again.changes.len(), 60);

    std::fs::write(&last, b"this is no binlog").unwrap();
    let (_, error) = read_all(open(&source(directory.path(), Start::Earliest), start(None)).await.as_mut()).await;
    assert!(error.unwrap().to_string().contains("does not begin as a binlog file"));
    let findings = source(directory.path(), Start::Earliest).check(&tables(&[]), None).await.unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
}

#[tokio::test]
async fn nothing_to_read_is_a_mistake() {
    let directory = TempDir::new().unwrap();
    let start =
        LogStart { resume: None, relations: vec![], tables: tables(&[]), before_images: Vec::new(), memory: MemoryBudget::new(1 << 20) };
    let error = source(directory.path(), Start::Earliest).open_log(start).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(source(directory.path(), Start::Earliest).check(&tables(&[]), None).await.unwrap()[0].code, "no_files");
}
