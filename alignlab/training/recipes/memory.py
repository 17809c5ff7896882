"""How much memory a training run takes on each device, by arithmetic: enough to see
before it starts whether it will fit, and what to change where it will not.

Source: Rajbhandari et al. (2020), "ZeRO", section 3, for weights, gradients and Adam;
Korthikanti et al. (2023), section 4, for how activations are counted, here for a Llama
with fused attention.
"""

from collections.abc import Mapping
from dataclasses import dataclass

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "4bit": 0.5, "8bit": 1}
LOGIT = 12  # bytes a logit of a loss: itself, its log-softmax, its gradient, in float32
GB, MB = 1e9, 1e6


@dataclass(frozen=True)
class Shape:
    """What of a model decides how much memory it takes.

    Attributes:
        parameters, trained: how many, and how many of them are trained.
        embeddings: those of the first and last layer, which no quantization touches.
        layers, hidden, intermediate, vocabulary: of the config.
    """

    parameters: int
    trained: int
    embeddings: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int


@dataclass(frozen=True)
class Load:
    """What of a run decides how much memory it takes, on one device.

    Attributes:
        weights: precision of the weights, a key of ``BYTES``.
        computes: precision of the forward pass; with "float32" weights and another one
            here (autocast) a copy of the trained weights is kept.
        rows, length: sequences in one forward pass, and tokens of each.
        logits: tokens whose logits over the whole vocabulary are held at once.
        checkpointing: activations are computed again in the backward pass.
        frozen: parameters of a reference, kept as the policy's weights are.
        judges: parameters of reward models, whole and in float32 on every device.
        valued: parameters of a value model beside the policy.
        shards: devices that weights, gradients and Adam's state are spread over; 1
            where each holds all of them.
        shards_weights: False for ZeRO-2, which spreads gradients and Adam's state only.
    """

    weights: str
    computes: str
    rows: int
    length: int
    logits: int
    checkpointing: bool
    frozen: int = 0
    judges: int = 0
    valued: int = 0
    shards: int = 1
    shards_weights: bool = True


def estimate(shape: Shape, load: Load) -> dict[str, float]:
    """Bytes on one device, by what they are for. Left out: what torch, CUDA and the
    data take (0.5 to 1 GB), fragmentation, and a layer that is gathered from shards.

    Adapters are counted in float32, in which `peft` keeps them whatever the base is in;
    those of a base in few bits in bfloat16, as TRL has them.
    """
    adapters, few_bits = shape.trained < shape.parameters / 2, BYTES[load.weights] < 2
    trained = shape.trained + load.valued
    precise = BYTES[load.weights]
    weights = shape.parameters * precise
    if adapters:
        precise = 2 if few_bits else 4
        base = shape.parameters - shape.trained
        weights = base * BYTES[load.weights] + shape.trained * precise
    if few_bits:
        weights += shape.embeddings * (2 - BYTES[load.weights])
    parts = {
        "weights": weights + load.valued * 4,
        "gradients": trained * precise,
        "AdamW": 2 * trained * precise,
        "reference": load.frozen * BYTES[load.weights],
    }
    for name in parts:
        if load.shards_weights or name in ("gradients", "AdamW"):
            parts[name] /= load.shards
    half = BYTES[load.computes] < BYTES[load.weights]
    if half and load.shards == 1:
        parts["half copies"] = shape.parameters * BYTES[load.computes]
    parts["reward models"] = load.judges * 4
    parts["activations"] = activations(shape, load)
    parts["logits"] = load.logits * shape.vocabulary * LOGIT
    return {name: size for name, size in parts.items() if size}


def activations(shape: Shape, load: Load) -> float:
    """Bytes of what the forward pass keeps for the backward pass: for each token eight
    vectors of the trunk's width and four of the MLP's in each layer. With checkpointing
    one vector for each layer, and all of it for one layer at a time."""
    each = 8 * shape.hidden + 4 * shape.intermediate
    kept = shape.layers * each
    if load.checkpointing:
        kept = shape.layers * shape.hidden + each
    return load.rows * load.length * kept * BYTES[load.computes]


def in_words(parts: Mapping[str, float]) -> str:
    """ "1.35 GB: weights 0.54, gradients 0.54, …"; in MB where it is little."""
    unit, name = (GB, "GB") if sum(parts.values()) >= GB else (MB, "MB")
    digits = 2 if unit == GB else 0
    listed = ", ".join(f"{key} {x / unit:.{digits}f}" for key, x in parts.items())
    return f"{sum(parts.values()) / unit:.{digits}f} {name}: {listed}"
