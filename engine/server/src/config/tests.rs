//! What a person is told about a file.

use expect_test::{Expect, expect};

use super::*;

mod change_logs;
mod rules;

fn problems(text: &str) -> String {
    match parse("logweir.yaml", text, Path::new("/nowhere")) {
        Ok(config) => panic!("no mistake was found: {config:?}"),
        Err(problems) => problems.render(),
    }
}

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&problems(text));
}

/// A file without mistakes, with something between its parts.
fn with_stream(lines: &str) -> String {
    format!(
        "profiles:
  db: {{ mysql: {{ host: localhost, user: weir }} }}
  lake: {{ files: {{ url: file:///data/lake }} }}
streams:
  shop:
    source: db
    destinations: [ {{ profile: lake }} ]
{lines}"
    )
}

#[test]
fn a_small_file_has_sensible_defaults() {
    let config = parse("logweir.yaml", &with_stream(""), Path::new("/etc/logweir")).unwrap();
    assert_eq!(config.memory.0, 1 << 30);
    assert!(config.http.is_none());
    assert!(matches!(&config.state, State::Directory { dir } if dir == Path::new("logweir-state")));
    let stream = config.streams.values().next().unwrap();
    assert_eq!(stream.destinations[0].rotate.size.0, 128 << 20);
    assert_eq!(stream.destinations[0].rotate.interval.0.as_secs(), 30);
    assert_eq!(stream.destinations[0].name(), "lake");
}

#[test]
fn the_whole_file_of_the_documentation_is_read() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("password"), "s3cret\n").unwrap();
    let text = r#"
state: { url: "s3://bucket/prefix", options: { endpoint: "http://127.0.0.1:9000", allow_http: true, secret_access_key: { file: password } } }
memory: 1GiB
connect_timeout: 5s
http: { listen: 127.0.0.1:9290 }
keys: { pii-2026: { file: password }, pii-2025: { file: password } }
profiles:
  shop-db:
    mysql: { host: 127.0.0.1, port: 3306, user: weir, password: { file: password },
             server_id: 7001, tls: { mode: verify_full, ca: ca.pem, cert: c.pem, key: k.pem } }
  pg:
    postgres: { host: db.example.com, port: 6543, user: weir, password: { file: password }, database: shop, slot: weir_shop,
                publication: "weir publication", create: false, tls: { mode: prefer }, connect_timeout: 1m, streaming: off,
                two_phase: true, origin: none, binary: false, failover: true, arrays: text, max_retained_wal: 50GiB, heartbeat: 30s, spill: /var/spill }
  socket: { postgres: { host: /var/run/postgresql, user: weir, database: shop, streaming: parallel } }
  replay: { mysql_files: { path: "datasets/captures/shop/mysql-bin.*" } }
  bucket: { mysql_files: { url: "s3://bucket/binlog/mysql-bin.*" } }
  lake:   { files: { url: file:///data/lake } }
  s3:     { files: { url: s3://bucket/lake, options: { endpoint: http://127.0.0.1:9000, allow_http: "true" } } }
streams:
  shop:
    source: shop-db
    tables: { include: ["shop.*"], exclude: ["shop.tmp_*"], exclude_columns: ["*.card_number"] }
    backfill: none
    start: { file: mysql-bin.000004, position: 4 }
    mask:
      - { columns: ["*.email"], with: hash, key: { file: password } }
      - { columns: ["*.phone"], with: "null" }
      - { names: ".*(iban|ssn).*", types: ["varchar*", text], with: tokenize, key: pii-2026 }
      - { columns: ["*.birthday"], with: date, to: month }
      - { columns: ["*.salary"], with: number, round: 100 }
      - { columns: ["*.weight"], with: number, noise: 0.1, key: pii-2026 }
      - { columns: ["*.id"], with: keep }
    on_bad_value: fail
    destinations:
      - profile: lake
        mode: changes
        format: parquet
        layout: flat
        rotate: { interval: 30s, size: 128MiB }
        path: "{schema}/{table}/dt={yyyy}-{mm}-{dd}/"
      - profile: lake
        name: raw
        path: "raw/{table}/"
  archive:
    source: replay
    start: earliest
    destinations: [ { profile: s3 } ]
  after:
    source: shop-db
    start: { gtid: "0-1-42" }
    destinations: [ { profile: s3 } ]
  whole:
    source: pg
    start: { lsn: 16/B374D848 }
    backfill: { exclude: ["shop.audit"], chunk_rows: 5000, tasks: 2 }
    destinations: [ { profile: s3 } ]
  one:
    source: socket
    backfill: all
    destinations: [ { profile: s3 } ]
  other:
    source: socket
    backfill: {}
    destinations: [ { profile: s3 } ]
"#;
    let config = parse("logweir.yaml", text, directory.path()).map_err(|problems| problems.render()).unwrap();
    assert_eq!(config.streams.len(), 6);
    let backfill = |name: &str| match &config.streams[&model::Name(name.to_owned())].backfill {
        Backfill::Some(options) => (options.exclude.len(), options.chunk_rows, options.tasks),
        other => panic!("{other:?}"),
    };
    assert_eq!((backfill("whole"), backfill("other")), ((1, 5_000, 2), (0, 100_000, 4)));
}

#[test]
fn five_mistakes_are_five_carets() {
    check(
        r#"memory: 1GB
http: { listen: localhost }
profiles:
  shop-db:
    mysql: { host: 127.0.0.1, prot: 3306, user: weir, password: hunter2 }
  lake: { files: { url: file:///data/lake } }
streams:
  shop:
    source: shopdb
    tables: { include: [shop.*] }
    destinations:
      - profile: lake
        format: parket
"#,
        expect![[r#"
            error: `memory` has a value that is not possible: `1GB`
             --> logweir.yaml:1:9
              |
            1 | memory: 1GB
              |         ^^^
             = the units are B, KiB, MiB, GiB and TiB, as in 128MiB

            error: `listen` has a value that is not possible: `localhost`
             --> logweir.yaml:2:17
              |
            2 | http: { listen: localhost }
              |                 ^^^^^^^^^
             = write an address and a port, as in 127.0.0.1:9290 or [::1]:9290

            error: unknown key `prot`
             --> logweir.yaml:5:31
              |
            5 |     mysql: { host: 127.0.0.1, prot: 3306, user: weir, password: ******* }
              |                               ^^^^
             = did you mean `port`? allowed here: connect_timeout, host, password, port, server_id, tls, user

            error: `password` is a secret and must not stand in the file
             --> logweir.yaml:5:65
              |
            5 |     mysql: { host: 127.0.0.1, prot: 3306, user: weir, password: ******* }
              |                                                                 ^^^^^^^
             = write { env: NAME_OF_A_VARIABLE } or { file: /path/of/a/file }

            error: there is no profile `shopdb`
             --> logweir.yaml:9:13
              |
            9 |     source: shopdb
              |             ^^^^^^
             = did you mean `shop-db`? sources are: shop-db

            error: `format` has a value that is not possible: `parket`
             --> logweir.yaml:13:17
               |
            13 |         format: parket
               |                 ^^^^^^
             = did you mean `parquet`? allowed: `parquet`

            6 mistakes in logweir.yaml
        "#]],
    );
}

#[test]
fn what_a_later_version_brings_is_refused_by_name() {
    check(
        r#"state: { postgres: { host: db } }
memory: 1GiB
profiles:
  db: { mysql: { host: localhost, user: weir } }
  pg: { sqlserver: { host: localhost } }
  my: { mysql: { host: localhost, user: weir, tls: { mode: prefer } } }
  lake: { files: { url: gs://lake/shop } }
streams:
  shop:
    source: db
    backfill: all
    start: { timestamp: "2026-01-01" }
    mask: []
    destinations: [ { profile: lake, mode: table, format: avro, layout: datastream } ]
  other:
    source: db
    backfill: { exclude: ["shop.audit"] }
    destinations: [ { profile: lake } ]
"#,
        expect![[r#"
            error: state in PostgreSQL is not available yet; use `dir` or `url`
             --> logweir.yaml:1:10
              |
            1 | state: { postgres: { host: db } }
              |          ^^^^^^^^

            error: SQL Server is not available yet
             --> logweir.yaml:5:9
              |
            5 |   pg: { sqlserver: { host: localhost } }
              |         ^^^^^^^^^

            error: `prefer` would go on in the clear where a server cannot encrypt; for MySQL use `require`, `verify_ca` or `verify_full`, or `disable`
             --> logweir.yaml:6:60
              |
            6 |   my: { mysql: { host: localhost, user: weir, tls: { mode: prefer } } }
              |                                                            ^^^^^^

            error: `url` has a value that is not possible: `gs://lake/shop`
             --> logweir.yaml:7:25
              |
            7 |   lake: { files: { url: gs://lake/shop } }
              |                         ^^^^^^^^^^^^^^
             = gs:// is not available yet; file:// and s3:// are

            error: backfill is not available yet for MySQL: this version follows the log from `start` on; write `backfill: none`
             --> logweir.yaml:11:15
               |
            11 |     backfill: all
               |               ^^^

            error: a start at a time is not available yet; use `now`, `earliest` or a place in the log
             --> logweir.yaml:12:14
               |
            12 |     start: { timestamp: "2026-01-01" }
               |              ^^^^^^^^^

            error: `mode: table` is not available yet; `changes` appends every change, and `logweir sql` shows the current state
             --> logweir.yaml:14:44
               |
            14 |     destinations: [ { profile: lake, mode: table, format: avro, layout: datastream } ]
               |                                            ^^^^^

            error: Avro is not available yet; use `parquet`
             --> logweir.yaml:14:59
               |
            14 |     destinations: [ { profile: lake, mode: table, format: avro, layout: datastream } ]
               |                                                           ^^^^

            error: `layout: datastream` is not available yet; use `flat`
             --> logweir.yaml:14:73
               |
            14 |     destinations: [ { profile: lake, mode: table, format: avro, layout: datastream } ]
               |                                                                         ^^^^^^^^^^

            error: backfill is not available yet for MySQL: this version follows the log from `start` on; write `backfill: none`
             --> logweir.yaml:17:17
               |
            17 |     backfill: { exclude: ["shop.audit"] }
               |                 ^^^^^^^

            10 mistakes in logweir.yaml
        "#]],
    );
}

#[test]
fn what_a_kind_of_source_does_not_know_is_shown() {
    check(
        r#"profiles:
  db: { mysql: { host: localhost, user: weir, slot: weir } }
  replay: { mysql_files: { path: "bin.*" } }
  pg: { postgres: { host: localhost, user: weir, database: shop, server_id: 7, slot: Weir-1, publication: "", tls: { key: k.pem } } }
  lake: { files: { url: file:///data/lake } }
streams:
  a: { source: db, start: { lsn: 0/10 }, destinations: [ { profile: lake } ] }
  b: { source: replay, backfill: { exclude: [audit] }, destinations: [ { profile: lake } ] }
  c: { source: pg, start: { gtid: 0-1-2 }, backfill: { tasks: 0, chunks: 1 }, destinations: [ { profile: lake } ] }
"#,
        expect![[r#"
            error: unknown key `slot`
             --> logweir.yaml:2:47
              |
            2 |   db: { mysql: { host: localhost, user: weir, slot: weir } }
              |                                               ^^^^
             = allowed here: connect_timeout, host, password, port, server_id, tls, user

            error: unknown key `server_id`
             --> logweir.yaml:4:66
              |
            4 |  localhost, user: weir, database: shop, server_id: 7, slot: Weir-1, publication: "", tls: { key: ***** } } }
              |                                         ^^^^^^^^^
             = allowed here: arrays, binary, connect_timeout, create, database, failover, heartbeat, host, max_retained_wal, origin, password, port, publication, slot, spill, streaming, tls, two_phase, user

            error: `slot` has a value that is not possible: `Weir-1`
             --> logweir.yaml:4:86
              |
            4 | ir, database: shop, server_id: 7, slot: Weir-1, publication: "", tls: { key: ***** } } }
              |                                         ^^^^^^
             = a slot's name consists of lower-case letters, digits and `_`, and has at most 63 characters

            error: `publication` has a value that is not possible: ``
             --> logweir.yaml:4:107
              |
            4 | erver_id: 7, slot: Weir-1, publication: "", tls: { key: ***** } } }
              |                                         ^^
             = a publication's name has 1 to 63 bytes

            error: `key` needs `cert` beside it
             --> logweir.yaml:4:123
              |
            4 | t: Weir-1, publication: "", tls: { key: ***** } } }
              |                                         ^^^^^

            error: an LSN is no place in a MySQL log; use `now`, `earliest`, `{ file, position }` or `{ gtid }`
             --> logweir.yaml:7:29
              |
            7 |   a: { source: db, start: { lsn: 0/10 }, destinations: [ { profile: lake } ] }
              |                             ^^^

            error: backfill is not available yet for MySQL: this version follows the log from `start` on; write `backfill: none`
             --> logweir.yaml:8:36
              |
            8 |   b: { source: replay, backfill: { exclude: [audit] }, destinations: [ { profile: lake } ] }
              |                                    ^^^^^^^

            error: `exclude` has a value that is not possible: `audit`
             --> logweir.yaml:8:46
              |
            8 |   b: { source: replay, backfill: { exclude: [audit] }, destinations: [ { profile: lake } ] }
              |                                              ^^^^^
             = a pattern is over `schema.table`, as in `shop.*`

            error: files and GTIDs are no places in a PostgreSQL log; use `now`, `earliest` or `{ lsn }`
             --> logweir.yaml:9:29
              |
            9 |   c: { source: pg, start: { gtid: 0-1-2 }, backfill: { tasks: 0, chunks: 1 }, destinations: [ { profile: lake } ] }
              |                             ^^^^

            error: `tasks` must be 1 to 64
             --> logweir.yaml:9:63
              |
            9 |   c: { source: pg, start: { gtid: 0-1-2 }, backfill: { tasks: 0, chunks: 1 }, destinations: [ { profile: lake } ] }
              |                                                               ^

            error: unknown key `chunks`
             --> logweir.yaml:9:66
              |
            9 |   c: { source: pg, start: { gtid: 0-1-2 }, backfill: { tasks: 0, chunks: 1 }, destinations: [ { profile: lake } ] }
              |                                                                  ^^^^^^
             = allowed here: chunk_rows, exclude, tasks

            11 mistakes in logweir.yaml
        "#]],
    );
}

#[test]
fn a_slot_feeds_one_stream() {
    check(
        r#"profiles:
  one: { postgres: { host: localhost, user: weir, database: shop, slot: weir } }
  two: { postgres: { host: localhost, port: 5432, user: weir, database: warehouse, slot: weir } }
  own: { postgres: { host: localhost, user: weir, database: shop } }
  far: { postgres: { host: localhost, port: 5433, user: weir, database: shop, slot: weir } }
  lake: { files: { url: file:///data/lake } }
streams:
  a: { source: one, destinations: [ { profile: lake } ] }
  b: { source: two, destinations: [ { profile: lake } ] }
  c.d: { source: own, destinations: [ { profile: lake } ] }
  c-d: { source: own, destinations: [ { profile: lake } ] }
  e: { source: far, destinations: [ { profile: lake } ] }
"#,
        expect![[r#"
            error: the streams `a` and `b` use the same slot `weir`
             --> logweir.yaml:9:3
              |
            9 |   b: { source: two, destinations: [ { profile: lake } ] }
              |   ^
             = leave `slot` out of the profile, so that each stream has its own, or give each stream a profile of its own

            error: the streams `c.d` and `c-d` use the same slot `logweir_c_d`
             --> logweir.yaml:11:3
               |
            11 |   c-d: { source: own, destinations: [ { profile: lake } ] }
               |   ^^^
             = name the streams so that they differ in more than punctuation, or give one of them a profile with its own `slot`

            2 mistakes in logweir.yaml
        "#]],
    );
}

#[test]
fn names_that_point_nowhere_are_shown() {
    check(
        r#"profiles:
  db: { mysql: { host: localhost, user: weir, tls: { cert: c.pem } } }
  lake: { files: { url: file:///data/lake } }
streams:
  shop:
    source: lake
    mask:
      - { columns: ["*.email"], with: hash }
      - { columns: [email], with: null }
    destinations:
      - profile: lake
      - profile: lake
      - profile: late
  a/b:
    source: db
    destinations: []
"#,
        expect![[r#"
            error: `cert` needs `key` beside it
             --> logweir.yaml:2:60
              |
            2 |   db: { mysql: { host: localhost, user: weir, tls: { cert: c.pem } } }
              |                                                            ^^^^^

            error: the profile `lake` is a destination (`files`)
             --> logweir.yaml:6:13
              |
            6 |     source: lake
              |             ^^^^
             = sources are: db

            error: masking with `hash` needs a `key`
             --> logweir.yaml:8:39
              |
            8 |       - { columns: ["*.email"], with: hash }
              |                                       ^^^^
             = write key: { env: NAME_OF_A_VARIABLE }, key: { file: /path/of/a/file } or the id of one of `keys`

            error: `columns` has a value that is not possible: `email`
             --> logweir.yaml:9:21
              |
            9 |       - { columns: [email], with: null }
              |                     ^^^^^
             = a pattern is over `schema.table.column`, as in `*.email`

            error: `with` is empty
             --> logweir.yaml:9:35
              |
            9 |       - { columns: [email], with: null }
              |                                   ^^^^
             = put the word in quotes: "null"

            error: two destinations of the stream are called `lake`
             --> logweir.yaml:12:18
               |
            12 |       - profile: lake
               |                  ^^^^
             = give each a `name` of its own: it stands for the destination in the checkpoint

            error: two destinations of the stream write to the same place of `lake`
             --> logweir.yaml:12:18
               |
            12 |       - profile: lake
               |                  ^^^^
             = give one of them another `path` or another profile

            error: there is no profile `late`
             --> logweir.yaml:13:18
               |
            13 |       - profile: late
               |                  ^^^^
             = did you mean `lake`? destinations are: lake

            error: `a/b` cannot be a name
             --> logweir.yaml:14:3
               |
            14 |   a/b:
               |   ^^^
             = a name consists of letters, digits, `-`, `_` and `.`, begins with a letter or digit and has at most 64 characters

            error: `destinations` needs at least one item
             --> logweir.yaml:16:19
               |
            16 |     destinations: []
               |                   ^

            10 mistakes in logweir.yaml
        "#]],
    );
}

#[test]
fn secrets_that_are_not_there_are_mistakes() {
    check(
        r#"profiles:
  db: { mysql: { host: localhost, user: weir, password: { env: LOGWEIR_NO_SUCH_VARIABLE } } }
  lake: { files: { url: s3://lake/shop, options: { secret_access_key: { file: secret } } } }
streams:
  shop:
    source: db
    mask: [ { columns: ["*.email"], with: hash, key: { evn: X } } ]
    destinations: [ { profile: lake } ]
"#,
        expect![[r#"
            error: the environment variable LOGWEIR_NO_SUCH_VARIABLE is not set
             --> logweir.yaml:2:64
              |
            2 |   db: { mysql: { host: localhost, user: weir, password: { env: LOGWEIR_NO_SUCH_VARIABLE } } }
              |                                                                ^^^^^^^^^^^^^^^^^^^^^^^^

            error: could not read the secret file /nowhere/secret: No such file or directory (os error 2)
             --> logweir.yaml:3:79
              |
            3 |   lake: { files: { url: s3://lake/shop, options: { secret_access_key: { file: secret } } } }
              |                                                                               ^^^^^^

            error: unknown key `evn`
             --> logweir.yaml:7:56
              |
            7 |     mask: [ { columns: ["*.email"], with: hash, key: { evn: * } } ]
              |                                                        ^^^
             = did you mean `env`? one of the keys env, file is needed

            3 mistakes in logweir.yaml
        "#]],
    );
}

#[test]
fn keys_given_twice_or_not_at_all() {
    check(
        r#"memory: 256MiB
memory: 512MiB
profiles:
  db: { mysql: { host: localhost, port: 99999, user: 7 } }
  lake: { files: {} }
  nothing:
streams:
  shop:
    tables: { include: shop.*, exclude: [orders] }
    start: yesterday
    destinations: [ { profile: lake, path: "{tabel}/", rotate: { size: 128, interval: 30 } } ]
"#,
        expect![[r#"
            error: the key `memory` is given twice
             --> logweir.yaml:2:1
              |
            2 | memory: 512MiB
              | ^^^^^^
             = the first is on line 1

            error: `port` must be 1 to 65535
             --> logweir.yaml:4:41
              |
            4 |   db: { mysql: { host: localhost, port: 99999, user: 7 } }
              |                                         ^^^^^

            error: `user` must be text, not a number
             --> logweir.yaml:4:54
              |
            4 |   db: { mysql: { host: localhost, port: 99999, user: 7 } }
              |                                                      ^
             = put it in quotes

            error: `files` lacks the key `url`
             --> logweir.yaml:5:11
              |
            5 |   lake: { files: {} }
              |           ^^^^^
             = `url`: The place: `file:///absolute/directory` or `s3://bucket/prefix`.

            error: `nothing` is empty
             --> logweir.yaml:6:3
              |
            6 |   nothing:
              |   ^^^^^^^
             = it must be a map with mysql or a map with mysql_files or a map with files or a map with postgres; leave the key out for the default, if there is one

            error: `shop` lacks the key `source`
             --> logweir.yaml:8:3
              |
            8 |   shop:
              |   ^^^^
             = `source`: The profile that changes come from.

            error: `include` must be a list, not text
             --> logweir.yaml:9:24
              |
            9 |     tables: { include: shop.*, exclude: [orders] }
              |                        ^^^^^^
             = put it in brackets: [ … ]

            error: `exclude` has a value that is not possible: `orders`
             --> logweir.yaml:9:42
              |
            9 |     tables: { include: shop.*, exclude: [orders] }
              |                                          ^^^^^^
             = a pattern is over `schema.table`, as in `shop.*`

            error: `start` has a value that is not possible: `yesterday`
             --> logweir.yaml:10:12
               |
            10 |     start: yesterday
               |            ^^^^^^^^^
             = allowed: `now` or `earliest` or a map with file and position or a map with gtid or a map with lsn

            error: `path` has a value that is not possible: `{tabel}/`
             --> logweir.yaml:11:44
               |
            11 |     destinations: [ { profile: lake, path: "{tabel}/", rotate: { size: 128, interval: 30 } } ]
               |                                            ^^^^^^^^^^
             = path has an unknown placeholder (path: {tabel}/, placeholder: tabel); there are {schema} {table} {stream} {yyyy} {mm} {dd} {hh}

            error: `size` must be a size such as 128MiB, not a number
             --> logweir.yaml:11:72
               |
            11 |     destinations: [ { profile: lake, path: "{tabel}/", rotate: { size: 128, interval: 30 } } ]
               |                                                                        ^^^
             = give the number its unit

            error: `interval` must be a duration such as 30s, not a number
             --> logweir.yaml:11:87
               |
            11 |     destinations: [ { profile: lake, path: "{tabel}/", rotate: { size: 128, interval: 30 } } ]
               |                                                                                       ^^
             = give the number its unit

            12 mistakes in logweir.yaml
        "#]],
    );
}

#[test]
fn a_text_that_is_not_yaml_has_a_place() {
    check(
        "memory: 1GiB\nprofiles: { db: { mysql: { host: localhost, password: hunter2\n",
        expect![[r#"
        error: this is not YAML: unclosed bracket '{'
         --> logweir.yaml:2:26
          |
        2 | profiles: { db: { mysql: { host: localhost, password:********
          |                          ^

        1 mistake in logweir.yaml
    "#]],
    );
    check(
        "",
        expect![[r#"
            error: the file is empty
             = it begins with the keys `profiles` and `streams`; `logweir quickstart` writes one that works

            1 mistake in logweir.yaml
        "#]],
    );
    check(
        "- a\n- b\n",
        expect![[r#"
            error: the file must be a map with profiles and streams, not a list
             --> logweir.yaml:1:1
              |
            1 | - a
              | ^
             = it begins with the keys `profiles` and `streams`; `logweir quickstart` writes one that works

            1 mistake in logweir.yaml
        "#]],
    );
}

#[test]
fn a_secret_in_the_file_is_not_repeated() {
    for text in [
        "profiles: { db: { mysql: { host: h, user: u, password: hunter2, oops: 1 } } }\n",
        "profiles:\n  db:\n    mysql: { password: \"hunter2\", host: 7 }\n",
        "profiles:\n  db:\n    mysql:\n      password: hunter2\n     host: [\n",
        "profiles: { l: { files: { url: s3://b, optins: { secret_access_key: hunter2 } } } }\n",
        "streams: { s: { mask: [ { key: hunter2 } ] } }\n",
    ] {
        let shown = problems(text);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn the_published_schema_lists_what_is_taken_and_nothing_else() {
    let schema = published_schema();
    let text = schema.to_string();
    assert!(!text.contains("x-later") && !text.contains("x-secret"));
    let properties = |pointer: &str| -> Vec<String> {
        let names = schema.pointer(pointer).and_then(serde_json::Value::as_object).map(|map| map.keys().cloned().collect());
        names.unwrap_or_else(|| panic!("{pointer} is not in {schema:#}"))
    };
    assert_eq!(properties("/properties"), ["connect_timeout", "http", "keys", "memory", "profiles", "sql", "state", "streams"]);
    // The keys of a stream, wherever the map of streams keeps its values.
    assert!(text.contains("exclude_columns") && text.contains("transforms") && text.contains("quarantine") && text.contains("tokenize"));
}

/// The published schema and the parser agree on files of both kinds: the schema, walked, refuses what was refused.
#[test]
fn the_published_schema_takes_what_the_parser_takes() {
    let published = published_schema();
    let by_schema = |text: &str| check::check(&Node::parse(text).unwrap(), &published, Path::new("/nowhere")).is_empty();
    let by_parser = |text: &str| parse("logweir.yaml", text, Path::new("/nowhere")).is_ok();
    for (lines, fine) in [
        ("", true),
        ("    backfill: none\n", true),
        ("    start: now\n", true),
        ("    start: { file: a.000001, position: 4 }\n", true),
        ("    start: { file: a.000001 }\n", false),
        ("    start: { file: a.000001, position: 3 }\n", false),
        ("    start: { gtid: 0-1-2 }\n", true),
        ("    start: { lsn: 7 }\n", false),
        ("    start: { lsn: x/0 }\n", false),
        ("    start: { timestamp: x }\n", false),
        ("    mask: [ { columns: [\"*.x\"], with: \"null\" } ]\n", true),
        ("    mask: [ { columns: [\"*.x\"], with: null } ]\n", false),
        ("    mask: [ { columns: [], with: email } ]\n", false),
        ("    mask: [ { columns: [\"*.x\"], with: date, to: month } ]\n", true),
        ("    mask: [ { columns: [\"*.x\"], with: date, to: week } ]\n", false),
        ("    mask: [ { names: \".*(email|phone).*\", types: [text], with: number, round: 0.5 } ]\n", true),
        ("    mask: [ { names: x, with: number, round: -1 } ]\n", false),
        ("    mask: { unlisted: fail, rules: [ { names: \".*\", with: keep } ] }\n", true),
        ("    mask: { unlisted: fail }\n", false),
        ("    mask: { unlisted: drop, rules: [] }\n", false),
        ("    on_bad_value: fail\n", true),
        ("    on_bad_value: quarantine\n", true),
        ("    transforms: []\n", true),
        (
            "    transforms: [ { table: a.b, sql: SELECT * FROM b, into: c.d, key: [x], unresolved: keep, schema_change: \"null\" } ]\n",
            true,
        ),
        ("    transforms: [ { table: a.b } ]\n", false),
        ("    udf: []\n", true),
        ("    udf: [ { table: a.b } ]\n", false),
        ("    references: { c: { path: c.csv, refresh: 10m } }\n", true),
        ("    references: { c: { file: c.csv } }\n", false),
        ("    references: { c: { profile: db, query: SELECT 1, max_size: 1MiB } }\n", true),
        ("    tables: { include: [\"a.*\"] }\nhttp: { listen: \"127.0.0.1:1\" }\n", true),
        ("    tables: { included: [\"a.*\"] }\n", false),
        ("memory: 128MiB\nconnect_timeout: 1m\nstate: { dir: x }\n", true),
        ("state: { url: file:///x }\n", true),
        ("state: { postgres: x }\n", false),
        ("state: {}\n", false),
        ("memory: 1GB\n", false),
        ("sql: { listen: x }\n", false),
        ("http:\n", true),
        ("memory:\n", false),
    ] {
        let text = with_stream(lines);
        assert_eq!(by_schema(&text), fine, "the schema on {lines}");
        assert_eq!(by_parser(&text), fine, "the parser on {lines}");
    }
    let postgres = |lines: &str| with_stream(lines).replace("mysql: {", "postgres: { database: shop,");
    for (lines, fine) in [
        ("", true),
        ("    backfill: all\n", true),
        ("    backfill: { chunk_rows: 7, tasks: 64 }\n", true),
        ("    backfill: { chunk_rows: 0 }\n", false),
        ("    backfill: { tasks: 65 }\n", false),
        ("    backfill: { where: x }\n", false),
        ("    backfill: some\n", false),
        ("    start: { lsn: 16/B374D848 }\n", true),
        ("    start: { lsn: 16 }\n", false),
    ] {
        let text = postgres(lines);
        assert_eq!(by_schema(&text), fine, "the schema on {lines}");
        assert_eq!(by_parser(&text), fine, "the parser on {lines}");
    }
}

#[test]
fn an_endpoint_for_sql_is_checked() {
    check(
        r#"sql:
  listen: 0.0.0.0:5432
  memory: 1MiB
  connections: 0
  users:
    - { name: ann, password: { env: PATH }, schemas: ["*"] }
    - { name: ann, password: { env: PATH }, schemas: ["shop*"] }
profiles:
  db: { mysql: { host: localhost, user: weir } }
  lake: { files: { url: file:///lake } }
streams:
  shop: { source: db, destinations: [ { profile: lake } ] }
"#,
        expect![[r#"
            error: `listen` is an address that other machines reach, and there is no `tls`
             --> logweir.yaml:2:11
              |
            2 |   listen: 0.0.0.0:5432
              |           ^^^^^^^^^^^^
             = add tls: { certificate: …, key: … } beside it, or listen on 127.0.0.1

            error: `memory` is too small
             --> logweir.yaml:3:11
              |
            3 |   memory: 1MiB
              |           ^^^^
             = a query needs at least 16MiB

            error: `connections` must be 1 to 10000
             --> logweir.yaml:4:16
              |
            4 |   connections: 0
              |                ^

            error: there are two users of this name
             --> logweir.yaml:7:15
              |
            7 |     - { name: ann, password: { env: PATH }, schemas: ["shop*"] }
              |               ^^^

            4 mistakes in logweir.yaml
        "#]],
    );
}
