//! Where change logs are kept, and what must not be beside them.

use expect_test::expect;

use super::*;

#[test]
fn a_change_log_in_a_store_is_read() {
    let log = r#"{ url: "s3://bucket/log", options: { region: eu-west-1, secret_access_key: { env: PATH } }, dir: log, cache: 256MiB, retain: { size: 10GiB } }"#;
    let config = parse("logweir.yaml", &with_stream(&format!("    change_log: {log}\n")), Path::new("/etc/logweir")).unwrap();
    let Some(ChangeLog::Disk(log)) = &config.streams.values().next().unwrap().change_log else { panic!("it is on disk") };
    assert_eq!((log.url.as_deref(), log.cache.0, log.retain.size.0), (Some("s3://bucket/log"), 256 << 20, 10 << 30));
    assert_eq!(ChangeLogOptions::default().cache.0, 1 << 30);
}

#[test]
fn stores_of_change_logs_are_apart_from_everything_else() {
    check(
        r#"state: { url: "s3://bucket/state" }
profiles:
  db: { mysql: { host: localhost, user: weir } }
  lake: { files: { url: "s3://bucket/lake/" } }
streams:
  a: { source: db, destinations: [ { profile: lake } ], change_log: { dir: a, url: "s3://bucket/lake/log" } }
  b: { source: db, destinations: [ { profile: lake } ], change_log: { dir: b, url: "s3://bucket/state/" } }
  c: { source: db, destinations: [ { profile: lake } ], change_log: { dir: c, url: "s3://bucket/laker" } }
  d: { source: db, destinations: [ { profile: lake } ], change_log: { dir: d, url: "s3a://bucket/laker/d" } }
  e: { source: db, destinations: [ { profile: lake } ], change_log: { dir: e, url: "s3://bucket/lake", options: { endpoint: "http://127.0.0.1:1" } } }
  f: { source: db, destinations: [ { profile: lake } ], change_log: { dir: f, cache: 1GiB } }
  g: { source: db, destinations: [ { profile: lake } ], change_log: { dir: g, url: "gs://bucket/log" } }
"#,
        expect![[r#"
            error: the change log of `a` is not apart from the profile `lake`
             --> logweir.yaml:6:84
              |
            6 |   a: { source: db, destinations: [ { profile: lake } ], change_log: { dir: a, url: "s3://bucket/lake/log" } }
              |                                                                                    ^^^^^^^^^^^^^^^^^^^^^^
             = give it a prefix of its own, that neither lies below another one nor has one below it

            error: the change log of `b` is not apart from the state
             --> logweir.yaml:7:84
              |
            7 |   b: { source: db, destinations: [ { profile: lake } ], change_log: { dir: b, url: "s3://bucket/state/" } }
              |                                                                                    ^^^^^^^^^^^^^^^^^^^^
             = give it a prefix of its own, that neither lies below another one nor has one below it

            error: the change log of `d` is not apart from the change log of `c`
             --> logweir.yaml:9:84
              |
            9 |   d: { source: db, destinations: [ { profile: lake } ], change_log: { dir: d, url: "s3a://bucket/laker/d" } }
              |                                                                                    ^^^^^^^^^^^^^^^^^^^^^^
             = give it a prefix of its own, that neither lies below another one nor has one below it

            error: `cache` needs `url` beside it
             --> logweir.yaml:11:86
               |
            11 |   f: { source: db, destinations: [ { profile: lake } ], change_log: { dir: f, cache: 1GiB } }
               |                                                                                      ^^^^

            error: `url` has a value that is not possible: `gs://bucket/log`
             --> logweir.yaml:12:84
               |
            12 |   g: { source: db, destinations: [ { profile: lake } ], change_log: { dir: g, url: "gs://bucket/log" } }
               |                                                                                    ^^^^^^^^^^^^^^^^^
             = gs:// is not available yet; file:// and s3:// are

            5 mistakes in logweir.yaml
        "#]],
    );
}
