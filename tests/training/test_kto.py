"""KTO: labels stay with their texts, and mismatched texts give the reference point."""

import math

import pytest
import torch

from alignlab.errors import AlignlabError
from alignlab.models.pairs import EncodedPair, pack
from alignlab.objectives import kto_loss
from alignlab.training import pairs
from alignlab.training.kto import Judged, encode_unpaired, kto_step, with_mismatched
from alignlab.training.pairs import batches, encode_pairs
from tests.training.preferences import (
    BETA,
    PAIRS,
    both_alone,
    learn,
    moved,
    tokens_of,
)


def test_unpaired_rows_keep_their_labels_when_long_ones_go(tiny_tokenizer):
    rows = [
        {"prompt": "Is gold?", "completion": 30 * "Yes. ", "label": True},
        {"prompt": "Is gold?", "completion": "Yes.", "label": True},
        {"prompt": "Is gold?", "completion": "No", "label": False},
    ]
    with pytest.warns(UserWarning, match="1 of 3 texts are longer than 40 tokens"):
        texts = encode_unpaired(tiny_tokenizer, rows, 40)
    assert [text.desirable for text in texts] == [True, False]
    assert texts[1][:2] == tokens_of(tiny_tokenizer, "Is gold?", "No")
    with pytest.raises(AlignlabError, match="None of the 3 texts fits into 2"):
        encode_unpaired(tiny_tokenizer, rows, 2)
    with pytest.raises(AlignlabError, match="Row 0 has no label"):
        encode_unpaired(tiny_tokenizer, [{"prompt": "Is it?", "completion": "Yes."}])


@pytest.mark.parametrize(
    "good, bad", [(True, False), (1, 0), (1, -1), ("true", "false"), ("1", "-1")]
)
def test_labels_are_read_as_they_are_meant(tiny_tokenizer, good, bad):
    row = {"prompt": "Is gold?", "completion": "Yes."}
    rows = [row | {"label": label} for label in (bad, good, bad)]
    texts = encode_unpaired(tiny_tokenizer, rows)
    assert [text.desirable for text in texts] == [False, True, False]
    with pytest.raises(AlignlabError, match="label of row 1 is 'perhaps'"):
        encode_unpaired(tiny_tokenizer, [rows[0], row | {"label": "perhaps"}])
    with pytest.raises(AlignlabError, match="Some labels are 0 and some are -1"):
        encode_unpaired(tiny_tokenizer, [row | {"label": x} for x in (1, 0, -1)])


def test_a_users_turn_in_a_completion_does_not_count(tiny_tokenizer):
    asked, again = ({"role": "user", "content": c} for c in ("Is gold?", "Peru?"))
    yes, sol = ({"role": "assistant", "content": c} for c in ("Yes.", "the sol"))
    row = {"prompt": [asked], "completion": [yes, again, sol], "label": "true"}
    text, other = encode_unpaired(
        tiny_tokenizer, [row, {"prompt": "Oslo?", "completion": "No", "label": 0}]
    )
    counts = [t for t, m in zip(text.completion, text.mask, strict=True) if m]
    assert tiny_tokenizer.decode(counts) == " Yes.<|end|> the sol<|end|>"
    assert other.mask is None
    paired = with_mismatched([text, other], 100)
    masks = [pair[3:] for pair in paired]
    assert masks == [(text.mask, None), (None, text.mask)]
    lengths = [len(counts), len(other.completion)]
    assert pack(paired, 0)["chosen_tokens"].tolist() == lengths
    cut = with_mismatched([text, other], len(other.prompt) + 2)[1]
    assert (cut.rejected, cut.rejected_mask) == (text.completion[:2], [1, 1])


def kto_case(tokenizer):
    """Unpaired rows, and by hand each with the completion of the row before."""
    rows = [
        {"prompt": pair["prompt"], "completion": pair["chosen"], "label": i % 3 > 0}
        for i, pair in enumerate(PAIRS)
    ]
    texts = [tokens_of(tokenizer, row["prompt"], row["completion"]) for row in rows]
    encoded = [EncodedPair(*text, texts[i - 1][1]) for i, text in enumerate(texts)]
    return rows, encoded


def test_kto_takes_its_reference_point_from_mismatched_texts(
    tiny_model, tiny_tokenizer
):
    """The first step of a training whose batch is everything."""
    reference, policy = tiny_model, moved(tiny_model)
    rows, encoded = kto_case(tiny_tokenizer)
    with torch.no_grad():
        now, now_other = both_alone(policy, encoded)
        ref, ref_other = both_alone(reference, encoded)
    good = torch.tensor([row["label"] for row in rows])
    kl = (now_other - ref_other).mean()
    expected = kto_loss(now, ref, good, kl, BETA, 1.3, 0.7).mean().item()
    history = learn(
        policy,
        tiny_tokenizer,
        rows,
        loss_type="kto",
        reference=reference,
        steps=1,
        desirable_weight=1.3,
        undesirable_weight=0.7,
    )
    assert history[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert history[0]["kl"] == pytest.approx(max(kl.item(), 0), rel=1e-3, abs=1e-5)
    rewards = BETA * (now - ref)
    assert history[0]["rewards/chosen"] == pytest.approx(
        rewards[good].mean().item(), rel=1e-3
    )
    assert history[0]["rewards/rejected"] == pytest.approx(
        rewards[~good].mean().item(), rel=1e-3
    )


def test_no_prompt_meets_its_own_completion_in_the_mismatched_texts(tiny_tokenizer):
    encoded = encode_pairs(tiny_tokenizer, [PAIRS[0], PAIRS[0], PAIRS[1], PAIRS[1]])
    texts = [Judged(pair.prompt, pair.chosen, True) for pair in encoded]
    found = with_mismatched(texts, 100)
    assert [row[:2] for row in found] == [text[:2] for text in texts]
    assert [row.rejected for row in found] == [encoded[i].chosen for i in (2, 3, 0, 1)]
    cut = with_mismatched(texts, len(encoded[0].prompt) + 2)
    assert cut[0].rejected == encoded[2].chosen[:2] and len(encoded[2].chosen) > 2


def test_ktos_reference_point_has_no_gradient(tiny_model, tiny_tokenizer):
    _, encoded = kto_case(tiny_tokenizer)
    columns = {
        "ref": torch.full((5,), -9.0),
        "ref_mismatched": torch.full((5,), -200.0),  # a reference point above 0
        "desirable": torch.ones(5, dtype=torch.bool),
    }
    batch = next(batches(encoded, columns, 5, 0, 0))
    loss, logs = kto_step(tiny_model, batch, BETA)
    found = torch.autograd.grad(loss, list(tiny_model.parameters()))
    log_probs = both_alone(tiny_model, encoded)[0]
    kl = torch.tensor(logs["kl"])
    fixed = kto_loss(log_probs, columns["ref"], columns["desirable"], kl, BETA).mean()
    assert logs["kl"] > 1 and math.isnan(logs["rewards/rejected"])
    wanted = torch.autograd.grad(fixed, list(tiny_model.parameters()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_ktos_pairs_are_as_many_texts_a_step(tiny_model, tiny_tokenizer, monkeypatch):
    sizes = []

    def counted(some, *rest):
        sizes.append(len(some))
        return pack(some, *rest)

    monkeypatch.setattr(pairs, "pack", counted)
    for loss_type, texts in (("kto", 1), ("sigmoid", 2)):
        settings = dict(steps=4, batch_size=2, loss_type=loss_type)
        learn(tiny_model, tiny_tokenizer, PAIRS[:4], **settings)
        assert [texts * size for size in sizes[-4:]] == [4, 4, 4, 4]
