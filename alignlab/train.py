"""`alignlab train`: SFT, reward models, DPO, KTO, ORPO and PPO from one YAML recipe.

Also the module for several processes: `accelerate launch ... -m alignlab.train sft ...`
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from alignlab.errors import AlignlabError, explained_if_full

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
Config = Annotated[
    Path, typer.Option("--config", "-c", help="The recipe, a YAML file.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key, such as args.learning_rate=1e-4; repeatable.",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue from the latest checkpoint.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, say what would be trained.")
]


@app.callback()
def about() -> None:
    """Train a model as a recipe says: TRL's trainers and our PPO, with or without LoRA.

    A recipe is one YAML file:

        model: 1m                # a size that ships, smollm2, a folder or a Hub id
        data: pairs.jsonl        # a file, folder, catalogue name or Hub id
        output_dir: out/dpo
        lora: {r: 16}            # optional: train adapters (peft's own fields)
        args:                    # the trainer's own fields, by TRL's names
          learning_rate: 1e-5
          per_device_train_batch_size: 8

    recipes/ has some for a CPU, one GPU and eight; docs/training.md explains them. On
    several devices, each with a process of its own:

        accelerate launch --config_file recipes/fsdp.yaml -m alignlab.train sft \\
            --config recipes/qwen-7b-8gpu/sft.yaml
    """


def _train(
    stage: str, config: Path, overrides: list[str] | None, resume: bool, dry_run: bool
) -> None:
    from alignlab.training.recipes.config import read_recipe

    recipe = read_recipe(stage, config, overrides or ())
    from alignlab.training.recipes.run import train

    more_room = "Free some space, then continue with --resume."
    with explained_if_full(Path(recipe.output_dir), more_room):
        train(recipe, resume, dry_run)


@app.command()
def sft(
    config: Config,
    changes: Changes = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Fine-tune on demonstrations, with TRL's SFTTrainer.

    Data: messages, or prompt and completion, or text. `args` are fields of SFTConfig.

    Examples:

    - `alignlab train sft --config recipes/1m/sft.yaml` — seconds on a CPU
    - `alignlab train sft -c recipes/1m/sft.yaml --set args.learning_rate=1e-4`
    - `alignlab train sft -c recipes/1m/sft.yaml --resume` — after an interruption
    """
    _train("sft", config, changes, resume, dry_run)


@app.command()
def reward(
    config: Config,
    changes: Changes = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Train a reward model on comparisons, with TRL's RewardTrainer.

    Data: chosen and rejected. A language model gets a scalar head. `args` are fields of
    RewardConfig.

    Example: `alignlab train reward --config recipes/1m/reward.yaml`
    """
    _train("reward", config, changes, resume, dry_run)


@app.command()
def dpo(
    config: Config,
    changes: Changes = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Learn from comparisons without a reward model, with TRL's DPOTrainer.

    Data: chosen and rejected. `args` are fields of DPOConfig; loss_type chooses among
    DPO, IPO and their relatives. The reference is the model as it was.

    Examples:

    - `alignlab train dpo --config recipes/1m/dpo.yaml`
    - `alignlab train dpo -c recipes/1m/dpo.yaml --set args.loss_type=[ipo]`
    """
    _train("dpo", config, changes, resume, dry_run)


@app.command()
def kto(
    config: Config,
    changes: Changes = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Learn from single completions that are good or bad, with TRL's KTOTrainer.

    Data: prompt, completion and a label, true or false. `args` are fields of KTOConfig.

    Example: `alignlab train kto --config recipes/1m/kto.yaml`
    """
    _train("kto", config, changes, resume, dry_run)


@app.command()
def orpo(
    config: Config,
    changes: Changes = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Demonstrations and comparisons at once, with TRL's ORPOTrainer (experimental).

    Data: chosen and rejected. There is no reference. `args` are fields of ORPOConfig.

    Example: `alignlab train orpo --config recipes/1m/orpo.yaml`
    """
    _train("orpo", config, changes, resume, dry_run)


@app.command()
def ppo(
    config: Config,
    changes: Changes = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Optimise a reward by PPO, RLOO or GRPO, with alignlab's PPOTrainer.

    Data: prompt. `reward_funcs` names reward models and functions. `args` are fields of
    alignlab.ppo.PPOConfig; args.advantages is gae (PPO), rloo or grpo.

    Examples:

    - `alignlab train ppo --config recipes/1m/ppo.yaml`
    - `alignlab train ppo -c recipes/1m/ppo.yaml --set args.advantages=rloo --set
      args.completions_per_prompt=4`
    """
    _train("ppo", config, changes, resume, dry_run)


def main() -> None:
    """Run as a module, one of several processes: only the first one speaks."""
    try:
        app()
    except AlignlabError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
