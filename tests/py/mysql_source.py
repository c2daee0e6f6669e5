"""What a MySQL or MariaDB server holds, by PyMySQL, in the form of forms.py."""

import struct

import pymysql
import pymysql.converters

from forms import days, json_form, moment, plain, time_of_day


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


class Source:
    def __init__(self, host, port, flavour):
        self.flavour = flavour
        self.connection = pymysql.connect(host=host, port=port, user="root", charset="utf8mb4", conv=pymysql.converters.encoders, autocommit=True, init_command="SET time_zone = '+00:00'")

    def query(self, sql, *values):
        with self.connection.cursor() as cursor:
            escaped = tuple("'" + value.replace("'", "''") + "'" for value in values)
            cursor.execute(sql % escaped if values else sql)
            return cursor.fetchall()

    def optional(self, schema, table):
        """Columns that need not land: none."""
        return set()

    def arrow_types(self, schema, table):
        """What the columns must land as; tests of the connector say that."""
        return {}

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
