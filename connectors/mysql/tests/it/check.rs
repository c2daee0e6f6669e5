//! What `check` and `relations` say of servers in order and out of order.

use logweir_core::{ErrorKind, Severity, Source};
use logweir_mysql::options::{MysqlOptions, Start, TlsMode, TlsOptions};
use logweir_mysql::source::MysqlSource;
use secrecy::SecretString;

use crate::rig::{Flavour, Rig, start, tables};

async fn codes(source: &MysqlSource, patterns: &[&str]) -> Vec<(Severity, &'static str)> {
    let findings = source.check(&tables(patterns), None).await.unwrap();
    assert!(findings.iter().all(|finding| !finding.remedy.is_empty() && !finding.message.is_empty()));
    findings.into_iter().map(|finding| (finding.severity, finding.code)).collect()
}

async fn a_server_in_order(flavour: Flavour) {
    let rig = Rig::start(flavour, &[]).await;
    rig.execute("CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(10))").await;
    assert_eq!(codes(&rig.source(Start::Now), &["shop.*"]).await, []);
    assert_eq!(codes(&rig.source(Start::Now), &["nowhere.*"]).await, [(Severity::Error, "no_tables")]);
    let gone = Start::Position { file: "mysql-bin.999999".into(), position: 4 };
    assert_eq!(codes(&rig.source(gone), &["shop.*"]).await, [(Severity::Error, "start")]);

    rig.execute("CREATE TABLE shop.keyless (v INT)").await;
    rig.execute("CREATE TABLE shop.child (id INT PRIMARY KEY, a INT, FOREIGN KEY (a) REFERENCES shop.a (id) ON DELETE CASCADE)").await;
    let found = codes(&rig.source(Start::Now), &["shop.*"]).await;
    assert!(found.contains(&(Severity::Warning, "no_primary_key")), "{found:?}");
    if flavour == Flavour::Mariadb {
        assert!(found.contains(&(Severity::Warning, "foreign_key_cascade")), "{found:?}");
    }
}

#[tokio::test]
async fn tables_that_keep_their_past() {
    let rig = Rig::mariadb(&[]).await;
    rig.execute("CREATE TABLE shop.past (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING").await;
    assert_eq!(codes(&rig.source(Start::Now), &["shop.*"]).await, [(Severity::Warning, "system_versioning")]);
}

#[tokio::test]
async fn mariadb_in_order() {
    a_server_in_order(Flavour::Mariadb).await;
}

#[tokio::test]
async fn mysql_in_order() {
    a_server_in_order(Flavour::Mysql).await;
}

#[tokio::test]
async fn a_server_out_of_order() {
    let rig =
        Rig::mariadb(&["binlog_format=STATEMENT", "binlog_row_image=MINIMAL", "binlog_row_metadata=NO_LOG", "expire_logs_days=0.5"]).await;
    rig.execute("CREATE TABLE shop.a (id INT PRIMARY KEY)").await;
    rig.execute("CREATE USER poor@'%' IDENTIFIED BY 'p'").await;
    rig.execute("GRANT SELECT ON shop.* TO poor@'%'").await;
    let mut options = rig.options();
    options.user = "poor".into();
    options.password = Some(SecretString::from("p"));
    let found = codes(&MysqlSource::new(options.clone()), &["shop.*"]).await;
    for expected in [
        (Severity::Error, "binlog_format"),
        (Severity::Error, "privilege_replication_slave"),
        (Severity::Error, "privilege_replication_client"),
        (Severity::Error, "binlog_row_image"),
        (Severity::Warning, "binlog_row_metadata"),
        (Severity::Warning, "binlog_retention"),
    ] {
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
    let findings = MysqlSource::new(options.clone()).check(&tables(&["shop.*"]), None).await.unwrap();
    let grant = findings.iter().find(|finding| finding.code == "privilege_replication_slave").unwrap();
    assert_eq!(grant.remedy, "run GRANT REPLICATION SLAVE ON *.* TO 'poor'@'%'");

    // Opening says the same.
    let error = MysqlSource::new(options).open_log(start(None)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.to_string().contains("GRANT BINLOG MONITOR ON *.* TO 'poor'@'%'"), "{error}");
}

#[tokio::test]
async fn what_the_dump_is_refused_for_names_the_grant() {
    let rig = Rig::mariadb(&[]).await;
    rig.execute("CREATE USER half@'%' IDENTIFIED BY 'p'").await;
    rig.execute("GRANT BINLOG MONITOR, SELECT ON *.* TO half@'%'").await;
    let options = MysqlOptions { user: "half".into(), password: Some(SecretString::from("p")), ..rig.options() };
    let error = MysqlSource::new(options).open_log(start(None)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.to_string().contains("GRANT REPLICATION SLAVE ON *.* TO 'half'@'%'"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_and_an_unreachable_host() {
    let rig = Rig::mariadb(&[]).await;
    let wrong = MysqlOptions { password: Some(SecretString::from("wrong-secret")), ..rig.options() };
    for error in [
        MysqlSource::new(wrong.clone()).check(&tables(&[]), None).await.err().unwrap(),
        MysqlSource::new(wrong).open_log(start(None)).await.err().unwrap(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(!format!("{error:?}").contains("wrong-secret"));
    }
    let nowhere = MysqlOptions { port: 1, ..rig.options() };
    let error = MysqlSource::new(nowhere).open_log(start(None)).await.err().unwrap();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn encrypted_connections() {
    // MySQL makes itself an authority and a certificate, which names no host.
    let rig = Rig::start(Flavour::Mysql, &[]).await;
    rig.execute("SET GLOBAL require_secure_transport = ON").await;
    let source = |mode, ca: Option<std::path::PathBuf>| {
        let tls = TlsOptions { mode, ca, ..TlsOptions::default() };
        MysqlSource::new(MysqlOptions { tls, ..rig.options() })
    };
    let own = || Some(rig.data().join("ca.pem"));
    let reader = source(TlsMode::Require, None).open_log(start(None)).await;
    assert!(reader.is_ok(), "{:?}", reader.err());
    for bad in [source(TlsMode::VerifyFull, own()), source(TlsMode::VerifyCa, None), source(TlsMode::Disable, None)] {
        let error = bad.open_log(start(None)).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert!(error.get_remedy().unwrap().contains("tls"), "{error:?}");
    }
}

#[tokio::test]
async fn relations_are_what_the_tables_will_be_carried_as() {
    let rig = Rig::mariadb(&[]).await;
    rig.execute(
        "CREATE TABLE shop.all_of_them (id BIGINT UNSIGNED, d DECIMAL(12,2), t TIMESTAMP(3) NULL, j JSON, u UUID, e ENUM('a','b'), \
         b BINARY(4), s VARCHAR(20) CHARACTER SET latin1, p POINT, c VARCHAR(50) COMPRESSED, secret TEXT, PRIMARY KEY (id))",
    )
    .await;
    let mut filter = tables(&["shop.*"]);
    filter.exclude_columns = vec![logweir_core::Pattern::new("*.secret")];
    let relations = rig.source(Start::Now).relations(&filter).await.unwrap();
    let [relation] = relations.as_slice() else { panic!("{relations:?}") };
    assert_eq!(
        format!("{relation:?}"),
        "shop.all_of_them v1 (id UInt64 key, d Decimal128(12, 2), t Timestamp(µs, \"UTC\"), j Utf8, u Utf8, e Utf8, b Binary, s Utf8, \
         p Binary, c Utf8)"
    );
    let json = relation.columns().iter().find(|column| column.name() == "j").unwrap();
    assert_eq!(json.field.metadata().get("ARROW:extension:name").map(String::as_str), Some("arrow.json"));
}
