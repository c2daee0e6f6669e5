"""What an ADBC client does with Arrow Flight SQL over the tables of the rig in `tests/it/flight.rs`.

    flight.py TASK URI PASSWORD [ARGUMENT …]

Prints what it reads, for a comparison with the source, and ends with an error where something is not as it must be.
"""

import datetime
import decimal
import sys

import adbc_driver_manager as manager
import pyarrow
from adbc_driver_flightsql import ConnectionOptions, DatabaseOptions, dbapi

TASK, URI, PASSWORD, *ARGUMENTS = sys.argv[1:]
HEADER = DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
PEOPLE = "SELECT id, name, paid, born, seen, face, score, visits FROM t.people ORDER BY id"


def connect(user="ann", password=PASSWORD, **headers):
    options = {"username": user, "password": password}
    options |= {HEADER + name.replace("__", "."): value for name, value in headers.items()}
    if URI.startswith("grpc+tls"):
        options[DatabaseOptions.TLS_ROOT_CERTS.value] = open(ARGUMENTS[0]).read()
    return dbapi.connect(URI, db_kwargs=options, autocommit=True)


def fails(code, words, action):
    try:
        action()
    except dbapi.Error as error:
        assert words in str(error), error
        assert code in str(error), error
    else:
        raise AssertionError(f"no error that says {words!r}")


def ask(cursor, sql, parameters=None):
    cursor.execute(sql, parameters)
    return cursor.fetch_arrow_table()


def read():
    with connect() as connection, connection.cursor() as cursor:
        people = ask(cursor, PEOPLE)
        # Columns as they are, not as text.
        types = {field.name: str(field.type) for field in people.schema}
        print(types)
        for row in people.to_pylist():
            print("|".join("NULL" if cell is None else str(cell) for cell in row.values()))
        # In many messages, and nothing of it twice.
        numbers = ask(cursor, "SELECT n.id, m.id AS other, repeat('x', 100) AS text FROM t.numbers n CROSS JOIN t.numbers m WHERE m.id <= 50")
        assert numbers.num_rows == 2000 * 50, numbers.num_rows
        assert len(set(zip(numbers["id"].to_pylist(), numbers["other"].to_pylist()))) == numbers.num_rows
        # What is said of a query before it runs is what comes.
        cursor.execute("SELECT * FROM t_changes.people")
        changes = cursor.fetch_arrow_table()
        assert changes.num_rows == 3 and set(changes["_metadata_change_type"].to_pylist()) <= {"READ", "INSERT"}, changes
        assert all(source["log_file"] is None or isinstance(source["log_file"], str) for source in changes["_metadata_source"].to_pylist())
        assert cursor.adbc_prepare("SELECT * FROM t_changes.people") is not None
        kinds = ask(cursor, "SELECT arrow_cast(name, 'Dictionary(Int32, Utf8)') AS name, [id] AS ids FROM t.people ORDER BY id")
        assert pyarrow.types.is_dictionary(kinds.schema.field("name").type), kinds.schema
        assert kinds.to_pydict() == {"name": ["Ada", 'Bob "B"', None], "ids": [[1], [2], [3]]}, kinds
        empty = ask(cursor, "SELECT id, name FROM t.people WHERE id < 0")
        assert empty.num_rows == 0 and empty.schema.names == ["id", "name"], empty
        assert ask(cursor, "SELECT count(*) FROM t.people").to_pydict() == {"count": [3]}

        # Parameters.
        found = ask(cursor, "SELECT name FROM t.people WHERE id = $1 AND name = $2", (1, "Ada"))
        assert found.to_pydict() == {"name": ["Ada"]}, found
        found = ask(cursor, "SELECT id FROM t.people WHERE born = $1", (datetime.date(1970, 1, 1),))
        assert found.to_pydict() == {"id": [2]}, found
        found = ask(cursor, "SELECT id FROM t.people WHERE paid = $1", (decimal.Decimal("120.500"),))
        assert found.to_pydict() == {"id": [1]}, found
        schema = cursor.adbc_prepare("SELECT id FROM t.people WHERE id = $1 AND name = $2")
        assert schema is not None and len(schema) == 2 and str(schema.field(0).type).startswith("int"), schema
        fails("InvalidArgument", "parameter", lambda: ask(cursor, "SELECT id FROM t.people WHERE id = $1", (1, 2)))
        fails("InvalidArgument", "parameter", lambda: ask(cursor, "SELECT id FROM t.people WHERE id = $1"))
        fails("InvalidArgument", "no Int32", lambda: ask(cursor, "SELECT id FROM t.people WHERE id = $1", ("seven4711",)))
        try:
            ask(cursor, "SELECT id FROM t.people WHERE id = $1", ("seven4711",))
        except dbapi.Error as error:
            assert "4711" not in str(error), error

        # What is refused, and that the connection goes on.
        fails("NotFound", "there is no such table", lambda: ask(cursor, "SELECT * FROM t.nobody"))
        fails("InvalidArgument", "nmae", lambda: ask(cursor, "SELECT nmae FROM t.people"))
        for sql in ["DELETE FROM t.people", "CREATE TABLE t.x (id int)", "INSERT INTO t.people (id) VALUES (9)"]:
            fails("InvalidArgument", "more than read", lambda: ask(cursor, sql))
        fails("InvalidArgument", "read-only", lambda: cursor.executemany("SELECT id FROM t.people WHERE id = $1", [(1,)]))
        assert ask(cursor, "SELECT 1 AS one").to_pydict() == {"one": [1]}

    with connect("bob") as connection, connection.cursor() as cursor:
        assert ask(cursor, "SELECT count(*) AS n FROM t.people").to_pydict() == {"n": [3]}
        fails("", "secret", lambda: ask(cursor, "SELECT * FROM secret.plans"))
        names = [schema["db_schema_name"] for catalog in objects(connection, "db_schemas") for schema in catalog["catalog_db_schemas"]]
        assert "t" in names and "t_changes" in names and "secret" not in names, names


def objects(connection, depth, **filters):
    return connection.adbc_get_objects(depth=depth, **filters).read_all().to_pylist()


def catalog():
    with connect() as connection:
        info = connection.adbc_get_info()
        assert info["vendor_name"] == "logweir" and info["vendor_version"], info
        assert [catalog["catalog_name"] for catalog in objects(connection, "catalogs")] == ["shop"]
        tables = objects(connection, "tables", db_schema_filter="t")
        [schema] = tables[0]["catalog_db_schemas"]
        assert sorted(table["table_name"] for table in schema["db_schema_tables"]) == ["numbers", "people"], schema
        columns = objects(connection, "all", db_schema_filter="t", table_name_filter="peo%")
        [[table]] = [schema["db_schema_tables"] for schema in columns[0]["catalog_db_schemas"]]
        names = [column["column_name"] for column in table["table_columns"]]
        assert names == ["id", "name", "paid", "born", "seen", "face", "score", "visits", "wakes"], names
        assert sorted(connection.adbc_get_table_types()) == ["SYSTEM TABLE", "TABLE"], connection.adbc_get_table_types()
        schema = connection.adbc_get_table_schema("people", db_schema_filter="t")
        assert schema.field("id").type == pyarrow.int32(), schema


def strangers():
    for user, password in [("ann", "wrong"), ("eve", PASSWORD), ("", ""), ("ann", PASSWORD + " ")]:
        def refused():
            with connect(user, password) as connection, connection.cursor() as cursor:
                ask(cursor, "SELECT 1")
        fails("Unauthenticated", "", refused)
    options = {HEADER + "authorization": "Bearer bm9ib2R5"}

    def forged():
        with dbapi.connect(URI, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
            ask(cursor, "SELECT 1")

    fails("Unauthenticated", "token", forged)


def as_of():
    moment = ARGUMENTS[0]
    with connect(logweir__as_of=moment) as connection, connection.cursor() as cursor:
        print(ask(cursor, "SELECT count(*) AS n FROM t.people")["n"][0].as_py())
    with connect(logweir__as_of="yesterday") as connection, connection.cursor() as cursor:
        fails("InvalidArgument", "is no time", lambda: ask(cursor, "SELECT 1"))
    with connect(logweir__follow="perhaps") as connection, connection.cursor() as cursor:
        fails("InvalidArgument", "`on` or `off`", lambda: ask(cursor, "SELECT 1"))


def follow():
    """Prints the ids of changes as they come, up to the one that is asked for."""
    with connect(logweir__follow="on") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM t_changes.people")
        for batch in cursor.fetch_record_batch():
            for id in batch["id"].to_pylist():
                print(id, flush=True)
                if id == int(ARGUMENTS[0]):
                    return


def slow():
    with connect() as connection, connection.cursor() as cursor:
        def endless():
            ask(cursor, "SELECT count(*) FROM generate_series(1, 4000000000) a")
        fails("DeadlineExceeded", "statement timeout", endless)
        fails("ResourceExhausted", "memory", lambda: ask(cursor, "SELECT array_agg(repeat('x', 10000)) FROM t.numbers a CROSS JOIN t.numbers b"))
        assert ask(cursor, "SELECT 1 AS one").to_pydict() == {"one": [1]}


def encrypted():
    with connect() as connection, connection.cursor() as cursor:
        print(ask(cursor, "SELECT count(*) AS n FROM t.people")["n"][0].as_py())


assert manager
globals()[TASK]()
