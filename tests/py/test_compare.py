#!/usr/bin/env python3
"""The comparison itself: it accepts what is right and notices what is not."""

import datetime
import pathlib
import tempfile
import unittest

import pyarrow as pa
import pyarrow.parquet as pq

import compare

COLUMNS = [("id", "integer"), ("name", "text")]
UTC = datetime.timezone.utc


class FakeSource:
    """Stands in for a server: one table, `shop.people`."""

    rows = []

    def __init__(self, **_):
        pass

    def table(self, *_):
        return COLUMNS, ["id"], self.rows


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
        compare.Source = FakeSource
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
        # Noticed by pyarrow; DuckDB would not even answer.
        compare.reduce_with_duckdb, kept = lambda paths, columns, key: (columns, [(7, "Ada")]), compare.reduce_with_duckdb
        try:
            self.assert_noticed(self.differences([(7, "Ada")]), "cannot be read")
        finally:
            compare.reduce_with_duckdb = kept


class CommonForm(unittest.TestCase):
    def test_times(self):
        self.assertEqual(compare.time_of_day("-00:00:00.000001"), -1)
        self.assertEqual(compare.time_of_day("838:59:59"), 3_020_399_000_000)
        self.assertEqual(compare.moment("1969-12-31 23:59:59.999999"), -1)
        self.assertEqual(compare.days("0001-01-01"), -719_162)

    def test_decimals_and_documents(self):
        self.assertEqual(compare.plain("-1E-30"), "-0.000000000000000000000000000001")
        self.assertNotEqual(compare.json_form("1"), compare.json_form("1.0"))
        self.assertEqual(compare.json_form('{"a": 1e1, "b": []}'), compare.json_form('{"b":[],"a":10}').replace("10", '{"float": "10"}'))


if __name__ == "__main__":
    unittest.main()
