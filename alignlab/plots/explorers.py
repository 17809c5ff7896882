"""Dials to turn in a notebook: ipywidgets, with a still picture where none can run."""

import matplotlib.pyplot as plt
import torch

from alignlab.chapters.base_model.figures import next_token_bars
from alignlab.models.sampler import complete


def next_token_explorer(model, tokenizer, text: str, k: int = 8):
    """A text field and a temperature slider over the next token's distribution.

    Args:
        text: what the model reads at first; edit it in the field.
        k: tokens shown.
    """
    import ipywidgets
    from IPython.display import display

    field = ipywidgets.Text(text, description="text", layout={"width": "32em"})
    slider = ipywidgets.FloatSlider(
        1.0, min=0.1, max=2.0, step=0.1, description="temperature"
    )

    def draw(text: str, temperature: float) -> None:
        if not text.strip():
            return
        figure, axes = plt.subplots(figsize=(6, 0.3 * k + 0.8))
        likeliest = next_tokens(model, tokenizer, text, temperature, k)
        next_token_bars(axes, likeliest, f"after “{text}”")
        plt.show()

    out = ipywidgets.interactive_output(draw, {"text": field, "temperature": slider})
    display(ipywidgets.HBox([field, slider]), out)


def reply_explorer(policy, tokenizer, prompt: str, max_new_tokens: int = 24):
    """A prompt field and a temperature slider: the policy replies as in a chat.

    Args:
        prompt: the first prompt; edit it in the field and press Enter.
        max_new_tokens: a reply's length at most.
    """
    import ipywidgets
    from IPython.display import display

    field = ipywidgets.Text(
        prompt, description="prompt", layout={"width": "36em"}, continuous_update=False
    )
    slider = ipywidgets.FloatSlider(
        0.0, min=0.0, max=1.5, step=0.1, description="temperature"
    )

    def answer(prompt: str, temperature: float) -> None:
        if not prompt.strip():
            return
        replies = complete(
            policy, tokenizer, [prompt], max_new_tokens, temperature, seed=0
        )
        print(replies[0].text)

    out = ipywidgets.interactive_output(
        answer, {"prompt": field, "temperature": slider}
    )
    display(ipywidgets.HBox([field, slider]), out)


@torch.no_grad()
def next_tokens(model, tokenizer, text: str, temperature: float, k: int):
    """The k likeliest next tokens with their probabilities at this temperature."""
    ids = tokenizer(text, return_tensors="pt").input_ids.to(model.device)
    probabilities = (model(ids).logits[0, -1] / temperature).softmax(-1)
    top = probabilities.topk(k)
    return [
        (tokenizer.decode([token]), share)
        for token, share in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]


def pair_explorer(pairs, rewards):
    """A slider through pairs of replies, with what each is worth and what the reward
    model gives it. The first pair stays as a still picture where no widget can run.

    Args:
        pairs: as ``data.preferences.make_pairs`` makes them.
        rewards: of the chosen and of the rejected reply of each, (pairs, 2).
    """
    import ipywidgets
    from IPython.display import HTML, display

    slider = ipywidgets.IntSlider(
        0, min=0, max=len(pairs) - 1, description="pair", continuous_update=False
    )
    picture = pair_card(pairs[0], *rewards[0])
    display(slider)
    shown = display(HTML(picture), display_id=True)

    def turn(change) -> None:
        shown.update(HTML(pair_card(pairs[change.new], *rewards[change.new])))

    slider.observe(turn, "value")


def pair_card(pair, chosen: float, rejected: float) -> str:
    """HTML of one pair: both replies with the parts of their gold and their rewards,
    what the label says, and how probable the reward model finds it."""
    import html

    from scipy.special import expit

    def reply(side: str, reward: float) -> str:
        parts = ", ".join(
            f"{part} {pair[f'{part}_{side}']:+.1f}"
            for part in ("form", "completeness", "truth")
        )
        cells = (
            f"<b>{side}</b>",
            html.escape(pair[side]) or "<i>(nothing)</i>",
            f"{pair[f'gold_{side}']:+.1f}<br><small>{parts}</small>",
            f"{reward:+.2f}",
        )
        return "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)

    heads = ("label", html.escape(pair["prompt"]), "gold", "reward")
    head = "".join(f'<th style="{_CELL}">{name}</th>' for name in heads)
    said = expit(chosen - rejected)
    verdict = "the label is wrong" if pair["noisy"] else "the label is right"
    if pair["tie"]:
        verdict = "equal gold"
    return (
        f"<table><tr>{head}</tr><tr>{reply('chosen', chosen)}</tr>"
        f"<tr>{reply('rejected', rejected)}</tr></table>"
        f"<p>The annotators choose so with probability {pair['probability']:.2f}; the "
        f"reward model says {said:.2f}. In gold, {verdict}.</p>"
    )


_CELL = "text-align:left;vertical-align:top;max-width:30em;white-space:normal"
