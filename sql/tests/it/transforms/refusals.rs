//! What has no place in a rule, whatever the table, and what is said about it: the sentence, the place in the SQL, and what to do.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use expect_test::{Expect, expect};
use logweir_sql::{Reference, References, SqlContext};

use super::{customers, customers_under, refused, rule};

fn countries() -> References {
    let rows = RecordBatch::try_from_iter([
        ("code", Arc::new(StringArray::from(vec!["de", "fr"])) as ArrayRef),
        ("label", Arc::new(StringArray::from(vec!["Germany", "France"])) as ArrayRef),
        ("rank", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
    ]);
    References::from_iter([Reference::new("countries", rows.unwrap())])
}

pub(super) fn check(sql: &str, expected: Expect) {
    let context = SqlContext { references: countries(), ..SqlContext::default() };
    expected.assert_eq(&refused(vec![rule(sql)], context, &customers()));
}

#[test]
fn what_looks_at_many_rows() {
    check(
        "SELECT sum(age) AS total FROM customers",
        expect![[r#"
        sum has no place in a transform: it looks at many rows, and a transform sees one change at a time
          SELECT sum(age) AS total FROM customers
                 ^^^
        help: aggregate when you query what was landed
    "#]],
    );
    check(
        "SELECT id, count(*) AS n FROM customers",
        expect![[r#"
        count has no place in a transform: it looks at many rows, and a transform sees one change at a time
          SELECT id, count(*) AS n FROM customers
                     ^^^^^
        help: aggregate when you query what was landed
    "#]],
    );
    check(
        "SELECT id FROM customers WHERE max(age) > 3",
        expect![[r#"
        max has no place in a transform: it looks at many rows, and a transform sees one change at a time
          SELECT id FROM customers WHERE max(age) > 3
                                         ^^^
        help: aggregate when you query what was landed
    "#]],
    );
    check(
        "SELECT id, row_number() OVER (ORDER BY age) AS n FROM customers",
        expect![[r#"
        row_number has no place in a transform: it looks at many rows, and a transform sees one change at a time
          SELECT id, row_number() OVER (ORDER BY age) AS n FROM customers
                     ^^^^^^^^^^
        help: number and compare rows when you query what was landed
    "#]],
    );
    check(
        "SELECT id, sum(age) OVER (PARTITION BY name) AS n\nFROM customers",
        expect![[r#"
        sum has no place in a transform: it looks at many rows, and a transform sees one change at a time
          SELECT id, sum(age) OVER (PARTITION BY name) AS n
                     ^^^
        help: number and compare rows when you query what was landed
    "#]],
    );
    check(
        "SELECT id,\n       upper(name) AS name,\n       1 + avg(age) AS n\nFROM customers",
        expect![[r#"
        avg has no place in a transform: it looks at many rows, and a transform sees one change at a time
                 1 + avg(age) AS n
                     ^^^
        help: aggregate when you query what was landed
    "#]],
    );
    check(
        "SELECT name FROM customers GROUP BY name",
        expect![[r#"
        GROUP BY has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          SELECT name FROM customers GROUP BY name
                                     ^^^^^
        help: aggregate when you query what was landed
    "#]],
    );
    check(
        "SELECT name, count(*) AS n FROM customers GROUP BY ALL",
        expect![[r#"
        GROUP BY has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          SELECT name, count(*) AS n FROM customers GROUP BY ALL
                                                    ^^^^^
        help: aggregate when you query what was landed
    "#]],
    );
    check(
        "SELECT id FROM customers HAVING id > 3",
        expect![[r#"
        HAVING has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          SELECT id FROM customers HAVING id > 3
                                   ^^^^^^
    "#]],
    );
    check(
        "SELECT id FROM customers QUALIFY row_number() OVER (ORDER BY id) = 1",
        expect![[r#"
        QUALIFY has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          SELECT id FROM customers QUALIFY row_number() OVER (ORDER BY id) = 1
                                   ^^^^^^^
    "#]],
    );
    check(
        "SELECT id, sum(age) OVER w AS n FROM customers WINDOW w AS (ORDER BY id)",
        expect![[r#"
        WINDOW has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          SELECT id, sum(age) OVER w AS n FROM customers WINDOW w AS (ORDER BY id)
                                                         ^^^^^^
    "#]],
    );
    check(
        "SELECT DISTINCT id FROM customers",
        expect![[r#"
        DISTINCT has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          SELECT DISTINCT id FROM customers
                 ^^^^^^^^
    "#]],
    );
    check(
        "SELECT DISTINCT ON (name) id FROM customers",
        expect![[r#"
        DISTINCT has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          SELECT DISTINCT ON (name) id FROM customers
                 ^^^^^^^^
    "#]],
    );
    check(
        "SELECT id FROM customers ORDER BY id",
        expect![[r#"
        ORDER BY has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          SELECT id FROM customers ORDER BY id
                                   ^^^^^
        help: changes keep the order of the log; sort when you query
    "#]],
    );
    check(
        "SELECT id\nFROM customers\nORDER BY age DESC, id",
        expect![[r#"
        ORDER BY has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          ORDER BY age DESC, id
          ^^^^^
        help: changes keep the order of the log; sort when you query
    "#]],
    );
    check(
        "SELECT id FROM customers ORDER BY ALL",
        expect![[r#"
        ORDER BY has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          SELECT id FROM customers ORDER BY ALL
                                   ^^^^^
        help: changes keep the order of the log; sort when you query
    "#]],
    );
    check(
        "SELECT id FROM customers LIMIT 5",
        expect![[r#"
        LIMIT has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          SELECT id FROM customers LIMIT 5
                                   ^^^^^
    "#]],
    );
    check(
        "SELECT id FROM customers OFFSET 5",
        expect![[r#"
        OFFSET has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          SELECT id FROM customers OFFSET 5
                                   ^^^^^^
    "#]],
    );
    check(
        "SELECT id FROM customers FETCH FIRST 5 ROWS ONLY",
        expect![[r#"
        FETCH has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          SELECT id FROM customers FETCH FIRST 5 ROWS ONLY
                                   ^^^^^
    "#]],
    );
    check(
        "SELECT TOP 5 id FROM customers",
        expect![[r#"
        TOP has no place in a transform: a transform sees one change at a time, so what it says of a row cannot depend on other rows
          SELECT TOP 5 id FROM customers
                 ^^^
    "#]],
    );
}

#[test]
fn what_would_be_taken_for_something_else_or_take_for_ever() {
    check(
        "SELECT id FROM customers WHERE name SIMILAR TO 'a%'",
        expect![[r#"
        SIMILAR TO has no place in a transform
          SELECT id FROM customers WHERE name SIMILAR TO 'a%'
                                         ^^^^^^^^^^^^^^^^^^^^
        help: write LIKE, or a regular expression: name ~ '^(a|b).*$'
    "#]],
    );
    let chain = "->'a'".repeat(9);
    check(
        &format!("SELECT id, name{chain}->>'b' AS b FROM customers"),
        expect![[r#"
        more than 8 arrows stand in a chain
          SELECT id, name->'a'->'a'->'a'->'a'->'a'->'a'->'a'->'a'->'a'->>'b' AS b FROM customers
                     ^^^^^^^^^^^^^^
        help: write json_get_str(column, 'a', 'b', …), or json_get_json for a part that is no text
    "#]],
    );
}

#[test]
fn what_stands_behind_the_name_of_a_table() {
    check(
        "SELECT id FROM customers TABLESAMPLE SYSTEM (10)",
        expect![[r#"
        only an alias has a place behind the name of a table
          SELECT id FROM customers TABLESAMPLE SYSTEM (10)
                         ^^^^^^^^^
        help: write the filter into WHERE: every change comes by, and each is kept or not by what it says
    "#]],
    );
    check(
        "SELECT id FROM customers PARTITION (p1)",
        expect![[r#"
        only an alias has a place behind the name of a table
          SELECT id FROM customers PARTITION (p1)
                         ^^^^^^^^^
        help: write the filter into WHERE: every change comes by, and each is kept or not by what it says
    "#]],
    );
    check(
        "SELECT c.id FROM customers c LEFT JOIN countries TABLESAMPLE (5 ROWS) ON c.country = countries.code",
        expect![[r#"
        only an alias has a place behind the name of a table
          SELECT c.id FROM customers c LEFT JOIN countries TABLESAMPLE (5 ROWS) ON c.country = countries.code
                                                 ^^^^^^^^^
        help: write the filter into WHERE: every change comes by, and each is kept or not by what it says
    "#]],
    );
}

#[test]
fn what_is_more_than_one_select() {
    check(
        "SELECT id FROM customers UNION ALL SELECT id FROM customers",
        expect![[r#"
        UNION has no place in a transform
          SELECT id FROM customers UNION ALL SELECT id FROM customers
                                   ^^^^^
        help: a transform is one SELECT; several rules with the same `into` bring several tables together
    "#]],
    );
    check(
        "SELECT id FROM customers EXCEPT SELECT id FROM customers",
        expect![[r#"
        EXCEPT has no place in a transform
          SELECT id FROM customers EXCEPT SELECT id FROM customers
                                   ^^^^^^
        help: a transform is one SELECT; several rules with the same `into` bring several tables together
    "#]],
    );
    check(
        "WITH c AS (SELECT * FROM customers) SELECT id FROM c",
        expect![[r#"
        WITH has no place in a transform
          WITH c AS (SELECT * FROM customers) SELECT id FROM c
          ^^^^
        help: write one SELECT over the table
    "#]],
    );
    check(
        "SELECT id FROM (SELECT * FROM customers) c",
        expect![[r#"
        a transform reads tables by their names
          SELECT id FROM (SELECT * FROM customers) c
                          ^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: make what this reads a reference table, and LEFT JOIN it
    "#]],
    );
    check(
        "SELECT id FROM customers WHERE id IN (SELECT 1)",
        expect![[r#"
        a subquery has no place in a transform
          SELECT id FROM customers WHERE id IN (SELECT 1)
                                                ^^^^^^^^
        help: make what it reads a reference table, and LEFT JOIN it
    "#]],
    );
    check(
        "SELECT id, (SELECT max(id) FROM customers) AS m FROM customers",
        expect![[r#"
        a subquery has no place in a transform
          SELECT id, (SELECT max(id) FROM customers) AS m FROM customers
                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: make what it reads a reference table, and LEFT JOIN it
    "#]],
    );
    check(
        "SELECT id FROM customers WHERE EXISTS (SELECT 1)",
        expect![[r#"
        a subquery has no place in a transform
          SELECT id FROM customers WHERE EXISTS (SELECT 1)
                                                 ^^^^^^^^
        help: make what it reads a reference table, and LEFT JOIN it
    "#]],
    );
    check(
        "VALUES (1)",
        expect![[r#"
        a transform is one SELECT
          VALUES (1)
                 ^^^
    "#]],
    );
    check(
        "SELECT 1",
        expect![[r#"
        a transform selects FROM the changed table
        help: write FROM and its name, or FROM source
    "#]],
    );
    check(
        "SELECT id FROM customers; SELECT 1",
        expect![[r#"
        a transform is one SELECT
    "#]],
    );
    check(
        "SELECT id FROM customers;",
        expect![[r#"
        shop.customers: id* Int32
    "#]],
    );
    check(
        "DELETE FROM customers",
        expect![[r#"
        a transform is one SELECT
    "#]],
    );
    check(
        "EXPLAIN SELECT id FROM customers",
        expect![[r#"
        a transform is one SELECT
    "#]],
    );
    check(
        "COPY customers TO 'x'",
        expect![[r#"
        a transform is one SELECT
    "#]],
    );
    check(
        "CREATE TABLE t AS SELECT id FROM customers",
        expect![[r#"
        a transform is one SELECT
    "#]],
    );
    check(
        "SELECT id INTO x FROM customers",
        expect![[r#"
        only SELECT, FROM, LEFT JOIN and WHERE have a place in a transform
          SELECT id INTO x FROM customers
                    ^^^^
    "#]],
    );
    check(
        "FROM customers",
        expect![[r#"
        only SELECT, FROM, LEFT JOIN and WHERE have a place in a transform
          FROM customers
          ^^^^^^^^^^^^^^
    "#]],
    );
    check(
        "SELECT id FROM customers FOR UPDATE",
        expect![[r#"
        only SELECT, FROM, LEFT JOIN and WHERE have a place in a transform
          SELECT id FROM customers FOR UPDATE
                                   ^^^
    "#]],
    );
    check(
        "TABLE customers",
        expect![[r#"
        expected: an SQL statement, found: TABLE
          TABLE customers
          ^
    "#]],
    );
    check(
        "",
        expect![[r#"
        a transform is one SELECT
    "#]],
    );
    check(
        "-- nothing",
        expect![[r#"
        a transform is one SELECT
    "#]],
    );
}

#[test]
fn what_is_another_at_every_call() {
    check(
        "SELECT id, now() AS t FROM customers",
        expect![[r#"
        now has no place in a transform: a change that is read again must become the same again
          SELECT id, now() AS t FROM customers
                     ^^^
        help: use _metadata_read_timestamp or _metadata_timestamp
    "#]],
    );
    check(
        "SELECT id, current_date AS t FROM customers",
        expect![[r#"
        current_date has no place in a transform: a change that is read again must become the same again
          SELECT id, current_date AS t FROM customers
                     ^^^^^^^^^^^^
        help: use _metadata_read_timestamp or _metadata_timestamp
    "#]],
    );
    check(
        "SELECT id, CURRENT_TIMESTAMP AS t FROM customers",
        expect![[r#"
        CURRENT_TIMESTAMP has no place in a transform: a change that is read again must become the same again
          SELECT id, CURRENT_TIMESTAMP AS t FROM customers
                     ^^^^^^^^^^^^^^^^^
        help: use _metadata_read_timestamp or _metadata_timestamp
    "#]],
    );
    check(
        "SELECT id FROM customers WHERE random() < 0.5",
        expect![[r#"
        random has no place in a transform: a change that is read again must become the same again
          SELECT id FROM customers WHERE random() < 0.5
                                         ^^^^^^
    "#]],
    );
    check(
        "SELECT id, uuid() AS u FROM customers",
        expect![[r#"
        uuid has no place in a transform: a change that is read again must become the same again
          SELECT id, uuid() AS u FROM customers
                     ^^^^
    "#]],
    );
    check(
        "SELECT id, version() AS u FROM customers",
        expect![[r#"
        version has no place in a transform: a change that is read again must become the same again
          SELECT id, version() AS u FROM customers
                     ^^^^^^^
    "#]],
    );
    check(
        "SELECT id, $1 AS p FROM customers",
        expect![[r#"
        a transform has no parameters
          SELECT id, $1 AS p FROM customers
                     ^^
    "#]],
    );
    check(
        "SELECT id, ? AS p FROM customers",
        expect![[r#"
        a transform has no parameters
          SELECT id, ? AS p FROM customers
                     ^
    "#]],
    );
    check(
        "SELECT id, @x AS p FROM customers",
        expect![[r#"
        a transform has no variables
          SELECT id, @x AS p FROM customers
                     ^^
    "#]],
    );
}

#[test]
fn what_the_parser_says() {
    check(
        "SELECT id FROM customers WHERE",
        expect![[r#"
        expected: an expression, found: EOF
          SELECT id FROM customers WHERE
                                        ^
    "#]],
    );
    check(
        "SELECT id,, name FROM customers",
        expect![[r#"
        expected: an expression, found: ,
          SELECT id,, name FROM customers
                    ^
    "#]],
    );
    check(
        "SELECT id FROM customers WHERE name = 'x",
        expect![[r#"
        unterminated string literal
          SELECT id FROM customers WHERE name = 'x
                                                ^
    "#]],
    );
    check(
        "SELEC id FROM customers",
        expect![[r#"
        expected: an SQL statement, found: SELEC
          SELEC id FROM customers
          ^
    "#]],
    );
    check(
        "SELECT id\nFROM customers\nWHERE (age > 3",
        expect![[r#"
        expected: ), found: EOF
          WHERE (age > 3
                        ^
    "#]],
    );
    check(
        "SELECT id FROM customers WHERE a b c",
        expect![[r#"
        expected: end of statement, found: b
          SELECT id FROM customers WHERE a b c
                                           ^
    "#]],
    );
    check(
        "SELECT id FROM customers #",
        expect![[r#"
        expected: end of statement, found: #
          SELECT id FROM customers #
                                   ^
    "#]],
    );
    check(
        "SELECT id, \"name FROM customers",
        expect![[r#"
        expected close delimiter '"' before EOF
          SELECT id, "name FROM customers
                     ^
    "#]],
    );
    check(
        "SELECT 'größe', id, FROM customers WHERE )",
        expect![[r#"
        expected: an expression, found: )
          SELECT 'größe', id, FROM customers WHERE )
                                                   ^
    "#]],
    );
    check(
        "{% if x %}",
        expect![[r#"
        expected: an SQL statement, found: {
          {% if x %}
          ^
    "#]],
    );
}

/// `with` says what stands for number `i`; the numbers go up to `count`.
fn chain(count: usize, operator: &str, with: fn(usize) -> String) -> String {
    (0..count).map(with).collect::<Vec<_>>().join(operator)
}

#[test]
fn what_is_too_deep_for_the_stack() {
    let cut = |text: String| text.lines().map(|line| format!("{}\n", line.chars().take(90).collect::<String>())).collect::<String>();
    let said = |sql: String| cut(refused(vec![rule(&sql)], SqlContext::default(), &customers()));
    expect![[r#"
        an expression is more than 400 deep
          SELECT id FROM customers WHERE name <> 'x0' AND name <> 'x1' AND name <> 'x2' AND name <
                                         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: write IN (…) for many comparisons with one column, or look the values up in a refere
    "#]]
    .assert_eq(&said(format!("SELECT id FROM customers WHERE {}", chain(2000, " AND ", |i| format!("name <> 'x{i}'")))));
    expect![[r#"
        parentheses or calls are nested too deep
    "#]]
    .assert_eq(&said(format!("SELECT id FROM customers WHERE {}age{} > 3", "(".repeat(100), ")".repeat(100))));
    expect![[r#"
        a transform has more than 20000 words
        help: look many values up in a reference table
    "#]]
    .assert_eq(&said(format!("SELECT id FROM customers WHERE {}", chain(9000, " OR ", |i| format!("age = {i}")))));
    // What is wide is not deep.
    expect![[r#"
        shop.customers: id* Int32
    "#]]
    .assert_eq(&said(format!("SELECT id FROM customers WHERE age IN ({})", chain(5000, ", ", |i| i.to_string()))));
    expect![[r#"
        shop.customers: id* Int32, x Utf8
    "#]]
    .assert_eq(&said(format!("SELECT id, CASE {} END AS x FROM customers", chain(900, " ", |i| format!("WHEN age = {i} THEN 'x{i}'")))));
    // The deepest that is taken is planned and evaluated.
    let deepest = format!(
        "SELECT id, {} AS x FROM customers WHERE {}",
        vec!["name"; 390].join(" || "),
        chain(390, " AND ", |i| format!("name <> 'x{i}'"))
    );
    let made = customers_under(&deepest, "insert 1 | a | 3\n insert 2 | x7 | 3\n insert 3 | NULL | 3");
    assert_eq!(made, format!("shop.customers: id* Int32, x Utf8\nINSERT 1 | {}\n", "a".repeat(390)));
}

#[test]
fn regular_expressions_that_are_none() {
    for (sql, expected) in [
        (
            "SELECT id, regexp_replace(name, '(', '') AS n FROM customers",
            expect![[r#"
                the regular expression is none: unclosed group
                  SELECT id, regexp_replace(name, '(', '') AS n FROM customers
                             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
            "#]],
        ),
        (
            "SELECT id FROM customers WHERE name ~ 'a{2,1}'",
            expect![[r#"
                the regular expression is none: invalid repetition count range, the start must be <= the end
                  SELECT id FROM customers WHERE name ~ 'a{2,1}'
                                                 ^^^^^^^^^^^^^^^
            "#]],
        ),
    ] {
        check(sql, expected);
    }
}
