"""The calibration metrics as modules of Hugging Face `evaluate`.

``evaluate.load(module_path("expected_calibration_error")).compute(...)``, or with the
folder's path written out.
"""

from pathlib import Path

FOLDER = Path(__file__).parent


def module_names() -> list[str]:
    """The metrics that can be loaded."""
    return sorted(path.stem for path in FOLDER.glob("*/*.py") if path.stem[0] != "_")


def module_path(name: str) -> str:
    """The folder to give to ``evaluate.load``.

    Raises:
        ValueError: if there is no such metric.
    """
    if name not in module_names():
        raise ValueError(f"name is {name!r}; there are {', '.join(module_names())}")
    return str(FOLDER / name)
