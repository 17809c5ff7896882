"""Our PPO, RLOO and GRPO beside TRL's: episodes per second, and reward.

All train the notebooks' policy, a million parameters, to tell about subjects of the
world for the gold reward, 64 completions an update. TRL's PPO is its last (1.12.0), in
an environment of its own that is made at the first run; RLOO and GRPO are those of the
TRL that is installed. Every run is a process of its own on one thread, one at a time.
What counts is its CPU time, without imports and the first update, so other load on the
machine disturbs little, but leave the machine alone all the same.

parts:
  speed   whole updates: sampling, reward and optimizer step, in rounds
  reward  reward of held-out requests, and the seconds to get there, by seed
  rates   the learning rates that RATES was chosen from, on a seed of their own

In each round, or for each seed, all take a turn, ours and TRL's next to each other. The
numbers of every finished turn are kept in results/rlhf.json; the tables in
results/rlhf.md are made from all of them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from ppo import TRL as LAST_WITH_PPO
from ppo import cpu_name, environment, make_world, matrix_gflops, rounded

RESULTS = Path(__file__).parent / "results"
# Ours has its values from a head on the policy's trunk, or from a model of their own.
SEPARATE = "ours, separate value model"
SIDES = {
    "PPO": ("ours", SEPARATE, "TRL"),
    "RLOO": ("ours", "TRL"),
    "GRPO": ("ours", "TRL"),
}
NAMES = [(name, side) for name in SIDES for side in SIDES[name]]
PAD, END = 0, 1  # of the world's tokenizer
NEW, BATCH, GROUP = 64, 64, 4  # tokens, completions an update, completions of a prompt
KL_PRICE = 0.05
# Of TRIED, by what the sides of an algorithm reach on a seed that nothing else uses.
TRIED = (3e-4, 1e-3)
RATES = {"PPO": 3e-4, "RLOO": 1e-3, "GRPO": 1e-3}
RATES_SEED = 100
UPDATES = {"speed": 4, "reward": 12, "rates": 12}
EVERY = {"speed": 0, "reward": 3, "rates": 12}  # updates between evaluations
SHARE = 0.75  # of the way from the start to TRL's mean end: the reward to get to
SAMPLES = 2  # of each held-out request

# What is not the same by default, or has another name. TRL's RLOO and GRPO turn on
# bfloat16 and gradient checkpointing, which are slower here.
SAME = dict(
    save_strategy="no",
    logging_strategy="no",
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    lr_scheduler_type="constant",
    adam_epsilon=1e-8,
    temperature=1.0,
)
OURS = {
    "PPO": {},
    "RLOO": dict(advantages="rloo", completions_per_prompt=GROUP),
    "GRPO": dict(
        advantages="grpo",
        completions_per_prompt=GROUP,
        kl_estimator="k3",
        kl_in="loss",
    ),
}


# --- One run, in a process of its own ------------------------------------------------


def run_worker(case: dict) -> dict:
    """Train; return CPU seconds and reward of each update, and what the policy was
    worth on held-out requests: (updates, reward)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    torch.set_num_threads(1)
    folder = Path(case["folder"])
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder)
    rows = json.loads((folder / "rows.json").read_text())
    gold = gold_rewards()
    result = {"seconds": [], "scores": [], "held_out": []}

    def reward(completions, subject, **_):
        rewards = gold(completions, subject)
        result["scores"].append(statistics.mean(rewards))
        return rewards

    class Watch(TrainerCallback):
        """Times updates, and evaluates between them."""

        def on_train_begin(self, *_, **__):
            updates, every = len(result["seconds"]), case["every"]
            if every and updates % every == 0:
                replies = held_out(model, tokenizer, rows["test"])
                worth = gold(
                    replies, [row["subject"] for row in rows["test"]] * SAMPLES
                )
                result["held_out"].append((updates, statistics.mean(worth)))
            self.start = time.process_time()

        def on_step_end(self, *_, **__):
            result["seconds"].append(time.process_time() - self.start)
            self.on_train_begin()

    train = train_ours
    if case["side"] == "TRL":
        train = train_trl_ppo if case["algorithm"] == "PPO" else train_trl
    train(model, tokenizer, rows["train"], reward, case, Watch())
    return result | {"gflops": matrix_gflops()}


def gold_rewards():
    """The reward function of all: ``(completions, subjects) -> rewards``."""
    from alignlab.world import gold, tasks

    world = tasks.default_world()

    def rewards(completions, subjects):
        pairs = zip(subjects, completions, strict=True)
        return [gold.gold_reward(world, s, text.strip()).total for s, text in pairs]

    return rewards


def held_out(model, tokenizer, rows: list[dict]) -> list[str]:
    """Replies to these requests, with the same random numbers every time and none of
    the training's."""
    import torch
    from transformers import GenerationConfig

    inputs = tokenizer(
        [row["prompt"] for row in rows] * SAMPLES, padding=True, return_tensors="pt"
    )
    settings = GenerationConfig(
        max_new_tokens=NEW,
        do_sample=True,
        top_k=0,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    was_training = model.training
    model.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ids = model.generate(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            generation_config=settings,
        )
    model.train(was_training)
    replies = ids[:, inputs["input_ids"].shape[1] :]
    return tokenizer.batch_decode(replies, skip_special_tokens=True)


def train_ours(model, tokenizer, rows, reward, case, watch) -> None:
    from transformers import AutoModelForSequenceClassification

    from alignlab.ppo import PPOConfig, PPOTrainer

    value, same = None, {}
    if case["side"] == SEPARATE:
        same = {"lam": 0.95}  # as TRL, which has a value model as well
        value = AutoModelForSequenceClassification.from_pretrained(
            Path(case["folder"]) / "value"
        )
    args = PPOConfig(
        **SAME,
        **OURS[case["algorithm"]],
        **same,
        output_dir=case["folder"] + "/output",
        seed=case["seed"],
        learning_rate=case["rate"],
        max_steps=case["updates"],
        per_device_train_batch_size=BATCH,
        num_ppo_epochs=1,
        max_completion_length=NEW,
        kl_coef=KL_PRICE,
    )
    PPOTrainer(
        model,
        reward,
        args,
        rows,
        processing_class=tokenizer,
        value_model=value,
        callbacks=[watch],
    ).train()


def train_trl(model, tokenizer, rows, reward, case, watch) -> None:
    """RLOO or GRPO. On a CPU, passes of 32 rows are faster than one of 64."""
    import trl
    from datasets import Dataset

    name = case["algorithm"]
    loss = {"loss_type": "grpo"} if name == "GRPO" else {}
    args = getattr(trl, f"{name}Config")(
        **SAME,
        **loss,
        output_dir=case["folder"] + "/output",
        seed=case["seed"],
        learning_rate=case["rate"],
        max_steps=case["updates"],
        per_device_train_batch_size=BATCH // 2,
        gradient_accumulation_steps=2,
        num_generations=GROUP,
        max_completion_length=NEW,
        beta=KL_PRICE,
    )
    getattr(trl, f"{name}Trainer")(
        model,
        reward,
        args,
        Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[watch],
    ).train()


def train_trl_ppo(model, tokenizer, rows, reward, case, watch) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from transformers.modeling_outputs import BaseModelOutput
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    prompts = tokenizer([row["prompt"] for row in rows])["input_ids"]
    asked = [row["subject"] for row in rows]
    subjects = dict(zip(map(tuple, prompts), asked, strict=True))
    turn = prompts[0][-1]  # the token that begins a reply

    class Gold(torch.nn.Module):
        """The reward function in the shape that TRL expects of a reward model: the
        trunk's last states, and a head that gives the score."""

        base_model_prefix = "trunk"

        def __init__(self):
            super().__init__()
            self.trunk, self.score = self.judge, torch.nn.Identity()

        def judge(self, input_ids, **_):
            rows = [ids[ids != PAD].tolist() for ids in input_ids]
            starts = [row.index(turn) + 1 for row in rows]
            replies = [row[start:] for row, start in zip(rows, starts)]
            texts = tokenizer.batch_decode(replies, skip_special_tokens=True)
            asked = [subjects[tuple(row[:n])] for row, n in zip(rows, starts)]
            rewards = torch.tensor(reward(texts, asked))
            states = rewards[:, None, None].expand(*input_ids.shape, 1)
            return BaseModelOutput(hidden_states=(states,))

    value = AutoModelForSequenceClassification.from_pretrained(
        Path(case["folder"]) / "value"
    )
    args = PPOConfig(
        **SAME,
        output_dir=case["folder"] + "/output",
        seed=case["seed"],
        learning_rate=case["rate"],
        total_episodes=BATCH * case["updates"],
        per_device_train_batch_size=BATCH,
        local_rollout_forward_batch_size=BATCH,
        num_ppo_epochs=1,
        response_length=NEW,
        stop_token="eos",
        kl_coef=KL_PRICE,
        num_sample_generations=0,
    )
    PPOTrainer(
        args,
        tokenizer,
        model,
        None,
        Gold(),
        Dataset.from_dict({"input_ids": prompts}),
        value,
        eval_dataset=Dataset.from_dict({"input_ids": []}),
        callbacks=[watch],
    ).train()


# --- All of them ---------------------------------------------------------------------


def make_task(folder: Path) -> Path:
    """The folder of the policy and its requests, each with its subject."""
    from transformers import AutoTokenizer

    from alignlab.study.optimising import requests

    place = folder / "world"
    if not (place / "prompts.json").exists():
        make_world(place)
    tokenizer = AutoTokenizer.from_pretrained(place)
    rows = {
        split: [
            row
            | {
                "prompt": tokenizer.apply_chat_template(
                    row["prompt"], tokenize=False, add_generation_prompt=True
                )
            }
            for row in requests(split)
        ]
        for split in ("train", "test")
    }
    (place / "rows.json").write_text(json.dumps(rows))
    return place


def python_of(folder: Path) -> Path:
    """The Python of the environment with TRL's last PPO, which also has what the gold
    reward needs."""
    python = environment(folder)
    packages = [f"{name}=={version(name)}" for name in ("babel", "platformdirs")]
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return python


def run_in_process(case: dict, python: Path) -> dict:
    other = (case["side"], case["algorithm"]) == ("TRL", "PPO")
    done = subprocess.run(
        [python if other else sys.executable, __file__, "--worker", json.dumps(case)],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(part: str, turn: float, place: Path, python: Path) -> dict[str, dict]:
    """A run of each. ``turn`` is the seed, or the rate to try."""
    runs = {}
    for algorithm, side in NAMES if turn % 2 else reversed(NAMES):
        case = dict(
            folder=str(place),
            algorithm=algorithm,
            side=side,
            seed=RATES_SEED if part == "rates" else turn,
            rate=turn if part == "rates" else RATES[algorithm],
            updates=UPDATES[part],
            every=EVERY[part],
        )
        runs[f"{algorithm} {side}"] = run_in_process(case, python)
        print(".", end="", flush=True)
    return runs


def main() -> None:
    arguments = parse()
    from alignlab.cache import cache_dir

    folder = (arguments.folder or cache_dir() / "benchmarks").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    place, python = make_task(folder), python_of(folder)
    path = RESULTS / "rlhf.json"
    turns = {"speed": range(arguments.rounds), "reward": arguments.seeds}
    turns["rates"] = TRIED
    for part in arguments.parts:
        kept = json.loads(path.read_text()) if path.exists() else {}
        done = kept.get(part, {}) if arguments.resume else {}
        for turn in turns[part]:
            if str(turn) in done:
                continue
            start = time.time()
            done[str(turn)] = rounded(take_turns(part, turn, place, python))
            path.write_text(json.dumps(kept | {part: done}))
            print(f" {part} {turn}: {time.time() - start:.0f} s", flush=True)
    write(json.loads(path.read_text()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        help="keeps TRL's environment and the policy for the next run; by default in "
        "the cache of this project",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=tuple(UPDATES),
        default=("speed", "reward"),
        help="what to measure (speed and reward); other parts keep their numbers",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="of the part speed (5); more are surer"
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=(0, 1, 2),
        help="of the part reward (0 1 2); more give narrower intervals",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep the turns that are there and run those that are missing",
    )
    return parser.parse_args()


# --- The tables ----------------------------------------------------------------------


def write(raw: dict) -> None:
    import platform

    import torch
    import transformers

    turns = [turn for part in raw.values() for turn in part.values()]
    speeds = [run["gflops"] for turn in turns for run in turn.values()]
    machine = (
        f"{cpu_name()}, {os.cpu_count()} cores seen, one thread each, "
        f"{statistics.median(speeds):.0f} GFLOP/s in a matrix "
        f"product; {platform.system()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}."
    )
    settings = (
        "The world's task: the policy of the notebooks (1M), its requests and the gold "
        f"reward; {BATCH} completions of up to {NEW} new tokens an update ({GROUP} for "
        f"each of {BATCH // GROUP} prompts in RLOO and GRPO), one epoch of one "
        f"minibatch, float32, price of KL {KL_PRICE}. TRL runs without bfloat16, "
        "gradient checkpointing and logging, RLOO and GRPO in the faster of 64 rows at "
        "once and twice 32."
    )
    text = f"# PPO, RLOO and GRPO beside TRL\n\n{machine}\n\n{settings}\n"
    for part, lines_of in LINES.items():
        if part in raw:
            runs = {name: runs_of(raw[part], *name) for name in NAMES}
            about, lines = lines_of(runs, raw[part])
            text += f"\n## {part.capitalize()}\n\n{about}\n\n{table(lines)}\n"
    (RESULTS / "rlhf.md").write_text(text)
    print("\n" + text)


def runs_of(part: dict, algorithm: str, side: str) -> list[dict]:
    return [runs[f"{algorithm} {side}"] for runs in part.values()]


def table(lines: list[tuple]) -> str:
    lines = [("what", "who", "measured", "beside TRL"), ("---",) * 4, *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def who(algorithm: str, side: str) -> str:
    theirs = LAST_WITH_PPO if algorithm == "PPO" else version("trl")
    return f"TRL {theirs}" if side == "TRL" else side


def with_range(values: list[float], spec: str) -> str:
    """Median, least and greatest."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:{spec}} ({low:{spec}} to {high:{spec}})"


def ratios(runs: dict, algorithm: str, side: str, measure) -> str:
    pairs = zip(runs[algorithm, side], runs[algorithm, "TRL"], strict=True)
    return "x " + with_range([measure(a) / measure(b) for a, b in pairs], ".2f")


def speed_lines(runs: dict, turns: dict) -> tuple[str, list[tuple]]:
    def speed(run: dict) -> float:
        return BATCH / statistics.median(run["seconds"][1:])

    lines = []
    for algorithm, side in NAMES:
        value = with_range([speed(run) for run in runs[algorithm, side]], ".1f")
        ratio = "" if side == "TRL" else ratios(runs, algorithm, side, speed)
        what, name = f"{algorithm}, whole updates", who(algorithm, side)
        lines.append((what, name, f"{value} episodes/s", ratio))
    about = (
        f"Medians over {len(turns)} rounds of the median update, in brackets the least "
        "and the greatest round."
    )
    return about, lines


def reward_lines(runs: dict, turns: dict) -> tuple[str, list[tuple]]:
    from alignlab.evaluation.intervals import paired_difference, t_interval

    count = BATCH * UPDATES["reward"]
    measures = {
        f"held-out reward after {count} episodes": lambda run: run["held_out"][-1][1],
        f"reward in training, mean over {count} episodes": lambda run: statistics.mean(
            run["scores"]
        ),
    }
    lines = []
    for algorithm, sides in SIDES.items():
        group = {side: runs[algorithm, side] for side in sides}
        for what, measure in measures.items():
            values = {side: [measure(run) for run in group[side]] for side in sides}
            for side in sides:
                gap = paired_difference(values[side], values["TRL"])
                note = "" if side == "TRL" else f"ours less TRL's {gap:+.2f}"
                value = f"{t_interval(values[side]):.2f}"
                lines.append(
                    (f"{algorithm}, {what}", who(algorithm, side), value, note)
                )
        lines += seconds_lines(algorithm, group)
    start = statistics.mean(run["held_out"][0][1] for run in runs["PPO", "ours"])
    rates = ", ".join(f"{rate:g} for {name}" for name, rate in RATES.items())
    about = (
        f"Means and 95% intervals over {len(turns)} seeds. Held-out reward is that of "
        f"{SAMPLES} replies to each of the 60 test requests, {start:.2f} at the start; "
        f"the reward to get to is {SHARE:.0%} of the way from there to TRL's mean end. "
        "Seconds are CPU seconds of training, interpolated between evaluations; the "
        f"first update counts as the median of the others. Learning rates: {rates}; "
        f"they and our lambda of 1 were chosen on seed {RATES_SEED}. With a separate "
        "value model lambda is 0.95, as TRL's."
    )
    return about, lines


def seconds_lines(algorithm: str, group: dict[str, list[dict]]) -> list[tuple]:
    """CPU seconds to the same reward."""
    start = statistics.mean(run["held_out"][0][1] for run in group["TRL"])
    end = statistics.mean(run["held_out"][-1][1] for run in group["TRL"])
    level = start + SHARE * (end - start)
    seconds = {side: [seconds_to(level, run) for run in group[side]] for side in group}
    what = f"{algorithm}, CPU seconds to a held-out reward of {level:.2f}"
    lines = []
    for side, values in seconds.items():
        reached = [value for value in values if value is not None]
        value = f"{with_range(reached, '.1f')} s" if reached else ""
        if len(reached) < len(values):
            missed = len(values) - len(reached)
            value = f"{value} not reached by {missed} of {len(values)}".strip()
        pairs = [(a, b) for a, b in zip(values, seconds["TRL"]) if a and b]
        note = "x " + with_range([a / b for a, b in pairs], ".2f") if pairs else ""
        lines.append((what, who(algorithm, side), value, "" if side == "TRL" else note))
    return lines


def seconds_to(level: float, run: dict) -> float | None:
    """When the held-out reward first gets to the level; None if it never does."""
    seconds = [statistics.median(run["seconds"][1:]), *run["seconds"][1:]]
    points = [(sum(seconds[:updates]), reward) for updates, reward in run["held_out"]]
    for (t0, r0), (t1, r1) in zip(points, points[1:]):
        if r0 < level <= r1:
            return t0 + (t1 - t0) * (level - r0) / (r1 - r0)
    return None


def rates_lines(runs: dict, turns: dict) -> tuple[str, list[tuple]]:
    lines = []
    for algorithm, side in NAMES:
        ends = [run["held_out"][-1][1] for run in runs[algorithm, side]]
        value = ", ".join(
            f"{end:.2f} at {float(rate):g}" for rate, end in zip(turns, ends)
        )
        lines.append((algorithm, who(algorithm, side), value, ""))
    count = BATCH * UPDATES["rates"]
    return f"Held-out reward after {count} episodes, seed {RATES_SEED}.", lines


LINES = {"speed": speed_lines, "reward": reward_lines, "rates": rates_lines}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print("\n" + json.dumps(run_worker(json.loads(sys.argv[2]))))
    else:
        main()
