#!/usr/bin/env python3
"""Compares what logweir landed with what the source holds, value by value.

Reads a JSON object from standard input:

    source   host, port, flavour (mariadb | mysql | postgres), for PostgreSQL database; asked as administrator
    lake     directory, or endpoint + bucket + prefix of an S3 emulator
    tables   [[schema, table], …]
    only     optional: true if no other table may have landed
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
import importlib
import json
import pathlib
import sys
import tempfile
import urllib.parse

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from forms import landed_values, show

DIFFERENCES_SHOWN = 20

METADATA = [
    "_metadata_timestamp", "_metadata_sequence", "_metadata_change_type", "_metadata_deleted", "_metadata_read_timestamp",
    "_metadata_read_method", "_metadata_source", "_metadata_unchanged",
]
DELETING = {"DELETE", "UPDATE-DELETE", "TRUNCATE"}


def open_source(flavour, **server):
    """The source, asked by a client that is not ours."""
    return importlib.import_module("postgres_source" if flavour == "postgres" else "mysql_source").Source(flavour=flavour, **server)


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
        tables[tuple(urllib.parse.unquote(part) for part in relative.parts[:2])].append(path)
    return tables


def whole_files(paths, report):
    """Those that can be read, as (path, table)."""
    whole = []
    for path in paths:
        try:
            whole.append((path, pq.ParquetFile(path).read()))
        except (pa.ArrowInvalid, OSError) as error:
            report.differs(f"{path.name} cannot be read: {error}")
    return whole


def read_changes(files, columns, report):
    """Every change as (timestamp, sequence, type, unchanged columns, values by column)."""
    changes = []
    for path, table in files:
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
            by_column.append(values_as(table.column(name), kind) if name in table.column_names else [None] * table.num_rows)
        rows = list(zip(*by_column)) if by_column else []
        changes.extend(zip(timestamps, sequences, types, unchanged, rows))
    changes.sort(key=lambda change: change[:2])
    return changes


def values_as(column, kind):
    """Values of a column that had another type when the file was written equal none of now; rows that still have them differ."""
    try:
        return landed_values(column, kind)
    except (pa.ArrowException, TypeError, ValueError):
        return [None if value is None else ("of another type", str(value)) for value in column.to_pylist()]


def check_sequences(name, changes, report):
    in_order = sorted(changes, key=lambda change: change[1])
    for before, after in zip(in_order, in_order[1:]):
        if before[1] == after[1]:
            report.differs(f"{name}: sequence {after[1]} occurs twice ({before[2]}, {after[2]})")
        elif before[0] > after[0]:
            report.differs(f"{name}: time falls at sequence {after[1]}")


def check_types(name, newest, expected, report):
    """The Arrow types of the newest file's columns."""
    for field in newest.schema:
        arrow_type = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
        if field.name in expected and not same_type(arrow_type, expected[field.name]):
            report.differs(f"{name}.{field.name} landed as {arrow_type}, not as {expected[field.name]}")


def same_type(left, right):
    """Whatever the elements of a list are called."""
    if pa.types.is_list(left) and pa.types.is_list(right):
        return same_type(left.value_type, right.value_type)
    return left == right


def check_counts(name, changes, counts, report):
    kinds = collections.Counter(change[2] for change in changes)
    for kind, counted in (("INSERT", counts["inserts"]), ("UPDATE-INSERT", counts["updates"]), ("DELETE", counts["deletes"])):
        if kinds[kind] != counted:
            report.differs(f"{name}: {kinds[kind]} changes of type {kind}, the log holds {counted}")


def change_of(sequence):
    """The same for both halves of a key change, whose sequences differ in the last bit only."""
    return sequence[:-1], int(sequence[-1], 16) >> 1


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
            moved = (change_of(sequence), state.pop(identity, None))
            continue
        if unchanged:
            before = moved[1] if moved and change_type == "UPDATE-INSERT" and moved[0] == change_of(sequence) and identity not in state else state.get(identity)
            row = tuple(before[i] if before is not None and names[i] in unchanged else value for i, value in enumerate(row))
        state[identity] = row
    return list(state.values())


def replay_without_key(name, changes, columns, report):
    """Rows without a key are a bag: every change adds a row or takes an equal one away. An update is both, or neither if it left
    the row as it was."""
    names = [column for column, _ in columns]
    bag, gone, orphans = collections.Counter(), (None, ()), []
    for _, sequence, change_type, unchanged, row in changes:
        if change_type == "TRUNCATE":
            # What came before the table was read is made good by this.
            bag.clear()
            orphans.clear()
        elif change_type in DELETING:
            bag[row] -= 1
            gone = (change_of(sequence), row)
        elif change_type == "UPDATE-INSERT" and gone[0] != change_of(sequence):
            if unchanged or not bag[row]:
                orphans.append(sequence)
        else:
            bag[tuple(gone[1][i] if names[i] in (unchanged or ()) else value for i, value in enumerate(row))] += 1
    for sequence in orphans[:5]:
        report.differs(f"{name}: an update of a row that was never there, at {sequence}")
    if any(count < 0 for count in bag.values()):
        report.differs(f"{name}: rows were taken away that were never there")
    return +bag


def compare_rows(name, how, columns, key, expected, found, report):
    """Two sets of rows; with a key, differences are named by column."""
    more, less = collections.Counter(found), collections.Counter(expected)
    if more == less:
        return
    report.differs(f"{name} ({how}): {len(expected)} rows in the source, {len(found)} landed")
    for row, count in list((more - less).items())[:3]:
        if row in less:
            report.differs(f"{name} ({how}): {show(row)} landed {count} times too often")
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


def readable_with_duckdb(arrow_type):
    if pa.types.is_list(arrow_type):
        return readable_with_duckdb(arrow_type.value_type)
    return not (pa.types.is_decimal(arrow_type) and arrow_type.precision > 38)


def reduce_with_duckdb(paths, columns, key, unchanged):
    """The current state as interface.md defines it, in SQL; columns that DuckDB cannot read are left out, and those that
    some change does not have."""
    schema = pa.unify_schemas([pq.read_schema(path).remove_metadata() for path in paths[-1:]])
    readable = []
    for name, kind in columns:
        if name in schema.names and name not in unchanged and readable_with_duckdb(schema.field(name).type):
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


def compare_table(source, schema, table, paths, counts, report):
    """Compares one table; returns its changes, and how many rows the source has."""
    name = f"{schema}.{table}"
    columns, key, expected = source.table(schema, table)
    landed = whole_files(paths, report)
    left_out = source.optional(schema, table).difference(*(table.column_names for _, table in landed))
    kept = [place for place, (column, _) in enumerate(columns) if column not in left_out]
    columns, expected = [columns[place] for place in kept], [tuple(row[place] for place in kept) for row in expected]
    if landed:
        check_types(name, landed[-1][1], source.arrow_types(schema, table), report)
    changes = read_changes(landed, columns, report)
    check_sequences(name, changes, report)
    if counts is not None:
        check_counts(name, changes, counts, report)
    if not key:
        compare_rows(name, "replayed", columns, [], expected, list(replay_without_key(name, changes, columns, report).elements()), report)
        return changes, len(expected)
    compare_rows(name, "replayed", columns, key, expected, replay(changes, columns, key), report)
    unchanged = {column for change in changes for column in change[3] or ()}
    if landed and not unchanged.intersection(key):
        readable, found = reduce_with_duckdb([path for path, _ in landed], columns, key, unchanged)
        places = [columns.index(column) for column in readable]
        compare_rows(name, "DuckDB", readable, key, [tuple(row[place] for place in places) for row in expected], found, report)
    return changes, len(expected)


def compare(request, root, report):
    source = open_source(**request["source"])
    files = landed_files(root, report)
    if request.get("only"):
        for schema, table in files.keys() - set(map(tuple, request["tables"])):
            report.differs(f"{schema}.{table} landed and should not have")
    everything, total_rows = [], 0
    for schema, table in request["tables"]:
        counts = request["counts"].get(f"{schema}.{table}", {"inserts": 0, "updates": 0, "deletes": 0}) if "counts" in request else None
        changes, rows = compare_table(source, schema, table, files.get((schema, table), []), counts, report)
        everything.extend(changes)
        total_rows += rows
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
