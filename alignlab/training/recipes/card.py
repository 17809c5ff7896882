"""The model card that goes with a trained model, and the way to the Hub."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import yaml

from alignlab.errors import AlignlabError
from alignlab.training.recipes.config import Recipe, first_line

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
WHAT = {
    "sft": "fine-tuned on demonstrations",
    "reward": "a reward model, trained on comparisons",
    "dpo": "fine-tuned on comparisons by DPO",
    "kto": "fine-tuned on single ratings by KTO",
    "orpo": "fine-tuned on comparisons by ORPO",
    "ppo": "fine-tuned for reward by policy gradients",
}
TEMPLATE = """---
{metadata}
---

# {name}

{model}, {what} with alignlab {version}.

## Data

{source}, {rows:,} rows.

## Results

The last numbers that were logged, after {steps} steps:

{results}

## How it was made

```yaml
# alignlab train {stage} --config recipe.yaml
{recipe}```

{libraries}
"""


def write_card(recipe: Recipe, trainer) -> Path:
    """Write README.md, the model card, and recipe.yaml into output_dir, and return the
    card's path. Needs no network."""
    folder = Path(recipe.output_dir)
    written = as_yaml(recipe)
    (folder / "recipe.yaml").write_text(written, encoding="utf-8")
    card = folder / "README.md"
    card.write_text(
        TEMPLATE.format(
            metadata=metadata(recipe),
            name=(recipe.push_to_hub or recipe.output_dir).rstrip("/").split("/")[-1],
            model=recipe.model,
            what=WHAT[recipe.stage],
            version=version_of("alignlab"),
            source=recipe.data["source"],
            rows=len(trainer.train_dataset),
            steps=trainer.state.global_step,
            results=_results(trainer.state.log_history),
            stage=recipe.stage,
            recipe=written,
            libraries=", ".join(f"{name} {version_of(name)}" for name in LIBRARIES),
        ),
        encoding="utf-8",
    )
    return card


def metadata(recipe: Recipe) -> str:
    """The card's front matter, in the names that the Hub reads."""
    from huggingface_hub import ModelCardData

    on_hub = recipe.model.count("/") == 1 and not Path(recipe.model).exists()
    data = ModelCardData(
        base_model=recipe.model if on_hub else None,
        library_name="transformers" if recipe.lora is None else "peft",
        pipeline_tag=(
            "text-classification" if recipe.stage == "reward" else "text-generation"
        ),
        tags=["alignlab", recipe.stage],
    )
    return data.to_yaml().strip()


def as_yaml(recipe: Recipe) -> str:
    """The recipe with its overrides, to be used again; what it leaves open stays so."""
    values = asdict(recipe)
    del values["stage"], values["where"]
    defaults = asdict(Recipe(recipe.stage, "", {}, ""))
    values = {k: v for k, v in values.items() if k not in defaults or v != defaults[k]}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _results(rows: list[dict]) -> str:
    last: dict = {}
    for row in rows:
        last |= {k: v for k, v in row.items() if isinstance(v, int | float)}
    last = {k: v for k, v in last.items() if k not in ("epoch", "step")}
    return "\n".join(f"- {name}: {value:.4g}" for name, value in last.items()) or "none"


def version_of(library: str) -> str:
    if library == "alignlab":
        from alignlab import __version__

        return __version__
    return version(library)


def push(recipe: Recipe) -> None:
    """Upload output_dir, without its checkpoints, to the recipe's push_to_hub.

    Raises:
        AlignlabError: if the Hub cannot be reached or refuses; nothing is lost.
    """
    from huggingface_hub import HfApi

    api, name, folder = HfApi(), recipe.push_to_hub, recipe.output_dir
    try:
        api.create_repo(name, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            ignore_patterns=["checkpoint-*"],
            commit_message=f"alignlab train {recipe.stage}",
        )
    except Exception as error:  # a dozen types: no network, no token, no right
        raise AlignlabError(
            f"Could not push to {name}: {first_line(error)}",
            f"The model and its card are in {folder}. Log in (hf auth login), then: hf "
            f"upload {name} {folder} --exclude 'checkpoint-*'",
        ) from error
    print(f"pushed: https://huggingface.co/{name}", flush=True)
