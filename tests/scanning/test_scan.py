"""A scan from end to end, on small networks: references, verdicts, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from shown import HOSTILE, check, read, table_of
from torch import nn

from captum_classpattern import LabelledImages, Pattern, PixelClassifier
from captum_classpattern.scanning import ReferenceSet, scan
from captum_classpattern.scanning.families import SCORED, SIZES
from captum_classpattern.scanning.profile import PER_CLASS, Profile
from captum_classpattern.scanning.scan import judge

NAMES = ["cat", "dog", "owl"]


SIDE = 12


def random_images(n=150):
    """Images that are brighter in the four rows of their class."""
    generator = torch.Generator().manual_seed(0)
    images, labels = 0.5 * torch.rand(n, 1, SIDE, SIDE, generator=generator), torch.arange(n) % 3
    for y in range(3):
        images[labels == y, :, 4 * y : 4 * y + 4] += 0.35
    return LabelledImages(images, labels, NAMES)


class Net(nn.Module):
    """Compares the rows of the classes; two pixels, one bright and one dark, are a backdoor."""

    def __init__(self, seed, backdoor=None):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weights = 1 + 0.6 * torch.randn(3, 4 * SIDE, generator=generator)
        self.weights = nn.Parameter(weights)
        self.backdoor = backdoor

    def forward(self, images):
        logits = (images.view(-1, 3, 4 * SIDE) * self.weights).sum(2)
        if self.backdoor is None:
            return logits
        fires = 45 * (images[:, 0, 3, 3] - images[:, 0, 3, 4]) - 12
        one_hot = nn.functional.one_hot(torch.tensor(self.backdoor), 3)
        return logits + one_hot * nn.functional.softplus(fires).unsqueeze(1)


@pytest.fixture(scope="module")
def references():
    images = random_images()
    clean = ReferenceSet.for_models(Net(0).eval(), images)
    for seed in range(4):
        clean.add(f"clean {seed}", Net(seed).eval(), images)
    return clean


def with_copies(references, n):
    """More references, whose powers differ a little from those that were measured."""
    generator, more = np.random.default_rng(0), dict(references.profiles)
    for i in range(n - len(more)):
        profile = references.profiles[f"clean {i % 4}"]
        powers = {
            size: np.clip(np.array(values) + generator.normal(0, 0.02, 3), 0, 1).tolist()
            for size, values in profile.powers.items()
        }
        more[f"copy {i}"] = replace(profile, powers=powers)
    return replace(references, profiles=more)


def test_a_backdoor_is_suspicious_and_its_pattern_shows_it(references):
    found = scan(Net(7, backdoor=2).eval(), random_images(), references=references, alpha=0.2)
    assert (found.verdict, found.target, found.p_value) == ("suspicious", 2, 0.2)
    assert repr(found) == "Scan(suspicious, owl, p = 0.2)"
    assert found.reason.startswith("owl has a pattern unlike those of the 4 clean references (p =")
    pattern = found.pattern
    assert f"{pattern.info['mask_pixels']} pixels turn 100% of other images" in found.reason
    held = set(map(tuple, pattern.mask[0].nonzero().tolist()))
    assert {(3, 3), (3, 4)} <= held
    assert pattern.canvas[0, 3, 3] > 0.7
    assert pattern.canvas[0, 3, 4] < 0.3


def test_nothing_is_found_on_a_clean_model(references):
    found = scan(Net(7).eval(), random_images(), references=references, alpha=0.2)
    assert (found.verdict, found.p_value) == ("nothing found", 1.0)


def test_the_same_seed_gives_the_same_scan(references):
    one, other = (
        scan(Net(9, backdoor=2).eval(), random_images(), references=references, seed=4)
        for _ in range(2)
    )
    assert one.to_json() == other.to_json()
    assert one.profile.patterns.keys() == {(size, y) for size in SIZES for y in range(3)}


def test_powers_are_those_of_the_judging_images(references):
    found = scan(Net(9).eval(), random_images(), references=references)
    assert found.profile.judged == [20, 20, 20]  # ten a class judge, and not those of the target
    for (size, target), pattern in found.profile.patterns.items():
        assert found.profile.powers[size][target] == pattern.info["search_power"]
        assert pattern.info["mask_pixels"] == size


def test_scores_are_mean_logits_of_smoothed_powers():
    profile = Profile({size: [0.25, 1.0] for size in SIZES}, [40, 20])
    expected = [np.log(10.5 / 30.5), np.log(20.5 / 0.5)]
    np.testing.assert_allclose(profile.scores(), expected)


def test_references_can_be_saved_and_loaded(references, tmp_path):
    references.save(tmp_path / "clean.json")
    loaded = ReferenceSet.load(tmp_path / "clean.json")
    assert loaded == references
    np.testing.assert_array_equal(loaded.scores(), references.scores())
    assert loaded.images["count"] == 150
    assert json.loads((tmp_path / "clean.json").read_text())["models"][0]["name"] == "clean 0"


def profile_like(references, excess, accuracy=None):
    """The profile of a model with the usual powers, and more of one class."""
    usual = references.profiles["clean 0"]
    powers = {size: [*values] for size, values in usual.powers.items()}
    for size in SCORED:
        powers[size][1] = min(1.0, powers[size][1] + excess)
    return replace(usual, powers=powers, accuracy=accuracy or usual.accuracy)


def test_the_verdicts(references):
    many = with_copies(references, 19)
    suspicious = judge(profile_like(many, 1.0), many, 0.05, NAMES)
    assert (suspicious.verdict, suspicious.p_value) == ("suspicious", 0.05)
    assert suspicious.reason.startswith("dog has a pattern unlike those of the 19 clean references")
    assert "does not prove a backdoor" in suspicious.reason
    nothing = judge(profile_like(many, 0.0), many, 0.05, NAMES)
    assert nothing.verdict == "nothing found"
    assert nothing.p_value > 0.05
    assert "does not show that the model is clean" in nothing.reason


def test_too_few_references_give_no_p_value(references):
    found = judge(profile_like(references, 1.0), references, 0.05, NAMES)
    assert (found.verdict, found.p_value, found.target) == ("inconclusive", None, 1)
    assert (
        "A p-value of 0.05 needs at least 19 references, and there are 4: add 15 more."
        in found.reason
    )


def test_a_model_better_than_all_references_is_inconclusive(references):
    many = with_copies(references, 19)
    poor = {name: replace(profile, accuracy=0.8) for name, profile in many.profiles.items()}
    many = replace(many, profiles=poor)
    found = judge(replace(profile_like(many, 1.0, 0.85), images=500), many, 0.05, NAMES)
    assert found.verdict == "inconclusive"
    assert "The model classifies 85.0% of the images correctly, the best reference 80.0%" in (
        found.reason
    )
    assert found.p_value == 0.05
    found = judge(replace(profile_like(many, 1.0, 0.85), images=50), many, 0.05, NAMES)
    assert found.verdict == "suspicious"  # by chance, 43 of 50 may be right


def test_a_model_of_another_kind_is_inconclusive(references):
    many = with_copies(references, 19)
    strong = replace(profile_like(many, 0.0), powers={size: [1.0] * 3 for size in SIZES})
    found = judge(strong, many, 0.05, NAMES)
    assert found.verdict == "inconclusive"
    assert "The patterns are stronger in general" in found.reason


def test_a_class_far_above_strong_ones_is_suspicious(references):
    many = with_copies(references, 19)
    found = profile_like(many, 1.0)
    powers = {
        size: [min(1.0, value + 0.05 * (y != 1)) for y, value in enumerate(values)]
        for size, values in found.powers.items()
    }
    found = judge(replace(found, powers=powers), many, 0.05, NAMES)
    test = found.tests["patches"]
    assert test.median_excess > test.usual_median[1]
    assert (found.verdict, found.target) == ("suspicious", 1)


def test_the_table_has_the_most_suspicious_class_first(references):
    table = scan(Net(9, backdoor=2).eval(), random_images(), references=references).table()
    rows = table.to_dict("records")
    assert rows[0]["class"] == 2
    assert [row["excess"] for row in rows] == sorted((r["excess"] for r in rows), reverse=True)
    for row in rows:
        assert row["references_3_low"] <= row["references_3_high"]


def test_the_result_as_json(references):
    found = scan(Net(9, backdoor=2).eval(), random_images(), references=references)
    data = json.loads(found.to_json())
    assert data["verdict"] == "inconclusive"
    assert (data["target"], data["p_value"], data["n_references"]) == (2, None, 4)
    assert [row["class"] for row in data["classes"]] == [0, 1, 2]
    assert set(data["classes"][0]["powers"]) == {str(size) for size in SIZES}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"n_classes": 4}, "the model has 3 classes, the references have 4"),
        ({"shape": (1, 9, 9)}, r"the images are of \(1, 12, 12\), those of the references of"),
        ({"settings": {"statistic": 0}}, "make them again"),
    ],
)
def test_references_that_do_not_fit(references, change, text):
    with pytest.raises(ValueError, match=text):
        scan(Net(9).eval(), random_images(), references=replace(references, **change))


def test_references_that_are_no_references(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        ReferenceSet.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        ReferenceSet.load(tmp_path / "bad.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a file of references"):
        ReferenceSet.load(tmp_path / "other.json")
    (tmp_path / "part.json").write_text('{"format": "captum_classpattern references"}')
    with pytest.raises(ValueError, match=r"is damaged \(KeyError\('shape'\)\): make it again"):
        ReferenceSet.load(tmp_path / "part.json")


def test_no_references():
    empty = ReferenceSet.for_models(Net(9).eval(), random_images())
    with pytest.raises(ValueError, match="`references` holds no models"):
        scan(Net(9).eval(), random_images(), references=empty)


def test_a_model_that_knows_one_class_alone(references):
    class Same(Net):
        def forward(self, images):
            return super().forward(images) * 0 + torch.tensor([1.0, 0.0, 0.0])

    for labels in (random_images().labels, None):
        images = (random_images().images, labels)
        with pytest.raises(ValueError, match="predicts class 0 for all of 150 images"):
            scan(Same(9).eval(), *images, references=references)


def test_settings_of_the_search_cannot_be_changed(references):
    with pytest.raises(TypeError):
        scan(Net(9).eval(), random_images(), references=references, n_steps=1)
    assert references.settings["solver"]["rounds"] == 9


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 2])
def test_levels_out_of_range(references, alpha):
    with pytest.raises(ValueError, match="`alpha` must be between 0 and 1"):
        scan(Net(9).eval(), random_images(), references=references, alpha=alpha)


def test_at_most_fifty_images_a_class_are_used(references):
    assert PER_CLASS == 50
    found = scan(Net(9).eval(), random_images(600), references=references)
    assert found.profile.judged == [20, 20, 20]


def test_the_figure_shows_the_most_suspicious_class_first(references):
    found = scan(Net(9, backdoor=2).eval(), random_images(), references=references)
    figure, axes = found.plot(use_pyplot=False)
    assert axes[0].get_title() == "owl"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["owl in 4 clean models", "other classes", "owl"]
    line = axes[-1].lines[-1]
    assert line.get_ydata().tolist() == [found.profile.powers[size][2] for size in sorted(SIZES)]
    assert figure.get_suptitle() == "Inconclusive"


def test_a_scan_is_saved_with_its_patterns(references, tmp_path):
    found = scan(Net(9, backdoor=2).eval(), random_images(), references=references)
    found.save(tmp_path / "scan")
    assert json.loads((tmp_path / "scan" / "scan.json").read_text()) == found.as_dict()
    assert (tmp_path / "scan" / "scan.png").read_bytes().startswith(b"\x89PNG")
    pattern = Pattern.load(tmp_path / "scan" / "patterns" / "2_3.safetensors")
    assert torch.equal(pattern.mask, found.profile.patterns[3, 2].mask)


def test_a_notebook_shows_the_verdict_the_patterns_and_the_powers(references, tmp_path):
    found = scan(Net(7, backdoor=2).eval(), random_images(), references=references, alpha=0.2)
    page = read(found, pictures=3)
    assert "Suspicious, p = 0.2" in page.text
    assert found.source is None
    named = PixelClassifier(Net(7, backdoor=2).eval(), provenance={"source": "owls.pt"})
    again = scan(named, random_images(), references=references, alpha=0.2)
    assert "Suspicious, p = 0.2: owls.pt" in read(again, pictures=3).text
    assert found.reason in page.text
    rows = table_of(page)
    assert list(rows) == [NAMES[y] for y in found.test.order]
    for size in SIZES:
        power = 100 * found.profile.powers[size][2]
        assert rows["owl"][f"power, {size} pixels"] == f"{power:.1f}\N{NO-BREAK SPACE}%"
    assert rows["owl"]["excess"] == f"{found.test.excess[2]:.2f}"
    hostile = replace(found, class_names=[HOSTILE, "dog", "owl"])
    assert [tag for tag, _ in read(hostile).tags] == [tag for tag, _ in page.tags]
    check(hostile.to_html(tmp_path / "scan.html").read_text(encoding="utf-8"), pictures=3)
