"""Rows as a DataFrame."""

import subprocess
import sys

import pandas
import pytest

from captum_classpattern.results import as_table


def test_a_table_has_all_columns_in_the_order_in_which_they_come():
    table = as_table(iter([{"b": 1, "a": "x"}, {"b": 2, "c": 0.5}]))
    expected = pandas.DataFrame({"b": [1, 2], "a": ["x", None], "c": [None, 0.5]})
    pandas.testing.assert_frame_equal(table, expected)
    assert as_table([{"n": 1}, {"n": None}])["n"].dtype == "Int64"  # a whole number
    pandas.testing.assert_frame_equal(as_table([]), pandas.DataFrame([]), check_column_type=False)


@pytest.mark.script
def test_pandas_is_imported_only_to_make_a_table_and_torchvision_for_its_networks():
    names = ("scores", "results", "scanning", "adapters", "surveys.sweep_results")
    modules = ", ".join(f"captum_classpattern.{name}" for name in names)
    code = f"import sys, {modules}; print(bool({{'pandas', 'torchvision'}} & {{*sys.modules}}))"
    line = [sys.executable, "-c", code]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "False\n"
