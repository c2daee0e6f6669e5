//! What a server logs and takes back, and what it does to rows without logging it.

use logweir_mysql::options::Start;

use crate::rig::{Flavour, Reading, Rig, catch_up, open, start};

#[tokio::test]
async fn mariadb_rolls_back_to_savepoints_in_the_log() {
    let rig = Rig::start(Flavour::Mariadb, &[]).await;
    rig.execute("CREATE TABLE shop.a (id INT PRIMARY KEY) ENGINE=InnoDB").await;
    let mut reader = open(&rig.source(Start::Now), start(None)).await;
    let mut reading = Reading::default();
    // A temporary table is what makes the server log the changes and the rollback.
    rig.execute(
        "CREATE TEMPORARY TABLE shop.t (id INT) ENGINE=MyISAM; BEGIN; INSERT INTO shop.a VALUES (1); SAVEPOINT s1; \
         INSERT INTO shop.t VALUES (1); INSERT INTO shop.a VALUES (2), (3); ROLLBACK TO s1; INSERT INTO shop.a VALUES (4); COMMIT",
    )
    .await;
    rig.execute("INSERT INTO shop.a VALUES (5)").await;
    catch_up(reader.as_mut(), &mut reading).await;
    assert_eq!(rig.query::<u32>("SELECT id FROM shop.a ORDER BY id").await, [1, 4, 5]);
    assert_eq!(reading.texts(), ["shop.a 0 1", "shop.a 0 4", "shop.a 0 5"]);
}

async fn emptied(flavour: Flavour) {
    let rig = Rig::start(flavour, &[]).await;
    rig.execute("CREATE TABLE shop.a (id INT PRIMARY KEY); CREATE TABLE shop.b (id INT PRIMARY KEY)").await;
    let mut reader = open(&rig.source(Start::Now), start(None)).await;
    let mut reading = Reading::default();
    rig.execute("INSERT INTO shop.a VALUES (1); INSERT INTO shop.b VALUES (2); DROP TABLE shop.a, shop.b").await;
    // A temporary table of the same name is another one, and a renamed one keeps its rows.
    rig.execute(
        "CREATE TABLE shop.a (id INT PRIMARY KEY); INSERT INTO shop.a VALUES (3); \
         CREATE TEMPORARY TABLE shop.a (n INT); DROP TABLE shop.a; INSERT INTO shop.a VALUES (4); RENAME TABLE shop.a TO shop.c",
    )
    .await;
    catch_up(reader.as_mut(), &mut reading).await;
    assert_eq!(reading.texts(), ["shop.a 0 1", "shop.b 0 2", "shop.a 5 ", "shop.b 5 ", "shop.a 0 3", "shop.a 0 4"]);
}

#[tokio::test]
async fn mariadb_tables_that_go_lose_their_rows() {
    emptied(Flavour::Mariadb).await;
}

#[tokio::test]
async fn mysql_tables_that_go_lose_their_rows() {
    emptied(Flavour::Mysql).await;
}
