#!/usr/bin/env python3
"""Asks running servers what every code of every character set means, and writes their answers down.

    answers.py --mariadb /path/to/mariadb.sock --mysql /path/to/mysql.sock

`single.txt` holds a line per single-byte character set: its name, the servers that know it, and 256 code points in hex
(`-` where the server has none). `multi.txt.gz` holds, per multi-byte character set, a line per run of consecutive codes:
the first code, then code points, `p+n` for n more that follow p one by one. `collations.txt` holds a line per collation
id. They are what the tests of `src/value/charset` compare with. Where both servers know a character set their answers
must agree, or the difference is printed and both are written.
"""
import argparse, gzip, os, subprocess

SINGLE = """latin1 latin2 latin5 latin7 greek hebrew cp1250 cp1251 cp1256 cp1257 koi8r koi8u tis620 cp850 cp852 cp866
macroman macce armscii8 geostd8 keybcs2 hp8 dec8 swe7 ascii""".split()
MULTI = "big5 gbk gb2312 euckr sjis cp932 ujis eucjpms gb18030".split()

SETUP = """
create database if not exists charset_answers; use charset_answers;
create table if not exists d (d tinyint unsigned primary key);
replace into d values (0),(1),(2),(3),(4),(5),(6),(7),(8),(9),(10),(11),(12),(13),(14),(15);
create table if not exists b (b binary(1) primary key) select char(x.d * 16 + y.d using binary) as b from d x, d y;
"""


def ask(socket, sql):
    command = ["mariadb", "--no-defaults", "-uroot", "-S", socket, "-N", "-B", "--default-character-set=utf8mb4"]
    done = subprocess.run(command, input=sql, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [line.split("\t") for line in done.stdout.splitlines()]


def answers(socket, charset, select):
    """code (as hex) -> code point, for the codes that are exactly one character."""
    sql = (f"use charset_answers; select hex(c), hex(convert(t using utf32)) from "
           f"(select c, convert(c using {charset}) t from ({select}) x) y where t is not null and char_length(t) = 1 and length(t) = length(c)")
    table = {}
    for code, point in ask(socket, sql):
        if len(point) == 8 and (point != "0000003F" or code == "3F"):
            table[code] = int(point, 16)
    return table


def codes(charset):
    yield "select b c from b"
    yield "select concat(x.b, y.b) c from b x, b y where x.b >= unhex('80')"
    if charset in ("ujis", "eucjpms"):
        yield "select concat(unhex('8F'), x.b, y.b) c from b x, b y where x.b >= unhex('A0') and y.b >= unhex('A0')"
    if charset == "gb18030":
        # The four-byte codes of the basic plane; the others are computed and are sampled at their ends.
        digit = "between unhex('30') and unhex('39')"
        yield (f"select concat(w.b, x.b, y.b, z.b) c from b w, b x, b y, b z where w.b between unhex('81') and unhex('84') and x.b {digit} "
               f"and y.b between unhex('81') and unhex('FE') and z.b {digit}")
        yield (f"select concat(w.b, x.b, y.b, z.b) c from b w, b x, b y, b z where w.b between unhex('85') and unhex('FE') and x.b {digit} "
               "and y.b in (unhex('81'), unhex('B0'), unhex('FE')) and z.b in (unhex('30'), unhex('36'), unhex('39'))")


def folded(points):
    """The points, with those that follow one another counted."""
    start, count = points[0], 0
    for point in points[1:] + [None]:
        if point == start + count + 1:
            count += 1
        else:
            yield f"{start:x}+{count:x}" if count else f"{start:x}"
            start, count = point, 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mariadb")
    parser.add_argument("--mysql")
    arguments = parser.parse_args()
    servers = [(name, path) for name, path in (("mariadb", arguments.mariadb), ("mysql", arguments.mysql)) if path]
    known = {}
    for name, path in servers:
        ask(path, SETUP)
        known[name] = {row[0] for row in ask(path, "select character_set_name from information_schema.character_sets")}
    collations = {}
    for name, path in servers:
        table = "collations" if name == "mysql" else "collation_character_set_applicability"
        for number, charset in ask(path, f"select id, character_set_name from information_schema.{table} where id is not null"):
            if collations.setdefault(int(number), charset) != charset:
                print("collation", number, "is of", collations[int(number)], "and of", charset)
    here = os.path.dirname(os.path.abspath(__file__))

    def gather(charset, selects):
        told = []
        for name, path in servers:
            if charset in known[name]:
                table = {}
                for select in selects:
                    table.update(answers(path, charset, select))
                told.append((name, table))
        if len(told) == 2 and told[0][1] != told[1][1]:
            a, b = told[0][1], told[1][1]
            differing = sorted(code for code in a.keys() | b.keys() if a.get(code) != b.get(code))
            print(charset, "differs at", len(differing), "codes:", [(c, a.get(c), b.get(c)) for c in differing[:8]])
            return told
        return [("+".join(name for name, _ in told), told[0][1])] if told else []

    with open(os.path.join(here, "collations.txt"), "w") as out:
        for number in sorted(collations):
            print(number, collations[number], file=out)
    with open(os.path.join(here, "single.txt"), "w") as out:
        for charset in SINGLE:
            for name, table in gather(charset, ["select b c from b"]):
                points = [format(table[f"{byte:02X}"], "x") if f"{byte:02X}" in table else "-" for byte in range(256)]
                print(charset, name, *points, file=out)
    with gzip.GzipFile(os.path.join(here, "multi.txt.gz"), "wb", mtime=0) as out:
        for charset in MULTI:
            for name, table in gather(charset, list(codes(charset))):
                out.write(f"charset {charset} {name}\n".encode())
                run, expected, length = [], None, None
                for code in sorted(table, key=lambda code: (len(code), code)) + [None]:
                    if run and (code is None or len(code) != length or int(code, 16) != expected):
                        out.write((" ".join([run[0], *folded(run[1:])]) + "\n").encode())
                        run = []
                    if code is None:
                        break
                    if not run:
                        run, length = [code], len(code)
                    run.append(table[code])
                    expected = int(code, 16) + 1


if __name__ == "__main__":
    main()
