//! Mistakes in what happens to rows: masks, functions, SQL.

use expect_test::expect;

use super::*;

#[test]
fn mistakes_in_masks_are_shown() {
    check(
        r#"keys:
  pii-2026: { env: PATH }
  other: hunter2
profiles:
  db: { mysql: { host: localhost, user: weir } }
  lake: { files: { url: file:///data/lake } }
streams:
  shop:
    source: db
    mask:
      unlisted: fail
      rules:
        - { columns: ["*.a"], with: hash, key: pii-2025 }
        - { names: "(email", with: tokenize }
        - { with: partial, to: month }
        - { names: b, with: date, to: week }
        - { names: c, with: number }
        - { names: d, with: number, round: 0 }
        - { names: e, with: number, round: 10, noise: 0.1 }
        - { names: f, with: number, noise: 2, key: pii-2026 }
    destinations: [ { profile: lake } ]
"#,
        expect![[r#"
            error: `other` is a secret and must not stand in the file
             --> logweir.yaml:3:10
              |
            3 |   other: *******
              |          ^^^^^^^
             = write { env: NAME_OF_A_VARIABLE } or { file: /path/of/a/file }

            error: `key` is neither a secret nor the id of one of `keys`
             --> logweir.yaml:13:48
               |
            13 |         - { columns: ["*.a"], with: hash, key: ******** }
               |                                                ^^^^^^^^
             = did you mean `pii-2026`? keys are: pii-2026, other

            error: `names` has a value that is not possible: `(email`
             --> logweir.yaml:14:20
               |
            14 |         - { names: "(email", with: tokenize }
               |                    ^^^^^^^^
             = unclosed group

            error: masking with `tokenize` needs a `key`
             --> logweir.yaml:14:36
               |
            14 |         - { names: "(email", with: tokenize }
               |                                    ^^^^^^^^
             = write key: { env: NAME_OF_A_VARIABLE }, key: { file: /path/of/a/file } or the id of one of `keys`

            error: a mask rule needs `columns`, `names` or `types`
             --> logweir.yaml:15:19
               |
            15 |         - { with: partial, to: month }
               |                   ^^^^^^^
             = `columns` are patterns such as "*.email", `names` a regular expression over the names of columns, `types` the source's types

            error: masking with `partial` takes no `to`
             --> logweir.yaml:15:32
               |
            15 |         - { with: partial, to: month }
               |                                ^^^^^

            error: `to` has a value that is not possible: `week`
             --> logweir.yaml:16:39
               |
            16 |         - { names: b, with: date, to: week }
               |                                       ^^^^
             = allowed: `year` or `quarter` or `month` or `day` or `hour`

            error: masking with `number` needs a `round`
             --> logweir.yaml:17:29
               |
            17 |         - { names: c, with: number }
               |                             ^^^^^^
             = write round: 100 to round, or noise: 0.1 for at most a tenth more or less

            error: `round` has a value that is not possible: `0`
             --> logweir.yaml:18:44
               |
            18 |         - { names: d, with: number, round: 0 }
               |                                            ^
             = a step is a number above zero, such as 100 or 0.5

            error: masking with `number` needs a `key`
             --> logweir.yaml:19:29
               |
            19 |         - { names: e, with: number, round: 10, noise: 0.1 }
               |                             ^^^^^^
             = write key: { env: NAME_OF_A_VARIABLE }, key: { file: /path/of/a/file } or the id of one of `keys`

            error: masking with `number` takes no `round` beside `noise`
             --> logweir.yaml:19:44
               |
            19 |         - { names: e, with: number, round: 10, noise: 0.1 }
               |                                            ^^

            error: `noise` must be 0 to 1
             --> logweir.yaml:20:44
               |
            20 |         - { names: f, with: number, noise: 2, key: ******** }
               |                                            ^

            12 mistakes in logweir.yaml
        "#]],
    );
}

#[test]
fn scripts_are_tried_when_the_file_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, script: &str| std::fs::write(directory.path().join(name), script).unwrap();
    write("good.js", "function process(json) { return json; }");
    write("bad.js", "function process(json) {\n  return json +;\n}");
    let udf = |rule: &str| parse("logweir.yaml", &with_stream(&format!("    udf: [ {{ table: shop.a, {rule} }} ]")), directory.path());
    let config = udf("file: good.js, columns: { total: \"decimal(12,2)\" }").unwrap();
    let rule = &config.streams.values().next().unwrap().udf[0];
    assert_eq!((rule.function.as_str(), rule.time.0.as_millis(), rule.memory.0), ("process", 100, 64 << 20));
    let mut told = String::new();
    for rule in [
        "file: missing.js",
        "file: bad.js",
        "file: good.js, function: other",
        "file: good.js, function: a b",
        "file: good.js, columns: { _metadata_x: text }",
        "file: good.js, columns: { x: varchar }",
        "file: good.js, time: 0ms",
        "file: good.js, script: x",
    ] {
        let problems = udf(rule).unwrap_err().render();
        told += &problems.replace(&directory.path().display().to_string(), "/etc");
    }
    expect![[r#"
        error: could not read the script of a UDF (file: /etc/missing.js): No such file or directory (os error 2)
         --> logweir.yaml:8:35
          |
        8 |     udf: [ { table: shop.a, file: missing.js } ]
          |                                   ^^^^^^^^^^

        1 mistake in logweir.yaml
        error: the script of a UDF cannot be used (file: bad.js, line: 2, column: 16, problem: SyntaxError: unexpected token in expression: ';')
         --> logweir.yaml:8:35
          |
        8 |     udf: [ { table: shop.a, file: bad.js } ]
          |                                   ^^^^^^

        1 mistake in logweir.yaml
        error: the script of a UDF cannot be used (file: good.js, problem: the script has no function other)
         --> logweir.yaml:8:35
          |
        8 |     udf: [ { table: shop.a, file: good.js, function: other } ]
          |                                   ^^^^^^^

        1 mistake in logweir.yaml
        error: the function of a UDF is no name (file: good.js, function: a b)
         --> logweir.yaml:8:54
          |
        8 |     udf: [ { table: shop.a, file: good.js, function: a b } ]
          |                                                      ^^^

        1 mistake in logweir.yaml
        error: a UDF cannot add a column of this name (file: good.js, column: _metadata_x)
         --> logweir.yaml:8:53
          |
        8 |     udf: [ { table: shop.a, file: good.js, columns: { _metadata_x: text } } ]
          |                                                     ^

        1 mistake in logweir.yaml
        error: `x` has a value that is not possible: `varchar`
         --> logweir.yaml:8:58
          |
        8 |     udf: [ { table: shop.a, file: good.js, columns: { x: varchar } } ]
          |                                                          ^^^^^^^
         = varchar is no type of a column: there are boolean, int, bigint, double, decimal(p,s), text, json, bytes, date, time, timestamp and timestamptz

        1 mistake in logweir.yaml
        error: `time` has a value that is not possible: `0ms`
         --> logweir.yaml:8:50
          |
        8 |     udf: [ { table: shop.a, file: good.js, time: 0ms } ]
          |                                                  ^^^
         = a duration must be above zero and at most 366d

        1 mistake in logweir.yaml
        error: unknown key `script`
         --> logweir.yaml:8:44
          |
        8 |     udf: [ { table: shop.a, file: good.js, script: x } ]
          |                                            ^^^^^^
         = allowed here: columns, file, function, memory, table, time, unresolved

        1 mistake in logweir.yaml
    "#]].assert_eq(&told);
}

#[test]
fn mistakes_in_sql_are_shown_where_they_stand() {
    check(
        &with_stream(
            r#"    references:
      countries: { profile: nobody, query: SELECT 1 }
    transforms:
      - table: shop.a
        sql: |
          SELECT id,
                 upper(name AS name
          FROM a
      - table: shop.b
        sql: >-
          SELECT id
          FROM b

          ORDER BY id
      - { table: shop.c, sql: "SELECT \"id\" FROM c LIMIT 5" }
      - { table: shop.d, sql: 'SELECT ''x'' AS x, id FROM d JOIN e ON d.id = e.id' }
      - table: shop.f
        sql: SELECT id FROM f
          WHERE id IN (SELECT 1)
      - table: shop.g
        into: "{datbase}.g"
        sql: "SELECT * FROM g"
      - table: shop.h
        sql: DELETE FROM h
"#,
        ),
        expect![[r#"
            error: there is no profile `nobody`
             --> logweir.yaml:9:29
              |
            9 |       countries: { profile: nobody, query: SELECT 1 }
              |                             ^^^^^^
             = sources are: db

            error: expected: ), found: AS
             --> logweir.yaml:14:29
               |
            14 |                  upper(name AS name
               |                             ^

            error: ORDER BY has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
             --> logweir.yaml:21:11
               |
            21 |           ORDER BY id
               |           ^^^^^
             = changes keep the order of the log; sort when you query

            error: LIMIT has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
             --> logweir.yaml:22:53
               |
            22 |       - { table: shop.c, sql: "SELECT \"id\" FROM c LIMIT 5" }
               |                                                     ^^^^^

            error: only LEFT JOIN has a place in a transform: with any other join a row without a match would be lost
             --> logweir.yaml:23:66
               |
            23 |       - { table: shop.d, sql: 'SELECT ''x'' AS x, id FROM d JOIN e ON d.id = e.id' }
               |                                                                  ^^^^^^^^^^^^^^^^
             = write LEFT JOIN reference ON source_column = reference.column

            error: a subquery has no place in a transform
             --> logweir.yaml:26:24
               |
            26 |           WHERE id IN (SELECT 1)
               |                        ^^^^^^^^
             = make what it reads a reference table, and LEFT JOIN it

            error: `into: {datbase}.g` has a placeholder that is not known
             --> logweir.yaml:28:15
               |
            28 |         into: "{datbase}.g"
               |               ^
             = {schema} and {table} stand for the names of the source

            error: a transform is one SELECT
             --> logweir.yaml:31:14
               |
            31 |         sql: DELETE FROM h
               |              ^

            8 mistakes in logweir.yaml
        "#]],
    );
}
