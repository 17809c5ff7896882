"""Models, tokenizers and data that people bring, one row a situation.

A row has the kind of failure it belongs to, what it is about, and what must come out of
the function below it:

- ``SAME``: the function returns two values, ours and the truth, and they agree;
- any other value: what the function returns;
- ``refused(words)``: it raises an ``AlignlabError`` with all these words;
- ``warned(words)``: it warns, with all these words.

A truth is what `transformers` or torch computes for one row alone without padding, or
is worked out by hand.
"""

import copy
import io
import re
import warnings
from contextlib import redirect_stdout
from functools import partial

import datasets
import nbformat
import numpy as np
import peft
import pytest
import scipy.optimize
import torch
import transformers

import alignlab.data
from alignlab import calibration
from alignlab.calibration.elicitation import p_true, parse_confidence
from alignlab.errors import AlignlabError
from alignlab.models import base, reward, text
from alignlab.models.positions import completion_log_probs
from alignlab.models.sampler import complete, sample
from alignlab.ppo import PPOConfig, PPOTrainer
from alignlab.runs.notebooks import assign_parameters
from alignlab.training import dpo, kto, pairs, sft
from alignlab.training import reward as reward_training
from tests import tiny_models
from tests.tiny_models import VOCABULARY, classifier, judge, model, speaker, tokenizer

SAME = "SAME"
TABLE = []


def row(kind: int, about: str, expected):
    """Put a function into the table. It takes a folder to write to."""

    def add(measure):
        TABLE.append(pytest.param(measure, expected, id=f"{kind}: {about}"))
        return measure

    return add


def refused(*words, by=AlignlabError):
    return by, words


def warned(*words):
    return UserWarning, words


# --- What the rows share --------------------------------------------------------------

QUESTION = "What is the capital of France?"
PROMPTS = [{"prompt": p} for p in (QUESTION, "Is gold a metal?", "Peru", "Say it")]
CHATS = [{"prompt": [{"role": "user", "content": p["prompt"]}]} for p in PROMPTS]
EXAMPLES = [
    p | {"completion": c} for p, c in zip(PROMPTS, ("Paris", "Yes", "sol", "A"))
]
PAIRS = [
    {"prompt": p["prompt"], "chosen": c, "rejected": r}
    for p, c, r in zip(
        PROMPTS, ("Paris", "Yes", "sol", "A"), ("Oslo", "No", "yen", "B")
    )
]


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def constant(completions):
    return [1.0] * len(completions)


def vowels(completions):
    return [sum(c in "aeiou" for c in text) / 10 for text in completions]


class Recorder:
    """A reward function that keeps what it was given."""

    __name__ = "recorder"

    def __call__(self, prompts, completions, prompt_ids, completion_ids):
        self.prompts, self.completions = prompts, completions
        self.prompt_ids, self.completion_ids = prompt_ids, completion_ids
        return [0.1 * i for i in range(len(completions))]


def ppo_trainer(policy, rewards=vowels, data=PROMPTS, tok=None, eval_data=None, **args):
    settings = dict(
        max_steps=1,
        per_device_train_batch_size=4,
        num_ppo_epochs=1,
        max_completion_length=6,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
    )
    args = PPOConfig(**settings | args)
    tok = tokenizer() if tok is None else tok
    return PPOTrainer(policy, rewards, args, data, eval_data, processing_class=tok)


def ppo(*args, **settings):
    """A PPOTrainer after its updates."""
    trainer = ppo_trainer(*args, **settings)
    trainer.train()
    return trainer


def log_rows(trainer):
    return [row for row in trainer.state.log_history if "kl_exact" in row]


def finetune(policy, examples=EXAMPLES, tok=None, steps=1, **options):
    tok = tokenizer() if tok is None else tok
    settings = dict(batch_size=4, learning_rate=1e-3, progress=False)
    return sft.finetune(policy, tok, examples, steps=steps, **settings | options)


def train_dpo(policy, rows=PAIRS, tok=None, steps=1, **options):
    tok = tokenizer() if tok is None else tok
    settings = dict(batch_size=4, learning_rate=1e-3, progress=False)
    return dpo.train_dpo(policy, tok, rows, steps=steps, **settings | options)


def adapters(policy, kind="lora"):
    """The model with random adapters of that kind."""
    torch.manual_seed(3)
    config = {
        "lora": lambda: peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False),
        "prefix": lambda: peft.PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=3
        ),
        "prompt": lambda: peft.PromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=3
        ),
    }[kind]()
    return peft.get_peft_model(policy, config)


def saved_adapters(folder, **options):
    """Adapters from a folder, as `PeftModel.from_pretrained` loads them."""
    adapters(model()).save_pretrained(folder)
    return peft.PeftModel.from_pretrained(model(), folder, **options)


def half_precision_folder(folder, made=None):
    """The folder of a checkpoint in bfloat16."""
    base.save_model((made or model()).to(torch.bfloat16), tokenizer(), folder)
    return folder


def share_moved(before, after):
    """The share of numbers that differ."""
    after = dict(after)
    moved = [(p.float() != after[n].float()).float().flatten() for n, p in before]
    return torch.cat(moved).mean().item()


@torch.no_grad()
def log_probs_alone(policy, ids, start=1):
    """Log-probabilities of a row's tokens from ``start`` on; no batch, no cache."""
    logits = policy(torch.tensor([ids]), use_cache=False).logits[0]
    log_p = logits.float().log_softmax(-1)
    return log_p[torch.arange(start - 1, len(ids) - 1), ids[start:]]


@torch.no_grad()
def reward_alone(judge, ids):
    """What `transformers` says about one row without padding."""
    return judge(torch.tensor([ids])).logits[0, 0].item()


def dialogue_ids(tok, messages, **template):
    """Token ids of a conversation, as the tokenizer's own template writes it."""
    written = tok.apply_chat_template(messages, tokenize=False, **template)
    return tok(written, add_special_tokens=False)["input_ids"]


def left_padded(lengths, seed=0):
    torch.manual_seed(seed)
    ids = torch.randint(20, VOCABULARY - 3, (len(lengths), max(lengths)))
    mask = torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None]
    return ids * mask, mask.long()


def generate(policy, ids, mask, new, end=None):
    out = policy.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=0,
    )
    return out[:, ids.shape[1] :]


def an_end(replies):
    """A token that ends rows at as many different times as possible."""

    def times(token):
        return {(row == token).int().argmax().item() for row in replies if token in row}

    return max(set(replies.flatten().tolist()), key=lambda token: len(times(token)))


# --- 1. What is to be trained is trained ----------------------------------------------


@row(1, "PPO with an adapter loaded frozen", refused("is_trainable=True"))
def _(folder):
    ppo(saved_adapters(folder))


@row(1, "DPO with an adapter loaded frozen", refused("is_trainable=True"))
def _(folder):
    train_dpo(saved_adapters(folder))


@row(1, "SFT with an adapter loaded frozen", refused("is_trainable=True"))
def _(folder):
    finetune(saved_adapters(folder))


@row(1, "a trainable adapter moves, and its base does not", (True, 0.0))
def _(folder):
    policy = saved_adapters(folder, is_trainable=True)
    before = [(n, p.detach().clone()) for n, p in policy.named_parameters()]
    ppo(policy, max_steps=2)
    own = [(n, p) for n, p in before if "lora" in n]
    rest = [(n, p) for n, p in before if "lora" not in n]
    after = list(policy.named_parameters())
    return share_moved(own, after) > 0.9, share_moved(rest, after)


@row(1, "KL of an SFT adapter before the first PPO update", pytest.approx(0, abs=1e-6))
def _(folder):
    return log_rows(ppo(adapters(model())))[0]["kl_exact"]


@row(1, "KL of an SFT adapter after an update is that to itself as it came in", SAME)
def _(folder):
    policy, recorder = adapters(model()), Recorder()
    start = copy.deepcopy(policy)
    trainer = ppo(policy, recorder, max_steps=2, learning_rate=0.01)
    at_second = ppo(copy.deepcopy(start), Recorder(), learning_rate=0.01).policy.eval()
    kl = []
    for prompt, reply in zip(recorder.prompt_ids, recorder.completion_ids):
        ids, first = torch.tensor([prompt + reply]), len(prompt) - 1
        with torch.no_grad():
            p, q = (
                m(ids).logits[0, first:-1].log_softmax(-1) for m in (at_second, start)
            )
        kl.append((p.exp() * (p - q)).sum().item())
    return log_rows(trainer)[1]["kl_exact"], sum(kl) / len(kl)


@row(1, "DPO's loss on an SFT adapter starts at log 2", pytest.approx(np.log(2)))
def _(folder):
    return train_dpo(adapters(model()))[0]["loss"]


@row(1, "PPO by name: weights of a bfloat16 checkpoint move", True)
def _(folder):
    half_precision_folder(folder)
    before = model().to(torch.bfloat16).float()
    trainer = ppo(folder, max_steps=5, learning_rate=1e-5)
    read = [  # embeddings of tokens that no prompt has get no gradient
        (n, p) for n, p in before.named_parameters() if "embed" not in n
    ]
    return share_moved(read, trainer.policy.named_parameters()) > 0.95


@row(1, "load_model makes float32 of bfloat16", torch.float32)
def _(folder):
    return base.load_model(half_precision_folder(folder))[0].dtype


@row(1, "load_model keeps the checkpoint's precision on demand", torch.bfloat16)
def _(folder):
    return base.load_model(half_precision_folder(folder), dtype="auto")[0].dtype


@row(1, "load_reward_model makes float32 of bfloat16", torch.float32)
def _(folder):
    return reward.load_reward_model(half_precision_folder(folder, judge()))[0].dtype


@row(1, "PPO on a model in bfloat16", warned("bfloat16", "float32"))
def _(folder):
    ppo_trainer(model().to(torch.bfloat16))


@row(1, "SFT of a model in bfloat16", warned("bfloat16", "float32"))
def _(folder):
    finetune(model().to(torch.bfloat16))


# --- 2. What is sampled is what is scored ---------------------------------------------


def sampled_and_generated(name, folder):
    """Greedy tokens, with rows of unlike length that end at different times."""
    policy = model(name)
    ids, mask = left_padded([9, 3, 6, 1, 8])
    end = an_end(generate(policy, ids, mask, 16))
    ours = sample(policy, ids, mask, 16, 0.0, end, pad_token_id=0)
    truth = generate(policy, ids, mask, 16, end)
    assert len(set((truth == 0).sum(1).tolist())) > 2  # they do end at different times
    return ours, truth


def rolled_out_and_generated(name, folder):
    """PPO's completions in its second update, at a temperature near 0, and the greedy
    ones of each prompt alone."""
    policy, recorder = model(name), Recorder()
    ids = [tokenizer()(prompt["prompt"])["input_ids"] for prompt in PROMPTS]

    def greedy(row, end=None):
        row = torch.tensor([row])
        return generate(policy, row, torch.ones_like(row), 12, end)[0]

    end = an_end(torch.stack([greedy(row) for row in ids]))
    settings = dict(temperature=1e-4, stop_token_id=end, learning_rate=0.0, max_steps=2)
    ppo(policy, recorder, max_completion_length=12, **settings)
    truth = [greedy(row, end).tolist() for row in recorder.prompt_ids]
    assert len(set(map(len, truth))) > 1  # they do end at different times
    return recorder.completion_ids, truth


def sampled_and_scored(name, folder):
    """Log-probabilities in PPO's rollout, and of the same tokens in its update. Where
    they differ, the ratio of an update's first step is not 1."""
    rows = log_rows(ppo(model(name), max_steps=3, max_completion_length=12))
    ratios = [[row["ratio"], row["approx_kl"]] for row in rows]
    return torch.tensor(ratios), torch.tensor([[1.0, 0.0]] * 3)


def scored_and_alone(name, folder):
    """Log-probabilities in a padded batch, and of each row alone."""
    policy = model(name)
    ids, mask = left_padded([9, 3, 6, 2])
    with torch.no_grad():
        ours = completion_log_probs(policy, ids, mask, mask)
    truth = [
        log_probs_alone(policy, row[keep.bool()].tolist())
        for row, keep in zip(ids, mask)
    ]
    return torch.cat([o[-len(t) :] for o, t in zip(ours, truth)]), torch.cat(truth)


for name in tiny_models.ARCHITECTURES:
    row(2, f"{name}: sampling equals generate", SAME)(
        partial(sampled_and_generated, name)
    )
    row(2, f"{name}: what is scored is what the model says of each row alone", SAME)(
        partial(scored_and_alone, name)
    )
    row(2, f"{name}: PPO completes as generate does", SAME)(
        partial(rolled_out_and_generated, name)
    )

for name in ("gpt2", "opt", "gemma3 multimodal", "mamba", "jamba"):
    row(2, f"{name}: PPO's ratio is 1 at the start of every update", SAME)(
        partial(sampled_and_scored, name)
    )


@row(2, "prefix tuning: sampling equals generate", SAME)
def _(folder):
    policy = adapters(model(), "prefix").eval()
    ids, mask = left_padded([7, 7, 7])
    ours = sample(policy, ids, mask, 8, 0.0, pad_token_id=0)
    return ours, generate(policy, ids, mask, 8)


class Forgetful(transformers.LlamaForCausalLM):
    """Loses its context in sampling: with a cache, it reads the last token only."""

    def forward(self, input_ids=None, past_key_values=None, **inputs):
        if past_key_values is not None and past_key_values.get_seq_length() > 0:
            inputs = {"logits_to_keep": 1}
            input_ids, past_key_values = input_ids[:, -1:], None
        return super().forward(input_ids, past_key_values=past_key_values, **inputs)


@row(2, "PPO on a model that samples otherwise than it scores", refused("sampl"))
def _(folder):
    policy = Forgetful(model().config)
    policy.load_state_dict(model().state_dict())
    ppo(policy.eval())


@row(2, "DPO on a model whose state runs on behind the mask", refused("row"))
def _(folder):
    train_dpo(model("mamba"))


# --- 3. When a reply ends -------------------------------------------------------------


@row(3, "complete stops at each end of generation_config", ("Oslo", True))
def _(folder):
    tok = tokenizer()
    policy = speaker(tok, "<|assistant|>", "Oslo<|eot|> Yes<|end|>")
    ends = tok.convert_tokens_to_ids(["<|end|>", "<|eot|>"])
    policy.generation_config.eos_token_id = ends
    reply = complete(policy, tok, ["Peru"], max_new_tokens=6)[0]
    return reply.text, reply.ended


@row(3, "PPO stops at each end of generation_config", ("Oslo", 1.0))
def _(folder):
    tok, recorder = tokenizer(), Recorder()
    policy = speaker(tok, "<|assistant|>", "Oslo<|eot|> Yes<|text_end|>")
    ends = tok.convert_tokens_to_ids(["<|end|>", "<|eot|>"])
    policy.generation_config.eos_token_id = ends
    trainer = ppo(policy, recorder, CHATS, tok)
    return recorder.completions[0], log_rows(trainer)[0]["eos_rate"]


@row(3, "complete stops at the end of the template's turns", ("Oslo", True))
def _(folder):
    tok = tokenizer("llama3")
    policy = speaker(tok, "<|head|>", "Oslo<|eot|> Yes")
    reply = complete(policy, tok, ["Peru"], max_new_tokens=4)[0]
    return reply.text, reply.ended


@row(3, "PPO stops at the end of the template's turns", ("Oslo", 1.0))
def _(folder):
    tok, recorder = tokenizer("llama3"), Recorder()
    policy = speaker(tok, "<|head|>", "Oslo<|eot|> Yes")
    trainer = ppo(policy, recorder, CHATS, tok)
    return recorder.completions[0], log_rows(trainer)[0]["eos_rate"]


@row(3, "a reward model reads turns that end in another token than EOS", SAME)
def _(folder):
    tok, rm = tokenizer("llama3"), judge()
    ids = dialogue_ids(tok, [user("Peru"), assistant("sol")])
    return reward.score(rm, tok, ["Peru"], ["sol"])[0], reward_alone(rm, ids)


@row(3, "SFT with a template without ends teaches EOS", SAME)
def _(folder):
    tok = tokenizer("endless")
    encoded = sft.encode(tok, EXAMPLES[:2])
    return [e.completion[-1] for e in encoded], [tok.eos_token_id] * 2


@row(3, "DPO with a template without ends teaches EOS", SAME)
def _(folder):
    tok = tokenizer("endless")
    pair = pairs.encode_pairs(tok, PAIRS[:1])[0]
    return [pair.chosen[-1], pair.rejected[-1]], [tok.eos_token_id] * 2


@row(3, "KTO with a template without ends teaches EOS", SAME)
def _(folder):
    tok = tokenizer("endless")
    judged = kto.encode_unpaired(tok, [EXAMPLES[0] | {"label": True}])[0]
    return judged.completion[-1], tok.eos_token_id


@row(3, "a reward model with a template without ends sees EOS", SAME)
def _(folder):
    tok = tokenizer("endless")
    ids = text.encode_dialogues(tok, ["Peru"], ["sol"])[0]
    return ids[-1], tok.eos_token_id


@row(3, "a template without ends is told", warned("end"))
def _(folder):
    sft.encode(tokenizer("endless"), EXAMPLES[:2])


@row(3, "a tokenizer that appends EOS does not end prompts", SAME)
def _(folder):
    appending, plain = tokenizer(appends_eos=True), tokenizer()
    return text.encode_prompt(appending, QUESTION), text.encode_prompt(plain, QUESTION)


@row(3, "PPO's policy does not continue behind an end", SAME)
def _(folder):
    recorder = Recorder()
    ppo(model(), recorder, tok=tokenizer(appends_eos=True))
    plain = [tokenizer()(prompt)["input_ids"] for prompt in recorder.prompts]
    return recorder.prompt_ids, plain


@row(3, "reward functions see <think>", "<think>Yes</think>Oslo")
def _(folder):
    tok, recorder = tokenizer("chatml"), Recorder()
    policy = speaker(tok, "assistant\n", "<think>Yes</think>Oslo<|im_end|>")
    ppo(policy, recorder, CHATS, tok, max_completion_length=12)
    return recorder.completions[0].replace(" ", "")


@row(3, "PPO gives a reward model what ChatML writes behind the end", SAME)
def _(folder):
    tok, rm = tokenizer("chatml"), judge()
    policy = speaker(tok, "assistant\n", "Oslo<|im_end|>")
    trainer = ppo(policy, rm, CHATS[:1], tok)
    ids = dialogue_ids(tok, CHATS[0]["prompt"] + [assistant("Oslo")])
    return log_rows(trainer)[0]["score"], reward_alone(rm, ids)


# --- 4. Conversations -----------------------------------------------------------------

UNFINISHED = [user(QUESTION), assistant("The answer is")]


@row(4, "an unfinished assistant turn is continued", SAME)
def _(folder):
    ids = text.encode_prompt(tokenizer(), UNFINISHED)
    written = f"<|user|>{QUESTION}<|end|><|assistant|>The answer is"
    return ids, tokenizer()(written)["input_ids"]


@row(4, "PPO continues an unfinished assistant turn", SAME)
def _(folder):
    recorder = Recorder()
    ppo(model(), recorder, [{"prompt": UNFINISHED}])
    written = f"<|user|>{QUESTION}<|end|><|assistant|>The answer is"
    return recorder.prompt_ids[0], tokenizer()(written)["input_ids"]


NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}
NOT_THOUGHT = "<|im_start|>assistant\n<think></think>"


@row(4, "PPO's prompts take a column of template arguments", SAME)
def _(folder):
    tok, recorder = tokenizer("chatml"), Recorder()
    ppo(model(), recorder, [CHATS[2] | NO_THINKING], tok)
    written = f"<|im_start|>user\nPeru<|im_end|>\n{NOT_THOUGHT}"
    return recorder.prompt_ids[0], tok(written)["input_ids"]


@row(4, "PPOConfig takes template arguments for all prompts", SAME)
def _(folder):
    tok, recorder = tokenizer("chatml"), Recorder()
    ppo(model(), recorder, [CHATS[2]], tok, **NO_THINKING)
    written = f"<|im_start|>user\nPeru<|im_end|>\n{NOT_THOUGHT}"
    return recorder.prompt_ids[0], tok(written)["input_ids"]


SHOUTING = (  # a template whose argument changes whole dialogues
    "{% for m in messages %}<|{{ m['role'] }}|>{{ 'Yes ' if loud else '' }}"
    "{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{{ 'Yes ' if loud else '' }}{% endif %}"
)
LOUD = {"chat_template_kwargs": {"loud": True}}


def shouting():
    tok = tokenizer()
    tok.chat_template = SHOUTING
    return tok


@row(4, "SFT takes a column of template arguments", SAME)
def _(folder):
    encoded = sft.encode(shouting(), [EXAMPLES[2] | LOUD])[0]
    written = "<|user|>Yes Peru<|end|><|assistant|>Yes sol<|end|>"
    return encoded.input_ids, tokenizer()(written)["input_ids"]


@row(4, "DPO takes a column of template arguments", SAME)
def _(folder):
    pair = pairs.encode_pairs(shouting(), [PAIRS[2] | LOUD])[0]
    written = "<|user|>Yes Peru<|end|><|assistant|>Yes yen<|end|>"
    return pair.prompt + pair.rejected, tokenizer()(written)["input_ids"]


@row(4, "reward models take a column of template arguments", SAME)
def _(folder):
    comparison = reward_training.encode(shouting(), [PAIRS[2] | LOUD])[0]
    written = "<|user|>Yes Peru<|end|><|assistant|>Yes sol<|end|>"
    return comparison.dialogues[0], tokenizer()(written)["input_ids"]


CHOSEN = [assistant("Oslo"), user("Is gold a metal?"), assistant("Yes")]
REJECTED = [assistant("sol"), user("What is the money of Peru?"), assistant("No")]
PART_EARLY = {"prompt": [user(QUESTION)], "chosen": CHOSEN, "rejected": REJECTED}


@row(4, "pairs that part early keep each its own history", SAME)
def _(folder):
    tok = tokenizer()
    pair = pairs.encode_pairs(tok, [PART_EARLY])[0]
    truth = [dialogue_ids(tok, [user(QUESTION)] + side) for side in (CHOSEN, REJECTED)]
    return [pair.prompt + pair.chosen, pair.prompt + pair.rejected], truth


@row(4, "pairs that part early, as whole conversations", SAME)
def _(folder):
    tok = tokenizer()
    whole = {k: [user(QUESTION)] + PART_EARLY[k] for k in ("chosen", "rejected")}
    pair = pairs.encode_pairs(tok, [whole])[0]
    truth = [dialogue_ids(tok, whole[side]) for side in ("chosen", "rejected")]
    return [pair.prompt + pair.chosen, pair.prompt + pair.rejected], truth


@row(4, "what the user says inside a completion is not learned from", SAME)
def _(folder):
    tok, policy = tokenizer(), model()
    encoded = pairs.encode_pairs(tok, [PART_EARLY])
    ours = torch.stack(pairs.log_probs_of(policy, encoded, tok.pad_token_id))[:, 0]
    truth = []
    for side in (CHOSEN, REJECTED):
        opened = [user(QUESTION)] + side[:2]
        ids = dialogue_ids(tok, [user(QUESTION)] + side)
        log_p = log_probs_alone(policy, ids)  # of ids[1:]
        turns = [
            (dialogue_ids(tok, opened[:n], add_generation_prompt=True),
             dialogue_ids(tok, ([user(QUESTION)] + side)[: n + 1]))
            for n in (1, 3)
        ]  # fmt: skip
        truth.append(sum(log_p[len(a) - 1 : len(b) - 1].sum() for a, b in turns))
    return ours, torch.stack(truth)


@row(4, "DPO: a prompt beside whole conversations is not put in twice", SAME)
def _(folder):
    tok = tokenizer()
    chosen, rejected = ([user("Peru"), assistant(a)] for a in ("sol", "yen"))
    pair = pairs.encode_pairs(
        tok, [{"prompt": "Peru", "chosen": chosen, "rejected": rejected}]
    )[0]
    return pair.prompt + pair.chosen, dialogue_ids(tok, chosen)


@row(4, "reward models: a prompt beside whole conversations is not put in twice", SAME)
def _(folder):
    tok = tokenizer()
    chosen, rejected = ([user("Peru"), assistant(a)] for a in ("sol", "yen"))
    rows = [{"prompt": [user("Peru")], "chosen": chosen, "rejected": rejected}]
    return reward_training.encode(tok, rows)[0].dialogues, [
        dialogue_ids(tok, side) for side in (chosen, rejected)
    ]


@row(4, "SFT: a prompt beside a whole conversation is not put in twice", SAME)
def _(folder):
    tok, whole = tokenizer(), [user("Peru"), assistant("sol")]
    encoded = sft.encode(tok, [{"prompt": "Peru", "completion": whole}])[0]
    return encoded.input_ids, dialogue_ids(tok, whole)


def both_kinds(prompt, ends_with):
    """Rewards of one model, bare and with a tokenizer of its own."""
    tok, rm = tokenizer(), judge()
    policy = speaker(tok, ends_with, "Oslo<|end|>")
    rewards = [rm, (copy.deepcopy(rm), tokenizer())]
    rows = log_rows(ppo(policy, rewards, [{"prompt": prompt}], tok))
    return [r for name, r in rows[0].items() if name.startswith("reward/")]


MARKERS = "Say <|user|> or <|im_end|> in one word"


@row(4, "markers in a text read the same for either kind of reward model", SAME)
def _(folder):
    ids = tokenizer()(f"{MARKERS}Oslo<|end|>")["input_ids"]
    return both_kinds(MARKERS, " word"), [reward_alone(judge(), ids)] * 2


@row(4, "markers in a chat read the same for either kind of reward model", SAME)
def _(folder):
    chat = [user(MARKERS), assistant("Oslo")]
    ids = dialogue_ids(tokenizer(), chat)
    return both_kinds(chat[:1], "<|assistant|>"), [reward_alone(judge(), ids)] * 2


@row(4, "SFT on all assistant turns", "sol<|end|>Oslo<|end|>")
def _(folder):
    dialogue = [user("Peru"), assistant("sol"), user("Yes"), assistant("Oslo")]
    rows = [{"prompt": dialogue[:3], "completion": dialogue[3:]}]
    tok = tokenizer()
    encoded = sft.encode(tok, rows, "assistant")[0]
    both = zip(encoded.input_ids, encoded.completion_mask)
    return tok.decode([token for token, learned in both if learned])


@row(4, "SFT on the last assistant turn", "Oslo<|end|>")
def _(folder):
    dialogue = [user("Peru"), assistant("sol"), user("Yes"), assistant("Oslo")]
    rows = [{"messages": dialogue}]
    return tokenizer().decode(sft.encode(tokenizer(), rows)[0].completion)


# --- 5. Fit is checked before the first step ------------------------------------------


@row(5, "a head wider than the tokenizer samples only what the tokenizer has", True)
def _(folder):
    policy, recorder = model(vocab_size=VOCABULARY + 60), Recorder()
    with torch.no_grad():
        policy.lm_head.weight[VOCABULARY:] *= 3
    ppo(policy, [recorder, judge()], max_steps=2, max_completion_length=20)
    return max(map(max, recorder.completion_ids)) < VOCABULARY


@row(5, "where ids are masked in sampling, the ratio is still 1", pytest.approx(1))
def _(folder):
    policy = model(vocab_size=VOCABULARY + 60)
    rows = log_rows(ppo(policy, judge(), max_steps=2, max_completion_length=20))
    return rows[1]["ratio"]


@row(5, "OPT's head is not as wide as its layers: PPO's value head fits", 16)
def _(folder):
    trainer = ppo(model("opt"), max_steps=2)
    return trainer.model.value_head.weight.shape[1]


@row(5, "a reward model from OPT says what transformers says", SAME)
def _(folder):
    tok, rm = tokenizer(), judge("opt")
    ids = dialogue_ids(tok, [user("Peru"), assistant("sol")])
    ours = reward.score(rm, tok, ["Peru", QUESTION], ["sol", "Paris"])[0]
    return ours, reward_alone(rm, ids)


def t5():
    sizes = dict(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    config = transformers.T5Config(
        vocab_size=VOCABULARY, decoder_start_token_id=0, **sizes
    )
    return transformers.T5ForConditionalGeneration(config).eval()


for what, start in {"PPO": ppo_trainer, "DPO": train_dpo, "SFT": finetune}.items():
    row(5, f"{what} on an encoder-decoder", refused("ncoder"))(
        lambda folder, start=start: start(t5())
    )
    for kind in ("prefix", "prompt"):
        row(5, f"{what} with {kind} tuning", refused("virtual token"))(
            lambda folder, start=start, kind=kind: start(adapters(model(), kind))
        )
    row(
        5,
        f"{what} with a pad token that the model does not have",
        refused("resize_token_embeddings"),
    )(lambda folder, start=start: start(model(), tok=with_added_pad()))


def with_added_pad():
    tok = tokenizer()
    tok.add_special_tokens({"pad_token": "[PAD]"})
    return tok


@row(5, "a prompt longer than the positions of a text sub-config", refused("room"))
def _(folder):
    long = [{"prompt": "Say it in one word. " * 40}]
    ppo_trainer(model("gemma3 multimodal"), data=long)


@row(5, "a reward model from Gemma 3 multimodal says what transformers says", SAME)
def _(folder):
    tok, rm = tokenizer(), judge("gemma3 multimodal")
    ids = dialogue_ids(tok, [user("Peru"), assistant("sol")])
    ours = reward.score(rm, tok, ["Peru", QUESTION], ["sol", "Paris"])[0]
    return ours, reward_alone(rm, ids)


def first_loss(name, folder):
    """SFT's first loss, and cross-entropy over each row alone."""
    policy, tok = model(name), tokenizer()
    ours = finetune(copy.deepcopy(policy), disable_dropout=True)[0]["loss"]
    log_p = [
        log_probs_alone(policy, e.input_ids, len(e.prompt))
        for e in sft.encode(tok, EXAMPLES)
    ]
    return torch.tensor(ours), -torch.cat(log_p).mean()


for name in ("gpt2", "opt", "gemma3 multimodal", "mamba", "lfm2"):
    row(5, f"{name}: SFT's first loss is the cross-entropy", SAME)(
        partial(first_loss, name)
    )


@row(5, "a tuple of two reward models is two rewards", SAME)
def _(folder):
    rm = judge()
    rows = log_rows(ppo(model(), (rm, copy.deepcopy(rm))))
    single = log_rows(ppo(model(), rm))
    return rows[0]["score"], 2 * single[0]["score"]


def exact(completions, answer):
    return [float(c == a) for c, a in zip(completions, answer)]


@row(5, "eval_dataset lacks a column that a reward names", refused("answer", "eval"))
def _(folder):
    data = [prompt | {"answer": "Paris"} for prompt in PROMPTS]
    ppo_trainer(model(), exact, data, eval_data=PROMPTS)


@row(5, "eval_dataset is longer than the reward model's positions", refused("position"))
def _(folder):
    long = [{"prompt": "Say it in one word. " * 8}]
    short = reward.reward_model_from(model(max_position_embeddings=32))
    ppo_trainer(model(), short, [{"prompt": "Peru"}], eval_data=long)


def encoder_score(name, folder):
    tok, rm = tokenizer(), classifier(name)
    ours = reward.score(rm, tok, ["Peru", QUESTION], ["sol", "Paris"])
    ids = [[user("Peru"), assistant("sol")], [user(QUESTION), assistant("Paris")]]
    return list(ours), [reward_alone(rm, dialogue_ids(tok, chat)) for chat in ids]


for name in tiny_models.ENCODERS:
    row(5, f"{name} as a reward model says what transformers says", SAME)(
        partial(encoder_score, name)
    )


@row(5, "PPO with an encoder as reward model", SAME)
def _(folder):
    tok, rm = tokenizer(), classifier("bert")
    policy = speaker(tok, "<|assistant|>", "Oslo<|end|>")
    trainer = ppo(policy, (rm, tok), CHATS[:1], tok)
    ids = dialogue_ids(tok, CHATS[0]["prompt"] + [assistant("Oslo")])
    return log_rows(trainer)[0]["score"], reward_alone(rm, ids)


# --- 6. What a reward function may return ---------------------------------------------

RETURNS = {
    "a bfloat16 tensor": lambda n: torch.full((n,), 0.5, dtype=torch.bfloat16),
    "a tensor with gradient": lambda n: torch.full((n,), 0.5, requires_grad=True),
    "numpy in half precision": lambda n: np.full(n, 0.5, dtype=np.float16),
    "0-d tensors in a list": lambda n: [torch.tensor(0.5)] * n,
    "a 0-d tensor, of one completion": lambda n: torch.tensor(0.5),
    "a 0-d array, of one completion": lambda n: np.array(0.5),
}
for what, returned in RETURNS.items():

    def mean_reward(folder, returned=returned, what=what):
        def half(completions):
            return returned(len(completions))

        size = 1 if "one completion" in what else 4
        return log_rows(ppo(model(), half, per_device_train_batch_size=size))[0][
            "score"
        ]

    row(6, f"a reward function returns {what}", 0.5)(mean_reward)


@row(6, "None is skipped, and left out of the mean", (1.0, 2.0, 2.5))
def _(folder):
    def some(completions):
        return [None, 1.0] * (len(completions) // 2)

    def all_(completions):
        return [2.0] * len(completions)

    rows = log_rows(ppo(model(), [some, all_]))
    return tuple(rows[0][n] for n in ("reward/some", "reward/all_", "score"))


@row(6, "a dict's keys are not rewards", refused("dict"))
def _(folder):
    ppo(model(), lambda completions: {float(i): 0.0 for i in range(len(completions))})


# --- 7. Data in any of its usual forms ------------------------------------------------

STREAM = datasets.Dataset.from_list(EXAMPLES).to_iterable_dataset
FORMS = {
    "a Dataset": lambda: datasets.Dataset.from_list(EXAMPLES),
    "a streaming data set": STREAM,
    "a generator": lambda: (example for example in EXAMPLES),
}
for what, form in FORMS.items():

    def first_loss_of(folder, form=form):
        ours, truth = (
            finetune(model(), rows)[0]["loss"] for rows in (form(), EXAMPLES)
        )
        return ours, truth

    def same_prompts(folder, form=form):
        given = [Recorder(), Recorder()]
        for recorder, rows in zip(given, (form(), EXAMPLES)):
            ppo(model(), recorder, rows)
        return given[0].prompt_ids, given[1].prompt_ids

    row(7, f"SFT on {what}", SAME)(first_loss_of)
    row(7, f"PPO on {what}", SAME)(same_prompts)


@row(7, "DPO on a streaming data set", SAME)
def _(folder):
    stream = datasets.Dataset.from_list(PAIRS).to_iterable_dataset()
    ours, truth = (train_dpo(model(), rows, steps=2) for rows in (stream, PAIRS))
    return ours[1]["loss"], truth[1]["loss"]


def two_splits(rows):
    both = datasets.Dataset.from_list(rows)
    return datasets.DatasetDict({"train_sft": both, "test_sft": both})


@row(7, "SFT on a DatasetDict", refused("train_sft", "test_sft"))
def _(folder):
    finetune(model(), two_splits(EXAMPLES))


@row(7, "DPO on a DatasetDict", refused("train_sft", "test_sft"))
def _(folder):
    train_dpo(model(), two_splits(PAIRS))


@row(7, "PPO on a DatasetDict", refused("train_sft", "test_sft"))
def _(folder):
    ppo_trainer(model(), data=two_splits(EXAMPLES))


@row(7, "data.load: which split of a DatasetDict", refused("train_sft", "test_sft"))
def _(folder):
    alignlab.data.load(two_splits(EXAMPLES))


FORMATS = {
    "language modelling": {"text": "The capital of France is Paris."},
    "messages": {"messages": [user("Peru"), assistant("sol")]},
    "prompt and completion": {"prompt": "Peru", "completion": "sol"},
    "preference": {"prompt": "Peru", "chosen": "sol", "rejected": "yen"},
    "unpaired": {"prompt": "Peru", "completion": "sol", "label": True},
    "prompt only": {"prompt": "Peru"},
}
for what, example in FORMATS.items():
    row(7, f"data.load keeps TRL's format: {what}", SAME)(
        lambda folder, example=example: (alignlab.data.load([example])[0], example)
    )


@row(7, "data.load on UltraFeedback-like rows: the prompt is there once", SAME)
def _(folder):
    chosen, rejected = ([user("Peru"), assistant(a)] for a in ("sol", "yen"))
    given = {"prompt": "Peru", "prompt_id": "a", "chosen": chosen, "rejected": rejected}
    given |= {"messages": chosen, "score_chosen": 8.5, "score_rejected": 3.0}
    loaded = alignlab.data.load([given])
    pair = pairs.encode_pairs(tokenizer(), loaded)[0]
    return pair.prompt + pair.rejected, dialogue_ids(tokenizer(), rejected)


HH = {
    "chosen": "\n\nHuman: Peru\n\nAssistant: sol",
    "rejected": "\n\nHuman: Peru\n\nAssistant: yen",
}


@row(7, "data.load on HH-like rows: turns become messages", SAME)
def _(folder):
    pair = pairs.encode_pairs(tokenizer(), alignlab.data.load([HH]))[0]
    truth = dialogue_ids(tokenizer(), [user("Peru"), assistant("yen")])
    return pair.prompt + pair.rejected, truth


@row(7, "data.load counts empty completions aloud", True)
def _(folder):
    empty = HH | {"rejected": "\n\nHuman: Peru\n\nAssistant:"}
    with redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alignlab.data.load([HH, HH, empty])
    return bool(re.search(r"1\b.*empty|empty.*\b1\b", printed.getvalue()))


def desirable(label):
    rows = [EXAMPLES[0] | {"label": label}]
    return kto.encode_unpaired(tokenizer(), rows)[0].desirable


for label, meaning in (
    ("false", False),
    ("0", False),
    (-1, False),
    (0, False),
    ("True", True),
    (1, True),
    (np.bool_(False), False),
):
    row(7, f"the label {label!r}", meaning)(
        lambda folder, label=label: desirable(label)
    )


@row(7, "a label that says nothing", refused("label", "perhaps"))
def _(folder):
    desirable("perhaps")


# --- 8. A trained reward model is a plain one -----------------------------------------


def plain_and_ours(folder, name="llama", pad="<|pad|>", pad_of_policy=None):
    """Scores of a trained reward model, and those of the same folder in plain
    `transformers`, in a batch with padding."""
    tok, policy = tokenizer(), model(name)
    tok.pad_token, policy.config.pad_token_id = pad, pad_of_policy
    policy.config.get_text_config().pad_token_id = pad_of_policy
    rm = reward.reward_model_from(policy)
    settings = dict(learning_rate=0.01, batch_size=4, progress=False)
    reward_training.train_reward_model(rm, tok, PAIRS, epochs=3, **settings)
    base.save_model(rm, tok, folder)
    questions, replies = zip(*((p["prompt"], p["chosen"]) for p in PAIRS))
    ours = reward.score(rm, tok, questions, replies)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    ids = [
        dialogue_ids(tok, [user(q), assistant(a)]) for q, a in zip(questions, replies)
    ]
    width, fill = max(map(len, ids)), tok.pad_token_id
    batch = torch.tensor([row + [fill] * (width - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    with torch.no_grad():
        theirs = plain.eval()(batch, attention_mask=mask).logits[:, 0]
    assert theirs.std() > 0.01
    return torch.tensor(ours).float(), theirs


PLAIN_MODELS = {
    "no pad token in the config": dict(),
    "EOS as pad token": dict(pad="<|end|>", pad_of_policy=1),
    "EOS as pad token, and none in the config": dict(pad="<|end|>"),
    "a pad token of its own": dict(pad_of_policy=0),
    "another pad token than the tokenizer's": dict(pad_of_policy=5),
    "GPT-2 without a pad token": dict(name="gpt2"),
    "Gemma 3 multimodal": dict(name="gemma3 multimodal"),
}
for what, settings in PLAIN_MODELS.items():
    row(8, f"a trained reward model is a plain one: {what}", SAME)(
        partial(plain_and_ours, **settings)
    )


# --- 9. Calibration takes what people have --------------------------------------------


def masked_logits():
    """Logits of four options, of which some items have three, and the right ones."""
    random = np.random.default_rng(0)
    logits = 3 * random.normal(size=(400, 4))
    labels = np.array([random.choice(3, p=_softmax(z[:3] / 3)) for z in logits])
    logits[::2, 3] = -1e9
    labels[1::2] = [random.choice(4, p=_softmax(z / 3)) for z in logits[1::2]]
    return logits, labels


def _softmax(z):
    shares = np.exp(z - z.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def _nll(logits, labels):
    return -np.log(_softmax(logits)[np.arange(len(labels)), labels]).mean()


@row(9, "a temperature for logits with masked options", SAME)
def _(folder):
    logits, labels = masked_logits()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = calibration.TemperatureScaler().fit(logits, labels).temperature_
    truth = scipy.optimize.minimize_scalar(
        lambda log_t: _nll(logits / np.exp(log_t), labels),
        bounds=(-2, 4),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return ours, np.exp(truth.x)


@row(9, "constant logits do not pass for right answers", (True, False))
def _(folder):
    labels = np.arange(40) % 4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        calibration.TemperatureScaler().fit(np.zeros((40, 4)), labels)
    said = " ".join(str(w.message) for w in caught)
    return bool(said), "every answer is right" in said


@row(9, "a temperature beyond the bound is told", True)
def _(folder):
    # Right by a hair more often than wrong: 1 / T is the log of the odds, 4e-6.
    logits, labels = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scaler = calibration.TemperatureScaler()
        scaler.fit(logits, labels, sample_weight=np.array([1 + 4e-6, 1.0]))
    told = any("bound" in str(w.message) for w in caught)
    return told or scaler.temperature_ == pytest.approx(250_000, rel=0.01)


def some_probabilities(classes=50):
    random = np.random.default_rng(1)
    p = _softmax(2 * random.normal(size=(300, classes)))
    return p, np.array([random.choice(classes, p=row) for row in p])


def half(p):
    """The numbers that bfloat16 has for these."""
    return torch.tensor(p).to(torch.bfloat16)


P, Y = some_probabilities()
FRAME = pytest.importorskip("pandas").DataFrame(P)
NUMBERS = {  # what people have, and the numbers in it
    "a bfloat16 tensor": (half(P), half(P).double().numpy()),
    "a float16 array": (P.astype(np.float16), P.astype(np.float16).astype(float)),
    "a tensor with gradient": (torch.tensor(P, requires_grad=True), P),
    "a DataFrame": (FRAME, P),
}
for what, (given, numbers) in NUMBERS.items():

    def ece(folder, given=given):
        return calibration.expected_calibration_error(*calibration.top_label(given, Y))

    def brier(folder, given=given):
        return calibration.brier_score(given, Y)

    answers = numbers.max(1), (numbers.argmax(1) == Y).astype(float)
    truth = calibration.expected_calibration_error(*answers)
    row(9, f"calibration error of {what}", pytest.approx(truth, rel=1e-3))(ece)
    truth = ((numbers - np.eye(P.shape[1])[Y]) ** 2).sum(1).mean()
    row(9, f"Brier score of {what}", pytest.approx(truth, rel=1e-4))(brier)


@row(9, "bfloat16 kept in float32 does not sum to 1", refused("divide", by=ValueError))
def _(folder):
    calibration.brier_score(half(P).float().numpy(), Y)


for said, meant in {
    "The answer is not 100%": np.nan,
    "90-95%": 0.925,
    "85%": 0.85,
    "I am 9 out of 10 sure": 0.9,
}.items():
    row(9, f"the confidence in {said!r}", pytest.approx(meant, nan_ok=True))(
        lambda folder, said=said: parse_confidence(said)
    )


@row(9, "P(True) where the model says neither", warned("something else"))
def _(folder):
    p_true(model(), tokenizer(), [QUESTION] * 3, ["Paris", "Oslo", "sol"])


# --- 10. The runner -------------------------------------------------------------------


def notebook_of(folder, *sources, parameters='profile = "cpu"\nseed = 0\nout_dir = ""'):
    from nbformat.v4 import new_code_cell, new_notebook

    first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    path = folder / "00_test.ipynb"
    cells = [first, *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


@row(10, "a magic in the parameters cell", refused("%matplotlib", "parameters"))
def _(folder):
    path = notebook_of(folder, parameters="seed = 0\n%matplotlib inline")
    assign_parameters({"seed": 1}, [path], "cpu")


@row(10, "a notebook that leaves before its last cell", "failed")
def _(folder):
    import json

    from rich.console import Console

    from alignlab.runs.runner import run_series

    (folder / "notebooks").mkdir()
    notebook_of(folder / "notebooks", "import sys; sys.exit(0)", "done = True")
    run_series(
        out=folder / "run",
        notebooks=folder / "notebooks",
        keep_going=True,
        console=Console(file=io.StringIO()),
    )
    state = json.loads((folder / "run/run.json").read_text())
    return state["notebooks"]["00_test"]["status"]


# --- The table ------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("measure, expected", TABLE)
def test_situation(measure, expected, tmp_path):
    if isinstance(expected, tuple) and expected[0] in (AlignlabError, ValueError):
        with pytest.raises(expected[0]) as raised:
            measure(tmp_path)
        assert all(word in str(raised.value) for word in expected[1]), raised.value
    elif isinstance(expected, tuple) and expected[0] is UserWarning:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            measure(tmp_path)
        said = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
        assert any(all(word in text for word in expected[1]) for text in said), said
    elif expected is SAME:
        ours, truth = measure(tmp_path)
        assert_same(ours, truth)
    else:
        assert measure(tmp_path) == expected


def assert_same(ours, truth):
    """Equal; numbers to within a small part of the truth's size."""
    if isinstance(truth, torch.Tensor) and truth.is_floating_point():
        size = truth.abs().max().item()
        torch.testing.assert_close(ours.float(), truth, rtol=0, atol=2e-5 * size)
    elif isinstance(truth, float | np.floating):
        assert ours == pytest.approx(truth, rel=2e-5)
    elif isinstance(truth, list) and truth and isinstance(truth[0], float):
        assert ours == pytest.approx(truth, rel=2e-5)
    elif isinstance(truth, torch.Tensor):
        assert torch.equal(ours, truth)
    else:
        assert ours == truth
