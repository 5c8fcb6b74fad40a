"""Schedule: which baselines each target meets, and what is fetched for it."""

import pytest
import torch
from torch.utils.data import Dataset

from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.schedule import Schedule, Stream

LABELS = [0, 1, 2, 1, 0, 2, 1, 2, 1, 0, 1]  # 3 of class 0, 5 of 1, 3 of 2
OTHERS = {0: 8, 1: 6, 2: 8}
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


def schedule(targets, images=None, *, seed=0, labels=LABELS):
    images = Recorder() if images is None else images
    streams = [target if isinstance(target, Stream) else Stream(target) for target in targets]
    return Schedule(LabelledImages(images, labels, argument="baselines"), streams, seed)


def epochs(size, count):
    """How many steps each target needs to visit its baselines ``count`` times."""
    return lambda target: count * -(-OTHERS[target] // size)


def batches(targets, *stages, **kwargs):
    """The indices of the images that each target meets at each step. A stage is a pair: the size of
    its batches, and how many there are for a target."""
    met = {target: [] for target in targets}
    plan = schedule(targets, **kwargs)
    for size, count in stages:
        counts = {stream: count(stream.target) for stream in plan.others}
        for images, picks in plan.steps(size, counts, CPU):
            for stream, chosen in picks.items():
                target = stream if stream in met else stream.target
                met[target].append([round(float(images[i].mean() * 100)) for i in chosen])
    return met


EPOCHS = [(3, epochs(3, 3))]
STAGES = [(4, lambda target: 20), (5, lambda target: 4)]
both = pytest.mark.parametrize("stages", [EPOCHS, STAGES], ids=["epochs", "stages"])


def test_how_many_baselines_each_target_has():
    others = schedule([2, 0, 1, 0]).others
    assert others == {Stream(target): count for target, count in OTHERS.items()}


@both
def test_no_batch_holds_an_image_of_the_targets_class(stages):
    for target, met in batches([0, 1, 2], *stages).items():
        assert len(met) == sum(count(target) for _, count in stages)
        assert not [i for batch in met for i in batch if LABELS[i] == target]


@both
def test_an_epoch_visits_each_other_image_once(stages):
    for target, met in batches([0, 1, 2], *stages).items():
        others = {i for i, label in enumerate(LABELS) if label != target}
        epoch, finished = [], []
        for batch in met:
            epoch += batch
            assert len(epoch) <= len(others)  # no batch goes on into the next epoch
            if len(epoch) == len(others):
                assert set(epoch) == others
                finished.append(epoch)
                epoch = []
        assert len(set(epoch)) == len(epoch)
        assert len(finished) >= 3
        assert finished[0] != finished[1]


def test_the_sizes_of_the_batches():
    """8 others: batches of 4, then of 5 in the same stream of epochs."""
    met = batches([0], *STAGES)[0]
    assert [len(batch) for batch in met] == [4] * 20 + [5, 3, 5, 3]
    assert [len(batch) for batch in batches([1], *EPOCHS)[1]] == [3] * 6


@both
def test_a_targets_stream_does_not_depend_on_the_other_targets(stages):
    together = batches([2, 0, 1, 0], *stages)
    for target in (0, 1, 2):
        assert together[target] == batches([target], *stages)[target]


@both
def test_a_seed_gives_one_order_and_another_seed_another(stages):
    first, again, other = (batches([0], *stages, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_another_start_is_another_stream_of_the_same_target():
    first, second = Stream(0), Stream(0, start=1)
    met = batches([first, second], *STAGES)
    assert met[first] == batches([0], *STAGES)[0]
    assert met[second] == batches([second], *STAGES)[second]
    assert met[first] != met[second]
    epochs = [{*each[0], *each[1]} for each in met.values()]
    assert epochs[0] == epochs[1]


def test_a_schedule_begins_again_and_counts_what_is_seen_once():
    plan = schedule([0])
    counts = {Stream(0): 1}
    [(_, picks)] = plan.steps(4, counts, CPU)
    again = plan.again()
    images, other = next(again.steps(4, counts, CPU))
    assert other == picks
    assert [round(float(image.mean() * 100)) for image in images] == sorted(plan.seen)
    list(again.steps(4, counts, CPU))
    assert plan.seen == again.seen
    assert len(plan.seen) == 8


def test_targets_share_one_shuffle_each_without_its_own_class():
    met = batches([0, 2], (100, lambda target: 1))
    common = [1, 3, 6, 8, 10]  # of class 1
    orders = [[i for i in met[target][0] if i in common] for target in (0, 2)]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == common


def test_images_of_a_step_are_fetched_once_for_all_targets():
    data = Recorder()
    plan = schedule([0, 1, 2, 1], data)
    data.asked.clear()
    steps = plan.steps(4, dict.fromkeys(plan.others, 6), CPU)
    for number, (step_images, picks) in enumerate(steps, start=1):
        assert len(data.asked) == number
        fetched = data.asked[-1]
        assert len(fetched) == len(set(fetched)) == len(step_images)
        used = {i for chosen in picks.values() for i in chosen}
        assert used == set(range(len(fetched)))  # and nothing that no target meets
    assert number == 6


def test_targets_that_have_finished_are_left_out():
    plan = schedule([1, 0])
    counts = {Stream(1): 6, Stream(0): 9}
    present = [sorted(stream.target for stream in picks) for _, picks in plan.steps(3, counts, CPU)]
    assert present == [[0, 1]] * 6 + [[0]] * 3


def test_what_was_seen_grows_with_the_steps():
    """Only what is handed out counts, not what might be fetched ahead."""
    plan = schedule([1])
    assert plan.seen == set()
    met = batches([1], (4, lambda target: 4))[1]
    steps = plan.steps(4, {Stream(1): 4}, CPU)
    next(steps)
    assert plan.seen == set(met[0])
    next(steps)
    assert plan.seen == {*met[0], *met[1]} == {0, 2, 4, 5, 7, 9}
    list(steps)
    assert plan.seen == {0, 2, 4, 5, 7, 9}


def test_no_baselines_left():
    with pytest.raises(ValueError, match="no baselines are left for target 3: all 11 are labelled"):
        schedule([0, 3], labels=[3] * 11)
