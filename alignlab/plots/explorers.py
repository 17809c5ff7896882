"""Widgets for the notebooks, with a still picture where none can run."""

import html
from collections.abc import Callable, Sequence

import torch
from scipy.special import expit

from alignlab.models.sampler import complete


def reply_explorer(policy, tokenizer, prompt: str, max_new_tokens: int = 24):
    """A prompt field and a temperature slider, above the policy's reply.

    Args:
        prompt: what the field holds at first; press Enter after a change.
        max_new_tokens: longest reply.
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


def pair_explorer(pairs, rewards) -> None:
    """A slider through pairs of replies: :func:`pair_card` of each. Where no widget can
    run, the first one stays.

    Args:
        pairs: rows of ``world.comparisons.make_pairs``.
        rewards: of the chosen and of the rejected reply of each, (pairs, 2).
    """
    import ipywidgets

    slider = ipywidgets.IntSlider(
        0, min=0, max=len(pairs) - 1, description="pair", continuous_update=False
    )
    leaf_through(
        [slider], lambda: pair_card(pairs[slider.value], *rewards[slider.value])
    )


def pair_card(pair, chosen: float, rejected: float) -> str:
    """HTML of one pair: both replies with their gold, its parts and their rewards; how
    probable the annotators' label is, and how probable the reward model finds it."""

    def cells(side: str, reward: float) -> tuple[str, ...]:
        parts = ", ".join(
            f"{part} {pair[f'{part}_{side}']:+.1f}"
            for part in ("form", "completeness", "truth")
        )
        return (
            f"<b>{side}</b>",
            html.escape(pair[side]) or "<i>(nothing)</i>",
            f"{pair[f'gold_{side}']:+.1f}<br><small>{parts}</small>",
            f"{reward:+.2f}",
        )

    table = html_table(
        ("label", html.escape(pair["prompt"]), "gold", "reward"),
        (cells("chosen", chosen), cells("rejected", rejected)),
    )
    verdict = "the label is wrong" if pair["noisy"] else "the label is right"
    if pair["tie"]:
        verdict = "equal gold"
    return (
        f"{table}<p>The annotators choose so with probability "
        f"{pair['probability']:.2f}; the reward model says "
        f"{expit(chosen - rejected):.2f}. In gold, {verdict}.</p>"
    )


# --- HTML and widgets -----------------------------------------------------------------


def leaf_through(controls: Sequence, card: Callable[[], str]) -> None:
    """Show controls and, below them, the HTML of ``card()``, which is made again when
    one of them changes. Where no widget can run, the first card stays."""
    import ipywidgets
    from IPython.display import HTML, display

    display(ipywidgets.HBox(controls))
    shown = display(HTML(card()), display_id=True)
    for control in controls:
        control.observe(lambda change: shown.update(HTML(card())), "value")


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; long texts are wrapped."""
    style = "text-align:left;vertical-align:top;max-width:34em;white-space:normal"

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(f'<{tag} style="{style}">{cell}</{tag}>' for cell in cells)

    body = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in rows)
    return f"<table><tr>{line(head, 'th')}</tr>{body}</table>"
