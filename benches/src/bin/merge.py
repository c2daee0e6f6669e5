#!/usr/bin/env python3
"""The current state of a table from its changes in Parquet: logweir, DuckDB, Polars, DataFusion's window plan. Parquet in, Arrow out.

merge.py gen DIR [CHANGES] [KEYS]       makes DIR/source: 12 columns, in the order of commits (needs duckdb)
merge.py land MERGE DIR                 lands them as logweir does, by three keys: DIR/k, DIR/scattered, DIR/name
merge.py run MERGE DIR [ROUNDS] [LAKES] each in a process of its own, in turn; medians and extremes (needs duckdb, polars, pyarrow)

MERGE is the bench's binary, target/bench-fast/merge. All read the same files and answer the same question: rows are counted and
thrown away, as is the sum of `seq`, which must be the same everywhere. DuckDB and Polars may go by `seq`, an integer that rises along the log, where logweir
has what a source has: commit time and position. Two threads each."""
import glob, json, os, resource, statistics, subprocess, sys, time

COLUMNS = "k, seq, op, qty, amt, ts, d, name, city, note, flag, score"
KEYS = {"k": "k", "scattered": "k", "name": "name"}
MEMORY_MIB = 2048


def gen(folder, changes=20_000_000, keys=5_000_000):
    import duckdb
    os.makedirs(f"{folder}/source", exist_ok=True)
    c = duckdb.connect()
    c.execute("set threads=2")
    per = changes // 10
    for i in range(10):
        c.execute(f"""copy (select (hash(g) % {keys})::bigint k, g::bigint seq, (case when g < {keys} then 0 when hash(g+7) % 10 = 0 then 2 else 1 end)::tinyint op,
          (g*7919 % 1000003)::int qty, ((g*104729 % 99999989)/100.0)::decimal(12,2) amt, timestamp '2026-01-01' + to_microseconds(g*1370123) ts,
          date '2020-01-01' + (g % 2000)::int d, 'customer-'||lpad((hash(g) % {keys})::varchar,8,'0') "name",
          ['Berlin','Oslo','Lisbon','Montevideo','Kyoto','Nairobi','Quito','Perth'][g % 8 + 1] city, left(md5(g::varchar),28) note, g % 3 = 0 flag,
          g*0.6180339887::double score
          from range({i * per}, {(i + 1) * per}) r(g) order by g) to '{folder}/source/changes-{i:02d}.parquet' (format parquet, compression zstd)""")


def duckdb_run(how, lake, key, columns):
    """In a process of its own: one run, as JSON."""
    import duckdb
    import pyarrow.compute
    c = duckdb.connect()
    c.execute("set threads=2")
    c.execute("set preserve_insertion_order=false")
    source = f"read_parquet('{lake}/**/*.parquet', hive_partitioning=false)"
    sql = {
        "semijoin": f"select {columns} from {source} t join (select {key} k_, max(seq) seq_ from {source} group by 1) m on t.{key} = m.k_ and t.seq = m.seq_ where not _metadata_deleted",
        "qualify": f"select {columns} from (select * from {source} qualify row_number() over (partition by {key} order by seq desc) = 1) where not _metadata_deleted",
    }[how]
    cpu = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    before, started = cpu(), time.time()
    result = c.execute(sql)
    rows = check = 0
    for batch in result.to_arrow_reader(100_000):
        rows += batch.num_rows
        if "seq" in columns:
            check += pyarrow.compute.sum(batch.column("seq")).as_py() or 0
    seconds, used = time.time() - started, cpu() - before
    peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024
    print(json.dumps({"rows": rows, "check": check, "seconds": seconds, "cpu": used, "rss_mib": peak}))


def polars_run(lake, key, columns):
    """The same with Polars' streaming engine."""
    import polars
    names = columns.split(", ")
    files = sorted(glob.glob(f"{lake}/**/*.parquet", recursive=True))
    cpu = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    before, started = cpu(), time.time()
    changes = polars.scan_parquet(files, hive_partitioning=False).select(*names, "_metadata_deleted")
    newest = changes.group_by(key).agg(polars.col("seq").max())
    state = changes.join(newest, on=[key, "seq"], how="semi").filter(~polars.col("_metadata_deleted")).select(names)
    state = state.collect(engine="streaming")
    rows, check = state.height, state["seq"].sum()
    seconds, used = time.time() - started, cpu() - before
    peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024
    print(json.dumps({"rows": rows, "check": check, "seconds": seconds, "cpu": used, "rss_mib": peak}))


def run(binary, folder, rounds=3, lakes="k,scattered,name"):
    for lake in lakes.split(","):
        key, path = KEYS[lake], f"{folder}/{lake}"
        state = f"select {COLUMNS} from shop.changes"
        window = f"""select {COLUMNS} from (select {COLUMNS}, _metadata_deleted, row_number() over (partition by {key} order by _metadata_timestamp desc, _metadata_sequence desc) age from changes)
            where age = 1 and not _metadata_deleted"""
        cases = {
            "logweir": [binary, "logweir", path, state, str(MEMORY_MIB)],
            "DuckDB, semi-join": [sys.executable, __file__, "duckdb", "semijoin", path, key, COLUMNS],
            "DuckDB, QUALIFY": [sys.executable, __file__, "duckdb", "qualify", path, key, COLUMNS],
            "Polars, semi-join": [sys.executable, __file__, "polars", path, key, COLUMNS],
            "DataFusion, window": [binary, "window", f"{path}/shop/changes", window, "6144"],
            "logweir, count(*)": [binary, "logweir", path, "select count(*) from shop.changes", str(MEMORY_MIB)],
        }
        changes = int(subprocess.check_output([sys.executable, "-c", f"import pyarrow.parquet as q,glob;print(sum(q.ParquetFile(f).metadata.num_rows for f in glob.glob('{path}/**/*.parquet', recursive=True)))"]))
        seen = {name: [] for name in cases}
        for r in range(rounds):
            for name, command in cases.items():
                # What takes a minute a time is run once.
                if r and seen[name] and (seen[name][0].get("seconds", 99) > 25):
                    continue
                done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "POLARS_MAX_THREADS": "2"})
                line = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
                seen[name].append(json.loads(line) if done.returncode == 0 else {"error": done.stderr.strip()[-300:]})
        print(f"\nkey {lake}: {changes:,} changes\n\n| | rows/s | CPU-s per million rows | peak MiB | rows | sum of seq |\n|---|---|---|---|---|---|")
        for name, runs in seen.items():
            if "error" in runs[0]:
                print(f"| {name} | {runs[0]['error']} |")
                continue
            of = lambda value: [value(run) for run in runs]
            show = lambda values, form: f"{form(statistics.median(values))} ({form(min(values))}-{form(max(values))})"
            rate = show(of(lambda run: changes / run["seconds"]), lambda v: f"{v / 1e6:.2f} M")
            cpu = show(of(lambda run: run["cpu"] / changes * 1e6), lambda v: f"{v:.3f}")
            print(f"| {name} | {rate} | {cpu} | {max(of(lambda run: run['rss_mib']))} | {runs[0]['rows']:,} | {runs[0]['check']} |", flush=True)


match sys.argv[1:]:
    case ["gen", folder, *counts]:
        gen(folder, *map(int, counts))
    case ["land", binary, folder]:
        for lake in KEYS:
            subprocess.run([binary, "land", f"{folder}/source", f"{folder}/{lake}", lake], check=True)
    case ["run", binary, folder, *rest]:
        run(binary, folder, *([int(rest[0])] if rest else []), *rest[1:2])
    case ["duckdb", how, lake, key, columns]:
        duckdb_run(how, lake, key, columns)
    case ["polars", lake, key, columns]:
        polars_run(lake, key, columns)
    case _:
        sys.exit(__doc__)
