"""How probable given replies are, in few large batches."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from alignlab.models.dialogues import Encoded
from alignlab.models.positions import completion_log_probs
from alignlab.models.sampler import Completion
from alignlab.models.text import as_messages, encode_prompt
from alignlab.training.sft import collate, encode
from alignlab.world.safety import REFUSALS

BATCH = 256


def reply_probabilities(
    model, tokenizer, prompts: Sequence[str], replies: Sequence[Completion]
) -> Float[np.ndarray, "replies"]:
    """Probability of each reply given its prompt, EOS token included."""
    heads = [encode_prompt(tokenizer, as_messages(p, "user")) for p in prompts]
    rows = [
        Encoded(head + reply.tokens, [0] * len(head) + [1] * len(reply.tokens))
        for head, reply in zip(heads, replies, strict=True)
    ]
    return np.exp(masked_log_probs(model, tokenizer, rows))


def refusal_log_probs(
    model, tokenizer, prompts: Sequence[str]
) -> Float[np.ndarray, "prompts"]:
    r"""Log-probability that the reply to each prompt begins with a refusal, in nats.

    .. math:: \log P(\text{refuse} \mid x) = \log \sum_r \prod_t \pi(r_t \mid x, r_{<t})

    The sum is over all of ``world.safety.REFUSALS``, none of which begins another, each
    in the tokens that SFT trains, up to its full stop: what follows may be anything. No
    reply is sampled, so that there is no sampling error.
    """
    rows = [{"prompt": p, "completion": r} for p in prompts for r in REFUSALS]
    encoded = [without_end(row) for row in encode(tokenizer, rows)]
    log_probs = masked_log_probs(model, tokenizer, encoded)
    return np.logaddexp.reduce(log_probs.reshape(len(prompts), len(REFUSALS)), axis=1)


def without_end(row: Encoded) -> Encoded:
    """The row without its last token, EOS."""
    return Encoded(row.input_ids[:-1], row.completion_mask[:-1])


@torch.no_grad()
def masked_log_probs(
    model, tokenizer, rows: Sequence[Encoded]
) -> Float[np.ndarray, "rows"]:
    """Sum of the log-probabilities of each row's completion tokens, in nats."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].input_ids))
    totals = np.empty(len(rows))
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        batch = collate([rows[i] for i in places], tokenizer.pad_token_id)
        batch = {name: value.to(model.device) for name, value in batch.items()}
        totals[places] = completion_log_probs(model, **batch).sum(dim=1).cpu().numpy()
    return totals
