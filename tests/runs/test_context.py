"""What a notebook records is written whole, checked, and read back by the verdicts."""

import json
import math

import matplotlib
import numpy as np
import pytest
import torch

from alignlab.errors import AlignlabError
from alignlab.evaluation.intervals import (
    bounded_interval,
    t_interval,
    two_level_interval,
)
from alignlab.runs import context
from alignlab.runs.context import (
    record,
    save_figure,
    say,
    show_verdicts,
    start,
    verdicts,
)

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def no_open_run(monkeypatch):
    monkeypatch.setattr(context, "_current", None)


@pytest.fixture
def run(tmp_path, demo_claim):
    return start("00_base_model", profile="cpu", seed=10, out_dir=tmp_path)


def saved(run):
    return json.loads((run.out_dir / "metrics.json").read_text())


def test_start_gives_the_profiles_seeds_and_settings(tmp_path):
    run = start("07", profile="full", seed=7, device="cuda", out_dir=str(tmp_path))
    first = 7 + run.settings.first_seed
    assert list(run.seeds) == list(range(first, first + run.settings.seeds))
    assert len(run.seeds) == run.settings.seeds >= 5
    assert (run.profile, run.device, run.out_dir) == ("full", "cuda", tmp_path)
    assert start("01", profile="smoke", out_dir=tmp_path).seeds == (0,)
    assert len(start("01", profile="cpu", out_dir=tmp_path).seeds) >= 3


def test_seeds_start_at_the_first_seed_of_the_profile(tmp_path, demo_claim):
    def seeds(profile, **more):
        return start("00", profile, out_dir=tmp_path, **more).seeds

    assert seeds("cpu") == (0, 1, 2)
    assert seeds("full") == (100, 101, 102, 103, 104)
    assert seeds("full", seed=10, seeds=2) == (110, 111)
    assert seeds("smoke", first_seed=50) == (50,)


@pytest.fixture
def asked(monkeypatch):
    """The base models that were asked what they know; each knows two facts of five."""
    from alignlab.study import knowledge

    names = []
    counts = dict(HighlyKnown=1, MaybeKnown=1, WeaklyKnown=0, Unknown=3, stand_in=2)
    monkeypatch.setattr(knowledge, "use_base", names.append)
    monkeypatch.setattr(knowledge, "summary", lambda world: counts)
    monkeypatch.setattr(context, "use_device", lambda device: names.append(device))
    return names


def test_a_model_that_does_not_ship_is_asked_and_told_as_such(tmp_path, capsys, asked):
    start("03", profile="smoke", out_dir=tmp_path, model="300k")
    assert capsys.readouterr().out == "" and asked == []
    run = start("03", profile="smoke", out_dir=tmp_path, model="a/b", device="cuda:1")
    assert saved(run)["settings"]["model"] == "a/b"
    assert asked == ["cuda:1", "a/b"]  # on the device of the run
    shown = capsys.readouterr().out
    assert shown.startswith("**Base model: a/b.** What it was pretrained on is not")
    assert "Asked about 5 facts" in shown and "(*MaybeKnown*)" in shown
    assert "stand in for it: 2 facts." in shown


def test_its_verdicts_know_the_model(tmp_path, write_claims, demo_entry, asked):
    rests_on = {"needs_known_pretraining": "how often a fact was stated"}
    write_claims({"demo-2": demo_entry | rests_on})
    for model, verdict in (("1m", "not measured"), ("a/b", "pretraining unknown")):
        start("00", profile="cpu", out_dir=tmp_path, model=model)
        assert [item.verdict for item in verdicts()] == [verdict]


def test_overrides_win_over_the_profile_and_over_settings_set_for_the_run(tmp_path):
    (tmp_path / "settings.json").write_text('{"seeds": 4}')
    assert len(start("01", out_dir=tmp_path).seeds) == 4
    assert len(start("01", out_dir=tmp_path, seeds=2).seeds) == 2


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"profile": "ful"}, "Did you mean 'full'"),
        ({"seedz": 3}, "Did you mean 'seeds'"),
        ({"seeds": "three"}, "'seeds' is a number; got 'three'"),
        ({"seeds": 0}, "at least 1; got 0"),
        ({"notebook": "base"}, "'base' is not the name"),
    ],
)
def test_start_names_a_wrong_argument_and_the_remedy(tmp_path, arguments, said):
    with pytest.raises(AlignlabError, match=said):
        start(**{"notebook": "00", "out_dir": tmp_path, **arguments})


def test_without_a_folder_it_writes_below_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = start("00_base_model")
    assert run.out_dir == tmp_path / "runs/interactive/00_base_model"
    assert (run.out_dir / "metrics.json").exists()


@pytest.mark.parametrize("model, threads", [("300k", 1), ("of-somebody", 2)])
def test_models_that_ship_run_on_one_thread(tmp_path, monkeypatch, model, threads):
    monkeypatch.setattr(context, "_meet", lambda *_: None)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        start("03", profile="smoke", out_dir=tmp_path, model=model)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_start_clears_what_was_recorded_before(run):
    record("recall", 0.5)
    again = start("00_base_model", out_dir=run.out_dir)
    assert saved(again)["metrics"] == {}


def test_record_computes_the_interval_over_seeds(run):
    values = [0.7, 0.8, 0.75]
    interval = record("recall", np.mean(values), seeds=np.array(values), unit="", n=40)
    assert interval == t_interval(values)
    assert saved(run)["metrics"]["recall"] == {
        "value": interval.value, "low": interval.low, "high": interval.high,
        "claim": None, "seeds": values, "unit": "", "n": 40, "interval": "seeds",
    }  # fmt: skip


def test_inside_the_conditions_bounds_the_interval_stays(run):
    interval = record("gain", 0.75, seeds=[0.5, 0.75, 1.0], n=100)
    assert interval == bounded_interval([0.5, 0.75, 1.0], (-1, 1), 100)
    assert record("gain", 1.0, seeds=[1.0] * 3, n=100).low < 1
    assert record("recall", 0.8, seeds=[0.6, 1.0], bounds=(0, 1)).high < 1
    assert record("recall", 0.8, seeds=[0.6, 1.0]).high > 1
    assert record("gain", 0.9, 0.7, 1.1, seeds=[1.0, 0.8])[1:] == (0.7, 1.0)
    with pytest.raises(
        ValueError, match=r"gain: values must lie in \[-1, 1\]; got 1.1"
    ):
        record("gain", 1.1, seeds=[1.1, 0.9])


def test_the_items_of_one_seed_give_no_interval(run):
    interval = record("recall", 0.75, items=[[1, 0, 1, 1]])
    assert interval == (0.75, -math.inf, math.inf)
    metric = run.metrics["recall"]
    assert (metric["seeds"], metric["n"], metric["low"]) == ([0.75], 4, None)


def test_items_shared_by_the_seeds_give_an_interval_over_both(run):
    items = np.random.default_rng(0).random((3, 40)) < 0.8
    items = items.astype(float)
    interval = record("recall", items.mean(), items=items)
    assert interval == two_level_interval(items)
    metric = saved(run)["metrics"]["recall"]
    assert metric["seeds"] == pytest.approx(list(items.mean(1)))
    assert (metric["n"], metric["interval"]) == (40, "items") and metric["df"] > 1
    assert record("gain", items.mean(), items=items) == two_level_interval(
        items, (-1, 1)
    )


@pytest.mark.parametrize("value, verdict", [(0.5, "reproduced"), (1.0, "reproduced")])
def test_verdicts_on_items_are_those_of_their_interval(run, value, verdict):
    right = np.tile(np.arange(40) < 40 * value, (3, 1)).astype(float)
    low = record("gain", value, items=right).low
    record("twin", -0.1, -0.2, 0.0, seeds=[-0.1] * 3)
    (judged,) = verdicts()
    assert judged.verdict == verdict and low > 0.1
    # Symmetric on the scale of the interval: p is 2.5% where the interval ends.
    finding = judged.findings[0]
    assert finding.low == low and finding.p < 0.025


def test_given_limits_are_kept_beside_the_seeds(run):
    assert record("recall", 0.5, 0.4, 0.7, seeds=[0.4, 0.6])[1:] == (0.4, 0.7)


def test_one_seed_is_recorded_without_limits(run):
    record("recall", 0.5, seeds=[0.5])
    record("again", *t_interval([0.5]))
    for name in ("recall", "again"):
        assert saved(run)["metrics"][name]["low"] is None
        assert saved(run)["metrics"][name]["high"] is None


def test_the_same_name_replaces(run):
    record("recall", 0.5)
    record("recall", 0.6)
    assert saved(run)["metrics"]["recall"]["value"] == 0.6


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"value": math.nan}, "recall is nan"),
        ({"value": math.inf}, "recall is inf"),
        ({"value": "0.5"}, "recall must be a number; got '0.5'"),
        ({"value": True}, "must be a number; got True"),
        ({"value": None}, "must be a number"),
        ({"value": 0.5, "low": 0.6, "high": 0.4}, "got 0.6 and 0.4"),
        ({"value": 0.5, "low": 0.4}, "both low and high"),
        ({"value": 0.5, "low": math.nan, "high": 1}, "low of recall is nan"),
        ({"value": 0.5, "seeds": [0.5, math.nan]}, "a seed of recall is nan"),
        ({"value": 0.5, "items": [[0, 1]], "seeds": [0.5]}, "omit those"),
        ({"value": 0.5, "items": [[0, 1], [0, 0]]}, "have the mean 0.25"),
        ({"value": 0.5, "items": [[0], [1]]}, "recall: matrix must have at least two"),
        ({"value": 0.5, "items": [[0, "1"]]}, "an item of recall must be a number"),
        ({"value": 0.5, "claim": "demo2"}, "Did you mean 'demo-2'"),
        ({"value": 0.5, "claim": "ppo"}, "not in notebook 00's claims.yaml"),
        ({"value": 0.5, "claim": "demo-2"}, "'recall' is not a condition"),
    ],
)
def test_record_refuses_what_is_no_measurement_and_names_it(run, arguments, said):
    with pytest.raises(ValueError, match=said):
        record("recall", **arguments)
    assert saved(run)["metrics"] == {}


def test_torch_and_numpy_scalars_are_numbers(run):
    torch = pytest.importorskip("torch")
    record("a", torch.tensor(0.5))
    record("b", np.float32(0.25))
    assert [saved(run)["metrics"][name]["value"] for name in "ab"] == [0.5, 0.25]


def test_a_failed_write_leaves_the_old_metrics(run, monkeypatch):
    record("recall", 0.5)
    monkeypatch.setattr(context, "write_json", None)
    with pytest.raises(TypeError):
        record("recall", 0.6)
    assert saved(run)["metrics"]["recall"]["value"] == 0.5


def test_recording_needs_an_open_run():
    with pytest.raises(AlignlabError, match="first cells"):
        record("recall", 0.5)


def test_verdicts_come_from_what_was_recorded(run):
    assert [item.verdict for item in verdicts()] == ["not measured"]
    record("gain", 0.3, seeds=[0.3, 0.31, 0.29], claim="demo-2")
    record("twin", 0.0, seeds=[0.0, 0.01, -0.01])
    (verdict,) = verdicts()
    assert verdict.verdict == "reproduced" and verdict.power > 0.9
    # A metric that is a condition finds its claim by itself.
    assert saved(run)["metrics"]["twin"]["claim"] == "demo-2"
    assert "chosen by looking: five seeds" in repr(show_verdicts())
    for effect, expected in [(-0.2, "not reproduced"), (0.0, "equivalent")]:
        record("gain", effect, seeds=[effect, effect + 0.01, effect - 0.01])
        assert [item.verdict for item in verdicts()] == [expected]
    record("twin", 0.2, seeds=[0.2, 0.21, 0.19])
    assert [item.verdict for item in verdicts()] == ["uninformative"]
    record("gain", 0.2, seeds=[0.2, 0.2])
    assert [item.verdict for item in verdicts()] == ["needs profile full"]


def test_figures_are_saved_with_their_captions(run):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    assert save_figure(axes, "recall", "Rises with exposure.") is None
    path = run.out_dir / "figures/recall.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    save_figure(figure, "recall", "Rises.")
    plt.close(figure)
    assert saved(run)["figures"] == [
        {"name": "recall", "file": "figures/recall.png", "caption": "Rises."}
    ]
    assert [file.name for file in path.parent.iterdir()] == ["recall.png"]
    with pytest.raises(ValueError, match="'a/b'"):
        save_figure(figure, "a/b", "")


def test_say_takes_its_numbers_from_the_run(run, capsys):
    record("rise", 0.5, seeds=[0.4, 0.6, 0.5])
    say("Over {n} seeds: {rise:.2f}, {rise.low:.1f}; {{x}}.", n=3)
    low, high = t_interval([0.4, 0.6, 0.5])[1:]
    expected = f"Over 3 seeds: 0.50 ({low:.2f} to {high:.2f}), {low:.1f}; {{x}}.\n"
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    "template, said",
    [("{gian:.2f}", "Did you mean 'gain'"), ("{0}", "say"), ("{text:.2f}", "say")],
)
def test_say_names_what_it_does_not_know(run, template, said):
    record("gain", 0.5)
    with pytest.raises(ValueError, match=said):
        say(template, text="abc")
