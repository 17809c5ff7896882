"""Explorers show what their widgets say, and keep a still picture without them."""

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


def test_the_reply_explorer_answers_its_prompt(
    explorer, tiny_model, tiny_tokenizer, capsys
):
    explorers.reply_explorer(tiny_model, tiny_tokenizer, "Where is Oslo?", 6)
    answer, controls = explorer.function, explorer.controls
    assert controls["prompt"].value == "Where is Oslo?"
    assert controls["temperature"].value == 0
    for temperature in (0.0, 1.0):
        answer("Is gold a metal?", temperature)
        [expected] = complete(
            tiny_model, tiny_tokenizer, ["Is gold a metal?"], 6, temperature, seed=0
        )
        assert capsys.readouterr().out == expected.text + "\n"
    answer("", 1.0)
    assert capsys.readouterr().out == ""


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
    assert "equal gold" in explorers.pair_card(PAIR | {"tie": True}, 0, 0)


def test_the_slider_turns_to_another_pair(monkeypatch):
    import IPython.display

    shown = []

    class Handle:
        def update(self, what):
            shown.append(what.data)

    def display(what, display_id=None):
        if display_id:
            shown.append(what.data)
            return Handle()
        boxes.append(what)

    boxes = []
    monkeypatch.setattr(IPython.display, "display", display)
    other = PAIR | {"prompt": "Another."}
    explorers.pair_explorer([PAIR, other], [(1.0, 0.0), (0.0, 2.0)])
    [slider] = boxes[0].children
    assert slider.max == 1 and "Mali" in shown[0], "a still picture without a kernel"
    slider.value = 1
    assert len(shown) == 2 and "Another." in shown[1] and "+2.00" in shown[1]
