#!/usr/bin/env python3
"""The comparison itself: it accepts what is right and notices what is not."""

import datetime
import pathlib
import tempfile
import unittest

import pyarrow as pa
import pyarrow.parquet as pq

import compare
import forms
import postgres_source

COLUMNS = [("id", "integer"), ("name", "text")]
UTC = datetime.timezone.utc


class FakeSource:
    """Stands in for a server: one table, `shop.people`."""

    rows, key = [], ["id"]

    def __init__(self, **_):
        pass

    def table(self, *_):
        return COLUMNS, self.key, self.rows

    def optional(self, *_):
        return set()

    def arrow_types(self, *_):
        return {"id": pa.int32()}


def change(number, kind, identity, name, unchanged=None, half=1, at=None):
    """A change; `number` is its place in the log."""
    return {
        "id": identity, "name": name, "_metadata_timestamp": datetime.datetime.fromtimestamp(at or number, UTC),
        "_metadata_sequence": f"{0:016x}/{number:016x}/{2 + half:016x}", "_metadata_change_type": kind,
        "_metadata_deleted": kind in compare.DELETING, "_metadata_read_timestamp": datetime.datetime.fromtimestamp(9, UTC),
        "_metadata_read_method": "test", "_metadata_source": {"table": "people"}, "_metadata_unchanged": unchanged,
    }


SCHEMA = pa.schema([
    ("id", pa.int32()), ("name", pa.string()), ("_metadata_timestamp", pa.timestamp("us", "UTC")), ("_metadata_sequence", pa.string()),
    ("_metadata_change_type", pa.string()), ("_metadata_deleted", pa.bool_()), ("_metadata_read_timestamp", pa.timestamp("us", "UTC")),
    ("_metadata_read_method", pa.string()), ("_metadata_source", pa.struct([("table", pa.string())])), ("_metadata_unchanged", pa.list_(pa.string())),
])

HISTORY = [
    change(1, "INSERT", 1, "ada"), change(2, "INSERT", 2, "bob"), change(3, "UPDATE-INSERT", 1, "Ada"), change(4, "DELETE", 2, "bob"),
    change(5, "UPDATE-DELETE", 1, "Ada", half=0), change(5, "UPDATE-INSERT", 7, "Ada"),
]


class Compare(unittest.TestCase):
    def setUp(self):
        compare.open_source, FakeSource.key = FakeSource, ["id"]
        self.directory = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.directory.name)
        (self.root / "shop" / "people").mkdir(parents=True)

    def tearDown(self):
        self.directory.cleanup()

    def land(self, name, changes):
        pq.write_table(pa.Table.from_pylist(changes, SCHEMA), self.root / "shop" / "people" / name)

    def differences(self, rows, counts=None):
        FakeSource.rows = rows
        request = {"source": {}, "tables": [["shop", "people"]]}
        if counts:
            request["counts"] = {"shop.people": counts}
        report = compare.Report()
        compare.compare(request, self.root, report)
        return report.differences

    def assert_noticed(self, differences, text):
        self.assertTrue(any(text in difference for difference in differences), differences)

    def test_a_whole_history_is_accepted_whatever_the_order_of_files(self):
        self.land("a.parquet", HISTORY[3:])
        self.land("b.parquet", HISTORY[:3])
        self.assertEqual(self.differences([(7, "Ada")], {"inserts": 2, "updates": 2, "deletes": 1}), [])

    def test_a_missing_change_is_noticed(self):
        self.land("a.parquet", HISTORY[:2] + HISTORY[3:])
        self.assert_noticed(self.differences([(7, "Ada")], {"inserts": 2, "updates": 2, "deletes": 1}), "1 changes of type UPDATE-INSERT, the log holds 2")

    def test_a_change_that_landed_twice_is_noticed(self):
        self.land("a.parquet", HISTORY)
        self.land("b.parquet", HISTORY[:1])
        self.assert_noticed(self.differences([(7, "Ada")]), "occurs twice")

    def test_a_wrong_value_is_noticed(self):
        self.land("a.parquet", HISTORY)
        self.assert_noticed(self.differences([(7, "ada")]), "shop.people.name (DuckDB), key (7,): the source has 'ada', landed is 'Ada'")

    def test_a_row_that_should_be_gone_is_noticed(self):
        self.land("a.parquet", HISTORY[:3])
        self.assert_noticed(self.differences([(1, "Ada")]), "(2,) should not be there")

    def test_time_that_falls_is_noticed(self):
        self.land("a.parquet", [change(1, "INSERT", 1, "ada", at=5), change(2, "INSERT", 2, "bob", at=4)])
        self.assert_noticed(self.differences([(1, "ada"), (2, "bob")]), "time falls")

    def test_a_truncate_is_a_floor(self):
        self.land("a.parquet", HISTORY + [change(6, "TRUNCATE", None, None), change(7, "INSERT", 1, "eve")])
        self.assertEqual(self.differences([(1, "eve")]), [])

    def test_unchanged_values_come_from_before_also_over_a_key_change(self):
        self.land("a.parquet", HISTORY[:5] + [change(5, "UPDATE-INSERT", 7, None, ["name"]), change(8, "UPDATE-INSERT", 7, None, ["name"])])
        self.assertEqual(self.differences([(7, "Ada")]), [])

    def test_what_is_no_data_must_be_hidden(self):
        self.land("a.parquet", HISTORY)
        (self.root / "_logweir").mkdir()
        (self.root / "_logweir" / "b.tmp").write_text("")
        self.assertEqual(self.differences([(7, "Ada")]), [])
        (self.root / "shop" / "people" / "b.tmp").write_text("")
        self.assert_noticed(self.differences([(7, "Ada")]), "b.tmp is visible")

    def test_half_a_file_is_noticed(self):
        self.land("a.parquet", HISTORY)
        whole = (self.root / "shop" / "people" / "a.parquet").read_bytes()
        (self.root / "shop" / "people" / "b.parquet").write_bytes(whole[: len(whole) // 2])
        self.assert_noticed(self.differences([(7, "Ada")]), "cannot be read")

    def test_rows_without_a_key_are_a_bag(self):
        FakeSource.key = []
        self.land("a.parquet", HISTORY[:2] + [change(3, "INSERT", 1, "ada"), change(4, "UPDATE-DELETE", 1, "ada", half=0), change(4, "UPDATE-INSERT", 1, None, ["name"])])
        self.assertEqual(self.differences([(1, "ada"), (2, "bob"), (1, "ada")]), [])
        self.land("b.parquet", [change(5, "UPDATE-INSERT", 1, "ada")])
        self.assertEqual(self.differences([(1, "ada"), (2, "bob"), (1, "ada")]), [])
        self.assert_noticed(self.differences([(1, "ada"), (2, "bob")]), "2 rows in the source, 3 landed")
        self.land("b.parquet", [change(6, "DELETE", 9, "eve")])
        self.assert_noticed(self.differences([(1, "ada"), (2, "bob"), (1, "ada")]), "never there")

    def test_another_type_than_the_source_has_is_noticed(self):
        self.land("a.parquet", HISTORY)
        table = pq.ParquetFile(self.root / "shop" / "people" / "a.parquet").read()
        pq.write_table(table.set_column(0, "id", table.column("id").cast(pa.int64())), self.root / "shop" / "people" / "a.parquet")
        self.assert_noticed(self.differences([(7, "Ada")]), "landed as int64, not as int32")

    def test_a_table_that_should_not_be_there_is_noticed(self):
        report = compare.Report()
        self.land("a.parquet", HISTORY)
        compare.compare({"source": {}, "tables": [], "only": True}, self.root, report)
        self.assert_noticed(report.differences, "shop.people landed")


class CommonForm(unittest.TestCase):
    def test_times(self):
        self.assertEqual(forms.time_of_day("-00:00:00.000001"), -1)
        self.assertEqual(forms.time_of_day("838:59:59"), 3_020_399_000_000)
        self.assertEqual(forms.moment("1969-12-31 23:59:59.999999"), -1)
        self.assertEqual(forms.days("0001-01-01"), -719_162)

    def test_decimals_and_documents(self):
        self.assertEqual(forms.plain("-1E-30"), "-0.000000000000000000000000000001")
        self.assertNotEqual(forms.json_form("1"), forms.json_form("1.0"))
        self.assertEqual(forms.json_form('{"a": 1e1, "b": []}'), forms.json_form('{"b":[],"a":10}').replace("10", '{"float": "10"}'))


    def test_times_of_postgres(self):
        self.assertEqual(postgres_source.days("0001-12-31 BC"), -719_163)
        self.assertEqual(postgres_source.days("5874897-12-31"), 2_145_042_905)
        self.assertEqual(postgres_source.days("-infinity"), -2_147_483_647)
        self.assertEqual(postgres_source.moment("1969-12-31 23:59:59.999999+00"), -1)
        self.assertEqual(postgres_source.moment("0001-12-31 12:00:00+00 BC"), -719_163 * 86_400_000_000 + 43_200_000_000)

    def test_arrays_of_postgres(self):
        self.assertEqual(postgres_source.elements("{}", ","), [])
        self.assertEqual(postgres_source.elements('{"",NULL,"NULL","a,b","c\\"d","{e}",f}', ","), ["", None, "NULL", "a,b", 'c"d', "{e}", "f"])
        self.assertEqual(postgres_source.elements("{(3,4),(1,2);(1,1),(0,0)}", ";"), ["(3,4),(1,2)", "(1,1),(0,0)"])

    def test_decimals_of_postgres(self):
        self.assertEqual(postgres_source.numeric((10 << 16 | 2) + 4)[2], pa.decimal128(10, 2))
        self.assertEqual(postgres_source.numeric((3 << 16 | 0x7FE) + 4)[2], pa.decimal128(5, 0))
        self.assertEqual(postgres_source.numeric(-1)[2], pa.string())


if __name__ == "__main__":
    unittest.main()
