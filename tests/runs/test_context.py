"""What a notebook records is written whole, checked, and read back by the verdicts."""

import json
import math

import matplotlib
import numpy as np
import pytest

from alignlab.errors import AlignlabError
from alignlab.evaluation.intervals import t_interval
from alignlab.runs import context
from alignlab.runs.context import record, save_figure, say, start, verdicts

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def no_open_run(monkeypatch):
    monkeypatch.setattr(context, "_current", None)


@pytest.fixture
def run(tmp_path):
    return start("00_base_model", profile="cpu", seed=10, out_dir=tmp_path)


def saved(run):
    return json.loads((run.out_dir / "metrics.json").read_text())


def test_start_gives_the_profiles_seeds_and_settings(tmp_path):
    run = start("01", profile="full", seed=7, device="cuda", out_dir=str(tmp_path))
    assert run.seeds[0] == 7 and list(run.seeds) == list(range(7, 7 + len(run.seeds)))
    assert len(run.seeds) == run.settings.seeds >= 5
    assert (run.profile, run.device, run.out_dir) == ("full", "cuda", tmp_path)
    assert start("01", profile="smoke", out_dir=tmp_path).seeds == (0,)
    assert len(start("01", profile="cpu", out_dir=tmp_path).seeds) >= 3


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
        "claim": None, "seeds": values, "unit": "", "n": 40,
    }  # fmt: skip


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
        ({"value": 0.5, "claim": "base-ignore"}, "Did you mean 'base-ignores'"),
        ({"value": 0.5, "claim": "sft-mask"}, "not in notebook 00's claims.yaml"),
        ({"value": 0.5, "claim": "base-ignores"}, "'recall' is not a condition"),
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
    record("sft_minus_base_format", 0.8, seeds=[0.8, 0.81, 0.79], claim="base-ignores")
    record("sft_minus_base_accuracy", 0.3, seeds=[0.3, 0.31, 0.29])
    record("sft_minus_fewshot_format", 0.2, seeds=[0.2, 0.21, 0.19])
    (verdict,) = verdicts()
    assert verdict.verdict == "reproduced"
    # A metric that is a condition finds its claim by itself.
    recorded = saved(run)["metrics"]["sft_minus_base_accuracy"]
    assert recorded["claim"] == "base-ignores"
    record("sft_minus_fewshot_format", -0.2, seeds=[-0.2, -0.21, -0.19])
    assert [item.verdict for item in verdicts()] == ["not reproduced"]
    record("sft_minus_fewshot_format", 0.2, seeds=[0.2, 0.2])
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
    record("gain", 0.5, seeds=[0.4, 0.6, 0.5])
    say("Over {n} seeds: {gain:.2f}, {gain.low:.1f}; {{x}}.", n=3)
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
