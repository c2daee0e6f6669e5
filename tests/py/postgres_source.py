"""What a PostgreSQL server holds, by psycopg, in the form of forms.py.

Values are taken as the text that the server's own output functions give under settings that leave no doubt, and read
here; nothing is left to how a client understands types.
"""

import datetime

import psycopg
import pyarrow as pa

from forms import double, plain, single, time_of_day

SETTINGS = {
    "DateStyle": "ISO", "TimeZone": "UTC", "IntervalStyle": "iso_8601", "extra_float_digits": "3", "bytea_output": "hex", "lc_monetary": "C",
}
DAY = 86_400_000_000


def days(text):
    """Of any year there is, and of infinity: the greatest number of the column, or its negation."""
    if text.endswith("infinity"):
        return -(2**31 - 1) if text.startswith("-") else 2**31 - 1
    text, before_christ = (text[:-3], True) if text.endswith(" BC") else (text, False)
    year, month, day = map(int, text.split("-"))
    year = 1 - year if before_christ else year
    # Python's calendar has the years 1 to 9999, and every 400 years are alike.
    cycles = (year - 1) // 400
    return datetime.date(year - 400 * cycles, month, day).toordinal() + cycles * 146_097 - 719_163


def moment(text):
    if text.endswith("infinity"):
        return -(2**63 - 1) if text.startswith("-") else 2**63 - 1
    date, _, time = text.removesuffix(" BC").partition(" ")
    return days(date + " BC" if text.endswith(" BC") else date) * DAY + time_of_day(time.removesuffix("+00"))


def elements(text, delimiter):
    """The elements of an array of one dimension, as text or None."""
    if not (text.startswith("{") and text.endswith("}")):
        raise SystemExit("compare.py does not know arrays that say their bounds")
    found, place = [], 1
    while text[place] != "}" or found:
        if text[place] == '"':
            value, place = [], place + 1
            while text[place] != '"':
                place += text[place] == "\\"
                value.append(text[place])
                place += 1
            found.append("".join(value))
            place += 1
        else:
            if text[place] == "{":
                raise SystemExit("compare.py does not know arrays of several dimensions")
            end = place
            while text[end] not in (delimiter, "}"):
                end += 1
            value, place = text[place:end], end
            found.append(None if value == "NULL" else value)
        if text[place] == "}":
            break
        place += 1
    return found


# By the name of a built-in type: how its text is read, the kind of value it is, and the Arrow type that it lands as.
BUILT_IN = {
    "bool": (lambda text: text == "t", "boolean", pa.bool_()),
    "int2": (int, "integer", pa.int16()),
    "int4": (int, "integer", pa.int32()),
    "int8": (int, "integer", pa.int64()),
    "oid": (int, "integer", pa.uint32()),
    "xid": (int, "integer", pa.uint32()),
    "cid": (int, "integer", pa.uint32()),
    "xid8": (int, "integer", pa.uint64()),
    "float4": (lambda text: single(float(text)), "single", pa.float32()),
    "float8": (lambda text: double(float(text)), "float", pa.float64()),
    "money": (lambda text: plain(text.replace("$", "").replace(",", "")), "decimal", pa.decimal128(19, 2)),
    "date": (days, "date", pa.date32()),
    "time": (time_of_day, "moment", pa.time64("us")),
    "timestamp": (moment, "moment", pa.timestamp("us")),
    "timestamptz": (moment, "moment", pa.timestamp("us", "UTC")),
    "bytea": (lambda text: bytes.fromhex(text[2:]), "bytes", pa.binary()),
}
TEXT = (str, "text", pa.string())
EWKB = (bytes.fromhex, "bytes", pa.binary())


def numeric(modifier):
    """A decimal where the type says how many digits there are, and they are not more than a column has."""
    if modifier < 4:
        return TEXT
    precision, scale = (modifier - 4) >> 16 & 0xFFFF, ((modifier - 4 & 0x7FF) ^ 1024) - 1024
    precision = precision - scale if scale < 0 else max(precision, scale)
    scale = max(scale, 0)
    if precision > 76:
        return TEXT
    read = lambda text: text if text == "NaN" else plain(text)
    return read, "decimal", pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


class Source:
    def __init__(self, host, port, database, flavour="postgres"):
        self.connection = psycopg.connect(host=host, port=port, dbname=database, user="postgres", autocommit=True)
        for name, value in SETTINGS.items():
            self.connection.execute(f"SET {name} = '{value}'")

    def ask(self, sql, *values):
        return self.connection.execute(sql, values or None).fetchall()

    def carried(self, oid, modifier):
        """How a type's text is read, the kind of value it is, and the Arrow type that it lands as."""
        [(schema, name, kind, base, base_modifier, element, delimiter)] = self.ask(
            """SELECT nspname, t.typname, t.typtype::text, t.typbasetype, t.typtypmod, e.oid, e.typdelim::text
               FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
               WHERE t.oid = %s""", oid)
        if element:
            read, inner, arrow = self.carried(element, modifier)
            one = lambda text: None if text is None else read(text)
            return lambda text: tuple(map(one, elements(text, delimiter))), ("list", inner), pa.list_(arrow)
        if kind == "d":
            return self.carried(base, base_modifier)
        if schema == "pg_catalog":
            return numeric(modifier) if name == "numeric" else BUILT_IN.get(name, TEXT)
        return EWKB if name in ("geometry", "geography") else TEXT

    def columns(self, schema, table):
        """Name, type and modifier of every column, and whether it is computed."""
        return self.ask(
            """SELECT attname, atttypid, atttypmod, attgenerated <> '' FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
               WHERE nspname = %s AND relname = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum""", schema, table)

    def key(self, schema, table):
        """The columns of the index that says which row a change is about, in the index's order."""
        return [name for name, in self.ask(
            """SELECT attname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace JOIN pg_index i ON indrelid = c.oid,
                   unnest(indkey::int2[]) WITH ORDINALITY AS k(number, place) JOIN pg_attribute a ON attnum = number
               WHERE nspname = %s AND relname = %s AND attrelid = c.oid AND CASE relreplident WHEN 'i' THEN indisreplident ELSE indisprimary END
               ORDER BY place""", schema, table)]

    def optional(self, schema, table):
        """Columns that need not land: not every log holds what is computed."""
        return {name for name, _, _, computed in self.columns(schema, table) if computed}

    def arrow_types(self, schema, table):
        return {name: self.carried(oid, modifier)[2] for name, oid, modifier, _ in self.columns(schema, table)}

    def table(self, schema, table):
        quoted = lambda name: '"' + name.replace('"', '""') + '"'
        columns = self.columns(schema, table)
        if not columns:
            raise SystemExit(f"the source has no table {schema}.{table}")
        carried = [self.carried(oid, modifier) for _, oid, modifier, _ in columns]
        sql = f"SELECT {', '.join(quoted(name) for name, *_ in columns)} FROM {quoted(schema)}.{quoted(table)}"
        # As text, whatever the type.
        result = self.connection.pgconn.exec_(sql.encode())
        if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
            raise SystemExit(f"{sql}: {result.error_message.decode()}")
        rows = []
        for number in range(result.ntuples):
            values = (result.get_value(number, place) for place in range(len(columns)))
            rows.append(tuple(None if value is None else read(value.decode()) for value, (read, _, _) in zip(values, carried)))
        return [(name, kind) for (name, *_), (_, kind, _) in zip(columns, carried)], self.key(schema, table), rows
