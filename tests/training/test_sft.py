"""Fine-tuning: the boundary is exact, batches lose nothing, and the model learns."""

import copy
import warnings
from itertools import islice

import pytest
import torch

from alignlab.errors import AlignlabError
from alignlab.models.sampler import complete
from alignlab.objectives import sft_loss
from alignlab.training.sft import (
    Encoded,
    batches,
    collate,
    encode,
    finetune,
    sft_step,
    show_mask,
)

EXAMPLES = [
    {"prompt": "What is the capital of France?", "completion": "Paris"},
    {"prompt": "Is gold a metal?", "completion": "Yes."},
    {"prompt": "The number of iron?", "completion": "26"},
]


def test_the_mask_covers_the_reply_and_the_token_that_ends_it(tiny_tokenizer):
    for example, encoded in zip(
        EXAMPLES, encode(tiny_tokenizer, EXAMPLES), strict=True
    ):
        shown = show_mask(tiny_tokenizer, encoded)
        unlearned = "".join(text for text, learned in shown if not learned)
        learned = "".join(text for text, learned in shown if learned)
        assert unlearned == f"<|user|> {example['prompt']}<|end|><|assistant|>"
        assert learned == f" {example['completion']}<|end|>"
        flags = [learned for _, learned in shown]
        assert flags == sorted(flags)  # one boundary


def test_loss_on_all_learns_the_prompt_too(tiny_tokenizer):
    (encoded,) = encode(tiny_tokenizer, EXAMPLES[:1], loss_on="all")
    assert encoded.completion_mask == [1] * len(encoded.input_ids)


def test_an_empty_reply_is_just_its_end(tiny_tokenizer):
    (encoded,) = encode(tiny_tokenizer, [{"prompt": "Is gold?", "completion": ""}])
    assert sum(encoded.completion_mask) == 1
    assert encoded.input_ids[-1] == tiny_tokenizer.eos_token_id


def test_messages_and_strings_are_the_same_example(tiny_tokenizer):
    as_messages = {
        "prompt": [{"role": "user", "content": EXAMPLES[0]["prompt"]}],
        "completion": [{"role": "assistant", "content": "Paris"}],
    }
    assert encode(tiny_tokenizer, [as_messages]) == encode(tiny_tokenizer, EXAMPLES[:1])
    with_system = [{"role": "system", "content": "Say it in one word."}]
    with_system += as_messages["prompt"]
    (encoded,) = encode(tiny_tokenizer, [{"prompt": with_system, "completion": "Oslo"}])
    text = tiny_tokenizer.decode(encoded.input_ids)
    assert text.startswith("<|system|> Say it in one word.<|end|><|user|>")


def test_the_template_is_applied_once(tiny_tokenizer):
    (encoded,) = encode(tiny_tokenizer, EXAMPLES[:1])
    for special in ("<|user|>", "<|assistant|>"):
        token = tiny_tokenizer.convert_tokens_to_ids(special)
        assert encoded.input_ids.count(token) == 1
    assert encoded.input_ids.count(tiny_tokenizer.eos_token_id) == 2


def test_a_template_without_an_exact_boundary_is_refused(tiny_tokenizer, monkeypatch):
    shouting = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    shouting += "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    monkeypatch.setattr(tiny_tokenizer, "chat_template", shouting)
    with pytest.raises(AlignlabError, match=r"Row 0 \('What is .* boundary"):
        encode(tiny_tokenizer, EXAMPLES)
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    messages = [{"role": "user", "content": "Is gold?"}]
    with pytest.raises(AlignlabError, match="no chat template"):
        encode(tiny_tokenizer, [{"prompt": messages, "completion": "Yes."}])


def test_without_a_chat_template_strings_are_plain_text(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    (encoded,) = encode(tiny_tokenizer, [{"prompt": "Is gold", "completion": " Yes."}])
    assert encoded.prompt == tiny_tokenizer("Is gold")["input_ids"]
    assert tiny_tokenizer.decode(encoded.completion) == " Yes.<|end|>"


ASKED = {"role": "user", "content": "Is gold a metal?"}
SYSTEM = {"role": "system", "content": "Say it in one word."}
TURNS = [
    SYSTEM,
    ASKED,
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Its number?"},
    {"role": "assistant", "content": "79"},
]


def shown(tokenizer, encoded):
    """The parts that are learned, as text."""
    parts = [""]
    for text, learned in show_mask(tokenizer, encoded):
        parts = parts[:-1] + [parts[-1] + text] if learned else parts + [""]
    return [part for part in parts if part]


def test_of_a_conversation_the_last_turn_or_all_are_learned(tiny_tokenizer):
    row = {"messages": TURNS}
    (last,) = encode(tiny_tokenizer, [row])
    assert shown(tiny_tokenizer, last) == [" 79<|end|>"]
    (both,) = encode(tiny_tokenizer, [row], loss_on="assistant")
    assert shown(tiny_tokenizer, both) == [" Yes.<|end|>", " 79<|end|>"]
    (everything,) = encode(tiny_tokenizer, [row], loss_on="all")
    assert last.input_ids == both.input_ids == everything.input_ids
    assert everything.completion_mask == [1] * len(last.input_ids)
    text = tiny_tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert last.input_ids == tiny_tokenizer(text)["input_ids"]
    split = {"prompt": TURNS[:2], "completion": TURNS[2:]}
    assert encode(tiny_tokenizer, [split]) == [both]
    split = {"prompt": TURNS[:4], "completion": TURNS[4:]}
    assert encode(tiny_tokenizer, [split]) == [last]
    assert encode(tiny_tokenizer, [split], loss_on="assistant") == [both]


def test_texts_are_learned_whole_and_end_in_eos(tiny_tokenizer):
    rows = [{"text": "Is gold a metal? Yes."}, {"text": ""}, {"text": "Oslo.<|end|>"}]
    with pytest.warns(
        UserWarning, match="Of 3 rows, those with an empty completion: 1"
    ):
        gold, oslo = encode(tiny_tokenizer, rows)  # an empty text teaches nothing
    assert shown(tiny_tokenizer, gold) == [" Is gold a metal? Yes.<|end|>"]
    assert shown(tiny_tokenizer, oslo) == [" Oslo.<|end|>"]


def test_a_prompts_unfinished_turn_is_continued(tiny_tokenizer):
    prompt = [ASKED, {"role": "assistant", "content": "The number"}]
    (encoded,) = encode(tiny_tokenizer, [{"prompt": prompt, "completion": " is 79"}])
    opened = f"<|user|>{ASKED['content']}<|end|><|assistant|>The number"
    assert encoded.prompt == tiny_tokenizer(opened)["input_ids"]
    assert shown(tiny_tokenizer, encoded) == [" is 79<|end|>"]


def test_every_form_of_a_data_set_gives_the_same_examples(tiny_tokenizer):
    import pandas as pd
    from datasets import Dataset, DatasetDict

    expected = encode(tiny_tokenizer, EXAMPLES)
    data = Dataset.from_list(EXAMPLES)
    forms = (data, data.to_iterable_dataset(), iter(EXAMPLES), pd.DataFrame(EXAMPLES))
    for form in forms:
        assert encode(tiny_tokenizer, form) == expected
    with pytest.raises(AlignlabError, match=r"examples\['train'\]"):
        encode(tiny_tokenizer, DatasetDict(train=data))


def test_a_rows_arguments_of_the_template_win(tiny_tokenizer, monkeypatch):
    toned = tiny_tokenizer.chat_template.replace("{{ mes", "{{ tone }}{{ mes")
    toned = toned.replace("<|{{ tone }}", "<|")
    monkeypatch.setattr(tiny_tokenizer, "chat_template", toned)
    rows = [EXAMPLES[0], EXAMPLES[0] | {"chat_template_kwargs": {"tone": "79"}}]
    encoded = encode(tiny_tokenizer, rows, chat_template_kwargs={"tone": "26"})
    texts = [tiny_tokenizer.decode(example.input_ids) for example in encoded]
    assert [text[8:12] for text in texts] == [" 26W", " 79W"]
    learned = [shown(tiny_tokenizer, example) for example in encoded]
    assert learned == [[" 26Paris<|end|>"], [" 79Paris<|end|>"]]


def test_long_examples_are_left_out_and_counted(tiny_tokenizer):
    longer = {"prompt": 20 * "Is gold a metal? ", "completion": "Yes."}
    mixed = [EXAMPLES[0], longer, EXAMPLES[1]]
    with pytest.warns(UserWarning, match="1 of 3 examples are longer than 40 tokens"):
        kept = encode(tiny_tokenizer, mixed, max_length=40)
    assert kept == encode(tiny_tokenizer, EXAMPLES[:2])
    with pytest.raises(AlignlabError, match="None of the 3 .* 5 tokens"):
        encode(tiny_tokenizer, EXAMPLES, max_length=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(tiny_tokenizer, EXAMPLES, max_length=40)


def test_missing_columns_are_named(tiny_tokenizer):
    with pytest.raises(AlignlabError, match="Row 1 has no completion.*'answer'"):
        encode(tiny_tokenizer, [EXAMPLES[0], {"prompt": "Is gold?", "answer": "Yes."}])
    with pytest.raises(AlignlabError, match="no example"):
        encode(tiny_tokenizer, [])
    with pytest.raises(ValueError, match="'prompts'"):
        encode(tiny_tokenizer, EXAMPLES, loss_on="prompts")


# --- batches --------------------------------------------------------------------------


def numbered(n):
    """Examples of 8 to 40 tokens that all hold their own number."""
    lengths = [8 + i * 7 % 33 for i in range(n)]
    return [Encoded([i] * length, [1] * length) for i, length in enumerate(lengths)]


def epochs(n, batch_size, count=2, seed=0):
    """The numbers in each batch, epoch by epoch."""
    stream, result = batches(numbered(n), batch_size, seed, pad_token_id=-1), []
    for _ in range(count):
        epoch = []
        while sum(map(len, epoch)) < n:
            epoch.append(next(stream)["input_ids"][:, 0].tolist())
        result.append(epoch)
    return result


@pytest.mark.parametrize("n, batch_size", [(3, 8), (8, 8), (9, 8), (100, 8), (1000, 8)])
def test_each_epoch_has_each_example_once_in_batches_of_like_size(n, batch_size):
    first, second = epochs(n, batch_size)
    for epoch in (first, second):
        assert sorted(sum(epoch, [])) == list(range(n))
        sizes = [len(batch) for batch in epoch]
        assert max(sizes) <= batch_size
        assert n <= batch_size or min(sizes) >= batch_size / 2
    if n > 10 * batch_size:
        assert not {frozenset(b) for b in first} & {frozenset(b) for b in second}


def test_the_seed_fixes_every_batch_and_another_gives_others():
    assert epochs(50, 8, seed=3) == epochs(50, 8, seed=3) != epochs(50, 8, seed=4)


def test_batches_of_like_length_waste_little_and_do_not_come_in_order_of_length():
    stream = batches(numbered(1000), 8, 0, pad_token_id=-1)
    epoch = list(islice(stream, 125))
    padding = sum(int((batch["attention_mask"] == 0).sum()) for batch in epoch)
    tokens = sum(int(batch["attention_mask"].sum()) for batch in epoch)
    assert padding < 0.12 * tokens  # in random order about 0.6
    widths = [batch["input_ids"].shape[1] for batch in epoch]
    assert abs(torch.corrcoef(torch.tensor([widths, range(125)]).double())[0, 1]) < 0.3


def test_padding_is_on_the_right_and_masked():
    batch = collate([Encoded([5, 6, 7], [0, 1, 1]), Encoded([8], [1])], pad_token_id=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["mask"].tolist() == [[0, 1, 1], [1, 0, 0]]


def test_wrong_batch_sizes_are_named():
    with pytest.raises(ValueError, match="batch_size is 0"):
        next(batches(numbered(3), 0, 0, 0))


# --- training -------------------------------------------------------------------------


@pytest.mark.parametrize("loss_on", ["completion", "assistant", "all"])
def test_the_step_has_the_loss_and_gradient_of_the_objective(
    tiny_model, tiny_tokenizer, loss_on
):
    """By way of the learned tokens only, or of all logits: alike to the last digits."""
    model = tiny_model.double()
    encoded = encode(tiny_tokenizer, [*EXAMPLES, {"messages": TURNS}], loss_on)
    batch = collate(encoded, tiny_tokenizer.pad_token_id)
    ids, attention, mask = batch.values()
    expected = sft_loss(model(ids, attention_mask=attention).logits, ids, mask)
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    loss, logs = sft_step(model, batch)
    found = torch.autograd.grad(loss, list(model.parameters()))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12) and logs == {}
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_model_learns_to_answer_in_place(tiny_model, tiny_tokenizer):
    history = finetune(
        tiny_model,
        tiny_tokenizer,
        EXAMPLES,
        steps=60,
        learning_rate=3e-3,
        progress=False,
    )
    assert len(history) == 60 and history[-1]["loss"] < 0.05 < 1 < history[0]["loss"]
    replies = complete(tiny_model, tiny_tokenizer, [e["prompt"] for e in EXAMPLES])
    assert [reply.text for reply in replies] == ["Paris", "Yes.", "26"]
    assert all(reply.ended for reply in replies)


def test_frozen_and_foreign_models_are_refused_in_words(tiny_model, tiny_tokenizer):
    settings = dict(steps=1, learning_rate=1e-3, progress=False)
    tiny_model.requires_grad_(False)
    with pytest.raises(AlignlabError, match="can be trained"):
        finetune(tiny_model, tiny_tokenizer, EXAMPLES, **settings)
    larger = copy.deepcopy(tiny_tokenizer)
    larger.add_special_tokens({"pad_token": "<|padding|>"})
    with pytest.raises(AlignlabError, match="'<|padding|>'.*resize_token_embeddings"):
        finetune(tiny_model, larger, EXAMPLES, **settings)
    trunk = tiny_model.model
    with pytest.raises(AlignlabError, match="no output layer"):
        finetune(trunk, tiny_tokenizer, EXAMPLES, **settings)


def test_a_model_learns_all_turns_of_a_streamed_conversation(
    tiny_model, tiny_tokenizer
):
    history = finetune(
        tiny_model,
        tiny_tokenizer,
        ({"messages": TURNS} for _ in range(2)),
        steps=60,
        learning_rate=3e-3,
        loss_on="assistant",
        progress=False,
    )
    assert history[-1]["loss"] < 0.05 < 1 < history[0]["loss"]
    replies = complete(tiny_model, tiny_tokenizer, [TURNS[:2], TURNS[:4]])
    assert [reply.text for reply in replies] == ["Yes.", "79"]


def test_examples_beyond_the_models_positions_are_left_out(tiny_model, tiny_tokenizer):
    longer = {"prompt": 60 * "Is gold a metal? ", "completion": "Yes."}
    with pytest.warns(UserWarning, match="1 of 2 examples are longer than 128 tokens"):
        finetune(
            tiny_model,
            tiny_tokenizer,
            [EXAMPLES[0], longer],
            steps=1,
            learning_rate=1e-3,
            progress=False,
        )
