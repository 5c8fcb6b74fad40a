"""Rows as a DataFrame."""

import subprocess
import sys

import pandas
import pytest

from captum_classpattern.results import as_table


def test_a_table_has_all_columns_in_the_order_in_which_they_come():
    table = as_table([{"b": 1, "a": "x"}, {"b": 2, "c": 0.5}])
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == ["b", "a", "c"]
    assert table["b"].tolist() == [1, 2]
    assert table["a"].iloc[0] == "x"
    assert pandas.isna(table["a"].iloc[1])
    assert table["c"].iloc[1] == 0.5
    assert pandas.isna(table["c"].iloc[0])


def test_no_rows_make_an_empty_table():
    assert isinstance(as_table([]), pandas.DataFrame)
    assert len(as_table([])) == 0


@pytest.mark.parametrize("name", ["scores", "results", "scores.invariance", "scanning"])
def test_pandas_is_imported_only_to_make_a_table(name):
    code = f"import sys, captum_classpattern.{name} as _; print('pandas' in sys.modules)"
    line = [sys.executable, "-c", code]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "False\n"
