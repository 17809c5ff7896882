"""Checkpoints: the policy as a plain model, with its value function beside it."""

import json
from pathlib import Path

from torch import Tensor

from alignlab.errors import AlignlabError
from alignlab.training.ppo.policy_value import PolicyAndValue

VALUE_FILE = "value.safetensors"
POLICY = "policy."  # how the names of the policy's parameters begin


def save_policy_and_value(
    model: PolicyAndValue, folder: Path, state_dict: dict[str, Tensor] | None = None
) -> None:
    """Write the policy with ``save_pretrained`` and the value function to
    ``VALUE_FILE``.

    Args:
        state_dict: of the whole model, where it has been gathered from several
            processes.
    """
    from safetensors.torch import save_file

    state = model.state_dict() if state_dict is None else state_dict
    policy = None
    if state_dict is not None:
        policy = {
            n.removeprefix(POLICY): x for n, x in state.items() if n.startswith(POLICY)
        }
    model.policy.save_pretrained(folder, state_dict=policy)
    value = {n: x.contiguous() for n, x in state.items() if not n.startswith(POLICY)}
    save_file(value, folder / VALUE_FILE)


def load_value(model: PolicyAndValue, folder: str | Path) -> None:
    """Load the value function that :func:`save_policy_and_value` wrote.

    Raises:
        AlignlabError: if it is another kind of value function than the model's.
    """
    from safetensors.torch import load_file

    value = load_file(Path(folder) / VALUE_FILE)
    expected = {name for name in model.state_dict() if not name.startswith(POLICY)}
    if expected != set(value):
        raise AlignlabError(
            f"Checkpoint {folder} has another value function.",
            "Resume with the value_model it was trained with.",
        )
    model.load_state_dict(value, strict=False)


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest complete checkpoint in a folder, or None."""
    complete = [
        path.parent
        for path in Path(folder).glob("checkpoint-*/trainer_state.json")
        if path.parent.name.removeprefix("checkpoint-").isdigit() and _is_json(path)
    ]
    newest = max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)
    return None if newest is None else str(newest)


def _is_json(path: Path) -> bool:
    try:  # the Trainer writes this file last
        return bool(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        return False
