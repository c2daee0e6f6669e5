#!/usr/bin/env python3
"""Records small binlogs of real servers: every type, every kind of change, every way of writing them down.

They are the decoder's test input. Each scenario is statements (captures.sql, by section) run against a fresh log of a
server, copied as NAME.000001; beside it NAME.select holds what the server itself answers for the tables at the end, to
compare the decoder's golden output with.

Needs mariadbd and mariadb on the PATH, and MySQL where scripts/install-test-tools put it; nothing of Python but its
standard library.

    datasets/generate/captures.py                writes datasets/captures/{mariadb-10.11,mysql-9.7}/
    datasets/generate/captures.py NAME...        only these scenarios
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE.parent / "captures"

COMMON = """log_bin=bin
binlog_format=ROW
binlog_row_image=FULL
binlog_row_metadata=FULL
server_id=11
bind-address=127.0.0.1
default_time_zone=+00:00
character_set_server=utf8mb4
innodb_buffer_pool_size=64M
"""

# Name of the scenario: sections of captures.sql, session settings before them.
MARIADB = {
    "types": (["types", "types-mariadb"], ""),
    "types-minimal": (["types", "types-mariadb"], "SET GLOBAL binlog_row_metadata=MINIMAL;"),
    "types-compressed": (["types", "types-mariadb"], "SET GLOBAL log_bin_compress=ON; SET GLOBAL log_bin_compress_min_len=10;"),
    "changes": (["changes", "changes-mariadb"], ""),
    "image-minimal": (["images"], "SET SESSION binlog_row_image=MINIMAL;"),
    "image-noblob": (["images"], "SET SESSION binlog_row_image=NOBLOB;"),
    "no-checksum": (["images"], "SET GLOBAL binlog_checksum=NONE;"),
    "old-temporals": (["old-temporals"], "SET GLOBAL mysql56_temporal_format=OFF;"),
    "statement": (["statement"], ""),
    "load-data": (["load-data"], "SET SESSION binlog_format=STATEMENT;"),
    "rolled-back": (["rolled-back"], "SET SESSION binlog_direct_non_transactional_updates=OFF;"),
    "xa": (["xa"], ""),
    "zero-date": (["zero-date"], ""),
}
MYSQL = {
    "types": (["types", "types-mysql"], ""),
    "types-minimal": (["types", "types-mysql"], "SET GLOBAL binlog_row_metadata=MINIMAL;"),
    "types-compressed": (["types", "types-mysql"], "SET SESSION binlog_transaction_compression=ON;"),
    "changes": (["changes", "changes-mysql"], ""),
    "image-minimal": (["images"], "SET SESSION binlog_row_image=MINIMAL;"),
    "image-noblob": (["images"], "SET SESSION binlog_row_image=NOBLOB;"),
    "partial-json": (["partial-json"], "SET SESSION binlog_row_value_options=PARTIAL_JSON;"),
    "statement": (["statement"], ""),
    "load-data": (["load-data"], "SET GLOBAL local_infile=ON; SET SESSION binlog_format=STATEMENT;"),
    "xa": (["xa"], ""),
    "zero-date": (["zero-date"], ""),
}
RESET_SETTINGS = """SET GLOBAL binlog_row_metadata=FULL;"""


def sections():
    text = (HERE / "captures.sql").read_text()
    parts = re.split(r"^-- \[(.*)\]\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    def __init__(self, directory):
        self.directory, self.port = directory, free_port()
        self.config = os.path.join(directory, "my.cnf")
        with open(self.config, "w") as file:
            file.write(f"[mysqld]\ndatadir={directory}/data\nsocket={directory}/s\nport={self.port}\npid_file={directory}/pid\n{COMMON}{self.options()}")
        self.initialize()
        with open(os.path.join(directory, "log"), "w") as log:
            self.process = subprocess.Popen(self.daemon(), stdout=log, stderr=log)
        for _ in range(300):
            if subprocess.run(self.client("-e", "select 1"), capture_output=True).returncode == 0:
                return
            time.sleep(0.2)
        raise SystemExit(f"{self.name} did not start: see {directory}/log")

    def stop(self):
        self.process.terminate()
        self.process.wait(60)

    def sql(self, text, *arguments):
        return subprocess.run(self.client("--default-character-set=utf8mb4", "--local-infile=1", *arguments), input=text.encode(), check=True, capture_output=True).stdout

    def record(self, name, statements, settings):
        load = os.path.join(self.directory, "load.txt")
        with open(load, "w") as file:
            file.write("1\tone\n2\ttwo\n")
        statements = statements.replace("$LOAD", load)
        # What is global is set before the log is emptied: some of it starts a new file.
        everywhere = "".join(f"{each};" for each in settings.split(";") if "GLOBAL" in each)
        session = "".join(f"{each};" for each in settings.split(";") if "SESSION" in each)
        self.sql("DROP DATABASE IF EXISTS t;" + RESET_SETTINGS + settings_off(self.name) + everywhere + self.reset)
        self.sql("SET SESSION sql_mode='';" + session + "CREATE DATABASE t; USE t;\n" + statements + "\nFLUSH BINARY LOGS;")
        target = OUT / self.folder
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(os.path.join(self.directory, "data", "bin.000001"), target / f"{name}.000001")
        tables = self.sql("SHOW TABLES", "-N", "t").decode().split()
        answer = b"".join(self.sql(f"SELECT * FROM `{table}`", "-E", "--binary-as-hex", "t") for table in tables)
        (target / f"{name}.select").write_bytes(answer)


def settings_off(name):
    return "SET GLOBAL log_bin_compress=OFF; SET GLOBAL binlog_checksum=CRC32; SET GLOBAL mysql56_temporal_format=ON;" if name == "MariaDB" else ""


class Mariadb(Server):
    name, folder, reset = "MariaDB", "mariadb-10.11", "RESET MASTER;"

    def options(self):
        return "gtid_strict_mode=ON\ngtid_domain_id=7\n"

    def initialize(self):
        subprocess.run(["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={self.directory}/data", "--auth-root-authentication-method=normal", "--skip-test-db"],
                       check=True, capture_output=True)

    def daemon(self):
        return ["mariadbd", f"--defaults-file={self.config}", "--user=root"]

    def client(self, *arguments):
        return ["mariadb", "--no-defaults", f"-S{self.directory}/s", "-uroot", *arguments]


class Mysql(Server):
    name, folder, reset = "MySQL", "mysql-9.7", "RESET BINARY LOGS AND GTIDS;"
    root = os.path.join(os.environ.get("LOGWEIR_RIGS", os.path.expanduser("~/.cache/logweir/rigs")), "mysql")
    loader = [f"{root}/usr/lib64/ld-linux-x86-64.so.2", "--library-path", f"{root}/usr/lib/x86_64-linux-gnu"]

    def options(self):
        return f"""mysqlx=OFF
secure_file_priv=NULL
gtid_mode=ON
enforce_gtid_consistency=ON
basedir={self.root}/usr
lc-messages-dir={self.root}/usr/share/mysql
character-sets-dir={self.root}/usr/share/mysql/charsets
plugin-dir={self.root}/usr/lib/mysql/plugin
"""

    def initialize(self):
        subprocess.run([*self.daemon(), "--initialize-insecure"], check=True, capture_output=True)

    def daemon(self):
        return [*self.loader, f"{self.root}/usr/sbin/mysqld", f"--defaults-file={self.config}", "--user=root"]

    def client(self, *arguments):
        return [*self.loader, f"{self.root}/usr/bin/mysql", "--no-defaults", f"-S{self.directory}/s", "-uroot", *arguments]


def main():
    parts = sections()
    for kind, scenarios in ((Mariadb, MARIADB), (Mysql, MYSQL)):
        with tempfile.TemporaryDirectory(prefix="captures-") as directory:
            server = kind(directory)
            try:
                for name, (names, settings) in scenarios.items():
                    if sys.argv[1:] and name not in sys.argv[1:]:
                        continue
                    server.record(name, "\n".join(parts[part] for part in names), settings)
                    print(f"{server.folder}/{name}")
            finally:
                server.stop()


if __name__ == "__main__":
    main()
