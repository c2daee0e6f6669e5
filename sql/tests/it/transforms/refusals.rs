//! What is refused, and what is said about it: the sentence, the place in the SQL, and what to do.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use expect_test::{Expect, expect};
use logweir_core::Pattern;
use logweir_sql::{Reference, References, SqlContext, SqlRule};

use super::{customers, customers_under, refused, rule};

fn countries() -> References {
    let rows = RecordBatch::try_from_iter([
        ("code", Arc::new(StringArray::from(vec!["de", "fr"])) as ArrayRef),
        ("label", Arc::new(StringArray::from(vec!["Germany", "France"])) as ArrayRef),
        ("rank", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
    ]);
    References::from_iter([Reference::new("countries", rows.unwrap())])
}

fn check(sql: &str, expected: Expect) {
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
fn names_that_are_not_there() {
    check(
        "SELECT id, nmae FROM customers",
        expect![[r#"
        column 'nmae' not found
          SELECT id, nmae FROM customers
                     ^^^^
        help: did you mean customers.name?
    "#]],
    );
    check(
        "SELECT id, upper(nmae) AS name FROM customers",
        expect![[r#"
        column 'nmae' not found
          SELECT id, upper(nmae) AS name FROM customers
                           ^^^^
        help: did you mean customers.name?
    "#]],
    );
    check(
        "SELECT id FROM customers WHERE id > 3\n  AND aeg > 5",
        expect![[r#"
        column 'aeg' not found
            AND aeg > 5
                ^^^
    "#]],
    );
    check(
        "SELECT id, \"Name\" FROM customers",
        expect![[r#"
        column 'Name' not found
          SELECT id, "Name" FROM customers
                     ^^^^^^
        help: did you mean customers.name or customers.age?
    "#]],
    );
    check(
        "SELECT id, uper(name) AS name FROM customers",
        expect![[r#"
            there is no function uper
              SELECT id, uper(name) AS name FROM customers
                         ^^^^
            help: did you mean upper?
        "#]],
    );
    check(
        "SELECT id, mask_hush(name) AS name FROM customers",
        expect![[r#"
            there is no function mask_hush
              SELECT id, mask_hush(name) AS name FROM customers
                         ^^^^^^^^^
        "#]],
    );
    check(
        "SELECT id FROM orders",
        expect![[r#"
        the rule is for shop.customers, and its SQL selects from another table
          SELECT id FROM orders
                         ^^^^^^
        help: write FROM customers, or FROM source in a rule for several tables
    "#]],
    );
    check(
        "SELECT id FROM sales.customers",
        expect![[r#"
        the rule is for shop.customers, and its SQL selects from another table
          SELECT id FROM sales.customers
                         ^^^^^^^^^^^^^^^
        help: write FROM customers, or FROM source in a rule for several tables
    "#]],
    );
    check(
        "SELECT orders.id FROM customers",
        expect![[r#"
        column 'id' not found in 'orders'
          SELECT orders.id FROM customers
                 ^^^^^^^^^
        help: did you mean customers.id?
    "#]],
    );
    check(
        "SELECT customers.id, c.name FROM customers AS c",
        expect![[r#"
        column 'id' not found in 'customers'
          SELECT customers.id, c.name FROM customers AS c
                 ^^^^^^^^^^^^
        help: did you mean c.id?
    "#]],
    );
    check(
        "SELECT o.* FROM customers",
        expect![[r#"
        there is no table o here
          SELECT o.* FROM customers
                 ^
    "#]],
    );
    check(
        "SELECT id, _metadata_position FROM customers",
        expect![[r#"
        column '_metadata_position' not found
          SELECT id, _metadata_position FROM customers
                     ^^^^^^^^^^^^^^^^^^
        help: did you mean customers._metadata_timestamp or customers._metadata_sequence or customers._metadata_change_type or customers._metadata_deleted or customers._metadata_read_timestamp or customers._metadata_read_method or customers._metadata_source or customers._metadata_unchanged?
    "#]],
    );
    check(
        "SELECT id, _metadata_source['tabel'] AS t FROM customers",
        expect![[r#"
        field tabel not found in struct
          SELECT id, _metadata_source['tabel'] AS t FROM customers
                     ^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        "SELECT id, CAST(age AS NUMBR) AS n FROM customers",
        expect![[r#"
        unsupported SQL type NUMBR
          SELECT id, CAST(age AS NUMBR) AS n FROM customers
                          ^^^
    "#]],
    );
    check(
        "SELECT id, nmae, aeg, upper(xx) FROM customers WHERE yy = 1",
        expect![[r#"
        column 'yy' not found
          SELECT id, nmae, aeg, upper(xx) FROM customers WHERE yy = 1
                                                               ^^
        column 'nmae' not found
          SELECT id, nmae, aeg, upper(xx) FROM customers WHERE yy = 1
                     ^^^^
        help: did you mean customers.name?
        column 'aeg' not found
          SELECT id, nmae, aeg, upper(xx) FROM customers WHERE yy = 1
                           ^^^
        column 'xx' not found
          SELECT id, nmae, aeg, upper(xx) FROM customers WHERE yy = 1
                                      ^^
    "#]],
    );
}

#[test]
fn what_does_not_fit_together() {
    check(
        "SELECT id, upper(age, name) AS name FROM customers",
        expect![[r#"
        function 'upper' expects 1 arguments but received 2
          SELECT id, upper(age, name) AS name FROM customers
                     ^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        "SELECT id, name + 1 AS name FROM customers",
        expect![[r#"
        expressions have incompatible types
          SELECT id, name + 1 AS name FROM customers
                     ^^^^^^^^
        help: one is Utf8, the other Int64: make them of one type with CAST
    "#]],
    );
    check(
        "SELECT id, name AND true AS x FROM customers",
        expect![[r#"
        expressions have incompatible types
          SELECT id, name AND true AS x FROM customers
                     ^^^^^^^^^^^^^
        help: one is Utf8, the other Boolean: make them of one type with CAST
    "#]],
    );
    check(
        "SELECT id FROM customers WHERE age",
        expect![[r#"
        the condition is Int32, neither true nor false
          SELECT id FROM customers WHERE age
                                         ^^^
    "#]],
    );
    check(
        "SELECT id FROM customers WHERE upper(name)",
        expect![[r#"
        the condition is Utf8, neither true nor false
          SELECT id FROM customers WHERE upper(name)
                                         ^^^^^^^^^^
    "#]],
    );
    check(
        "SELECT id FROM customers WHERE age = DATE '2024-01-01'",
        expect![[r#"
        shop.customers: id* Int32
    "#]],
    );
    check(
        "SELECT id, NULL AS nothing FROM customers",
        expect![[r#"
        the type of nothing is not known
          SELECT id, NULL AS nothing FROM customers
                     ^^^^
        help: say it: CAST(NULL AS VARCHAR)
    "#]],
    );
    check(
        "SELECT id, abs(name) AS x FROM customers",
        expect![[r#"
        function 'abs' expects Numeric but received String
          SELECT id, abs(name) AS x FROM customers
                     ^^^^^^^^
    "#]],
    );
    check(
        "SELECT id, substr(name) AS x FROM customers",
        expect![[r#"
        substring without for/from is not valid
          SELECT id, substr(name) AS x FROM customers
                            ^^^^
    "#]],
    );
    check(
        "SELECT id, CASE WHEN age > 3 THEN 'x' ELSE age END AS x FROM customers",
        expect![[r#"
        shop.customers: id* Int32, x Utf8
    "#]],
    );
    check(
        "SELECT id, CAST('x' AS INT) AS x FROM customers",
        expect![[r#"
        cannot cast string 'x' to value of Int32 type
          SELECT id, CAST('x' AS INT) AS x FROM customers
                          ^^^
    "#]],
    );
    check(
        "SELECT id, 1 / 0 AS x FROM customers",
        expect![[r#"
        shop.customers: id* Int32, x Int64
    "#]],
    );
    check(
        "SELECT id FROM customers WHERE name ~ '(' ",
        expect![[r#"
        regex parse error: unclosed group
          SELECT id FROM customers WHERE name ~ '(' 
                                         ^^^^^^^^^^
    "#]],
    );
    check(
        "SELECT id, name LIKE 3 AS x FROM customers",
        expect![[r#"
        there isn't a common type to coerce Utf8 and Int64 in LIKE expression
          SELECT id, name LIKE 3 AS x FROM customers
                     ^^^^^^^^^^^
    "#]],
    );
    check(
        "SELECT id, age['x'] AS x FROM customers",
        expect![[r#"
        cannot access field at argument 1: type Int32 is not Struct, Map, or Null
          SELECT id, age['x'] AS x FROM customers
                     ^^^^^^^
    "#]],
    );
}

#[test]
fn columns_of_the_target() {
    check(
        "SELECT id, upper(name) FROM customers",
        expect![[r#"
        the column that this makes has no name
          SELECT id, upper(name) FROM customers
                     ^^^^^^^^^^
        help: write upper(name) AS name
    "#]],
    );
    check(
        "SELECT id, age + 1, name || 'x' FROM customers",
        expect![[r#"
        the column that this makes has no name
          SELECT id, age + 1, name || 'x' FROM customers
                     ^^^^^^^
        help: write age + 1 AS name
        the column that this makes has no name
          SELECT id, age + 1, name || 'x' FROM customers
                              ^^^^^^^^^^^
        help: write name || 'x' AS name
    "#]],
    );
    check(
        "SELECT id, name, upper(name) AS name FROM customers",
        expect![[r#"
        two columns of the target are called name
          SELECT id, name, upper(name) AS name FROM customers
                           ^^^^^^^^^^
        help: give one another name with AS, or leave it out of * with EXCEPT
    "#]],
    );
    check(
        "SELECT *, upper(name) AS name FROM customers",
        expect![[r#"
        two columns of the target are called name
          SELECT *, upper(name) AS name FROM customers
                    ^^^^^^^^^^
        help: give one another name with AS, or leave it out of * with EXCEPT
    "#]],
    );
    check(
        "SELECT *, upper(name) AS \"NAME\" FROM customers",
        expect![[r#"
        two columns of the target are called name
          SELECT *, upper(name) AS "NAME" FROM customers
                    ^^^^^^^^^^
        help: give one another name with AS, or leave it out of * with EXCEPT
    "#]],
    );
    check(
        "SELECT id, name AS _metadata_sequence FROM customers",
        expect![[r#"
        _metadata_sequence is a metadata column and cannot be made by a transform
          SELECT id, name AS _metadata_sequence FROM customers
                     ^^^^
        help: give it another name with AS
    "#]],
    );
    check(
        "SELECT id, name AS _metadata_mine FROM customers",
        expect![[r#"
        a name that begins with _metadata_ is kept for metadata
          SELECT id, name AS _metadata_mine FROM customers
                     ^^^^
        help: give it another name with AS
    "#]],
    );
    check(
        "SELECT id, _metadata_timestamp AS _metadata_sequence FROM customers",
        expect![[r#"
        _metadata_sequence is a metadata column and cannot be made by a transform
          SELECT id, _metadata_timestamp AS _metadata_sequence FROM customers
                     ^^^^^^^^^^^^^^^^^^^
        help: give it another name with AS
    "#]],
    );
    check(
        "SELECT _metadata_timestamp FROM customers",
        expect![[r#"
        the SELECT names no column of the table
        help: write SELECT *, or the columns wanted
    "#]],
    );
    check(
        "SELECT * EXCEPT (nmae) FROM customers",
        expect![[r#"
        there is no column nmae in *
          SELECT * EXCEPT (nmae) FROM customers
                           ^^^^
    "#]],
    );
    check(
        "SELECT * EXCLUDE (id) FROM customers",
        expect![[r#"
        the key column id of shop.customers is lost: updates and deletes would not find their rows
        help: select id itself; it may be renamed, cast to a type that keeps its values apart, or masked with mask_hash or mask_tokenize
    "#]],
    );
    check(
        "SELECT * EXCEPT (id, name, age) FROM customers",
        expect![[r#"
        the SELECT names no column of the table
        help: write SELECT *, or the columns wanted
    "#]],
    );
    check(
        "SELECT * REPLACE (upper(nmae) AS name) FROM customers",
        expect![[r#"
        column 'nmae' not found
          SELECT * REPLACE (upper(nmae) AS name) FROM customers
                                  ^^^^
        help: did you mean customers.name?
    "#]],
    );
    check(
        "SELECT * REPLACE (upper(name) AS nmae) FROM customers",
        expect![[r#"
        there is no column nmae in *
          SELECT * REPLACE (upper(name) AS nmae) FROM customers
                                           ^^^^
    "#]],
    );
    check(
        "SELECT * RENAME (nmae AS name) FROM customers",
        expect![[r#"
        there is no column nmae in *
          SELECT * RENAME (nmae AS name) FROM customers
                           ^^^^
    "#]],
    );
    check(
        "SELECT * RENAME name AS age FROM customers",
        expect![[r#"
        two columns of the target are called age
          SELECT * RENAME name AS age FROM customers
                 ^
        help: give one another name with AS, or leave it out of * with EXCEPT
    "#]],
    );
    check(
        "SELECT * ILIKE '%x%' FROM customers",
        expect![[r#"
        only EXCEPT, EXCLUDE, REPLACE and RENAME may stand behind *
          SELECT * ILIKE '%x%' FROM customers
                 ^
    "#]],
    );
    check(
        "SELECT id AS FROM customers",
        expect![[r#"
        expected: end of statement, found: customers
          SELECT id AS FROM customers
                            ^
    "#]],
    );
    check(
        "SELECT unnest(make_array(1, 2)) AS x, id FROM customers",
        expect![[r#"
        unnest has no place in a transform: it makes many rows of one, and a change stays one change
          SELECT unnest(make_array(1, 2)) AS x, id FROM customers
                 ^^^^^^
    "#]],
    );
}

#[test]
fn keys_that_are_lost() {
    check(
        "SELECT name, age FROM customers",
        expect![[r#"
        the key column id of shop.customers is lost: updates and deletes would not find their rows
        help: select id itself; it may be renamed, cast to a type that keeps its values apart, or masked with mask_hash or mask_tokenize
    "#]],
    );
    check(
        "SELECT id + 1 AS id, name FROM customers",
        expect![[r#"
        the key column id of shop.customers is lost: updates and deletes would not find their rows
        help: select id itself; it may be renamed, cast to a type that keeps its values apart, or masked with mask_hash or mask_tokenize
    "#]],
    );
    check(
        "SELECT CAST(id AS DOUBLE) AS id, name FROM customers",
        expect![[r#"
        the key column id of shop.customers is lost: updates and deletes would not find their rows
        help: select id itself; it may be renamed, cast to a type that keeps its values apart, or masked with mask_hash or mask_tokenize
    "#]],
    );
    check(
        "SELECT TRY_CAST(id AS SMALLINT) AS id, name FROM customers",
        expect![[r#"
        the key column id of shop.customers is lost: updates and deletes would not find their rows
        help: select id itself; it may be renamed, cast to a type that keeps its values apart, or masked with mask_hash or mask_tokenize
    "#]],
    );
    check(
        "SELECT abs(id) AS id, name FROM customers",
        expect![[r#"
        the key column id of shop.customers is lost: updates and deletes would not find their rows
        help: select id itself; it may be renamed, cast to a type that keeps its values apart, or masked with mask_hash or mask_tokenize
    "#]],
    );
    let keyed = |sql: &str, key: &[&str]| {
        let key = key.iter().map(|name| (*name).to_owned()).collect();
        refused(vec![SqlRule { key, ..rule(sql) }], SqlContext::default(), &customers())
    };
    let check = |sql: &str, key: &[&str], expected: Expect| expected.assert_eq(&keyed(sql, key));
    check(
        "SELECT id, name FROM customers",
        &["nmae"],
        expect![[r#"
        `key` names nmae, which is no column of the target
        help: its columns are id, name
    "#]],
    );
    check(
        "SELECT id, name FROM customers",
        &["name"],
        expect![[r#"
        `key` must hold id, which is what becomes of the table's key column id
    "#]],
    );
    check(
        "SELECT id, name FROM customers",
        &["id", "id"],
        expect![[r#"
        shop.customers: id* Int32, name Utf8
    "#]],
    );
    // What is no key in the table may change, and is not in every delete.
    check(
        "SELECT id, name FROM customers",
        &["id", "name"],
        expect![[r#"
        `key` names name, which may change while the table's key does not: updates and deletes would not find their rows
        help: name what the table's key becomes, and beside it only what is the same for all rows of the table or is made of its key
    "#]],
    );
    check(
        "SELECT id, upper(name) AS name FROM customers",
        &["name", "id"],
        expect![[r#"
        `key` names name, which may change while the table's key does not: updates and deletes would not find their rows
        help: name what the table's key becomes, and beside it only what is the same for all rows of the table or is made of its key
    "#]],
    );
    check(
        "SELECT id, _metadata_timestamp AS t FROM customers",
        &["id", "t"],
        expect![[r#"
        `key` names t, which may change while the table's key does not: updates and deletes would not find their rows
        help: name what the table's key becomes, and beside it only what is the same for all rows of the table or is made of its key
    "#]],
    );
    check(
        "SELECT id, _metadata_deleted AS d FROM customers",
        &["id", "d"],
        expect![[r#"
        `key` names d, which may change while the table's key does not: updates and deletes would not find their rows
        help: name what the table's key becomes, and beside it only what is the same for all rows of the table or is made of its key
    "#]],
    );
    check(
        "SELECT 'eu' AS shard, id, name FROM customers",
        &["shard", "id"],
        expect![[r#"
        shop.customers: shard* Utf8, id* Int32, name Utf8
    "#]],
    );
    check(
        "SELECT _metadata_source['schema'] AS shard, id, name FROM customers",
        &["shard", "id"],
        expect![[r#"
        shop.customers: shard* Utf8, id* Int32, name Utf8
    "#]],
    );
    check(
        "SELECT id % 8 AS part, id, name FROM customers",
        &["part", "id"],
        expect![[r#"
        shop.customers: part* Int64, id* Int32, name Utf8
    "#]],
    );
    check(
        "SELECT id AS a, id AS b FROM customers",
        &["b"],
        expect![[r#"
        shop.customers: a Int32, b* Int32
    "#]],
    );
    check(
        "SELECT id, name FROM customers",
        &["ID"],
        expect![[r#"
        `key` names ID, which is no column of the target
        help: its columns are id, name
    "#]],
    );
}

#[test]
fn joins() {
    check(
        "SELECT c.*, label FROM customers c JOIN countries n ON c.name = n.code",
        expect![[r#"
        only LEFT JOIN has a place in a transform: with any other join a row without a match would be lost
          SELECT c.*, label FROM customers c JOIN countries n ON c.name = n.code
                                                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: write LEFT JOIN reference ON source_column = reference.column
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c INNER JOIN countries n ON c.name = n.code",
        expect![[r#"
        only LEFT JOIN has a place in a transform: with any other join a row without a match would be lost
          SELECT c.*, label FROM customers c INNER JOIN countries n ON c.name = n.code
                                                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: write LEFT JOIN reference ON source_column = reference.column
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c RIGHT JOIN countries n ON c.name = n.code",
        expect![[r#"
        only LEFT JOIN has a place in a transform: with any other join a row without a match would be lost
          SELECT c.*, label FROM customers c RIGHT JOIN countries n ON c.name = n.code
                                                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: write LEFT JOIN reference ON source_column = reference.column
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c CROSS JOIN countries n",
        expect![[r#"
        only LEFT JOIN has a place in a transform: with any other join a row without a match would be lost
          SELECT c.*, label FROM customers c CROSS JOIN countries n
                                                        ^^^^^^^^^^^
        help: write LEFT JOIN reference ON source_column = reference.column
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c, countries n",
        expect![[r#"
        a transform selects FROM one table, the changed one
          SELECT c.*, label FROM customers c, countries n
                                              ^^^^^^^^^^^
        help: join a reference table with LEFT JOIN … ON …
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c LEFT JOIN countries n USING (code)",
        expect![[r#"
        a join in a transform needs ON
          SELECT c.*, label FROM customers c LEFT JOIN countries n USING (code)
                                                       ^^^^^^^^^^^^^^^^^^^^^^^
        help: write LEFT JOIN reference ON source_column = reference.column
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c NATURAL LEFT JOIN countries n",
        expect![[r#"
        a join in a transform needs ON
          SELECT c.*, label FROM customers c NATURAL LEFT JOIN countries n
                                                               ^^^^^^^^^^^
        help: write LEFT JOIN reference ON source_column = reference.column
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c LEFT JOIN cities n ON c.name = n.code",
        expect![[r#"
        there is no such reference table
          SELECT c.*, label FROM customers c LEFT JOIN cities n ON c.name = n.code
                                                       ^^^^^^^^
        help: the stream's reference tables are countries
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c LEFT JOIN countries n ON c.name < n.code",
        expect![[r#"
        a reference table is joined by equations between its columns and the table's
          SELECT c.*, label FROM customers c LEFT JOIN countries n ON c.name < n.code
                                                                      ^^^^^^^^^^^^^^^
        help: write ON source_column = reference.column, with AND between several
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c LEFT JOIN countries n ON n.code = 'de'",
        expect![[r#"
        the join has no equation between the table and the reference table
          SELECT c.*, label FROM customers c LEFT JOIN countries n ON n.code = 'de'
                                                                      ^^^^^^^^^^^^^
        help: write ON source_column = reference.column, with AND between several
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c LEFT JOIN countries n ON c.name = n.code AND c.age > 3",
        expect![[r#"
        a reference table is joined by equations between its columns and the table's
          SELECT c.*, label FROM customers c LEFT JOIN countries n ON c.name = n.code AND c.age > 3
                                                                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: write ON source_column = reference.column, with AND between several
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c LEFT JOIN countries n ON c.name = n.code OR c.age = n.rank",
        expect![[r#"
        a reference table is joined by equations between its columns and the table's
          SELECT c.*, label FROM customers c LEFT JOIN countries n ON c.name = n.code OR c.age = n.rank
                                                                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: write ON source_column = reference.column, with AND between several
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c LEFT JOIN countries n ON true",
        expect![[r#"
        a reference table is joined by equations between its columns and the table's
          SELECT c.*, label FROM customers c LEFT JOIN countries n ON true
                                                                      ^^^^
        help: write ON source_column = reference.column, with AND between several
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c LEFT JOIN countries n ON c.nmae = n.code",
        expect![[r#"
        column 'nmae' not found in 'c'
          SELECT c.*, label FROM customers c LEFT JOIN countries n ON c.nmae = n.code
                                                                      ^^^^^^
        help: did you mean c.name?
    "#]],
    );
    check(
        "SELECT c.*, label FROM customers c LEFT JOIN countries n ON c.name = n.cdoe",
        expect![[r#"
        column 'cdoe' not found in 'n'
          SELECT c.*, label FROM customers c LEFT JOIN countries n ON c.name = n.cdoe
                                                                               ^^^^^^
        help: did you mean n.code?
    "#]],
    );
    check(
        "SELECT * FROM customers c LEFT JOIN countries c ON c.name = c.code",
        expect![[r#"
        two tables go by the name c
          SELECT * FROM customers c LEFT JOIN countries c ON c.name = c.code
                                              ^^^^^^^^^^^
        help: give one an alias with AS
    "#]],
    );
    check(
        "SELECT * FROM customers c LEFT JOIN (SELECT 1) n ON true",
        expect![[r#"
        a transform reads tables by their names
          SELECT * FROM customers c LEFT JOIN (SELECT 1) n ON true
                                               ^^^^^^^^^^^
        help: make what this reads a reference table, and LEFT JOIN it
    "#]],
    );
    check(
        "SELECT a.* , n.label AS x FROM customers a LEFT JOIN countries m ON a.name = m.code LEFT JOIN countries n ON m.label = n.code",
        expect![[r#"
        a reference table is joined to the changed table, not to another reference table
          SELECT a.* , n.label AS x FROM customers a LEFT JOIN countries m ON a.name = m.code LEFT JOIN countries n ON m.label = n.code
                                                                                                                       ^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        "SELECT * FROM countries LEFT JOIN customers ON name = code",
        expect![[r#"
        the rule is for shop.customers, and its SQL selects from another table
          SELECT * FROM countries LEFT JOIN customers ON name = code
                        ^^^^^^^^^
        help: write FROM customers, or FROM source in a rule for several tables
    "#]],
    );
    check(
        "SELECT c.* FROM customers c LEFT JOIN countries n ON c.name = n.code AND n.label = 3",
        expect![[r#"
            the join of a reference table cannot be computed over its rows (reference: countries)
            help: text is compared with a number as a number: CAST the number to VARCHAR, or use TRY_CAST
        "#]],
    );
    check(
        "SELECT c.* FROM customers c LEFT JOIN countries n ON c.name = n.code WHERE random() > 1 AND n.rank = 1",
        expect![[r#"
        random has no place in a transform: a change that is read again must become the same again
          SELECT c.* FROM customers c LEFT JOIN countries n ON c.name = n.code WHERE random() > 1 AND n.rank = 1
                                                                                     ^^^^^^
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

#[test]
fn targets() {
    let into = |into: &str| SqlRule { into: Some(into.to_owned()), ..rule("SELECT * FROM customers") };
    let check = |rules: Vec<SqlRule>, expected: Expect| expected.assert_eq(&refused(rules, SqlContext::default(), &customers()));
    check(
        vec![into("all")],
        expect![[r#"
        `into: all` is not schema.table
    "#]],
    );
    check(
        vec![into("a.")],
        expect![[r#"
        `into: a.` is not schema.table
    "#]],
    );
    check(
        vec![into("{database}.x")],
        expect![[r#"
        `into: {database}.x` has a placeholder that is not known
        help: {schema} and {table} stand for the names of the source
    "#]],
    );
    check(
        vec![into("{schema}.{table}_eu")],
        expect![[r#"
        shop.customers_eu: id* Int32, name Utf8, age Int32
    "#]],
    );
    check(
        vec![into("{table}.{schema}.x")],
        expect![[r#"
        `into: {table}.{schema}.x` is not schema.table
    "#]],
    );
    check(
        vec![into("x.y"), into("x.y")],
        expect![[r#"
        two rules send shop.customers to x.y: this one and rule 1
        help: give one of them an `into` of its own, or a narrower `table`
    "#]],
    );
    check(
        vec![rule("SELECT * FROM customers"), rule("SELECT * FROM customers")],
        expect![[r#"
        two rules send shop.customers to shop.customers: this one and rule 1
        help: give one of them an `into` of its own, or a narrower `table`
    "#]],
    );
    check(
        vec![rule("SELECT * FROM customers"), into("x.y")],
        expect![[r#"
        shop.customers: id* Int32, name Utf8, age Int32
        x.y: id* Int32, name Utf8, age Int32
    "#]],
    );
    check(
        vec![into("logweir.quarantine")],
        expect![[r#"
        `into: logweir.quarantine` is in the schema of logweir's own tables
        help: choose another schema
    "#]],
    );
    // All that is wrong with all of them is said at once.
    check(
        vec![rule("SELECT now() FROM customers"), rule("SELECT FROM"), into("z")],
        expect![[r#"
        expected: identifier, found: EOF
          SELECT FROM
                     ^
        `into: z` is not schema.table
    "#]],
    );
    check(
        vec![rule("SELECT nmae FROM customers"), SqlRule::new(Pattern::new("shop.c*"), "SELECT aeg FROM customers")],
        expect![[r#"
        column 'nmae' not found
          SELECT nmae FROM customers
                 ^^^^
        help: did you mean customers.name?
        column 'aeg' not found
          SELECT aeg FROM customers
                 ^^^
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
