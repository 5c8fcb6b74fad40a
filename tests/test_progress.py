"""Bars in a terminal or a notebook, and lines in a log, of long work."""

import io
import re
import sys

import pytest
import torch
from entered import entered
from torch import nn

from captum_classpattern import LabelledImages, select_canvases
from captum_classpattern._support.progress import advance_bar, name_stage, passes_bar
from captum_classpattern.datasets import load_images, sources
from captum_classpattern.images import predictions
from captum_classpattern.scores.power import StampTest, judge_each

NET = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
IMAGES = LabelledImages(torch.rand(90, 1, 2, 2), torch.arange(90) % 3)
MODEL = entered(NET, IMAGES.first())


@pytest.fixture
def clock(monkeypatch):
    """Seconds that tests let pass."""
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def worked(clock, seconds, shown=None):
    """A hundred passes in so much time."""
    with passes_bar("Searching dog", 100, shown):
        for place in range(100):
            name_stage("white" if place < 50 else "black")
            clock[0] = seconds * (place + 1) / 100
            advance_bar(2)


def test_a_log_gets_a_plain_line_every_half_minute(clock, capsys):
    worked(clock, 100, shown=True)
    assert capsys.readouterr() == (
        "",
        "Searching dog: 30 %, 00:30 so far, about 01:10 left, white\n"
        "Searching dog: 60 %, 01:00 so far, about 00:40 left, black\n"
        "Searching dog: 90 %, 01:30 so far, about 00:10 left, black\n",
    )


@pytest.mark.parametrize(("seconds", "shown"), [(29, True), (29, None), (300, False)])
def test_a_log_gets_nothing_of_short_work_or_where_it_is_not_wanted(clock, capsys, seconds, shown):
    worked(clock, seconds, shown)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("seconds", "shown"), [(6, None), (1, True)])
def test_a_terminal_gets_a_bar_without_a_number_of_passes(clock, terminal, seconds, shown):
    worked(clock, seconds, shown)
    out, err = terminal.readouterr()
    assert out == ""
    assert re.search(rf"\rSearching dog: 100%\|.+\| 00:0{seconds}<00:00, black *\n$", err)
    assert "passes" not in err


def test_a_terminal_gets_nothing_of_short_work(clock, terminal):
    worked(clock, 4)
    assert terminal.readouterr() == ("", "")


def test_a_notebook_gets_a_bar(clock, monkeypatch):
    """Its stderr is no terminal, but understands a carriage return."""
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(sys, "stderr", stream)
    worked(clock, 10)
    assert "\rSearching dog: 100%" in stream.getvalue()


def test_there_is_one_bar_at_a_time(terminal):
    with passes_bar("outer", 10, True) as bar:
        for shown in (True, False):
            with passes_bar("inner", 10, shown):
                advance_bar(4)
        assert bar.n == 4
        advance_bar(100)
        assert bar.n == 10  # its end
    with passes_bar("methods", 3, True, a_pass=0) as bar:
        advance_bar(4)
        assert bar.n == 0
    assert "inner" not in terminal.readouterr().err
    advance_bar(4)  # there is none
    name_stage("no bar")


SCORING = {
    "predictions": lambda: predictions(MODEL, IMAGES),
    "scores": lambda: judge_each(MODEL, [StampTest(torch.Tensor.detach, 0, IMAGES)]),
    "canvases": lambda: select_canvases(NET, LabelledImages(IMAGES.images, [0] * 90), target=0),
}


@pytest.mark.parametrize("kind", SCORING)
def test_a_bar_moves_while_images_are_classified(kind, monkeypatch):
    noted = []
    with passes_bar("", 100, True) as bar:
        monkeypatch.setattr(bar, "update", noted.append)
        SCORING[kind]()
        bar.n = bar.total
    assert noted[:-1] == [16, 16, 13]  # half a pass for each image, and the rest


def test_the_reading_of_images_is_seen_in_a_log(clock, capsys, monkeypatch, tmp_path):
    def slow(image):
        clock[0] += 10
        return torch.zeros(1, 2, 2)

    (tmp_path / "cat").mkdir()
    for name in "abcdef":
        (tmp_path / "cat" / f"{name}.png").touch()
    monkeypatch.setattr(sources, "decode", slow)
    load_images(tmp_path)
    assert capsys.readouterr().err == (
        "Reading images: 67 %, 00:30 so far, about 00:15 left\n"
        "Reading images: 100 %, 01:00 so far, about 00:00 left\n"
    )
