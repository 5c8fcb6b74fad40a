"""Schedule: which baselines each target meets, and what is fetched for it."""

import pytest
import torch
from torch.utils.data import Dataset

from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.schedule import Schedule
from captum_classpattern.optimization.settings import Settings

LABELS = [0, 1, 2, 1, 0, 2, 1, 2, 1, 0, 1]  # 3 of class 0, 5 of 1, 3 of 2
PAPER = {"solver": "paper", "n_epochs": 3, "batch_size": 3}
SWAP = {"n_steps": 4, "batch_size": 5}
both = pytest.mark.parametrize("settings", [PAPER, SWAP], ids=["paper", "swap"])


class Recorder(Dataset):
    """An image's pixels tell its index; notes what was asked for."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return len(LABELS)

    def __getitems__(self, indices):
        self.asked.append(list(indices))
        return [torch.full((1, 2, 2), index / 100) for index in indices]


def schedule(targets, images=None, *, seed=0, labels=LABELS, **settings):
    images = Recorder() if images is None else images
    source = LabelledImages(images, labels, argument="baselines")
    return Schedule(source, targets, Settings(seed=seed, **settings))


def batches(targets, **kwargs):
    """Of each target, the indices of the images that it meets at each step."""
    met = {target: [] for target in targets}
    for step in schedule(targets, **kwargs).steps(torch.device("cpu")):
        for target, picks in step.picks.items():
            met[target].append([round(float(step.images[i].mean() * 100)) for i in picks])
    return met


@both
def test_no_batch_holds_an_image_of_the_targets_class(settings):
    for target, met in batches([0, 1, 2], **settings).items():
        assert len(met) == {0: 9, 1: 6, 2: 9}[target] if settings is PAPER else 24
        assert not [i for batch in met for i in batch if LABELS[i] == target]


@both
def test_an_epoch_visits_each_other_image_once(settings):
    for target, met in batches([0, 1, 2], **settings).items():
        others = {i for i, label in enumerate(LABELS) if label != target}
        epoch, epochs = [], []
        for batch in met:
            epoch += batch
            assert len(epoch) <= len(others)  # no batch goes on into the next epoch
            if len(epoch) == len(others):
                assert set(epoch) == others
                epochs.append(epoch)
                epoch = []
        assert len(set(epoch)) == len(epoch)
        assert len(epochs) >= 3
        assert epochs[0] != epochs[1]


def test_the_sizes_of_the_batches():
    """8 others: sign steps of 4, then rounds of 5 in the same stream of epochs."""
    met = batches([0], **SWAP)[0]
    assert [len(batch) for batch in met] == [4] * 20 + [5, 3, 5, 3]
    assert [len(batch) for batch in batches([1], **PAPER)[1]] == [3] * 6
    assert schedule([0], **SWAP).sign_steps == 20
    assert schedule([0, 1], **PAPER).sign_steps == 9


@both
def test_a_targets_stream_is_the_same_whatever_else_is_searched(settings):
    together = batches([2, 0, 1, 0], **settings)
    for target in (0, 1, 2):
        assert together[target] == batches([target], **settings)[target]


@both
def test_a_seed_gives_one_order_and_another_seed_another(settings):
    first, again, other = (batches([0], seed=seed, **settings) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_targets_share_one_shuffle_each_without_its_own_class():
    met = batches([0, 2], solver="paper", n_epochs=1, batch_size=100)
    common = [1, 3, 6, 8, 10]  # of class 1
    orders = [[i for i in met[target][0] if i in common] for target in (0, 2)]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == common


@both
def test_images_of_a_step_are_fetched_once_for_all_targets(settings):
    data = Recorder()
    plan = schedule([0, 1, 2, 1], data, **settings)
    data.asked.clear()
    for number, step in enumerate(plan.steps(torch.device("cpu")), start=1):
        assert len(data.asked) == number
        fetched = data.asked[-1]
        assert len(fetched) == len(set(fetched)) == len(step.images)
        used = {i for picks in step.picks.values() for i in picks}
        assert used == set(range(len(fetched)))  # and nothing that no target meets
    assert number == plan.n_steps


def test_targets_that_have_finished_are_left_out():
    plan = schedule([1, 0], **PAPER)
    present = [sorted(step.picks) for step in plan.steps(torch.device("cpu"))]
    assert present == [[0, 1]] * 6 + [[0]] * 3


def test_what_was_seen_grows_with_the_steps():
    """Only what is handed out counts, not what might be fetched ahead."""
    plan = schedule([1], solver="paper", n_epochs=2, batch_size=4)
    assert plan.seen == set()
    met = batches([1], solver="paper", n_epochs=2, batch_size=4)[1]
    steps = plan.steps(torch.device("cpu"))
    next(steps)
    assert plan.seen == set(met[0])
    next(steps)
    assert plan.seen == {*met[0], *met[1]} == {0, 2, 4, 5, 7, 9}
    list(steps)
    assert plan.seen == {0, 2, 4, 5, 7, 9}


def test_no_baselines_left():
    with pytest.raises(ValueError, match="no baselines are left for target 3: all 11 are labelled"):
        schedule([0, 3], labels=[3] * 11)
