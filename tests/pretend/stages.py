"""Smoke of the library's stages on the pretend device, and what they make the host wait
for. Prints one JSON object. Run it as a script, in a process of its own: the device
stays known to torch until the process ends.
"""

import copy
import json
import os
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable

import pretend_device

pretend_device.install()
os.environ["ACCELERATE_TORCH_DEVICE"] = pretend_device.NAME

import torch  # noqa: E402

from alignlab.calibration.elicitation import multiple_choice, p_true  # noqa: E402
from alignlab.models.base import load_base, use_device  # noqa: E402
from alignlab.models.reward import reward_model_from, score  # noqa: E402
from alignlab.models.sampler import complete, sample  # noqa: E402
from alignlab.models.text import encode_prompt, pad_left, pad_token_id  # noqa: E402
from alignlab.ppo import PPOConfig, PPOTrainer  # noqa: E402
from alignlab.training.dpo import train_dpo  # noqa: E402
from alignlab.training.reward import train_reward_model  # noqa: E402
from alignlab.training.sft import finetune  # noqa: E402

QUESTIONS = [
    "What is the capital of France?",
    "Is gold a metal?",
    "Name a river.",
    "Say it in one word: the capital of Kenya, and the number of iron.",
]
PAIRS = [
    {"prompt": question, "chosen": f"Yes, {i}.", "rejected": f"No, not {i} at all."}
    for question in QUESTIONS
    for i in range(4)
]
EXAMPLES = [{"prompt": p["prompt"], "completion": p["chosen"]} for p in PAIRS]


def policy():
    return load_base("300k")


def by_where(counted: list[pretend_device.Sync]) -> dict[str, int]:
    return dict(Counter(f"{s.why} {s.where}" for s in counted).most_common())


def per_step(train: Callable[[int], None], few: int = 2, more: int = 6) -> dict:
    """What the host waits for in each step beyond the first few."""
    counts = []
    for steps in (few, more):
        with pretend_device.syncs() as counted:
            train(steps)
        counts.append(Counter(f"{s.why} {s.where}" for s in counted))
    own = {name: n / (more - few) for name, n in (counts[1] - counts[0]).items()}
    return {"syncs": sum(own.values()), "where": own}


LOOP = dict(learning_rate=1e-4, progress=False, log_every=100, batch_size=4)


def sft() -> dict:
    model, tokenizer = policy()

    def train(steps: int, device: str = pretend_device.NAME) -> float:
        own = copy.deepcopy(model).to(device)
        return finetune(own, tokenizer, EXAMPLES, steps=steps, **LOOP)[-1]["loss"]

    return per_step(train) | {"loss": train(2), "loss on a CPU": train(2, "cpu")}


def sampler() -> dict:
    model, tokenizer = policy()
    greedy = [c.tokens for c in complete(model, tokenizer, QUESTIONS, 12)]
    drawn = complete(model, tokenizer, QUESTIONS, 12, temperature=1.0, seed=0)
    ids = [encode_prompt(tokenizer, question) for question in QUESTIONS]
    batch = [x.to(model.device) for x in pad_left(ids, pad_token_id(tokenizer))]
    generator = torch.Generator(model.device)

    def draw(tokens: int) -> None:
        sample(model, *batch, max_new_tokens=tokens, generator=generator)

    counts = per_step(draw, 16, 80)
    on_cpu = [c.tokens for c in complete(model.cpu(), tokenizer, QUESTIONS, 12)]
    same = greedy == on_cpu
    return counts | {"greedy as on a CPU": same, "drawn": len(drawn)}


def reward_model() -> dict:
    model, tokenizer = policy()
    judge = reward_model_from(model)

    def train(steps: int) -> None:
        own = copy.deepcopy(judge)
        train_reward_model(
            own, tokenizer, PAIRS, epochs=steps // 2, **{**LOOP, "batch_size": 8}
        )

    counts = per_step(train)
    replies = ["Yes."] * len(QUESTIONS)
    scores = score(judge, tokenizer, QUESTIONS, replies).tolist()
    on_cpu = score(judge.cpu(), tokenizer, QUESTIONS, replies).tolist()
    return counts | {"scores": scores, "scores on a CPU": on_cpu}


def ppo(peft_config=None, **settings) -> dict:
    model, tokenizer = policy()
    judge = reward_model_from(model)
    args = PPOConfig(
        max_steps=2, per_device_train_batch_size=8, max_completion_length=8,
        disable_tqdm=True, report_to="none", **settings,
    )  # fmt: skip
    rows = [{"prompt": question} for question in QUESTIONS]
    trainer = PPOTrainer(
        model, judge, args, rows, processing_class=tokenizer, peft_config=peft_config
    )
    with pretend_device.syncs() as counted:
        trainer.train()
    first = trainer.state.log_history[0]
    numbers = {name: first[name] for name in ("score", "kl_exact", "loss")}
    device = str(trainer.args.device)
    return {"where": by_where(counted), "device": device, **numbers}


def ppo_lora() -> dict:
    from peft import LoraConfig

    return ppo(LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


def grpo() -> dict:
    return ppo(advantages="grpo", completions_per_prompt=4, kl_estimator="exact")


def dpo() -> dict:
    model, tokenizer = policy()

    def train(steps: int, device: str = pretend_device.NAME) -> float:
        own = copy.deepcopy(model).to(device)
        return train_dpo(own, tokenizer, PAIRS, steps=steps, **LOOP)[-1]["loss"]

    return per_step(train) | {"loss": train(2), "loss on a CPU": train(2, "cpu")}


def kto() -> dict:
    model, tokenizer = policy()
    history = train_dpo(
        model, tokenizer, PAIRS, loss_type="kto", steps=2, batch_size=4,
        learning_rate=1e-3, progress=False,
    )  # fmt: skip
    return {"losses": [row["loss"] for row in history]}


def elicitation() -> dict:
    model, tokenizer = policy()
    choices = multiple_choice(model, tokenizer, QUESTIONS, ["Paris", "Yes", "No"])
    true = p_true(model, tokenizer, QUESTIONS, ["Paris"] * len(QUESTIONS))
    return {
        "probabilities": choices.probabilities.tolist(),
        "p_true": true.confidence.tolist(),
    }


def planted() -> dict:
    """What must fail: a batch that stayed on the CPU."""
    model, tokenizer = policy()
    model(torch.tensor([encode_prompt(tokenizer, QUESTIONS[0])]))
    return {}


def refusals() -> dict:
    """What a GPU refuses, each with the first words of its error."""
    numbers = torch.arange(3.0, device=pretend_device.NAME)
    refused = {
        "numpy": numbers.numpy,
        "two devices": lambda: numbers + torch.ones(3),
        "generator": lambda: torch.rand(
            3, device=pretend_device.NAME, generator=torch.Generator("cpu")
        ),
        "index": lambda: torch.ones(3)[numbers.long()],
    }
    errors = {}
    for name, call in refused.items():
        try:
            call()
        except (RuntimeError, TypeError) as error:
            errors[name] = str(error)[:60]
    allowed = numbers[torch.tensor([2])] * torch.tensor(2.0)
    return {"errors": errors, "allowed": allowed.tolist()}


STAGES = (
    sft, sampler, reward_model, ppo, ppo_lora, grpo, dpo, kto, elicitation, planted,
    refusals,
)  # fmt: skip


def main(names: list[str], device: str = pretend_device.NAME) -> dict:
    """What each stage gives on the device, or how it failed."""
    warnings.simplefilter("ignore")
    use_device(device)
    os.environ["ACCELERATE_TORCH_DEVICE"] = device
    results = {}
    for stage in STAGES:
        if names and stage.__name__ not in names:
            continue
        try:
            results[stage.__name__] = stage()
        except Exception:
            results[stage.__name__] = {"error": traceback.format_exc()}
    return results


if __name__ == "__main__":
    json.dump(main(sys.argv[1:]), sys.stdout, indent=1)
