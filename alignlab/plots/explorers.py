"""Explorers for the notebooks: widgets above a still picture, which stays where none
can run."""

import html
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import torch
from scipy.special import expit

from alignlab.models.sampler import complete

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def explore(controls: Sequence, *draws: Callable[[], "Figure | str"]) -> None:
    """Show controls and, below them, what each of ``draws`` returns. It is drawn again
    when a control changes; where no widget can run, what was drawn first stays.

    The pictures are plain outputs of the cell that are replaced, and not in an
    ``Output`` widget: a client without a front end, such as papermill's, sends what
    such a widget shows back to the kernel, and in doing so it can miss the kernel's
    reply and wait for ever.

    Args:
        controls: widgets with a ``value``.
        draws: each makes a figure, or HTML, of the controls' values.
    """
    import ipywidgets
    from IPython.display import display

    for control in controls:
        control.style.description_width = "initial"  # or long ones are cut off
    display(ipywidgets.HBox(controls, layout={"flex_flow": "row wrap"}))
    shown = [(display(still(draw()), display_id=True), draw) for draw in draws]

    def draw_again(_) -> None:
        for output, draw in shown:
            output.update(still(draw()))

    for control in controls:
        control.observe(draw_again, "value")


def still(picture: "Figure | str"):
    """A figure as a PNG of its own size, so that nothing moves when it is replaced; or
    HTML. Both are for ``display``."""
    from IPython.display import HTML, Image

    if isinstance(picture, str):
        return HTML(picture)
    buffer = BytesIO()
    picture.savefig(buffer, format="png")
    plt.close(picture)  # or the notebook would show it once more
    return Image(buffer.getvalue(), format="png")


def reply_explorer(policy, tokenizer, prompt: str, max_new_tokens: int = 24) -> None:
    """A prompt field and a temperature slider, above the policy's reply.

    Args:
        prompt: what the field holds at first; press Enter after a change.
        max_new_tokens: longest reply.
    """
    import ipywidgets

    field = ipywidgets.Text(
        prompt, description="prompt", layout={"width": "36em"}, continuous_update=False
    )
    slider = ipywidgets.FloatSlider(
        0.0, min=0.0, max=1.5, step=0.1, description="temperature"
    )

    def reply_card() -> str:
        if not field.value.strip():
            return "<p>Write something.</p>"
        [reply] = complete(
            policy, tokenizer, [field.value], max_new_tokens, slider.value, seed=0
        )
        cells = html.escape(field.value), as_html(reply.text)
        return html_table(("prompt", "reply"), [cells])

    explore([field, slider], reply_card)


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
    """A slider through pairs of replies: :func:`pair_card` of each.

    Args:
        pairs: rows of ``world.comparisons.make_pairs``.
        rewards: of the chosen and of the rejected reply of each, (pairs, 2).
    """
    import ipywidgets

    slider = ipywidgets.IntSlider(0, min=0, max=len(pairs) - 1, description="pair")
    explore([slider], lambda: pair_card(pairs[slider.value], *rewards[slider.value]))


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
            as_html(pair[side]),
            f"{pair[f'gold_{side}']:+.1f}<br><small>{parts}</small>",
            f"{reward:+.2f}",
        )

    table = html_table(
        ("label", html.escape(pair["prompt"]), "gold", "reward"),
        (cells("chosen", chosen), cells("rejected", rejected)),
    )
    verdict = "In gold the label is " + ("wrong" if pair["noisy"] else "right")
    if pair["tie"]:
        verdict = "Their gold is equal"
    return (
        f"{table}<p>The annotators choose so with probability "
        f"{pair['probability']:.2f}; the reward model says "
        f"{expit(chosen - rejected):.2f}. {verdict}.</p>"
    )


def as_html(text: str) -> str:
    """A reply as it stands; an empty one is called so."""
    return html.escape(text) or "<i>(nothing)</i>"


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; long texts are wrapped."""
    style = "text-align:left;vertical-align:top;max-width:34em;white-space:normal"

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(f'<{tag} style="{style}">{cell}</{tag}>' for cell in cells)

    body = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in rows)
    return f"<table><tr>{line(head, 'th')}</tr>{body}</table>"
