"""Dials to turn in a notebook: ipywidgets, with a still picture where none can run."""

import matplotlib.pyplot as plt
import torch

from alignlab.models.sampler import complete
from alignlab.plots.base_model import next_token_bars


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
