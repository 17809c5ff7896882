"""The picture of the arc shows recorded numbers, and they bear its titles out."""

import json
from pathlib import Path

import pytest

from alignlab.runs.arc import PANELS, draw_arc
from alignlab.runs.publish import RECORDED

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recorded() -> dict:
    return json.loads((ROOT / "figures" / RECORDED).read_text(encoding="utf-8"))


def test_its_titles_are_true(recorded):
    metrics = {}
    for section in recorded["notebooks"].values():
        metrics |= section["metrics"]
    low = {name: metric["low"] for name, metric in metrics.items()}
    high = {name: metric["high"] for name, metric in metrics.items()}
    # Completing is not answering; instruction tuning teaches it.
    assert high["base_bare_accuracy"] < 0.1 < low["base_cloze_accuracy"]
    assert low["tuned_accuracy"] > 0.5
    # A reward model sees form, not truth.
    assert low["form_accuracy"] > 0.5
    assert low["truth_accuracy"] < 0.5 < high["truth_accuracy"]
    # PPO, pushed on, buys reward with what people want.
    assert low["ppo_proxy_gain"] > 0 and low["end_minus_peak_proxy"] > 0
    assert high["end_minus_peak_gold"] < 0
    # Sure of what it never read; one temperature is not enough.
    assert low["gap_never_none"] > 0.1 and low["gap_never_temperature"] > 0.1
    assert abs(metrics["gap_often_none"]["value"]) < 0.01


def test_bars_are_the_recorded_values(recorded, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "close", lambda figure: None)
    assert draw_arc(recorded, tmp_path / "arc.png")
    axes = plt.gcf().axes
    monkeypatch.undo()
    numbers = {name[:2]: section for name, section in recorded["notebooks"].items()}
    for ax, (*_, bars) in zip(axes, PANELS, strict=True):
        values = [
            numbers[number]["metrics"][name]["value"] for number, name, *_ in bars
        ]
        assert [bar.get_height() for bar in ax.patches] == pytest.approx(values)
    plt.close("all")


def test_nothing_is_drawn_where_metrics_are_missing(recorded, tmp_path):
    notebooks = {"00_base_model": recorded["notebooks"]["00_base_model"]}
    assert not draw_arc({"notebooks": notebooks}, tmp_path / "arc.png")
    assert not (tmp_path / "arc.png").exists()
