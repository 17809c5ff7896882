"""From rows to batches of pairs: nothing is lost or changed on the way."""

import warnings

import pytest
import torch

from alignlab.errors import AlignlabError
from alignlab.models.pairs import EncodedPair, pack
from alignlab.models.text import encode_prompt
from alignlab.training.pairs import batches, encode_pairs, log_probs_of
from tests.training.preferences import PAIRS, alone, both_alone, tokens_of

# --- encoding -------------------------------------------------------------------------


def test_both_sides_are_the_template_once_up_to_the_token_that_ends_a_reply(
    tiny_tokenizer,
):
    for pair, encoded in zip(PAIRS, encode_pairs(tiny_tokenizer, PAIRS), strict=True):
        prompt, chosen = tokens_of(tiny_tokenizer, pair["prompt"], pair["chosen"])
        _, rejected = tokens_of(tiny_tokenizer, pair["prompt"], pair["rejected"])
        assert encoded == EncodedPair(prompt, chosen, rejected)
        texts = [tiny_tokenizer.decode(tokens) for tokens in encoded[:3]]
        assert texts[0] == f"<|user|> {pair['prompt']}<|end|><|assistant|>"
        assert texts[1] == f" {pair['chosen']}<|end|>"
        assert texts[2] == f" {pair['rejected']}<|end|>"


def test_strings_messages_and_whole_conversations_are_the_same_pair(tiny_tokenizer):
    prompt = [{"role": "user", "content": PAIRS[0]["prompt"]}]
    replies = {
        side: [{"role": "assistant", "content": PAIRS[0][side]}]
        for side in ("chosen", "rejected")
    }
    expected = encode_pairs(tiny_tokenizer, PAIRS[:1])
    assert encode_pairs(tiny_tokenizer, [{"prompt": prompt, **replies}]) == expected
    whole = {side: prompt + reply for side, reply in replies.items()}
    assert encode_pairs(tiny_tokenizer, [whole]) == expected
    for given in (PAIRS[0]["prompt"], prompt):  # it is in there already
        assert encode_pairs(tiny_tokenizer, [{"prompt": given, **whole}]) == expected
    other = [{"role": "user", "content": "Is gold a metal?"}] + replies["rejected"]
    with pytest.raises(AlignlabError, match="Row 0: .* does not begin with its prompt"):
        encode_pairs(tiny_tokenizer, [{**whole, "prompt": prompt, "rejected": other}])


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def counted(tokenizer, tokens, mask):
    """The parts of a completion that count, as text."""
    mask = mask or [1] * len(tokens)
    text, before = "", 0
    for token, counts in zip(tokens, mask, strict=True):
        text += ("|" if counts > before else "") + counts * tokenizer.decode([token])
        before = counts
    return text.strip("|")


ASKED = [user("Is gold a metal?")]
CHOSEN = [assistant("Yes."), user("Its number?"), assistant("79")]
REJECTED = [assistant("No"), user("The money of Peru?"), assistant("the yen")]


def test_users_turns_do_not_count_and_each_side_keeps_its_history(tiny_tokenizer):
    row = {"prompt": ASKED, "chosen": CHOSEN, "rejected": REJECTED}
    whole = {"chosen": ASKED + CHOSEN, "rejected": ASKED + REJECTED}
    (pair,) = encode_pairs(tiny_tokenizer, [row])
    assert [pair] == encode_pairs(tiny_tokenizer, [whole])
    for side, ids in ((CHOSEN, pair.chosen), (REJECTED, pair.rejected)):
        text = tiny_tokenizer.apply_chat_template(ASKED + side, tokenize=False)
        assert pair.prompt + ids == tiny_tokenizer(text)["input_ids"]
    said = counted(tiny_tokenizer, pair.chosen, pair.chosen_mask)
    assert said == " Yes.<|end|>| 79<|end|>"
    said = counted(tiny_tokenizer, pair.rejected, pair.rejected_mask)
    assert said == " No<|end|>| the yen<|end|>"


def test_conversations_that_part_at_once_have_no_common_prompt(
    tiny_model, tiny_tokenizer
):
    led = [{"role": "system", "content": "Yes."}] + ASKED + CHOSEN[:1]
    sides = {"chosen": led, "rejected": ASKED + REJECTED[:1]}
    (pair,) = encoded = encode_pairs(tiny_tokenizer, [sides])
    assert pair.prompt == []
    assert counted(tiny_tokenizer, pair.chosen, pair.chosen_mask) == " Yes.<|end|>"
    found = log_probs_of(tiny_model, encoded, 0)
    for log_probs, ids, mask in zip(found, pair[1:3], pair[3:], strict=True):
        start = mask.index(1)
        expected = alone(tiny_model, ids[:start], ids[start:])
        assert log_probs.item() == pytest.approx(expected.item(), rel=1e-4)


def test_masked_log_probs_are_the_sums_over_the_assistants_turns(
    tiny_model, tiny_tokenizer
):
    """Each turn read alone behind its history, as the template writes that."""
    row = {"prompt": ASKED, "chosen": CHOSEN, "rejected": REJECTED}
    encoded = encode_pairs(tiny_tokenizer, [*PAIRS[:2], row])
    for found, side in zip(
        log_probs_of(tiny_model, encoded, 0), (CHOSEN, REJECTED), strict=True
    ):
        expected = 0.0
        for turn in (0, 2):
            history = tiny_tokenizer.apply_chat_template(
                ASKED + side[:turn], tokenize=False, add_generation_prompt=True
            )
            ids = [
                tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
                for text in (history, f"{side[turn]['content']}<|end|>")
            ]
            expected += alone(tiny_model, *ids).item()
        assert found[2].item() == pytest.approx(expected, rel=1e-4)


def test_a_prompts_unfinished_turn_is_continued_on_both_sides(tiny_tokenizer):
    prompt = ASKED + [assistant("The answer")]
    row = {"prompt": prompt, "chosen": " is Yes.", "rejected": [assistant(" is No")]}
    (pair,) = encode_pairs(tiny_tokenizer, [row])
    assert pair.prompt == encode_prompt(tiny_tokenizer, prompt)
    assert tiny_tokenizer.decode(pair.chosen) == " is Yes.<|end|>"
    assert tiny_tokenizer.decode(pair.rejected) == " is No<|end|>"


def test_every_form_of_a_data_set_gives_the_same_pairs(tiny_tokenizer):
    import pandas as pd
    from datasets import Dataset, DatasetDict

    expected = encode_pairs(tiny_tokenizer, PAIRS)
    data = Dataset.from_list(PAIRS)
    forms = (data, data.to_iterable_dataset(), iter(PAIRS), pd.DataFrame(PAIRS))
    for form in forms:
        assert encode_pairs(tiny_tokenizer, form) == expected
    with pytest.raises(AlignlabError, match=r"pairs\['train'\], pairs\['test'\]"):
        encode_pairs(tiny_tokenizer, DatasetDict(train=data, test=data))


def test_without_a_chat_template_pairs_are_plain_text(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    row = {"prompt": "Is gold a metal?", "chosen": " Yes.", "rejected": " No"}
    (pair,) = encode_pairs(tiny_tokenizer, [row])
    assert pair.prompt == tiny_tokenizer("Is gold a metal?")["input_ids"]
    assert tiny_tokenizer.decode(pair.chosen) == " Yes.<|end|>"
    whole = {k: row["prompt"] + row[k] for k in ("chosen", "rejected")}
    assert encode_pairs(tiny_tokenizer, [whole]) == [pair]


def test_empty_completions_and_markers_are_counted(tiny_tokenizer):
    rows = [
        PAIRS[0],
        PAIRS[1] | {"rejected": ""},
        PAIRS[2] | {"prompt": "<|user|>The number of iron?<|end|><|assistant|>"},
    ]
    with pytest.warns(
        UserWarning,
        match="Of 3 rows, those with an empty completion: 1; with what .*: 1",
    ):
        assert len(encode_pairs(tiny_tokenizer, rows)) == 3


def test_identical_and_long_pairs_are_left_out_and_counted(tiny_tokenizer):
    same = {**PAIRS[0], "rejected": PAIRS[0]["chosen"]}
    long = {**PAIRS[0], "rejected": 30 * "the yen "}
    mixed = [same, PAIRS[0], long, same, PAIRS[1]]
    with pytest.warns(
        UserWarning, match="of 5 pairs, 1 have .* 40 tokens and 2 compare"
    ):
        kept = encode_pairs(tiny_tokenizer, mixed, 40)
    assert kept == encode_pairs(tiny_tokenizer, PAIRS[:2])
    with pytest.raises(AlignlabError, match="None is left.* of 1 pairs, 0 .* and 1"):
        encode_pairs(tiny_tokenizer, [same])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_pairs(tiny_tokenizer, PAIRS, 40)


def test_missing_columns_are_named_with_the_row(tiny_tokenizer):
    without = {k: v for k, v in PAIRS[1].items() if k != "rejected"}
    with pytest.raises(AlignlabError, match=r"Row 1 has no rejected; it has \['chosen"):
        encode_pairs(tiny_tokenizer, [PAIRS[0], without])
    with pytest.raises(AlignlabError, match="Row 0 has no prompt"):
        encode_pairs(tiny_tokenizer, [{"chosen": "Yes.", "rejected": "No."}])
    with pytest.raises(AlignlabError, match="There is no pair"):
        encode_pairs(tiny_tokenizer, [])


# --- log-probabilities and batches ----------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_log_probs_are_each_completions_own_in_the_order_given(
    tiny_model, tiny_tokenizer, batch_size
):
    encoded = encode_pairs(tiny_tokenizer, PAIRS)
    expected = both_alone(tiny_model, encoded)
    tiny_model.train()
    for layer in tiny_model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    found = log_probs_of(tiny_model, encoded, tiny_tokenizer.pad_token_id, batch_size)
    assert tiny_model.training
    for a, b in zip(found, expected, strict=True):
        assert a.tolist() == pytest.approx(b.tolist(), rel=1e-4)


def test_a_batch_holds_its_pairs_and_what_is_columns_of_them():
    encoded = [
        EncodedPair([i], [i] * (1 + i % 4), [i] * (4 - i % 3)) for i in range(20)
    ]
    columns = {"number": torch.arange(20.0)}
    stream, seen = batches(encoded, columns, 6, seed=0, pad_token_id=99), []
    for _ in range(4):
        batch = next(stream)
        rows = [encoded[int(number)] for number in batch["number"]]
        packed = pack(rows, 99)
        assert len(rows) == 5 and set(batch) == {*packed, "number"}
        for name, values in packed.items():
            assert torch.equal(batch[name], values)
        seen += batch["number"].tolist()
    assert sorted(seen) == list(range(20))
    with pytest.raises(ValueError, match="batch_size is 0 with 20"):
        next(batches(encoded, columns, 0, 0, 0))


def test_the_seed_fixes_the_order_and_no_two_epochs_are_alike():
    encoded = [EncodedPair([i], [i], [i]) for i in range(40)]

    def order(seed):
        stream = batches(encoded, {}, 4, seed, 0)
        return [tuple(next(stream)["input_ids"][:, 0].tolist()) for _ in range(20)]

    assert order(3) == order(3) != order(4)
    first, second = order(3)[:10], order(3)[10:]
    assert not {frozenset(b) for b in first} & {frozenset(b) for b in second}
