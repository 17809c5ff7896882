"""Exercises of notebook 09: an adapter's output, and its merged weight."""

from typing import TYPE_CHECKING

from alignlab.course.exercise import Case, Exercise, tensor

if TYPE_CHECKING:
    from torch import Tensor


def _layers() -> list[dict]:
    """Arguments of a layer, of several shapes and ranks; no two sizes are alike."""
    import torch

    layers = []
    for seed, (inputs, outputs, rank, alpha) in enumerate(
        [(5, 7, 2, 6.0), (8, 3, 1, 4.0), (6, 9, 4, 2.0)]
    ):
        random = torch.Generator().manual_seed(seed)

        def draw(*shape, random=random):
            return torch.randn(*shape, dtype=torch.float64, generator=random)

        layers.append(
            dict(
                weight=draw(outputs, inputs),
                down=draw(rank, inputs),
                up=draw(outputs, rank),
                alpha=alpha,
            )
        )
    return layers


# --- 09.1: a layer with an adapter ----------------------------------------------------


def _output_cases() -> list[Case]:
    import torch

    from alignlab.chapters.a_real_model.lora import lora_output

    cases = []
    for number, layer in enumerate(_layers()):
        random = torch.Generator().manual_seed(100 + number)
        inputs = layer["weight"].shape[1]
        shape = (2, 3, inputs) if number == 0 else (4, inputs)
        x = torch.randn(shape, dtype=torch.float64, generator=random)
        args = dict(x=x, **layer)
        cases.append(Case(args, lora_output(**args)))
    return cases


def _read_output(output, x, weight, down, up, alpha) -> "Tensor":
    notes = {
        tuple(weight.shape): "a weight: multiply the input by it",
        (*x.shape[:-1], len(down)): "only the way down: `up` leads back to the outputs",
    }
    return tensor(output, (*x.shape[:-1], len(weight)), notes)


def _output_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    x, weight, down, up, alpha = case.args.values()
    plain, low = x @ weight.T, x @ down.T @ up.T
    rank = len(down)
    return {
        "the adapter alone: the frozen layer's output comes in addition": [
            alpha / rank * low
        ],
        "the frozen layer alone: the adapter is missing": [plain],
        "alpha left out: the adapter is scaled by alpha / r": [plain + low],
        "not divided by the rank: the scale is alpha / r, so that a higher rank does "
        "not count for more": [plain + alpha * low],
        "multiplied by the rank: the scale is alpha / r": [plain + alpha * rank * low],
        "the scale upside down: it is alpha / r": [plain + rank / alpha * low],
        "the frozen layer scaled as well: only the adapter is": [
            alpha / rank * (plain + low)
        ],
        "subtracted: the adapter is added": [plain - alpha / rank * low],
    }


# --- 09.2: the same as one plain layer ------------------------------------------------


def _merge_cases() -> list[Case]:
    from alignlab.chapters.a_real_model.lora import merged_weight

    return [Case(layer, merged_weight(**layer)) for layer in _layers()]


def _read_merged(output, weight, down, up, alpha) -> "Tensor":
    notes = {
        tuple(weight.T.shape): "transposed: weights are (outputs, inputs)",
        (len(down), len(down)): "`down @ up` multiplies in the wrong order",
    }
    return tensor(output, tuple(weight.shape), notes)


def _merge_mistakes(case: Case) -> dict[str, list["Tensor"]]:
    weight, down, up, alpha = case.args.values()
    change, rank = up @ down, len(down)
    return {
        "the change alone: it is added to the weight": [alpha / rank * change],
        "unscaled: the change counts alpha / r": [weight + change],
        "not divided by the rank: the scale is alpha / r": [weight + alpha * change],
        "the scale upside down: it is alpha / r": [weight + rank / alpha * change],
        "subtracted: the change is added": [weight - alpha / rank * change],
        "the weight as it was: the adapter is missing": [weight],
    }


EXERCISES: dict[str, Exercise] = {
    "09.1": Exercise(
        "my_lora(x, weight, down, up, alpha)",
        _output_cases,
        _read_output,
        _output_mistakes,
        "the same output as the library's `lora_output`",
        hints=(
            (
                "Follow the shapes: x has `in` numbers in its last dimension, the "
                "adapter squeezes them into r. Which matrix comes first, and which "
                "way round?"
            ),
            (
                "`x @ weight.T` is the frozen layer; the adapter goes down to rank "
                "r and up again, and counts alpha / r."
            ),
        ),
        minutes=10,
        stars=1,
        library=("alignlab.chapters.a_real_model.lora.lora_output",),
        tensor_for="section 2 adds it up with other outputs and differentiates it",
    ),
    "09.2": Exercise(
        "my_merged_weight(weight, down, up, alpha)",
        _merge_cases,
        _read_merged,
        _merge_mistakes,
        "one plain layer that does what layer and adapter do",
        hints=(
            (
                "Write both outputs as x times one matrix. Which matrix is the "
                "adapter's, and what is its shape?"
            ),
            "x Aᵀ Bᵀ = x (BA)ᵀ: which matrix added to W gives the same output?",
        ),
        minutes=10,
        stars=2,
        library=("alignlab.chapters.a_real_model.lora.merged_weight",),
    ),
}
