#!/usr/bin/env python3
"""Compares what logweir landed with what the source holds, value by value.

Reads a JSON object from standard input:

    source   host, port, flavour (mariadb | mysql); asked as root
    lake     directory, or endpoint + bucket + prefix of an S3 emulator
    tables   [[schema, table], …]
    counts   optional: {"schema.table": {inserts, updates, deletes}} as the server's own tool counts them, or null
             where it cannot

and checks, for every table, with pyarrow:
 * every visible file is a whole Parquet file, and nothing else is visible;
 * no `_metadata_sequence` occurs twice, and time never falls along it;
 * the changes are as many, by kind, as the log holds;
 * replayed in order of (`_metadata_timestamp`, `_metadata_sequence`), they end in exactly what `SELECT` shows.
Then once more with DuckDB, which reduces by SQL instead: the latest row per key, without deleted ones, above the
last truncate.

Prints what differs and ends with 1, or says what was compared and ends with 0.
"""

import collections
import datetime
import decimal
import json
import pathlib
import struct
import sys
import tempfile

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pymysql
import pymysql.converters

DIFFERENCES_SHOWN = 20
decimal.getcontext().prec = 100

METADATA = [
    "_metadata_timestamp", "_metadata_sequence", "_metadata_change_type", "_metadata_deleted", "_metadata_read_timestamp",
    "_metadata_read_method", "_metadata_source", "_metadata_unchanged",
]
DELETING = {"DELETE", "UPDATE-DELETE", "TRUNCATE"}


# --- Both sides in one form: numbers as int, text as str, bytes as bytes, time as a number of days or microseconds.

def days(text):
    return datetime.date.fromisoformat(text).toordinal() - 719_163


def time_of_day(text):
    sign = -1 if text.startswith("-") else 1
    hours, minutes, seconds = text.lstrip("-").split(":")
    whole, _, fraction = seconds.partition(".")
    return sign * ((int(hours) * 3600 + int(minutes) * 60 + int(whole)) * 1_000_000 + int(fraction.ljust(6, "0")[:6] or 0))


def moment(text):
    date, _, time = text.partition(" ")
    return days(date) * 86_400_000_000 + time_of_day(time)


def plain(text):
    return format(decimal.Decimal(text), "f")


def json_form(text):
    """Numbers keep their text, since 1 and 1.0 are not the same document to MySQL."""
    return json.dumps(json.loads(text, parse_float=lambda number: {"float": plain(number)}), sort_keys=True)


def geometry(flavour):
    return "HEX(ST_AsWKB({}, 'axis-order=long-lat'))" if flavour == "mysql" else "HEX(ST_AsWKB({}))"


def kind_of(data_type, flavour):
    """How a column is selected, how its text is read, and the kind of value it is."""
    if data_type in ("tinyint", "smallint", "mediumint", "int", "bigint"):
        return "{}", int, "integer"
    if data_type in ("bit", "year"):
        return "{} + 0", int, "integer"
    if data_type == "decimal":
        return "CAST({} AS CHAR)", plain, "decimal"
    if data_type in ("float", "double"):
        # As a product it is a double, and shown with all its digits.
        return "{} * 1E0", lambda text: struct.pack("<d", float(text)), "float"
    if data_type == "date":
        return "CAST({} AS CHAR)", days, "date"
    if data_type in ("datetime", "timestamp"):
        return "CAST({} AS CHAR)", moment, "moment"
    if data_type == "time":
        return "CAST({} AS CHAR)", time_of_day, "moment"
    if data_type in ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"):
        return "HEX({})", bytes.fromhex, "bytes"
    if data_type == "vector":
        return "HEX({})", bytes.fromhex, "vector"
    if data_type in ("point", "linestring", "polygon", "geometry", "multipoint", "multilinestring", "multipolygon", "geometrycollection", "geomcollection"):
        return geometry(flavour), bytes.fromhex, "bytes"
    if data_type == "json":
        return "CAST({} AS CHAR)", json_form, "json"
    if data_type in ("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"):
        return "CONVERT({} USING utf8mb4)", str, "text"
    if data_type in ("uuid", "inet4", "inet6"):
        return "CAST({} AS CHAR)", str, "text"
    raise SystemExit(f"compare.py does not know the type {data_type}")


def landed_values(column, kind):
    """The values of an Arrow column in the common form."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind == "date":
        return column.cast(pa.int32()).to_pylist()
    if kind == "moment":
        if pa.types.is_timestamp(column.type) and column.type.unit != "us":
            column = column.cast(pa.timestamp("us", column.type.tz))
        return column.cast(pa.int64()).to_pylist()
    values = column.to_pylist()
    convert = {
        "integer": int,
        "decimal": lambda value: plain(str(value)),
        "float": lambda value: struct.pack("<d", value),
        "vector": lambda value: struct.pack(f"<{len(value)}f", *value),
        "json": json_form,
        "bytes": bytes,
        "text": str,
    }[kind]
    return [None if value is None else convert(value) for value in values]


def show(value):
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


# --- The source.

class Source:
    def __init__(self, host, port, flavour):
        self.flavour = flavour
        self.connection = pymysql.connect(host=host, port=port, user="root", charset="utf8mb4", conv=pymysql.converters.encoders, autocommit=True, init_command="SET time_zone = '+00:00'")

    def query(self, sql, *values):
        with self.connection.cursor() as cursor:
            escaped = tuple("'" + value.replace("'", "''") + "'" for value in values)
            cursor.execute(sql % escaped if values else sql)
            return cursor.fetchall()

    def table(self, schema, table):
        text = lambda value: value.decode() if isinstance(value, bytes) else value
        columns = [(text(name), text(data_type).lower()) for name, data_type in self.query(
            "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION", schema, table)]
        key = [text(row[0]) for row in self.query(
            "SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX", schema, table)]
        kinds = [kind_of(data_type, self.flavour) for _, data_type in columns]
        expressions = ", ".join(select.format(f"`{name}`") for (name, _), (select, _, _) in zip(columns, kinds))
        rows = []
        for row in self.query(f"SELECT {expressions} FROM `{schema}`.`{table}`"):
            values = (value.decode() if isinstance(value, bytes) else value for value in row)
            rows.append(tuple(None if value is None else read(value) for value, (_, read, _) in zip(values, kinds)))
        return [(name, kind) for (name, _), (_, _, kind) in zip(columns, kinds)], key, rows


# --- What landed.

def fetch(lake, directory):
    """The objects of a bucket, as files of a directory."""
    from pyarrow import fs
    store = fs.S3FileSystem(access_key="test", secret_key="test", region="us-east-1", endpoint_override=lake["endpoint"].removeprefix("http://"), scheme="http")
    root = f"{lake['bucket']}/{lake['prefix']}".rstrip("/")
    for info in store.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True)):
        if info.type == fs.FileType.File:
            target = directory / info.path[len(root) + 1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            with store.open_input_stream(info.path) as stream:
                target.write_bytes(stream.read())


def hidden(path):
    return any(part.startswith(("_", ".")) for part in path.parts)


class Report:
    def __init__(self):
        self.differences = []

    def differs(self, text):
        self.differences.append(text)


def landed_files(root, report):
    """The files of every table by (schema, table)."""
    tables = collections.defaultdict(list)
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if not path.is_file() or hidden(relative):
            continue
        if path.suffix != ".parquet":
            report.differs(f"{relative} is visible and not Parquet")
            continue
        tables[relative.parts[0], relative.parts[1]].append(path)
    return tables


def read_changes(paths, columns, report):
    """Every change as (timestamp, sequence, type, unchanged columns, values by column)."""
    changes = []
    for path in paths:
        try:
            table = pq.ParquetFile(path).read()
        except (pa.ArrowInvalid, OSError) as error:
            report.differs(f"{path.name} cannot be read: {error}")
            continue
        missing = [name for name in METADATA if name not in table.column_names]
        if missing:
            report.differs(f"{path.name} has no {', '.join(missing)}")
            continue
        strings = lambda name: landed_values(table.column(name), "text")
        timestamps = landed_values(table.column("_metadata_timestamp"), "moment")
        sequences, types = strings("_metadata_sequence"), strings("_metadata_change_type")
        deleted, unchanged = table.column("_metadata_deleted").to_pylist(), table.column("_metadata_unchanged").to_pylist()
        read_timestamps = landed_values(table.column("_metadata_read_timestamp"), "moment")
        if any(moment is None for moment in read_timestamps) or any(method is None for method in strings("_metadata_read_method")):
            report.differs(f"{path.name} has rows that do not say when or how they were read")
        if any(flag != (change_type in DELETING) for flag, change_type in zip(deleted, types)):
            report.differs(f"{path.name}: _metadata_deleted does not agree with _metadata_change_type")
        by_column = []
        for name, kind in columns:
            by_column.append(landed_values(table.column(name), kind) if name in table.column_names else [None] * table.num_rows)
        rows = list(zip(*by_column)) if by_column else []
        changes.extend(zip(timestamps, sequences, types, unchanged, rows))
    changes.sort(key=lambda change: change[:2])
    return changes


def check_sequences(name, changes, report):
    in_order = sorted(changes, key=lambda change: change[1])
    for before, after in zip(in_order, in_order[1:]):
        if before[1] == after[1]:
            report.differs(f"{name}: sequence {after[1]} occurs twice ({before[2]}, {after[2]})")
        elif before[0] > after[0]:
            report.differs(f"{name}: time falls at sequence {after[1]}")


def check_counts(name, changes, counts, report):
    kinds = collections.Counter(change[2] for change in changes)
    for kind, counted in (("INSERT", counts["inserts"]), ("UPDATE-INSERT", counts["updates"]), ("DELETE", counts["deletes"])):
        if kinds[kind] != counted:
            report.differs(f"{name}: {kinds[kind]} changes of type {kind}, the log holds {counted}")


def replay(changes, columns, key):
    """The rows that are left after every change, in order."""
    names = [name for name, _ in columns]
    places = [names.index(column) for column in key]
    state, moved = {}, None
    for _, sequence, change_type, unchanged, row in changes:
        if change_type == "TRUNCATE":
            state.clear()
            continue
        identity = tuple(row[place] for place in places)
        if change_type in DELETING:
            moved = (sequence[:-1], state.pop(identity, None))
            continue
        if unchanged:
            # The first half of a key change differs in the sequence's last bit only.
            before = moved[1] if moved and change_type == "UPDATE-INSERT" and moved[0] == sequence[:-1] and identity not in state else state.get(identity)
            row = tuple(before[i] if before is not None and names[i] in unchanged else value for i, value in enumerate(row))
        state[identity] = row
    return list(state.values())


def replay_without_key(changes):
    """Rows without a key are a bag: every change adds a row or takes an equal one away."""
    bag = collections.Counter()
    for _, _, change_type, _, row in changes:
        if change_type == "TRUNCATE":
            bag.clear()
        elif change_type in DELETING:
            bag[row] -= 1
        else:
            bag[row] += 1
    return bag


def compare_rows(name, how, columns, key, expected, found, report):
    """Two sets of rows; with a key, differences are named by column."""
    if collections.Counter(expected) == collections.Counter(found):
        return
    report.differs(f"{name} ({how}): {len(expected)} rows in the source, {len(found)} landed")
    names = [column for column, _ in columns]
    places = [names.index(column) for column in key]
    by_key = lambda rows: {tuple(row[place] for place in places) if key else row: row for row in rows}
    expected, found = by_key(expected), by_key(found)
    for identity in list(expected.keys() - found.keys())[:3]:
        report.differs(f"{name} ({how}): {show(identity)} is missing")
    for identity in list(found.keys() - expected.keys())[:3]:
        report.differs(f"{name} ({how}): {show(identity)} should not be there")
    shown = 0
    for identity in expected.keys() & found.keys():
        for (column, _), left, right in zip(columns, expected[identity], found[identity]):
            if left != right and shown < 5:
                shown += 1
                report.differs(f"{name}.{column} ({how}), key {show(identity)}: the source has {show(left)}, landed is {show(right)}")


def reduce_with_duckdb(paths, columns, key):
    """The current state as interface.md defines it, in SQL; columns that DuckDB cannot read are left out."""
    schema = pa.unify_schemas([pq.read_schema(path).remove_metadata() for path in paths[-1:]])
    readable = []
    for name, kind in columns:
        if name not in schema.names:
            continue
        arrow_type = schema.field(name).type
        if pa.types.is_decimal(arrow_type) and arrow_type.precision > 38:
            continue
        readable.append((name, kind))
    quoted = lambda name: '"' + name.replace('"', '""') + '"'
    # An added column may be missing from older files, and hidden from DuckDB by the name of a partition.
    sql = f"""
        WITH changes AS (SELECT * FROM read_parquet({[str(path) for path in paths]!r}, union_by_name = true, hive_partitioning = false)),
        floor AS (SELECT max((_metadata_timestamp, _metadata_sequence)) AS last_one FROM changes WHERE _metadata_change_type = 'TRUNCATE'),
        latest AS (
            SELECT * FROM changes WHERE _metadata_change_type <> 'TRUNCATE'
            QUALIFY row_number() OVER (PARTITION BY {', '.join(map(quoted, key))} ORDER BY _metadata_timestamp DESC, _metadata_sequence DESC) = 1)
        SELECT {', '.join(quoted(name) for name, _ in readable)} FROM latest
        WHERE NOT _metadata_deleted AND ((SELECT last_one FROM floor) IS NULL OR (_metadata_timestamp, _metadata_sequence) > (SELECT last_one FROM floor))"""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    result = connection.execute(sql).arrow()
    table = result.read_all() if isinstance(result, pa.RecordBatchReader) else result
    return readable, list(zip(*(landed_values(table.column(place), kind) for place, (_, kind) in enumerate(readable))))


def compare(request, root, report):
    source = Source(**request["source"])
    files = landed_files(root, report)
    everything, total_rows = [], 0
    for schema, table in request["tables"]:
        name = f"{schema}.{table}"
        columns, key, expected = source.table(schema, table)
        paths = files.get((schema, table), [])
        changes = read_changes(paths, columns, report)
        everything.extend(changes)
        total_rows += len(expected)
        check_sequences(name, changes, report)
        if "counts" in request:
            counts = request["counts"].get(name, {"inserts": 0, "updates": 0, "deletes": 0})
            if counts is not None:
                check_counts(name, changes, counts, report)
        if not key:
            compare_rows(name, "replayed", columns, [], expected, list(replay_without_key(changes).elements()), report)
            continue
        compare_rows(name, "replayed", columns, key, expected, replay(changes, columns, key), report)
        if paths and not any(change[3] for change in changes):
            readable, found = reduce_with_duckdb(paths, columns, key)
            places = [columns.index(column) for column in readable]
            compare_rows(name, "DuckDB", readable, key, [tuple(row[place] for place in places) for row in expected], found, report)
    # Positions are unique in the whole log, not only in a table.
    repeated = [sequence for sequence, count in collections.Counter(change[1] for change in everything).items() if count > 1]
    if repeated:
        report.differs(f"{len(repeated)} sequences occur in more than one place, {repeated[0]} for one")
    return f"{len(request['tables'])} tables, {len(everything)} changes in {sum(map(len, files.values()))} files, {total_rows} rows in the end"


def main():
    request = json.load(sys.stdin)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="logweir-compare-") as temporary:
        root = pathlib.Path(temporary)
        if "directory" in request["lake"]:
            root = pathlib.Path(request["lake"]["directory"])
        else:
            fetch(request["lake"], root)
        summary = compare(request, root, report)
    print(summary)
    for difference in report.differences[:DIFFERENCES_SHOWN]:
        print(f"  {difference}")
    if len(report.differences) > DIFFERENCES_SHOWN:
        print(f"  and {len(report.differences) - DIFFERENCES_SHOWN} more")
    sys.exit(1 if report.differences else 0)


if __name__ == "__main__":
    main()
