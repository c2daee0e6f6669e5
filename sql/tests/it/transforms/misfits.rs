//! Rules that do not fit their table, its key, their reference tables or their target: what is said about it, and where.

use expect_test::{Expect, expect};
use logweir_core::Pattern;
use logweir_sql::{SqlContext, SqlRule};

use super::refusals::check;
use super::{customers, refused, rule};

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
            column 'yy' not found
              SELECT id, nmae, aeg, upper(xx) FROM customers WHERE yy = 1
                                                                   ^^
        "#]],
    );
}

/// What is found where names are looked up, and what is found where types are.
#[test]
fn every_fault_is_told_at_once() {
    check(
        "SELECT id, uper(name) AS a,\n  mask_hash(name) AS b,\n  NULL AS c, age AS id\nFROM customers WHERE aeg > 5",
        expect![[r#"
        there is no function uper
          SELECT id, uper(name) AS a,
                     ^^^^
        help: did you mean upper?
        there is no function mask_hash
            mask_hash(name) AS b,
            ^^^^^^^^^
        the type of c is not known
            NULL AS c, age AS id
            ^^^^
        help: say it: CAST(NULL AS VARCHAR)
        two columns of the target are called id
            NULL AS c, age AS id
                       ^^^
        help: give one another name with AS, or leave it out of * with EXCEPT
        column 'aeg' not found
          FROM customers WHERE aeg > 5
                               ^^^
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
            the regular expression is none: unclosed group
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
