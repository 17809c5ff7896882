"""A metric over runs, the oldest first, in front of its band."""

import json

import matplotlib
import pytest

from alignlab.errors import AlignlabError
from alignlab.runs.history import band_in, draw, find_runs, points

from .recorded_runs import NAME, changed, make_run

matplotlib.use("Agg")


@pytest.fixture
def runs(tmp_path):
    """Four runs in a folder, of which the second is of another profile."""
    made = [make_run(0), changed(make_run(3), "profile", to="smoke"), make_run(9)]
    made.append(make_run(6))
    for number, run in enumerate(made):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps(run))
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "latest").symlink_to("run0", target_is_directory=True)
    return tmp_path


def test_points_are_in_the_order_of_their_runs_and_of_one_profile(runs):
    folders = find_runs(runs)
    assert [folder.name for folder in folders] == ["run0", "run1", "run2", "run3"]
    notebook, profile, found = points("m1", folders)
    assert (notebook, profile) == (NAME, "cpu")
    assert [point.run for point in found] == ["run0", "run3", "run2"]
    assert found[0].commit == "aaaaaaa" and found[0].low < found[0].value
    assert [p.run for p in points("m1", folders, "smoke")[2]] == ["run1"]


def test_a_metric_of_several_notebooks_needs_its_number(runs):
    run = make_run(12)
    run["notebooks"]["01_other"] = run["notebooks"][NAME]
    (runs / "run0/metrics.json").write_text(json.dumps(run))
    with pytest.raises(AlignlabError, match="Name 00/m1 or 01/m1"):
        points("m1", find_runs(runs))
    assert points("01/m1", find_runs(runs))[0] == "01_other"
    with pytest.raises(AlignlabError, match="records 'm100'. Did you mean 'm10'"):
        points("m100", find_runs(runs))
    with pytest.raises(AlignlabError, match="There is no finished run"):
        points("m1", [])


def test_the_picture_has_a_dot_a_run_and_the_band(runs):
    _, _, found = points("m1", find_runs(runs))
    record = [make_run(20), make_run(30)]
    like = make_run(0)["notebooks"][NAME]["metrics"]["m1"]
    band = band_in(record, NAME, "m1", like)
    (axes,) = draw("00 m1", found, band).axes
    (dots,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert list(dots.get_ydata()) == [point.value for point in found]
    low, high = (
        axes.patches[0].get_extents().transformed(axes.transData.inverted()).intervaly
    )
    assert (low + high) / 2 == pytest.approx(band.mean)
    assert (high - low) / 2 == pytest.approx(band.half_width())
    assert band_in(record, NAME, "unknown", like) is None
    assert not draw("00 m1", found, None).axes[0].patches
