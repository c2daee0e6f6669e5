#!/usr/bin/env python3
"""Asks the SQL endpoint of a running stream while its source is written to: how fresh answers are, how long they take, and what that
costs the stream. For MariaDB and for PostgreSQL, in one run on one machine:

  freshness    CHANGES a second are committed; twenty times a second a row goes into a table of its own, and a client asks for it until
               it is there (`query`), and another follows that table's changes with a cursor (`follow`). From the end of the commit.
  reads        over the changes that are retained then: one row by its key, a range of 1,000 keys, in the state and in the changes
  clients      a backlog of BACKLOG changes is drained without clients, and with CLIENTS that ask all the time, in turn, ROUNDS times

  benches/live/query.py --logweir PATH_OF_BINARY [--servers mariadb,postgres] [--changes 5000] [--seconds 30] [--rows 10000000]
                        [--clients 8] [--backlog 6000000] [--rounds 3]

Needs PyMySQL and psycopg (scripts/install-test-tools has both). Everything listens on 127.0.0.1, lives in a temporary directory and ends
with the script.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import psycopg
import pymysql

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import drain  # noqa: E402
import pg  # noqa: E402

PASSWORD = "query-bench"
ROWS_PER_COMMIT = 10


class OfMariadb:
    name, schema, profile = "mariadb", "bench", "mysql"

    def __init__(self, directory):
        self.server = drain.Mariadb()
        self.server.start(directory)
        self.stop = self.server.stop

    def connect(self):
        return pymysql.connect(host="127.0.0.1", port=self.server.port, user="weir", password="weir", database="bench", autocommit=True)

    def source(self):
        return {"mysql": {"host": "127.0.0.1", "port": self.server.port, "user": "weir", "password": {"env": "WEIR"}, "server_id": 4711}}


class OfPostgres:
    name, schema, profile = "postgres", "public", "postgres"

    def __init__(self, directory):
        self.server = pg.Server("/usr/lib/postgresql/15/bin", directory)
        self.stop = self.server.stop

    def connect(self):
        return psycopg.connect(host="127.0.0.1", port=self.server.port, user="postgres", dbname="bench", autocommit=True)

    def source(self):
        return {"postgres": {"host": "127.0.0.1", "port": self.server.port, "user": "postgres", "database": "bench", "slot": "query"}}


class Stream:
    """`logweir run`, and a way to its endpoint."""

    def __init__(self, binary, source, directory):
        self.binary, self.directory, self.schema = binary, directory, source.schema
        self.port = drain.free_port()
        self.file = os.path.join(directory, "weir.yaml")
        config = {
            "state": {"dir": os.path.join(directory, "state")},
            "sql": {"listen": f"127.0.0.1:{self.port}", "users": [{"name": "bench", "password": {"env": "QUERY_BENCH"}, "schemas": ["*"]}],
                    "concurrent_queries": 8, "memory": "2GiB"},
            "profiles": {"source": source.source(), "lake": {"files": {"url": "file://" + os.path.join(directory, "lake")}}},
            "streams": {"s": {"source": "source", "tables": {"include": [f"{source.schema}.load", f"{source.schema}.probe"]},
                              "start": "now", "change_log": {"retain": {"age": "1d", "size": "64GiB"}},
                              "destinations": [{"profile": "lake"}]}},
        }
        with open(self.file, "w") as out:
            json.dump(config, out)

    def start(self, *more):
        environment = {**os.environ, "QUERY_BENCH": PASSWORD, "WEIR": "weir"}
        self.log = open(os.path.join(self.directory, "log"), "a")
        self.process = subprocess.Popen([self.binary, "run", self.file, *more], stdout=self.log, stderr=self.log, env=environment)

    def connect(self):
        return psycopg.connect(host="127.0.0.1", port=self.port, user="bench", password=PASSWORD, dbname="s", autocommit=True)

    def landed(self):
        """Rows that the checkpoint says are landed."""
        try:
            with open(os.path.join(self.directory, "state", "s", "checkpoint.json")) as document:
                return json.load(document)["consumers"]["lake"]["rows"].get(f"{self.schema}.load", 0)
        except FileNotFoundError:
            return 0

    def count(self, sql):
        try:
            return self.connect().execute(sql).fetchone()[0]
        except psycopg.errors.SyntaxErrorOrAccessRuleViolation:
            # More is in flight than memory holds.
            return 0

    def ready(self, cursor):
        for number in range(600):
            if self.process.poll() is not None:
                sys.exit(f"logweir ended: {open(os.path.join(self.directory, 'log')).read()[-2000:]}")
            # A change that comes before the log is opened is none of it.
            cursor.execute(f"INSERT INTO {self.schema}.probe VALUES ({-number})")
            try:
                with self.connect() as connection:
                    return connection.execute(f"SELECT count(*) FROM {self.schema}.probe").fetchone()
            except psycopg.Error:
                time.sleep(0.2)
        sys.exit("logweir does not answer")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(300)


def percentiles(values):
    values = sorted(values)
    if not values:
        return "nothing was seen"
    at = lambda share: values[min(len(values) - 1, int(len(values) * share))] * 1000
    return f"p50 {at(0.5):6.1f} ms   p99 {at(0.99):6.1f} ms   max {values[-1] * 1000:6.1f} ms   ({len(values)} rows)"


def write(source, per_second, until, done):
    """Commits rows at a pace; counts the commits that came too late."""
    connection = source.connect()
    cursor = connection.cursor()
    interval = ROWS_PER_COMMIT / per_second
    began, count = time.monotonic(), 0
    insert = f"INSERT INTO {source.schema}.load (id, name, amount) VALUES "
    while time.monotonic() < until:
        wanted = began + count * interval
        pause = wanted - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        first = 1_000_000_000 + count * ROWS_PER_COMMIT
        cursor.execute(insert + ",".join(f"({first + row}, 'name {row}', {row}.25)" for row in range(ROWS_PER_COMMIT)))
        count += 1
    done.append(count * ROWS_PER_COMMIT / (time.monotonic() - began))


def freshness(source, stream, options):
    until = time.monotonic() + options.seconds
    script = os.path.abspath(__file__)
    # Python's threads would wait for each other: the load comes from a process of its own.
    load = subprocess.Popen([sys.executable, script, "--write", source.name, str(source.server.port), str(options.changes), str(options.seconds)],
                            stdout=subprocess.PIPE, text=True)
    follower = subprocess.Popen([sys.executable, script, "--follow", stream.schema, str(stream.port), str(options.seconds + 3)],
                                stdout=subprocess.PIPE, text=True)
    time.sleep(2)
    connection, asking = source.connect(), stream.connect()
    cursor, committed, seen = connection.cursor(), {}, []
    number = 0
    while time.monotonic() < until:
        number += 1
        cursor.execute(f"INSERT INTO {source.schema}.probe VALUES ({number})")
        committed[number] = time.monotonic()
        while asking.execute(f"SELECT max(id) FROM {stream.schema}.probe").fetchone()[0] != number:
            pass
        seen.append(time.monotonic() - committed[number])
        time.sleep(0.05)
    rate = float(load.communicate()[0])
    followed = [(int(number), float(at)) for number, at in (line.split() for line in follower.communicate()[0].splitlines())]
    print(f"  {rate:7.0f} changes/s were committed")
    print(f"  query    {percentiles(seen)}")
    # CLOCK_MONOTONIC is one for all processes.
    print(f"  follow   {percentiles([at - committed[number] for number, at in followed if number in committed])}", flush=True)


def follow(schema, port, seconds):
    connection = psycopg.connect(host="127.0.0.1", port=port, user="bench", password=PASSWORD, dbname="s", autocommit=True)
    connection.execute("SET logweir.follow = on")
    connection.execute("SET statement_timeout = '1s'")
    connection.execute("BEGIN")
    connection.execute(f"DECLARE c CURSOR FOR SELECT id FROM {schema}_changes.probe")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for (number,) in connection.execute("FETCH 1000 FROM c").fetchall():
            print(number, time.monotonic())


def reads(stream, options):
    connection = stream.connect()
    rows = connection.execute(f"SELECT count(*), min(id), max(id) FROM {stream.schema}_changes.load").fetchone()
    print(f"  {rows[0]:,} changes of load")
    for name, sql in [
        ("state, one key", "SELECT * FROM {s}.load WHERE id = {key}"),
        ("state, 1,000 keys", "SELECT count(*), sum(amount) FROM {s}.load WHERE id BETWEEN {key} AND {key} + 999"),
        ("changes, one key", "SELECT * FROM {s}_changes.load WHERE id = {key}"),
        ("changes, 1,000 keys", "SELECT count(*), sum(amount) FROM {s}_changes.load WHERE id BETWEEN {key} AND {key} + 999"),
    ]:
        taken = []
        for step in range(options.repeats):
            key = rows[1] + (rows[2] - rows[1]) * step // options.repeats
            began = time.monotonic()
            connection.execute(sql.format(s=stream.schema, key=key)).fetchall()
            taken.append(time.monotonic() - began)
        print(f"  {name:20} {percentiles(taken)}", flush=True)


def fill(source, first, rows):
    connection = source.connect()
    cursor = connection.cursor()
    for start in range(first, first + rows, 100_000):
        if source.name == "mariadb":
            cursor.execute(f"INSERT INTO bench.load (id, name, amount) SELECT seq, concat('name ', seq), seq % 1000 / 4 FROM seq_{start}_to_{start + 99_999}")
        else:
            cursor.execute(f"INSERT INTO load (id, name, amount) SELECT i, 'name ' || i, i % 1000 / 4.0 FROM generate_series({start}, {start + 99_999}) i")


def ask(schema, port, first, number):
    """As many clients as said, which ask one query behind the other, until somebody has enough."""
    sql = f"SELECT count(*), sum(amount) FROM {schema}.load WHERE id BETWEEN {first} AND {first} + 999"
    asked, stopping = [0], threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())

    def client():
        connection = None
        while not stopping.is_set():
            try:
                connection = connection or psycopg.connect(host="127.0.0.1", port=port, user="bench", password=PASSWORD, dbname="s", autocommit=True)
                connection.execute(sql).fetchall()
                asked[0] += 1
            except psycopg.Error:
                connection = None
                time.sleep(0.05)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    stopping.wait()
    for thread in threads:
        thread.join(5)
    print(asked[0], flush=True)


def drained(stream, source, first, rows, clients):
    """Rows per second of a backlog, with that many clients."""
    fill(source, first, rows)
    wanted = stream.landed() + rows
    asking = None
    if clients:
        # They would be elsewhere: they take what the machine has left.
        command = ["nice", "-n", "19", sys.executable, os.path.abspath(__file__), "--ask", stream.schema, str(stream.port), str(first), str(clients)]
        asking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        asking.stdout.readline()
    began = time.monotonic()
    stream.start("--until-caught-up")
    # Not until the process ends: statements that run have some seconds then.
    while stream.landed() < wanted and stream.process.poll() is None:
        time.sleep(0.02)
    taken = time.monotonic() - began
    status = stream.process.wait(3600)
    asked = 0
    if asking:
        asking.terminate()
        asked = int(asking.communicate(timeout=60)[0])
    if status != 0:
        sys.exit(f"logweir failed: {open(os.path.join(stream.directory, 'log')).read()[-2000:]}")
    return rows / taken, asked / taken


def clients(source, stream, options, first):
    rates = {0: [], options.clients: []}
    for _ in range(options.rounds):
        for number in rates:
            rate, asked = drained(stream, source, first, options.backlog, number)
            first += options.backlog
            rates[number].append(rate)
            print(f"  {number} clients: {rate:9,.0f} rows/s, {asked:6.1f} queries/s", flush=True)
    alone, beside = (statistics.median(rates[number]) for number in rates)
    print(f"  with clients {beside / alone:.2f} of without", flush=True)


def main():
    if sys.argv[1:2] == ["--follow"]:
        return follow(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    if sys.argv[1:2] == ["--ask"]:
        return ask(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    if sys.argv[1:2] == ["--write"]:
        kind = {"mariadb": OfMariadb, "postgres": OfPostgres}[sys.argv[2]]
        source = kind.__new__(kind)
        source.server = type("Server", (), {"port": int(sys.argv[3])})
        done = []
        write(source, float(sys.argv[4]), time.monotonic() + float(sys.argv[5]), done)
        return print(done[0])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logweir", required=True)
    parser.add_argument("--servers", default="mariadb,postgres")
    parser.add_argument("--changes", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--backlog", type=int, default=6_000_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=50)
    options = parser.parse_args()
    for kind in (OfMariadb, OfPostgres):
        if kind.name not in options.servers.split(","):
            continue
        directory = tempfile.mkdtemp(prefix="logweir-query-")
        os.chmod(directory, 0o755)
        home = os.path.join(directory, "server")
        os.mkdir(home)
        source = kind(home)
        stream = None
        try:
            print(f"{kind.name}:", flush=True)
            cursor = source.connect().cursor()
            cursor.execute(f"CREATE TABLE {source.schema}.load (id BIGINT PRIMARY KEY, name VARCHAR(40), amount DECIMAL(12,2))")
            cursor.execute(f"CREATE TABLE {source.schema}.probe (id BIGINT PRIMARY KEY)")
            stream = Stream(os.path.abspath(options.logweir), source, directory)
            stream.start()
            stream.ready(cursor)
            freshness(source, stream, options)
            if options.rows:
                fill(source, 1, options.rows)
                wanted = f"SELECT count(*) FROM {stream.schema}_changes.load WHERE id <= {options.rows}"
                while stream.count(wanted) < options.rows:
                    time.sleep(1)
                # As they lie for most of their time: landed, with a little in flight behind them.
                in_flight = "SELECT rows_in_flight FROM logweir.tables WHERE \"table\" = 'load'"
                last = 2_000_000_000
                while stream.count(in_flight) > options.rows // 100:
                    last -= 1
                    source.connect().cursor().execute(f"INSERT INTO {source.schema}.load (id, name, amount) VALUES ({last}, 'last', 0)")
                    time.sleep(1)
                reads(stream, options)
            stream.stop()
            clients(source, stream, options, 2_000_000_000)
        finally:
            if stream and stream.process.poll() is None:
                stream.process.kill()
            source.stop()
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
