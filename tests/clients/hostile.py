"""What a client may do to a server of PostgreSQL's protocol that means no good, or is broken.

    hostile.py PORT USER PASSWORD DATABASE SEED

Ends with an error where the server lets somebody in, keeps somebody out for good, or stops answering. What becomes of its
memory and of the pipeline meanwhile is for whoever runs this to look at.
"""

import os
import random
import socket
import struct
import sys
import threading
import time

import psycopg

PORT, USER, PASSWORD, DATABASE, SEED = int(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
A_MINUTE = 60
CHANCE = random.Random(SEED)


def connect():
    """A session that means well; others may take all places for a while."""
    deadline = time.monotonic() + 2 * A_MINUTE
    while True:
        try:
            return psycopg.connect(host="127.0.0.1", port=PORT, user=USER, password=PASSWORD, dbname=DATABASE, autocommit=True, connect_timeout=A_MINUTE)
        except psycopg.OperationalError as error:
            if "password" in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def answers():
    with connect() as connection:
        assert connection.execute("SELECT count(*) FROM shop.orders").fetchone()[0] > 0


def stranger(*parts):
    """Sends bytes and waits until the server has had enough."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=A_MINUTE) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            while connection.recv(4096):
                pass
        except ConnectionError:
            pass


def startup(**parameters):
    body = struct.pack("!i", 3 << 16)
    body += b"".join(name.encode() + b"\0" + value.encode() + b"\0" for name, value in parameters.items()) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


def message(kind, body=b"", length=None):
    return kind + struct.pack("!i", len(body) + 4 if length is None else length) + body


def garbage():
    for opening in [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0\0\0\0", b"\0\0\0\x04", b"\xff" * 64,
                    b"\x7f\xff\xff\xff\0\x03\0\0", struct.pack("!ii", 8, 99 << 16), startup(user=USER)[:-1] + b"x" * 3]:
        stranger(opening, b"\0" * 20_000)
    for _ in range(100):
        stranger(CHANCE.randbytes(CHANCE.randrange(8, 300)) + b"\0" * 20_000)
    # Known by name, and then anything but a proof.
    for more in [message(b"Q", b"SELECT 1\0"), message(b"p", b"\0" * 100), message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", 1 << 30)),
                 message(b"p", b"", 1 << 30), message(b"p", b"SCRAM-SHA-256\0\0\0\0\x05n,,n="), message(b"p", b"PLAIN\0\0\0\0\0"), b"\0" * 20_000]:
        stranger(startup(user=USER, database=DATABASE), more, b"\0" * 20_000)


def half_open(count):
    """Connections that say nothing, or begin to. They are kept open by whoever keeps the list."""
    kept = []
    for n in range(count):
        try:
            connection = socket.create_connection(("127.0.0.1", PORT), timeout=A_MINUTE)
            connection.sendall([b"", b"\0", startup(user=USER)[:9], startup(user=USER)][n % 4])
            kept.append(connection)
        except OSError:
            pass
    return kept


def wrong_passwords(seconds):
    tried, until = [], time.monotonic() + seconds

    def try_on():
        while time.monotonic() < until:
            try:
                psycopg.connect(host="127.0.0.1", port=PORT, user=CHANCE.choice([USER, "postgres", "x"]), password="guess", dbname=DATABASE, connect_timeout=A_MINUTE)
                tried.append("let in")
            except psycopg.OperationalError:
                tried.append("refused")

    threads = [threading.Thread(target=try_on) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tried and "let in" not in tried, tried


def raw(connection, data):
    """Past the library, which would not say such things."""
    try:
        while data:
            data = data[os.write(connection.pgconn.socket, data):]
    except (BlockingIOError, ConnectionError):
        pass


def within_a_session():
    text = b"SELECT id FROM shop.orders WHERE id = $1\0"
    good = [
        message(b"P", b"s\0" + text + b"\0\0"), message(b"D", b"Ss\0"), message(b"B", b"p\0s\0\0\0\0\x01\0\0\0\x011\0\0"), message(b"D", b"Pp\0"),
        message(b"E", b"p\0\0\0\0\0"), message(b"C", b"Sp\0"), message(b"H"), message(b"S"), message(b"Q", b"SELECT 1\0"),
        message(b"Q", b"BEGIN\0"), message(b"Q", b"COPY shop.orders TO STDOUT\0"), message(b"Q", b"DECLARE c CURSOR FOR SELECT 1\0"), message(b"Q", b"FETCH c\0"),
    ]
    for _ in range(150):
        connection = connect()
        data = bytearray(b"".join(CHANCE.choices(good, k=CHANCE.randrange(1, 12))))
        for _ in range(CHANCE.randrange(0, 4)):
            data[CHANCE.randrange(len(data))] = CHANCE.randrange(256)
        raw(connection, bytes(data[: CHANCE.randrange(1, len(data) + 1)]))
        time.sleep(CHANCE.choice([0, 0.01]))
        connection.close()
    for end in [message(b"Q", b"", 1 << 30), message(b"Q", b"", 3), message(b"Q", b"SELECT 1"), message(b"\xff", b"what"), message(b"F", b"\0\0\0\x01"),
                message(b"P", b"x\0SELECT $70000\0\0\0"), message(b"B", b"\0\0\xff\xff\0\0"), message(b"Q", b"SELECT '\xff\xfe'\0")]:
        connection = connect()
        raw(connection, end + message(b"S"))
        connection.close()
    # Many statements, portals and settings in a session: refused at some point, with an error or the end.
    with connect() as connection:
        try:
            for n in range(20_000):
                raw(connection, message(b"P", f"s{n}\0SELECT {n}\0\0\0".encode()))
        except psycopg.Error:
            pass
    connection = connect()
    try:
        for n in range(2_000):
            connection.execute(f"SET a.b{n} = '{'x' * 1000}'")
        raise AssertionError("2000 settings")
    except psycopg.Error:
        connection.close()


def statements():
    """Statements that are hard on a planner."""
    with connect() as connection:
        for sql in [
            "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
            "SELECT " + "1 + " * 20_000 + "1",
            "SELECT * FROM shop.orders WHERE " + " AND ".join(f"id <> {n}" for n in range(5_000)),
            "SELECT " + "NOT " * 20_000 + "true",
            "SELECT " + "-" * 1 + "(-" * 3_000 + "1" + ")" * 3_000,
            "SELECT * FROM " + "(SELECT * FROM " * 1_000 + "shop.orders" + ") a" * 1_000,
            "SELECT 1 " + "UNION ALL SELECT 1 " * 3_000,
            "SELECT " + "CASE WHEN true THEN " * 3_000 + "1" + " END" * 3_000,
            "WITH " + ", ".join(f"a{n} AS (SELECT * FROM {'shop.orders' if n == 0 else f'a{n-1} x, a{n-1} y'})" for n in range(40)) + " SELECT count(*) FROM a39",
            "SELECT '" + "x" * 900_000 + "'",
            "SELECT repeat(repeat('x', 100000), 100000)",
            "SELECT array_repeat(1, 1000000000000)",
            "SELECT range(9000000000000000000)",
            "SELECT $1" + ", $1" * 5_000,
            "\0", "'", "$$", "/*", ";" * 10_000, "SELECT 1;" * 100,
        ]:
            try:
                connection.execute(sql.encode()).fetchall()
            except (psycopg.Error, ValueError) as error:
                if connection.closed:
                    connection = connect()
        for sql in ["SELECT * FROM shop.orders a, shop.orders b, shop.orders c, shop.orders d, shop.orders e ORDER BY a.total, b.total",
                    "SELECT array_agg(a.value), array_agg(repeat('x', 1000)) FROM generate_series(1, 100000000) a"]:
            connection.execute("SET statement_timeout = '5s'")
            try:
                connection.execute(sql)
                raise AssertionError(sql)
            except psycopg.Error:
                pass
        connection.close()


def deaf():
    """Asks for much and does not read it, or leaves in the middle."""
    kept = []
    for n in range(6):
        connection = connect()
        raw(connection, message(b"Q", b"SELECT a.*, b.* FROM generate_series(1, 1000000) a, generate_series(1, 1000) b\0"))
        if n % 2:
            os.close(os.dup(connection.pgconn.socket))
            connection.close()
        else:
            kept.append(connection)
    time.sleep(3)
    for connection in kept:
        connection.close()


def cancels():
    """Cancels of sessions that are none, or others'."""
    for _ in range(300):
        stranger(struct.pack("!iiii", 16, 80877102, CHANCE.randrange(1 << 20), CHANCE.randrange(-1 << 31, 1 << 31)))


def crowd(count):
    """More connections than anybody serves, a thousand at a time."""
    for _ in range(count // 1000):
        kept = half_open(1000)
        for connection in kept:
            connection.close()


for act in [garbage, lambda: wrong_passwords(8), within_a_session, statements, deaf, cancels, lambda: crowd(10_000)]:
    act()
    answers()
kept = half_open(400)
# Whoever says nothing makes way for whoever comes.
begun = time.monotonic()
answers()
assert time.monotonic() - begun < 30, time.monotonic() - begun
print("answers")
