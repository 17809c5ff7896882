"""What profile gpu's notebooks take of a GPU's memory, by arithmetic: the table in
docs/gpu.md is made of it, and `scripts/gpu_check` holds it against peaks.

Each notebook is given by the stage that takes the most. Models are Qwen2.5-0.5B; the
base is frozen in bfloat16 under LoRA adapters, a reward model has its base in float32.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from alignlab.models.positions import LOGITS_LIMIT
from alignlab.training.parts import ACTIVATIONS
from alignlab.training.ppo.rollout import GROUP_LOGITS
from alignlab.training.recipes.memory import BYTES, Load, Shape, activations, estimate

# Qwen2.5-0.5B with LoRA of rank 16 on every linear layer but the output layer
QWEN = Shape(
    parameters=494_032_768,
    trained=8_798_208,
    embeddings=136_134_656,
    layers=24,
    hidden=896,
    intermediate=4864,
    vocabulary=151_936,
)
CACHED = 2 * 2 * 64  # numbers a token and layer: keys and values of two heads of 64
LEAST = 5e7  # bytes
CONTEXT = 0.8e9  # bytes that CUDA and torch take for themselves, about


@dataclass(frozen=True)
class Stage:
    """The part of a notebook that takes the most memory.

    Attributes:
        notebook: its two digits.
        what: is computed.
        rows, length: texts in a batch, and tokens of the longest.
        kind: "train" for the shared loop, "reward" for it without logits and with a
            base in float32, "ppo", or "ask" without gradients.
        judges: reward models on the GPU meanwhile.
        others: whole models beside, in bfloat16, such as a reference.
        sampled: texts that are sampled at once.
    """

    notebook: str
    what: str
    rows: int
    length: int
    kind: str = "train"
    judges: int = 0
    others: int = 0
    sampled: int = 0


BASE = (
    Stage("00", "few-shot questions", 64, 512, "ask"),
    Stage("01", "SFT", 32, 160, sampled=256),
    Stage("02", "SFT", 16, 160, sampled=256),
    Stage("03", "reward model", 64, 160, "reward", others=1),
    Stage("04", "PPO", 64, 160, "ppo", judges=1, sampled=64),
    Stage("05", "DPO", 64, 160, judges=1, others=1, sampled=256),
    Stage("06", "PPO on an ensemble", 64, 160, "ppo", judges=3, sampled=64),
    Stage("07", "PPO on answers", 128, 96, "ppo", sampled=128),
    Stage("08", "PPO on stated confidence", 256, 96, "ppo", sampled=256),
)


def reckoned(stage: Stage, shape: Shape = QWEN) -> dict[str, float]:
    """Bytes on the GPU by what they are for.

    Activations and logits are no more than the library's limits allow: a batch is
    computed in parts (``training.parts``), logits in pieces (``models.positions``), and
    PPO's passes by ``rollout.GROUP_LOGITS``.
    """
    weights = "float32" if stage.kind == "reward" else "bfloat16"
    tokens = stage.rows * stage.length
    limit = {"reward": 0, "ppo": GROUP_LOGITS}.get(stage.kind, LOGITS_LIMIT)
    logits = min(tokens, limit // shape.vocabulary)
    in_pass = min(tokens, logits) if stage.kind == "ppo" else tokens
    load = Load(
        weights=weights,
        computes=weights,
        rows=in_pass,
        length=1,
        logits=logits,
        checkpointing=False,
        judges=stage.judges * shape.parameters,
    )
    parts = estimate(shape, load)
    once = activations(shape, load)
    if stage.kind == "ask":  # a layer's at a time, and nothing to update
        once /= shape.layers
        parts = {k: x for k, x in parts.items() if k not in ("gradients", "AdamW")}
    if stage.kind in ("train", "reward"):
        once = min(once, ACTIVATIONS)
    parts["activations"] = once
    parts["other models"] = stage.others * shape.parameters * BYTES["bfloat16"]
    cached = stage.sampled * stage.length * shape.layers * CACHED
    parts["KV cache"] = cached * BYTES["bfloat16"]
    return {name: size for name, size in parts.items() if size} | {"CUDA": CONTEXT}


def table(stages: Iterable[Stage] = BASE) -> str:
    """A table in Markdown, in gigabytes; less than a twentieth of one is left out."""
    stages = list(stages)
    reckonings = [reckoned(stage) for stage in stages]
    names = dict.fromkeys(
        name for parts in reckonings for name, x in parts.items() if x >= LEAST
    )
    names = [*(name for name in names if name != "CUDA"), "CUDA"]
    head = ["notebook", "stage", *names, "in all"]
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for stage, parts in zip(stages, reckonings, strict=True):
        sizes = [parts.get(name, 0) for name in names]
        cells = [f"{x / 1e9:.1f}" if x >= LEAST else "" for x in sizes]
        whole = f"{sum(parts.values()) / 1e9:.1f}"
        lines.append([stage.notebook, stage.what, *cells, whole])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
