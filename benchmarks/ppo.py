"""Our PPO beside TRL's last one (1.12.0): episodes per second, memory, reward.

TRL is installed in an environment of its own. Both train the same small Llama on the
same prompts, with the same batch, epochs and lengths, and take turns. Each runs on one
thread and is timed by its CPU time, so that other processes disturb less.

    python benchmarks/ppo.py [FOLDER] [--rounds 3] [--parts "full length" memory ...]

FOLDER keeps that environment and the models for the next run. Every part's numbers are
kept in benchmarks/results/ppo.json, so that a part can be measured again alone; the
table in ppo.md beside it is made from all of them.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

TRL = "1.12.0"
RESULTS = Path(__file__).parent / "results"
SPECIAL = 4  # tokens before the words: <pad>, <end> and two that nothing uses
PAD, END = 0, 1
SHAPES = {  # layers, width, width of the MLP, vocabulary
    "1M": (4, 128, 344, 2048),
    "world": (4, 128, 344, 2048),  # the notebooks' policy
    "3M": (4, 256, 688, 2048),
    "36M": (10, 512, 1376, 8192),
    "135M": (30, 576, 1536, 49152),  # SmolLM2-135M-Instruct
}
# With the value head on the policy's trunk, with a value model beside it, and TRL.
OURS, SEPARATE, THEIRS = "ours", "ours, separate value model", "TRL 1.12.0"
ADAPTERS = "ours, LoRA"  # of rank 16 on every linear layer


# --- One run, in a process of its own ------------------------------------------------


def run_worker(who: str, case: dict) -> dict:
    """Train for a few updates; return memory, seconds per update and logged rows. Slow
    imports come first, as memory is counted from there on."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    torch.set_num_threads(1)
    start = train_trl if who == THEIRS else train_ours
    train = start(separate=who == SEPARATE, adapters=who == ADAPTERS)
    imported = peak_memory()
    ceiling = [matrix_gflops()]

    class Clock(TrainerCallback):
        times: list[float] = []

        def on_train_begin(self, *args, **kwargs):
            self.times.append(time.process_time())

        on_step_end = on_train_begin

    folder = Path(case["folder"])
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompts = json.loads((folder / "prompts.json").read_text())
    rows = train(model, tokenizer, prompts, case, Clock())
    memory = peak_memory() - imported
    ceiling.append(matrix_gflops())
    times = Clock.times[1:]  # the first update warms up
    return {
        "memory": memory,
        "rows": rows,
        "seconds": [end - start for start, end in zip(times, times[1:])],
        "gflops": statistics.mean(ceiling),
    }


def train_ours(separate: bool, adapters: bool):
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification

    from alignlab.ppo import PPOConfig, PPOTrainer

    def train(model, tokenizer, prompts, case, clock):
        value = None
        if separate:
            value = AutoModelForSequenceClassification.from_pretrained(
                Path(case["folder"]) / "value"
            )

        def share_of_good_tokens(completion_ids):
            good, n = case["good"], case["new"]
            return [sum(t in range(*good) for t in ids) / n for ids in completion_ids]

        args = PPOConfig(
            **common(case),
            max_completion_length=case["new"],
            stop_token_id=None if case["ends"] else [],
            lam=0.95,
        )
        trainer = PPOTrainer(
            model,
            share_of_good_tokens,
            args,
            [{"prompt": prompt} for prompt in prompts],
            processing_class=tokenizer,
            value_model=value,
            peft_config=LoraConfig(**LORA) if adapters else None,
            callbacks=[clock],
        )
        trainer.train()
        return [row for row in trainer.state.log_history if "score" in row]

    return train


LORA = dict(r=16, target_modules="all-linear", task_type="CAUSAL_LM")


def train_trl(separate: bool, adapters: bool):
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from transformers.modeling_outputs import BaseModelOutput
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    class GoodTokens(torch.nn.Module):
        """Counts good tokens as it reads, in the shape that TRL expects of a reward
        model: the trunk's last states, and a head that gives the score."""

        base_model_prefix = "trunk"

        def __init__(self, low, high, new):
            super().__init__()
            self.low, self.high, self.new = low, high, new
            self.trunk, self.score = self.count, torch.nn.Identity()

        def count(self, input_ids, **ignored):
            good = (input_ids >= self.low) & (input_ids < self.high)
            share = good.cumsum(1)[..., None].float() / self.new
            return BaseModelOutput(hidden_states=(share,))

    def train(model, tokenizer, prompts, case, clock):
        value = AutoModelForSequenceClassification.from_pretrained(
            Path(case["folder"]) / "value"
        )
        args = PPOConfig(
            **common(case),
            response_length=case["new"],
            stop_token="eos" if case["ends"] else None,
            num_sample_generations=0,
            local_rollout_forward_batch_size=case["batch"],
        )
        trainer = PPOTrainer(
            args,
            tokenizer,
            model,
            None,
            GoodTokens(*case["good"], case["new"]),
            Dataset.from_dict({"input_ids": tokenizer(prompts)["input_ids"]}),
            value,
            eval_dataset=Dataset.from_dict({"input_ids": []}),
            callbacks=[clock],
        )
        trainer.train()
        rows = [row for row in trainer.state.log_history if "objective/scores" in row]
        return [row | {"score": row["objective/scores"]} for row in rows]

    return train


def common(case: dict) -> dict:
    """Arguments with the same names in both."""
    return dict(
        output_dir=case["folder"] + "/output",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        seed=case["seed"],
        total_episodes=case["batch"] * case["updates"],
        per_device_train_batch_size=case["batch"],
        num_ppo_epochs=case["epochs"],
        learning_rate=case["rate"],
        adam_epsilon=1e-8,
        temperature=1.0,
        kl_coef=0.05,
        logging_steps=1,
    )


def update_gflops(run: dict, case: dict) -> float:
    """Useful work per second in the update phase of our last update."""
    row = run["rows"][-1]
    phases = [row[f"seconds_{name}"] for name in ("rollout", "reward", "update")]
    seconds = run["seconds"][-1] * phases[-1] / sum(phases)
    each = gflop(case["size"], case["prompt"], row["completion_length"])
    return case["epochs"] * case["batch"] * each / seconds


def gflop(size: str, prompt: int, new: float) -> float:
    """Useful work in one forward and backward pass of one episode, in GFLOP: products
    with weights (the output layer's for the completion only) and causal attention. The
    backward pass counts twice the forward."""
    layers, width, inner, vocabulary = SHAPES[size]
    length = prompt + new
    trunk = 2 * layers * (4 * width**2 + 3 * width * inner) * length
    attention = 2 * layers * width * length**2
    return 3 * (trunk + attention + 2 * width * vocabulary * new) / 1e9


def matrix_gflops() -> float:
    """What one thread reaches in a product of 1024 x 1024 matrices in float32."""
    import torch

    a = torch.randn(1024, 1024)
    seconds = []
    for _ in range(7):
        start = time.process_time()
        a @ a
        seconds.append(time.process_time() - start)
    return 2 * 1024**3 / statistics.median(seconds) / 1e9


def peak_memory() -> float:
    """The most memory that this process has held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


# --- What they train -----------------------------------------------------------------


def make_model(folder: Path, size: str, seed: int = 0) -> None:
    """A random Llama with its value model, tokenizer and prompts. No completion ends
    before it is cut."""
    import torch
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
    )

    layers, width, inner, vocabulary = SHAPES[size]
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=PAD,
    )
    generator = torch.Generator().manual_seed(seed)
    half = vocabulary // 2  # prompts hold no good token, so every counted one is earned
    ids = torch.randint(half, vocabulary, (512, 24), generator=generator)
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer(vocabulary).save_pretrained(folder)
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(folder / "value")
    prompts = [" ".join(f"t{i}" for i in row) for row in ids.tolist()]
    (folder / "prompts.json").write_text(json.dumps(prompts))


def make_world(folder: Path) -> None:
    """The notebooks' policy and its requests. Most replies end well before they are
    cut, and at different lengths."""
    from transformers import LlamaForSequenceClassification

    from alignlab.study import artifacts as alignment
    from alignlab.study.optimising import requests

    model, tokenizer = alignment.reference_policy()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model.config.num_labels = 1
    LlamaForSequenceClassification(model.config).save_pretrained(folder / "value")
    prompts = [
        tokenizer.apply_chat_template(
            row["prompt"], tokenize=False, add_generation_prompt=True
        )
        for row in requests("train")
    ]
    (folder / "prompts.json").write_text(json.dumps(prompts))


def make_smollm2(folder: Path) -> None:
    """SmolLM2-135M-Instruct with a new value model, and questions about health as
    prompts, each cut at 24 tokens. No completion ends before it is cut."""
    from transformers import LlamaForSequenceClassification

    from alignlab.data import sources
    from alignlab.models.base import load_base

    model, tokenizer = load_base("smollm2")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model.config.num_labels = 1
    LlamaForSequenceClassification(model.config).save_pretrained(folder / "value")
    questions = sources.load("healthsearchqa")["prompt"]
    texts = (" ".join(questions[i : i + 6]) for i in range(512))
    prompts = [tokenizer.decode(tokenizer(text)["input_ids"][:24]) for text in texts]
    prompts = [text for text in prompts if len(tokenizer(text)["input_ids"]) == 24]
    (folder / "prompts.json").write_text(json.dumps(prompts))


def make_tokenizer(vocabulary: int):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": PAD, "<end>": END}
    words |= {f"t{i}": i for i in range(2, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>"
    )


# --- All of it -----------------------------------------------------------------------


def environment(folder: Path) -> Path:
    """The Python of an environment with TRL 1.12.0, else with our versions."""
    python = folder / f"trl-{TRL}" / "bin" / "python"
    if python.exists():
        return python
    from importlib.metadata import version

    print(f"Installing TRL {TRL} into {python.parent.parent} ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
    same = [f"{name}=={version(name)}" for name in ("transformers", "accelerate")]
    torch = f"torch=={version('torch').split('+')[0]}"
    for packages in ([torch], [f"trl=={TRL}", *same]):
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return python


def run_in_process(who: str, case: dict, python: Path) -> dict:
    interpreter = python if who == THEIRS else sys.executable
    done = subprocess.run(
        [interpreter, __file__, "--worker", who, json.dumps(case)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{who} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(who: tuple, case: dict, python: Path, rounds: int) -> dict[str, list]:
    results: dict[str, list] = {name: [] for name in who}
    for turn in range(rounds):
        for name in who if turn % 2 else who[::-1]:
            results[name].append(run_in_process(name, case, python))
            print(".", end="", flush=True)
    return results


def make_case(folder: Path, size: str, **settings) -> dict:
    """A setting to measure; its model is made if it is not there."""
    place = folder / size
    if not (place / "prompts.json").exists():
        own = {"world": make_world, "135M": make_smollm2}
        own[size](place) if size in own else make_model(place, size)
    good = (SPECIAL, SHAPES[size][3] // 2)
    base = dict(folder=str(place), size=size, ends=size == "world", good=good, seed=0)
    return base | USUAL | settings


EVERYONE = (OURS, SEPARATE, THEIRS)
ON_SMOLLM2 = (OURS, ADAPTERS, THEIRS)
USUAL = dict(prompt=24, new=32, batch=128, epochs=4, updates=2, rate=1e-6)
SPEEDS = {  # by their name in the table
    "full length": dict(size="3M"),
    "world's task": dict(size="world", new=64, batch=64, updates=3),
    "SmolLM2-135M": dict(size="135M", batch=4, new=16, epochs=2),
}
PARTS = (*SPEEDS, "memory", "reward")


def measure(part: str, folder: Path, python: Path, rounds: int) -> dict[str, list]:
    """The results of a part, over rounds or seeds, by who was measured."""
    if part in SPEEDS:
        case = make_case(folder, **SPEEDS[part])
        everyone = ON_SMOLLM2 if case["size"] == "135M" else EVERYONE
        return take_turns(everyone, case, python, rounds)
    if part == "memory":
        setting = make_case(folder, "36M", batch=16)
        return take_turns(EVERYONE, setting, python, 1)
    results: dict[str, list] = {OURS: [], THEIRS: []}
    for seed in range(max(3, rounds)):
        setting = make_case(
            folder, "1M", new=16, batch=64, updates=12, rate=1e-3, seed=seed
        )
        for name, runs in take_turns((OURS, THEIRS), setting, python, 1).items():
            results[name] += runs
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    from alignlab.cache import cache_dir

    folder = (arguments.folder or cache_dir() / "benchmarks").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    python = environment(folder)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "ppo.json"
    for part in arguments.parts:
        runs = measure(part, folder, python, arguments.rounds)
        raw = json.loads(path.read_text()) if path.exists() else {}
        raw[part] = runs
        path.write_text(json.dumps(rounded(raw)))
    write(json.loads(path.read_text()))


def rounded(tree):
    """All numbers to five digits, which is more than they are good for."""
    if isinstance(tree, dict):
        return {name: rounded(branch) for name, branch in tree.items()}
    if isinstance(tree, list):
        return [rounded(branch) for branch in tree]
    return float(f"{tree:.5g}") if isinstance(tree, float) else tree


# --- The table -----------------------------------------------------------------------


def speed_lines(part: str, runs: dict[str, list]) -> list[tuple]:
    settings = USUAL | SPEEDS[part]
    speed = {
        name: [settings["batch"] / statistics.median(run["seconds"]) for run in group]
        for name, group in runs.items()
    }
    what = (
        part if settings["size"] in ("world", "135M") else f"{settings['size']}, {part}"
    )
    lines = []
    for name in speed:
        digits = 2 if settings["size"] == "135M" else 1
        value = f"{statistics.median(speed[name]):.{digits}f} episodes/s"
        lines.append((what, name, value, ratio(speed[name], speed[THEIRS])))
    if settings["size"] == "135M":
        return lines + memory_lines(what, runs)
    if settings["size"] == "world":  # its prompts differ in length
        return lines
    reached = [update_gflops(run, settings) for run in runs[OURS]]
    ceiling = [run["gflops"] for run in runs[OURS]]
    middle, most = statistics.median(reached), statistics.median(ceiling)
    share = statistics.median(a / b for a, b in zip(reached, ceiling, strict=True))
    value = f"{middle:.1f} of {most:.1f} GFLOP/s in the update phase: {share:.0%}"
    return [*lines, (what, OURS, value, "")]


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Median, least and greatest ratio over the rounds."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = min(ratios), max(ratios)
    return f"x {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"


def memory_lines(what: str, runs: dict[str, list]) -> list[tuple]:
    """The median peak of each, and its ratio to TRL's."""
    memory = {n: statistics.median(run["memory"] for run in runs[n]) for n in runs}
    return [
        (f"{what}, memory", name, f"{mb:.0f} MB", f"x {mb / memory[THEIRS]:.2f}")
        for name, mb in memory.items()
    ]


def reward_lines(runs: dict[str, list]) -> list[tuple]:
    """Reward reached against episodes; a pair for each seed."""
    from alignlab.evaluation.intervals import paired_difference, t_interval

    curves = {n: [[r["score"] for r in run["rows"]] for run in runs[n]] for n in runs}
    count = 64 * len(curves[OURS][0])
    lines = []
    for what, pick in (
        (f"mean over {count} episodes", statistics.mean),
        ("last 192 episodes", lambda curve: statistics.mean(curve[-3:])),
    ):
        values = {name: [pick(c) for c in each] for name, each in curves.items()}
        gap = paired_difference(values[OURS], values[THEIRS])
        for name in (OURS, THEIRS):
            note = f"ours less TRL's {gap:+.3f}" if name == OURS else ""
            lines.append(
                (f"1M, reward, {what}", name, f"{t_interval(values[name]):.3f}", note)
            )
    return lines


def write(raw: dict) -> None:
    import platform

    import torch
    import transformers

    from alignlab.runs.origin import processor

    lines = []
    for part in (part for part in PARTS if part in raw):
        if part in SPEEDS:
            lines += speed_lines(part, raw[part])
        else:
            runs = raw[part]
            is_reward = part == "reward"
            lines += reward_lines(runs) if is_reward else memory_lines("36M", runs)
    table = [("what", "who", "measured", "beside TRL"), ("---",) * 4, *lines]
    text = "\n".join("| " + " | ".join(map(str, row)) + " |" for row in table)
    every = [run for part in raw.values() for runs in part.values() for run in runs]
    machine = (
        f"{processor()}, {os.cpu_count()} cores seen, one thread each, "
        f"{statistics.median(run['gflops'] for run in every):.0f} GFLOP/s in a matrix "
        f"product; {platform.system()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}."
    )
    about = (
        "4 epochs of one minibatch. 3M: 128 prompts of 24 tokens, 32 new ones. The "
        "world's task: the policy of the notebooks (1M) and 64 of its requests, up to "
        "64 new tokens. SmolLM2-135M: 2 epochs, 4 prompts of 24 tokens, 16 new ones, "
        "and LoRA of rank 16 on every linear layer. 36M: 16 prompts of 24, 32 new "
        "ones. Reward, the share of good tokens: 64 prompts, 16 new ones, 12 updates "
        "at a learning rate of 1e-3.\n\n"
        "Speeds are medians over the rounds, in brackets the least and the greatest "
        "round. Memory is the peak above what the imports take. Reward intervals are "
        "95%, over seeds."
    )
    page = f"# PPO beside TRL {TRL}\n\n{machine}\n\n{about}\n\n{text}\n"
    (RESULTS / "ppo.md").write_text(page)
    print("\n" + page)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(run_worker(sys.argv[2], json.loads(sys.argv[3]))))
    else:
        main()
