//! A server that encrypts its binlog files.

use logweir_mysql::options::Start;

use crate::rig::{Flavour, Reading, Rig, catch_up, open, start};

#[tokio::test]
async fn mariadb_with_encrypted_files_is_read_as_any_other() {
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("keys");
    std::fs::write(&file, format!("1;{}\n", "0123456789abcdef".repeat(4))).unwrap();
    let key_file = format!("file_key_management_filename={}", file.display());
    let rig = Rig::start(Flavour::Mariadb, &["plugin_load_add=file_key_management", &key_file, "encrypt_binlog=ON"]).await;
    rig.execute("CREATE TABLE shop.a (id INT PRIMARY KEY)").await;
    let mut reader = open(&rig.source(Start::Earliest), start(None)).await;
    let mut reading = Reading::default();
    rig.execute("INSERT INTO shop.a VALUES (1), (2)").await;
    catch_up(reader.as_mut(), &mut reading).await;
    rig.execute("FLUSH BINARY LOGS").await;
    rig.execute("INSERT INTO shop.a VALUES (3)").await;
    catch_up(reader.as_mut(), &mut reading).await;
    assert_eq!(reading.texts(), ["shop.a 0 1", "shop.a 0 2", "shop.a 0 3"]);
    // And from the middle of a file on.
    let from = Reading { marks: vec![reading.last().clone()], relations: reading.relations.clone(), ..Reading::default() };
    let mut again = Reading::default();
    let mut reader = open(&rig.source(Start::Now), start(Some(&from))).await;
    rig.execute("INSERT INTO shop.a VALUES (4)").await;
    catch_up(reader.as_mut(), &mut again).await;
    assert_eq!(again.texts(), ["shop.a 0 4"]);
}
