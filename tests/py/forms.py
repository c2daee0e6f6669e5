"""One form for the values of both sides: numbers as int, text as str, bytes as bytes, time as a number of days or microseconds."""

import datetime
import decimal
import itertools
import json
import struct

import pyarrow as pa
import pyarrow.compute as pc

decimal.getcontext().prec = 200


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


def single(number):
    """A float of 32 bits, bit by bit, but that all which are no number are alike."""
    return struct.pack("<f", number) if number == number else b"NaN"


def double(number):
    """The same of 64 bits."""
    return struct.pack("<d", number) if number == number else b"NaN"


def landed_values(column, kind):
    """The values of an Arrow column in the common form."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if isinstance(kind, tuple):
        # A list: the elements of all rows, cut by the rows' lengths.
        values, lengths = iter(landed_values(column.flatten(), kind[1])), pc.list_value_length(column).to_pylist()
        return [None if length is None else tuple(itertools.islice(values, length)) for length in lengths]
    if kind == "date":
        return column.cast(pa.int32()).to_pylist()
    if kind == "moment":
        if pa.types.is_timestamp(column.type) and column.type.unit != "us":
            column = column.cast(pa.timestamp("us", column.type.tz))
        return column.cast(pa.int64()).to_pylist()
    values = column.to_pylist()
    convert = {
        "boolean": bool,
        "integer": int,
        "single": single,
        "decimal": lambda value: plain(str(value)),
        "float": double,
        "vector": lambda value: struct.pack(f"<{len(value)}f", *value),
        "json": json_form,
        "bytes": bytes,
        "text": str,
    }[kind]
    return [None if value is None else convert(value) for value in values]


def show(value):
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
