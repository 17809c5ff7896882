"""The texts of the world are data: YAML files beside this module."""

from functools import cache
from pathlib import Path

import yaml

# The C parser, where there is one, is seven times faster.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def read_texts(name: str) -> dict:
    """The content of ``{name}.yaml``, read once. Not to be changed."""
    path = Path(__file__).with_name(f"{name}.yaml")
    return yaml.load(path.read_text(encoding="utf-8"), _LOADER)
