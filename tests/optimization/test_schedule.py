"""Schedule: which baselines each target meets, and what is fetched for it."""

import pytest
import torch
from plain_solvers import Problem
from torch.utils.data import Dataset

from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.schedule import Schedule, Stream

LABELS = [0, 1, 2, 1, 0, 2, 1, 2, 1, 0, 1]  # 3 of class 0, 5 of 1, 3 of 2
STREAMS = [Stream(2), Stream(0), Stream(1), Stream(0), Stream(0, start=1), Stream(2, start=2)]
CPU = torch.device("cpu")


class Recorder(Dataset):
    """An image's pixels tell its index; notes what was asked for."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return len(LABELS)

    def __getitems__(self, indices):
        self.asked.append(list(indices))
        return [torch.full((1, 2, 2), index / 100) for index in indices]


def schedule(streams=STREAMS, images=None, *, seed=0, labels=LABELS):
    images = Recorder() if images is None else images
    return Schedule(LabelledImages(images, labels, argument="baselines"), streams, seed)


def places(images):
    return [round(float(image.mean() * 100)) for image in images]


@pytest.mark.parametrize("seed", [0, 5])
def test_each_stream_is_the_plain_one_whatever_else_is_searched(seed):
    """It continues with batches of another size; some streams end before others."""
    plan = schedule(seed=seed)
    assert list(plan.others) == list(dict.fromkeys(STREAMS))
    assert list(plan.others.values()) == [8, 8, 6, 8, 8]
    met, sizes = {stream: [] for stream in STREAMS}, {stream: [] for stream in STREAMS}
    for size, least in ((4, 7), (5, 3)):
        counts = {stream: least + stream.target for stream in plan.others}
        for stream, count in counts.items():
            sizes[stream] += [size] * count
        for images, picks in plan.steps(size, counts, CPU):
            for stream, chosen in picks.items():
                met[stream].append(places(images[chosen]))
    for stream in STREAMS:
        plain = Problem(None, None, stream.target, None, LABELS, seed, stream.start)
        assert met[stream] == plain.batches(sizes[stream])


def test_images_of_a_step_are_fetched_once_for_all_streams():
    data = Recorder()
    plan = schedule(images=data)
    data.asked.clear()
    steps = plan.steps(4, dict.fromkeys(plan.others, 6), CPU)
    for number, (images, picks) in enumerate(steps, start=1):
        assert len(data.asked) == number
        fetched = data.asked[-1]
        assert len(fetched) == len(set(fetched)) == len(images)
        used = {i for chosen in picks.values() for i in chosen}
        assert used == set(range(len(fetched)))  # and nothing that no target meets
    assert number == 6


def test_a_stream_that_is_given_up_is_left_out():
    counts = {Stream(0): 3, Stream(1): 3}
    steps = schedule(counts).steps(3, counts, CPU)
    assert list(next(steps)[1]) == [Stream(0), Stream(1)]
    del counts[Stream(0)]
    rest = [list(picks) for _, picks in steps]
    assert rest[-1] == [Stream(1)]
    assert len(rest) == 2


def test_what_was_seen_grows_with_the_steps():
    """Only what is handed out counts, not what might be fetched ahead; a schedule that begins again
    shows the same and also counts here."""
    plan, counts = schedule([Stream(1)]), {Stream(1): 4}
    assert plan.seen == set()
    steps = plan.steps(4, counts, CPU)
    first, picks = next(steps)
    assert plan.seen == set(places(first))
    assert len(plan.seen) == 4
    other, picks_again = next(plan.again().steps(4, counts, CPU))
    assert (places(other), picks_again) == (places(first), picks)
    list(plan.again().steps(4, counts, CPU))
    assert plan.seen == {0, 2, 4, 5, 7, 9}
