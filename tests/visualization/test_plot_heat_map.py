"""Heat maps: sorted, with numbers where they fit, and grey where nothing is known."""

import numpy as np
import pytest

from captum_classpattern.visualization import plot_heat_map


def test_rows_and_columns_are_sorted_by_their_means():
    values = {"weak": {"a": 0.1, "b": 0.3}, "strong": {"b": 0.9, "c": 0.7}, "empty": {}}
    figure, [axis] = plot_heat_map(values, title="Power", use_pyplot=False)
    assert [text.get_text() for text in axis.get_yticklabels()] == ["strong", "weak"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["c", "b", "a"]
    grid = axis.images[0].get_array()
    np.testing.assert_allclose(grid.filled(np.nan), [[0.7, 0.9, np.nan], [np.nan, 0.3, 0.1]])
    assert sorted(text.get_text() for text in axis.texts) == ["10", "30", "70", "90"]
    assert figure.get_suptitle() == "Power"


def test_many_rows_and_columns_have_no_names():
    values = {f"m{i}": {str(j): (i * j % 7) / 7 for j in range(100)} for i in range(70)}
    _, [axis] = plot_heat_map(values, use_pyplot=False)
    assert axis.get_xlabel() == "100 classes, the strongest first"
    assert axis.get_ylabel() == "70 models, the strongest first"
    assert not axis.texts


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="there is nothing to draw: no row has a value"):
        plot_heat_map({"a": {}})
