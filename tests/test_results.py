"""What all results share, and rows as a DataFrame."""

import subprocess
import sys

import pandas
import pytest
import torch

from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table


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


class Named(Result):
    """A result of a user."""

    def __init__(self, name):
        self.name = name

    def text(self):
        return f"Found\n{self.name}"

    def __repr__(self):
        return f"Named({self.name})"


def test_texts_hold_no_characters_that_control_a_terminal(tmp_path):
    name = "cat\x1b[2J\x1b]0;owned\x07"
    result, canvas = Named(name), torch.rand(3, 4, 4)
    assert (result.text(), repr(result)) == ("Found\ncat?[2J?]0;owned?", "Named(cat?[2J?]0;owned?)")
    Pattern(canvas, canvas[:1], 1, {"class_name": name}).save(tmp_path / "a")
    loaded = Pattern.load(tmp_path / "a")
    assert loaded.text().startswith("Pattern of cat?[2J?]0;owned?\n")
    assert loaded.label == name  # what the file holds
