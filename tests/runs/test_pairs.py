"""Two runs side by side: by seed where they share seeds, with their figures."""

import base64
import json

import pytest

from alignlab.evaluation.intervals import t_interval
from alignlab.runs.pairs import pairs, verdicts_of, write_page

from .recorded_runs import NAME, changed, make_run, metric

METRICS = ("notebooks", NAME, "metrics")


def of(found, name):
    return next(pair for pair in found if pair.metric == name)


def test_runs_of_the_same_seeds_are_compared_seed_by_seed():
    """Seeds differ by far more than the two runs of a seed."""
    before = changed(make_run(0), *METRICS, "m1", to=metric([0.1, 0.5, 0.9]))
    after = changed(make_run(0), *METRICS, "m1", to=metric([0.12, 0.53, 0.91]))
    pair = of(pairs(before, after), "m1")
    mean, low, _ = t_interval([0.02, 0.03, 0.01])
    assert pair.paired and pair.half == pytest.approx(mean - low)
    assert pair.difference == pytest.approx(0.02)
    assert not pair.differs  # 0.02 +- 0.025
    assert of(pairs(before, before), "m1").difference == 0
    assert not of(pairs(before, before), "m1").differs


def test_runs_of_other_seeds_are_compared_by_their_means():
    before = changed(make_run(0), *METRICS, "m1", to=metric([0.1, 0.5, 0.9]))
    after = changed(make_run(3), *METRICS, "m1", to=metric([0.2, 0.6, 1.0]))
    pair = of(pairs(before, after), "m1")
    assert not pair.paired and not pair.differs
    assert pair.half == pytest.approx(2**0.5 * 0.8)


def test_what_one_run_lacks_has_no_difference():
    before = changed(make_run(0), *METRICS, "m1", to=None)
    after = changed(make_run(0), *METRICS, "m2", to=None)
    found = pairs(before, after)
    assert of(found, "m1").first is None and of(found, "m2").second is None
    assert of(found, "m1").difference is None and of(found, "m1").differs
    other = {**after, "claims": {}}
    assert verdicts_of(before, other) == [("gain", "reproduced", "–")]


def test_the_page_shows_figures_side_by_side(tmp_path):
    folders = tmp_path / "before", tmp_path / "after"
    for folder, images in zip(folders, ([b"one", b"same"], [b"two", b"same"])):
        (folder / NAME / "figures").mkdir(parents=True)
        figures = []
        for name, image in zip(("moved", "kept"), images):
            (folder / NAME / f"figures/{name}.png").write_bytes(image)
            file = f"figures/{name}.png"
            figures.append({"name": name, "file": file, "caption": f"A <{name}> one."})
        (folder / NAME / "metrics.json").write_text(json.dumps({"figures": figures}))
    runs = make_run(0), changed(make_run(0), *METRICS, "m1", "value", to=0.9)
    page = write_page(tmp_path / "page.html", folders, runs).read_text()
    for image in (b"one", b"two", b"same"):
        assert base64.b64encode(image).decode() in page
    assert page.count("The same in both.") == 1
    assert "A &lt;moved&gt; one." in page and "A <moved>" not in page
    assert "http" not in page  # nothing from elsewhere
