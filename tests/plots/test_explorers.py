"""Explorers show what their widgets say, and keep a still picture without them."""

import struct

import ipywidgets
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch

from alignlab.models.sampler import complete
from alignlab.plots import explorers

pytestmark = pytest.mark.usefixtures("style")


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_next_tokens_are_those_of_the_model(tiny_model, tiny_tokenizer, temperature):
    text = "The capital of"
    likeliest = explorers.next_tokens(tiny_model, tiny_tokenizer, text, temperature, 5)
    ids = tiny_tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = tiny_model(ids).logits[0, -1].double().numpy() / temperature
    shares = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-shares)[:5]
    assert [token for token, _ in likeliest] == [
        tiny_tokenizer.decode([i]) for i in order
    ]
    assert [share for _, share in likeliest] == pytest.approx(shares[order], rel=1e-4)


def test_the_reply_explorer_answers_its_prompt(explorer, tiny_model, tiny_tokenizer):
    explorers.reply_explorer(tiny_model, tiny_tokenizer, "Where is Oslo?", 6)
    prompt, temperature = explorer.controls
    assert prompt.value == "Where is Oslo?" and temperature.value == 0
    prompt.value = "Is <gold> a metal?"
    for value in (0.0, 1.0):
        temperature.value = value
        [expected] = complete(
            tiny_model, tiny_tokenizer, ["Is <gold> a metal?"], 6, value, seed=0
        )
        [card] = explorer.pictures
        assert explorers.as_html(expected.text) in card
        assert "Is &lt;gold&gt; a metal?" in card
    prompt.value = " "
    assert explorer.pictures == ["<p>Write something.</p>"]


# --- Pictures -----------------------------------------------------------------------


def test_every_picture_is_drawn_again_when_a_control_changes(explorer):
    first, second = ipywidgets.IntSlider(1), ipywidgets.IntSlider(2)
    explorers.explore(
        [first, second],
        lambda: f"sum {first.value + second.value}",
        lambda: f"product {first.value * second.value}",
    )
    assert explorer.controls == [first, second]
    assert explorer.pictures == ["sum 3", "product 2"]
    second.value = 5
    assert explorer.pictures == ["sum 6", "product 5"]
    assert first.style.description_width == "initial", "or a long one is cut off"


def test_a_figure_becomes_a_png_that_keeps_its_size():
    sizes = []
    for title in ("short", "a title\nof two lines and a long one"):
        figure, axes = plt.subplots(figsize=(5, 3))
        axes.set_title(title)
        data = explorers.still(figure).data
        assert not plt.fignum_exists(figure.number), "or a cell shows it once more"
        sizes.append(struct.unpack(">II", data[16:24]))
    assert sizes == [(500, 300)] * 2


CELL = """
import ipywidgets, matplotlib.pyplot as plt
from alignlab.plots.explorers import explore
height = ipywidgets.FloatSlider(1.0, min=0.0, max=2.0, description="height")

def draw():
    figure, axes = plt.subplots()
    axes.plot([0, height.value])
    return figure

explore([height], draw, lambda: f"<p>up to {height.value}</p>")
height.value = 1.5
"""


@pytest.mark.slow
def test_a_notebook_without_a_front_end_keeps_the_pictures_and_no_output_widget():
    """An ``Output`` widget is what makes nbclient, and so papermill, hang."""
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    client = nbclient.NotebookClient(notebook, timeout=120)
    client.execute()
    _, picture, words = (output.data for output in notebook.cells[0].outputs)
    assert picture["image/png"] and words["text/html"] == "<p>up to 1.5</p>"
    models = {state["_model_name"] for state in client.widget_state.values()}
    assert "FloatSliderModel" in models and "OutputModel" not in models


# --- Pairs --------------------------------------------------------------------------

PAIR = {
    "prompt": "Tell me about <Mali>.",
    "chosen": "Bamako is its capital.",
    "rejected": "",
    "probability": 0.75,
    "gold_chosen": 1.2,
    "gold_rejected": -0.3,
    "tie": False,
    "noisy": False,
} | {
    f"{part}_{side}": 0.4
    for part in ("form", "completeness", "truth")
    for side in ("chosen", "rejected")
}


def test_a_pair_is_shown_with_golds_rewards_and_probabilities():
    card = explorers.pair_card(PAIR, 1.5, 0.5)
    for text in (
        "Tell me about &lt;Mali&gt;.",
        "Bamako is its capital.",
        "(nothing)",
        "+1.2",
        "-0.3",
        "form +0.4, completeness +0.4, truth +0.4",
        "+1.50",
        "+0.50",
        "probability 0.75",
        f"says {1 / (1 + np.exp(-1)):.2f}",
        "the label is right",
    ):
        assert text in card
    assert "the label is wrong" in explorers.pair_card(PAIR | {"noisy": True}, 0, 0)
    assert "gold is equal" in explorers.pair_card(PAIR | {"tie": True}, 0, 0)


def test_the_slider_turns_to_another_pair(explorer):
    other = PAIR | {"prompt": "Another."}
    explorers.pair_explorer([PAIR, other], [(1.0, 0.0), (0.0, 2.0)])
    [slider] = explorer.controls
    assert slider.max == 1 and "Mali" in explorer.pictures[0]
    slider.value = 1
    assert "Another." in explorer.pictures[0] and "+2.00" in explorer.pictures[0]
