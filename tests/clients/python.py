"""What psycopg, asyncpg and SQLAlchemy do with a server of PostgreSQL's protocol that holds the table shop.orders.

    python.py CLIENT PORT USER PASSWORD DATABASE

CLIENT is psycopg, asyncpg or sqlalchemy. Prints the rows of the table as the client reads them, for a comparison with
the source, and ends with an error where the client does not get what PostgreSQL gives it.
"""

import asyncio
import datetime
import decimal
import sys

CLIENT, PORT, USER, PASSWORD, DATABASE = sys.argv[1:]
PORT = int(PORT)
ALL = "SELECT id, customer_id, total, status, day, raw FROM shop.orders ORDER BY id"


def show(rows):
    for id, customer, total, status, day, raw in rows:
        assert isinstance(id, int) and isinstance(customer, int), (id, customer)
        assert total is None or isinstance(total, decimal.Decimal), total
        assert day is None or isinstance(day, datetime.date), day
        assert raw is None or isinstance(raw, (bytes, memoryview)), raw
        cells = [id, customer, total, status, day, raw and bytes(raw).hex().upper()]
        print("|".join("NULL" if cell is None else str(cell) for cell in cells))


def psycopg():
    import psycopg
    from psycopg import errors

    place = dict(host="127.0.0.1", port=PORT, user=USER, dbname=DATABASE)
    with psycopg.connect(**place, password=PASSWORD, autocommit=True) as connection:
        assert connection.info.server_version >= 120000, connection.info.server_version
        assert connection.info.encoding == "utf-8"
        text = connection.execute(ALL).fetchall()
        binary = connection.cursor(binary=True).execute(ALL).fetchall()
        assert text == binary, "the same in text and in binary"
        show(binary)

        one = connection.execute("SELECT count(*) FROM shop.orders WHERE id > %s AND status = %s", (1, "new"))
        assert one.description[0].name == "count", one.description
        expected = sum(1 for row in text if row[0] > 1 and row[3] == "new")
        assert one.fetchone() == (expected,)
        # Prepared from the second time on.
        for id in [row[0] for row in text[:8]]:
            found = connection.execute("SELECT id, total FROM shop.orders WHERE id = %s", (id,), prepare=True).fetchall()
            assert [row[0] for row in found] == [id], found
        ids = [row[0] for row in text[:3]]
        found = connection.execute("SELECT id FROM shop.orders WHERE id = ANY(%s) ORDER BY 1", (ids,)).fetchall()
        assert [row[0] for row in found] == ids, found

        # An error does not end the session, and has PostgreSQL's class.
        for sql, kind in [
            ("SELECT nothing_like_it FROM shop.orders", errors.UndefinedColumn),
            ("SELECT * FROM shop.nothing_like_it", errors.UndefinedTable),
            ("SELEC 1", errors.SyntaxError),
            ("INSERT INTO shop.orders (id) VALUES (1)", errors.ReadOnlySqlTransaction),
            ("DROP TABLE shop.orders", errors.ReadOnlySqlTransaction),
            ("CREATE TABLE shop.other (id int)", errors.ReadOnlySqlTransaction),
        ]:
            try:
                connection.execute(sql)
                raise AssertionError(f"{sql} was done")
            except kind:
                pass
        assert connection.execute("SELECT 1").fetchone() == (1,)

        with connection.cursor() as cursor, cursor.copy("COPY (SELECT id, status FROM shop.orders ORDER BY id) TO STDOUT") as copy:
            copied = [row for row in copy.rows()]
        assert [row[0] for row in copied] == [str(row[0]) for row in text]
        with connection.cursor() as cursor, cursor.copy("COPY (SELECT id, total FROM shop.orders ORDER BY id) TO STDOUT (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "numeric"])
            assert [tuple(row) for row in copy.rows()] == [(row[0], row[2]) for row in text]

        with connection.pipeline():
            answers = [connection.execute("SELECT %s::int8", (n,)) for n in range(20)]
            assert [answer.fetchone()[0] for answer in answers] == list(range(20))

        # A statement is given up where its client asks for it, and where it takes too long; the session goes on.
        long = "SELECT count(*) FROM generate_series(1, 4000000000) a"
        connection.execute("SET statement_timeout = '500ms'")
        try:
            connection.execute(long)
            raise AssertionError("no timeout")
        except errors.QueryCanceled:
            pass
        connection.execute("RESET statement_timeout")
        import threading

        timer = threading.Timer(1.0, connection.cancel)
        timer.start()
        try:
            connection.execute(long)
            raise AssertionError("not cancelled")
        except errors.QueryCanceled:
            pass
        timer.join()
        assert connection.execute("SELECT 2").fetchone() == (2,)

    # A transaction, with a cursor of the server's.
    with psycopg.connect(**place, password=PASSWORD) as connection:
        with connection.cursor(name="reading") as cursor:
            cursor.itersize = 3
            cursor.execute(ALL)
            assert [row[0] for row in cursor] == [row[0] for row in text]
        connection.commit()
        try:
            connection.execute("SELECT 1/0 FROM shop.orders WHERE nothing_like_it")
        except psycopg.Error:
            pass
        try:
            connection.execute("SELECT 1")
            raise AssertionError("a transaction goes on after an error")
        except errors.InFailedSqlTransaction:
            connection.rollback()
        assert connection.execute("SELECT 1").fetchone() == (1,)

    for wrong in [dict(password="wrong"), dict(password=PASSWORD, user="nobody_like_it")]:
        try:
            psycopg.connect(**{**place, **wrong}, connect_timeout=60)
            raise AssertionError("let in")
        except psycopg.OperationalError as error:
            assert "password authentication failed" in str(error), error


async def asyncpg():
    import asyncpg

    connection = await asyncpg.connect(host="127.0.0.1", port=PORT, user=USER, password=PASSWORD, database=DATABASE, timeout=60)
    rows = await connection.fetch(ALL)
    show(map(tuple, rows))
    one = await connection.fetchrow("SELECT count(*) FROM shop.orders WHERE id > $1 AND status = $2", 1, "new")
    assert list(one.keys()) == ["count"]
    ids = [row["id"] for row in rows[:3]]
    found = await connection.fetch("SELECT id FROM shop.orders WHERE id = ANY($1::int8[]) ORDER BY 1", ids)
    assert [row["id"] for row in found] == ids
    found = await connection.fetch("SELECT id FROM shop.orders WHERE id = ANY($1) ORDER BY 1", ids)
    assert [row["id"] for row in found] == ids
    statement = await connection.prepare("SELECT total FROM shop.orders WHERE id = $1")
    assert [a.name for a in statement.get_attributes()] == ["total"]
    assert statement.get_attributes()[0].type.name == "numeric"
    for row in rows[:5]:
        assert await statement.fetchval(row["id"]) == row["total"]
    values = await connection.fetchrow(
        "SELECT $1::int4 AS a, $2::float8 AS b, $3::text AS c, $4::bool AS d, $5::date AS e, $6::timestamptz AS f, $7::numeric AS g, $8::bytea AS h",
        7, 1.5, "é", True, datetime.date(2026, 11, 20), datetime.datetime(2026, 11, 20, 10, tzinfo=datetime.timezone.utc), decimal.Decimal("12.50"), b"\x00\xff",
    )
    assert values["a"] == 7 and values["b"] == 1.5 and values["c"] == "é" and values["d"] is True, values
    assert values["e"] == datetime.date(2026, 11, 20) and values["g"] == decimal.Decimal("12.50") and values["h"] == b"\x00\xff", values
    assert values["f"] == datetime.datetime(2026, 11, 20, 10, tzinfo=datetime.timezone.utc), values
    async with connection.transaction(readonly=True):
        seen = []
        async for row in connection.cursor(ALL, prefetch=3):
            seen.append(row["id"])
    assert seen == [row["id"] for row in rows]
    import io

    target = io.BytesIO()
    await connection.copy_from_query("SELECT id FROM shop.orders ORDER BY id", output=target, format="csv")
    assert target.getvalue().decode().split() == [str(row["id"]) for row in rows]
    try:
        await connection.execute("DELETE FROM shop.orders")
        raise AssertionError("deleted")
    except asyncpg.exceptions.ReadOnlySQLTransactionError:
        pass
    # What a pool does with a connection that comes back.
    await connection.reset()
    try:
        await connection.fetch("SELECT count(*) FROM generate_series(1, 4000000000) a", timeout=1)
        raise AssertionError("no timeout")
    except asyncio.TimeoutError:
        pass
    assert await connection.fetchval("SELECT 3") == 3
    await connection.close()


def sqlalchemy():
    import sqlalchemy as sa

    url = sa.URL.create("postgresql+psycopg", USER, PASSWORD, "127.0.0.1", PORT, DATABASE)
    engine = sa.create_engine(url)
    inspector = sa.inspect(engine)
    assert "shop" in inspector.get_schema_names(), inspector.get_schema_names()
    names = inspector.get_table_names("shop") + inspector.get_view_names("shop")
    assert {"customers", "orders"} <= set(names), names
    columns = {column["name"]: column["type"] for column in inspector.get_columns("orders", "shop")}
    assert list(columns)[:3] == ["id", "customer_id", "total"], columns
    assert isinstance(columns["id"], sa.BigInteger), columns
    assert isinstance(columns["total"], sa.Numeric), columns
    assert isinstance(columns["day"], sa.Date), columns
    assert isinstance(columns["raw"], sa.LargeBinary), columns
    assert inspector.has_table("orders", "shop") and not inspector.has_table("nothing_like_it", "shop")
    for ask in [inspector.get_pk_constraint, inspector.get_foreign_keys, inspector.get_indexes, inspector.get_unique_constraints,
                inspector.get_check_constraints, inspector.get_table_comment]:
        ask("orders", "shop")
    metadata = sa.MetaData()
    metadata.reflect(engine, schema="shop", views=True)
    orders, customers = metadata.tables["shop.orders"], metadata.tables["shop.customers"]
    with engine.connect() as connection:
        names = ["id", "customer_id", "total", "status", "day", "raw"]
        show(connection.execute(sa.select(*(orders.c[name] for name in names)).order_by(orders.c.id)))
        joined = sa.select(sa.func.count()).select_from(orders.join(customers, orders.c.customer_id == customers.c.id))
        some = connection.execute(joined.where(orders.c.status == "new")).scalar_one()
        assert some > 0, some
        page = connection.execute(sa.select(orders.c.id).order_by(orders.c.id).limit(2).offset(1)).scalars().all()
        assert len(page) == 2, page


if CLIENT == "asyncpg":
    asyncio.run(asyncpg())
else:
    {"psycopg": psycopg, "sqlalchemy": sqlalchemy}[CLIENT]()
