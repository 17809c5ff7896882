"""Print the requirements that install the oldest or the newest TRL and transformers."""

import re
import sys
import tomllib
from pathlib import Path

LIBRARIES = ("transformers", "trl")


def bounds(which: str, pyproject: str) -> list[str]:
    """One requirement for each library: its lower bound as a pin, or none at all.

    Raises:
        ValueError: if a library has no lower bound, or which is another word.
    """
    if which == "newest":
        return list(LIBRARIES)
    if which != "oldest":
        raise ValueError(f"which is {which!r}; it must be oldest or newest")
    lines = tomllib.loads(pyproject)["project"]["dependencies"]
    found = dict(re.fullmatch(r"([\w-]+)>=(\S+)", line).groups() for line in lines)
    return [f"{name}=={found[name]}" for name in LIBRARIES]


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    print(*bounds(sys.argv[1], text), sep="\n")
