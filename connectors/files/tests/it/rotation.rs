//! Which rows share a file, and when a file ends.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, StringArray};
use logweir_core::{ChangeType, MemoryBudget, Sink};

use crate::rows::{Folder, MIDNIGHT, all_ids, batch, context, inserts, land, relation, write_all};

const DAY: i64 = 86_400_000_000;

#[tokio::test]
async fn a_batch_is_cut_at_midnight() {
    let folder = Folder::new();
    let relation = relation("orders", 1);
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(0..6)), Arc::new(StringArray::from_iter_values(["x"; 6]))];
    let times = [MIDNIGHT - 2, MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + DAY - 1, MIDNIGHT + DAY, MIDNIGHT + DAY];
    let changes = times.iter().enumerate().map(|(i, &time)| (ChangeType::Insert, i as i64, time));
    land(&folder.sink(), vec![batch(&relation, columns, changes)]).await;
    let files = folder.files().await;
    let found: Vec<(&str, Vec<i64>)> = files.iter().map(|file| (file.path.split('/').nth(2).unwrap(), file.ids())).collect();
    assert_eq!(found, [("dt=2026-11-19", vec![0, 1]), ("dt=2026-11-20", vec![2, 3]), ("dt=2026-11-21", vec![4, 5])]);
}

#[tokio::test]
async fn another_table_or_schema_version_is_another_file() {
    let folder = Folder::new();
    let (old, new, other) = (relation("orders", 1), relation("orders", 2), relation("lines", 1));
    let batches = vec![
        inserts(&old, 0..10, MIDNIGHT),
        inserts(&other, 10..20, MIDNIGHT),
        inserts(&old, 20..30, MIDNIGHT),
        inserts(&new, 30..40, MIDNIGHT),
    ];
    land(&folder.sink(), batches).await;
    let files = folder.files().await;
    let found: Vec<(&str, usize)> = files.iter().map(|file| (file.footer["logweir.schema_version"].as_str(), file.ids().len())).collect();
    assert_eq!(found, [("1", 10), ("1", 20), ("2", 10)]);
    assert_eq!(all_ids(&files), (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn names_that_would_hide_or_escape_stay_in_their_folder() {
    for table in ["_hidden", "../../etc", "a/b", "größe 100%", ".", "what?#"] {
        let folder = Folder::new();
        land(&folder.sink(), vec![inserts(&relation(table, 1), 0..3, MIDNIGHT)]).await;
        let files = folder.files().await;
        assert_eq!(files.len(), 1, "{table}");
        assert_eq!(files[0].path.split('/').count(), 4, "{}", files[0].path);
        assert_eq!(files[0].footer["logweir.relation"], serde_json::json!({"schema": "shop", "table": table}).to_string());
    }
}

#[tokio::test]
async fn a_file_ends_at_its_size() {
    let mut folder = Folder::new();
    folder.options.rotate_bytes = 1 << 20;
    let relation = relation("orders", 1);
    let mut writer = folder.sink().open(context(1, 64 << 20)).await.unwrap();
    // About 9 MiB of text that does not compress, in batches of 700 KiB.
    let mut state = 1u64;
    for start in (0..6000).step_by(500) {
        let mut random = || {
            let mut text = String::new();
            for _ in 0..100 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(&format!("{:x}", state >> 8));
            }
            text
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(start..start + 500)),
            Arc::new(StringArray::from_iter_values((0..500).map(|_| random()))),
        ];
        let changes = (start..start + 500).map(|id| (ChangeType::Insert, id, MIDNIGHT));
        write_all(writer.as_mut(), vec![batch(&relation, columns, changes)]).await;
    }
    let staged = writer.stage().await.unwrap();
    assert!(staged.len() >= 2, "{} files", staged.len());
    assert!(folder.files().await.is_empty(), "nothing is visible before the commit");
    writer.commit(&staged).await.unwrap();
    let files = folder.files().await;
    assert_eq!(files.len(), staged.len());
    assert_eq!(all_ids(&files), (0..6000).collect::<Vec<_>>());
    // In a folder, names sort as the log does.
    assert!(files.windows(2).all(|pair| pair[0].ids().last() < pair[1].ids().first()));
}

#[tokio::test]
async fn a_small_memory_is_kept_and_nothing_is_lost() {
    let folder = Folder::new();
    let relations: Vec<_> = (0..20).map(|i| relation(&format!("t{i}"), 1)).collect();
    let mut writer = folder.sink().open(context(1, 256 * 1024)).await.unwrap();
    let budget = MemoryBudget::new(128 * 1024);
    for round in 0..30 {
        for (i, relation) in relations.iter().enumerate() {
            let start = (round * 20 + i as i64) * 50;
            let mut batch = inserts(relation, start..start + 50, MIDNIGHT);
            // The writer must give its right to memory back although it holds the rows, or the reader would wait for ever.
            batch.memory = Arc::new(budget.try_acquire(batch.bytes()).unwrap());
            writer.write(batch).await.unwrap();
            assert_eq!(budget.available_bytes(), budget.total_bytes());
        }
    }
    let staged = writer.stage().await.unwrap();
    writer.commit(&staged).await.unwrap();
    let files = folder.files().await;
    assert!(files.iter().any(|file| file.row_groups > 1) || files.len() > 20, "the bound was felt");
    assert_eq!(all_ids(&files), (0..30_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn more_tables_than_files_may_be_open_are_written() {
    let folder = Folder::new();
    let relations: Vec<_> = (0..600).map(|i| relation(&format!("t{i}"), 1)).collect();
    // So little memory that every table has a row group on disk soon.
    let mut writer = folder.sink().open(context(1, 16 * 1024)).await.unwrap();
    for round in 0..2 {
        for (i, relation) in relations.iter().enumerate() {
            let start = (round * 600 + i as i64) * 5;
            writer.write(inserts(relation, start..start + 5, MIDNIGHT)).await.unwrap();
        }
    }
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter(|entry| {
        let target = entry.as_ref().ok().and_then(|entry| std::fs::read_link(entry.path()).ok());
        target.is_some_and(|target| target.starts_with(folder.folder.path()))
    });
    let open = open.count();
    assert!((100..=256).contains(&open), "{open} files are open");
    let staged = writer.stage().await.unwrap();
    assert!(staged.len() > 600, "some files ended early: {}", staged.len());
    writer.commit(&staged).await.unwrap();
    assert_eq!(all_ids(&folder.files().await), (0..6000).collect::<Vec<_>>());
}

#[tokio::test]
async fn large_steps_and_many_row_groups_keep_every_row() {
    let folder = Folder::new();
    let relation = relation("orders", 1);
    let batches = (0..40).map(|i| inserts(&relation, i * 8000..(i + 1) * 8000, MIDNIGHT)).collect();
    let mut writer = folder.sink().open(context(1, 3 << 20)).await.unwrap();
    write_all(writer.as_mut(), batches).await;
    let staged = writer.stage().await.unwrap();
    writer.commit(&staged).await.unwrap();
    let files = folder.files().await;
    assert!(files.iter().map(|file| file.row_groups).sum::<usize>() > 1);
    assert_eq!(all_ids(&files), (0..320_000).collect::<Vec<_>>());
}
