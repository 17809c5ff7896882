"""Our sampler beside `model.generate`: the same greedy tokens, and how long they take.

The model has the shape of the shipped one but random weights; its EOS token is made
likely, so that replies end at all lengths as real ones do. The two take turns, and the
ratio is the median over the turns. Run it as `python benchmarks/sampler.py [turns]`.
"""

import statistics
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from alignlab.models.sampler import sample

PROMPT, NEW, END, PAD = 32, 32, 1, 0
SIZES = {"0.3M": (64, 172), "1M": (128, 344)}  # width of the model and of its MLP


def model_of(size: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    width, inner = SIZES[size]
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=4,
        num_attention_heads=4,
        tie_word_embeddings=True,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=PAD,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():  # a longer vector wins the argmax more often
        model.get_output_embeddings().weight[END] *= 2.5
    return model


def prompts(rows: int, padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(5, 2048, (rows, PROMPT))
    shortest = 3 * PROMPT // 4 if padded else PROMPT
    lengths = torch.randint(shortest, PROMPT + 1, (rows, 1))
    return ids, (torch.arange(PROMPT) >= PROMPT - lengths).long()


def compare(size: str, rows: int, padded: bool, turns: int) -> tuple[float, ...]:
    """Seconds of each, the ratio, and the mean number of new tokens."""
    model, (ids, mask) = model_of(size), prompts(rows, padded)

    def theirs():
        settings = {"max_new_tokens": NEW, "do_sample": False}
        settings |= {"eos_token_id": END, "pad_token_id": PAD}
        return model.generate(ids, attention_mask=mask, **settings)[:, PROMPT:]

    def ours():
        return sample(model, ids, mask, NEW, 0.0, END, PAD)

    new = ours()
    assert torch.equal(new, theirs()), "the tokens differ"
    times = [[], []]
    for turn in range(turns):
        for which in (0, 1) if turn % 2 else (1, 0):
            start = time.perf_counter()
            (theirs, ours)[which]()
            times[which].append(time.perf_counter() - start)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    tokens = (new != PAD).sum().item() / rows
    return *map(statistics.median, times), ratio, tokens


def main(turns: int = 15) -> None:
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    print(f"{'model':6}{'rows':>5}  {'prompts':9}{'new tokens':>11}", end="")
    print(f"{'generate':>10}{'sample':>10}{'times as fast':>15}")
    for size in SIZES:
        for rows, padded in ((1, False), (32, True), (256, False), (256, True)):
            theirs, ours, ratio, tokens = compare(size, rows, padded, turns)
            kind = "unequal" if padded else "equal"
            print(f"{size:6}{rows:5}  {kind:9}{tokens:11.1f}", end="")
            print(
                f"{1e3 * theirs:7.0f} ms{1e3 * ours:7.0f} ms{ratio:15.2f}", flush=True
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
