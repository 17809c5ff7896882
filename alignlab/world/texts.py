"""The texts of the world are data: YAML files beside this module."""

import re
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


# A course is for everybody, so coarse words and spam for adults stay out of what is
# taken from real data, and so do a few questions with the marks of a parser.
UNFIT = re.compile(
    r"sex|erotic|xxx|porn|nud[ei]|horny|fuck|shit|bitch|\bass(es|hole)?\b|\bcunt|\bdick"
    r"|slut|whore|rape|nigg|\bfag|\btits|\bcock\b|pussy|naked|orgasm|\bgay\b|lesbian"
    r"|\bNN\b",
    re.I,
)
