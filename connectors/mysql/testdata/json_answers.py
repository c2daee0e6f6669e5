#!/usr/bin/env python3
"""Has a MySQL server store JSON documents, and writes down what it logged for each and what it shows.

    json_answers.py --socket /path/to/mysql.sock --datadir /path/to/data

`json.txt.gz` holds a line per document: the bytes of the row image in hex, and the text of `CAST(j AS CHAR)`, with which
the tests of `src/value/json` compare.
"""
import argparse, gzip, os, random, struct, subprocess
from json import dumps

WRITTEN = [
    "null", "true", "false", "0", "-1", "32767", "32768", "-32768", "-32769", "65535", "65536", "2147483647", "2147483648",
    "-2147483648", "-2147483649", "4294967295", "4294967296", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
    "18446744073709551615", "18446744073709551616", "1.0", "-0.0", "0.5", "1e308", "1e-308", "5e-324", "[]", "{}", "[[]]", '""',
    '{"": ""}', '{"b": 1, "a": 2, "aa": 3, "B": [1, 2.5, null, true, false]}', dumps("\x00\x01\b\t\n\x0b\f\r\x1f\x7f\"\\/ü😀中"),
    dumps({"\"\\\n ключ": "значение"}), "[" * 99 + "1" + "]" * 99, dumps(["x" * 127, "x" * 128, "x" * 16384]),
]
LARGE = [
    dumps({"big": "x" * 70000, "i32": 100000, "u32": 4000000000, "i16": -5, "i64": 1 << 40, "null": None, "d": 1.5, "small": {"a": [1]}}),
    dumps([1, -70000, 3000000000, True, "y" * 66000, [2] * 10]),
]
OPAQUE = """json_object('zero', cast(0 as decimal(10,2)), 'half', 0.5, 'small', 0.00012, 'neg', -12.3400, 'int', cast(12345678901234567890 as decimal(30,0)),
 'wide', cast('-12345678901234567890123456789012345.678901234567890123456789012345' as decimal(65,30)), 'wee', cast('0.000000000000000000000000000001' as decimal(30,30)))
json_object('d', cast('2015-01-15' as date), 'first', cast('0001-01-01' as date), 'last', cast('9999-12-31' as date))
json_array(cast('2015-01-15 23:24:25.12' as datetime(3)), cast('9999-12-31 23:59:59.999999' as datetime(6)), timestamp'2020-01-01 00:00:00')
json_array(cast('-11:12:13.5' as time(1)), cast('838:59:59' as time), cast('-838:59:59' as time), cast('-00:00:00.000001' as time(6)), cast('0' as time))
json_array(b'101', x'00ff', cast('abc' as binary), cast(2020 as year), cast('' as binary))
json_array(repeat(x'00ff', 28), repeat(x'00ff', 29), repeat(x'7f', 57), repeat(x'7f', 58), repeat(x'01', 1000))
cast(x'cafe' as json)
cast(1.50 as json)
cast(cast('12:00:00' as time) as json)""".replace("\n '", " '").split("\n")


def document(chance, depth=0):
    kind = chance.randrange(9 if depth < 4 else 7)
    if kind == 0:
        return chance.choice([None, True, False])
    if kind == 1:
        return chance.randrange(-(1 << chance.randrange(1, 64)), 1 << chance.randrange(1, 65))
    if kind in (2, 3):
        return double(chance)
    if kind in (4, 5, 6):
        return "".join(chance.choice("abc XYZ\"\\\n\x02é中😀") for _ in range(chance.randrange(12)))
    if kind == 7:
        return [document(chance, depth + 1) for _ in range(chance.randrange(6))]
    return {chance.choice(["a", "bb", "ключ", ""]) + str(i): document(chance, depth + 1) for i in range(chance.randrange(6))}


def double(chance):
    while True:
        if chance.random() < 0.5:
            number = struct.unpack("<d", chance.randbytes(8))[0]
        else:
            number = round(chance.uniform(-10, 10), chance.randrange(1, 17)) * 10.0 ** chance.randrange(-20, 20)
        if number == number and abs(number) != float("inf"):
            return number


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--datadir", required=True)
    arguments = parser.parse_args()
    chance = random.Random(2026)

    def run(sql):
        command = ["mariadb", "--no-defaults", "-uroot", "-S", arguments.socket, "-N", "-B", "--raw", "--default-character-set=utf8mb4"]
        done = subprocess.run(command, input=sql.encode(), capture_output=True)
        if done.returncode:
            raise SystemExit(done.stderr.decode())
        return done.stdout.decode().split("\n")[:-1]

    literal = lambda text: "cast(convert(x'%s' using utf8mb4) as json)" % text.encode().hex()
    documents = [literal(text) for text in WRITTEN + LARGE] + OPAQUE
    documents += [literal(dumps([double(chance) for _ in range(20)])) for _ in range(60)]
    documents += [literal(dumps(document(chance), ensure_ascii=chance.random() < 0.5)) for _ in range(250)]
    run("drop database if exists json_answers; create database json_answers; create table json_answers.t (id int primary key, j json); flush binary logs")
    log = run("show binary log status")[0].split("\t")[0]
    for number, expression in enumerate(documents):
        run(f"insert into json_answers.t values ({number}, {expression})")
    texts = dict(line.split("\t", 1) for line in run("select id, cast(j as char) from json_answers.t"))

    logged, place, content = {}, 4, open(os.path.join(arguments.datadir, log), "rb").read()
    while place < len(content):
        _, kind, _, length, _, _ = struct.unpack("<IBIIIH", content[place : place + 19])
        if kind == 30:
            # Table id and flags, extra data, one byte of column count, of present columns, of nulls; then the row.
            row = content[place + 27 + struct.unpack("<H", content[place + 27 : place + 29])[0] + 3 : place + length - 4]
            number, size = struct.unpack("<iI", row[:8])
            logged[number] = row[8 : 8 + size]
        place += length
    assert len(logged) == len(texts) == len(documents)
    here = os.path.dirname(os.path.abspath(__file__))
    with gzip.GzipFile(os.path.join(here, "json.txt.gz"), "wb", mtime=0) as out:
        for number in range(len(documents)):
            out.write(f"{logged[number].hex()} {texts[str(number)]}\n".encode())


if __name__ == "__main__":
    main()
