"""The modules as folders that the Hugging Face Hub takes: one Space for each.

``huggingface_hub.upload_folder`` publishes such a folder; ``evaluate.load`` reads it
from the Hub, and before that from disk.
"""

import inspect
import shutil
from pathlib import Path

import alignlab
from alignlab.calibration.evaluate_modules import OF_CLASSES, SPECS, Spec, module_path
from alignlab.errors import AlignlabError

APP = """\
from pathlib import Path

import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load(str(Path(__file__).with_name("{name}.py"))))
"""
CARD = """\
---
title: {title}
sdk: gradio
app_file: app.py
tags:
- evaluate
- metric
description: >-
  {first}
---

# {title}

{description}

## How to use

```python
import evaluate

metric = evaluate.load("{name}")  # this folder, or owner/{name} on the Hub
metric.compute(predictions={predictions}, references={references})
```

```text
{inputs}
```

It needs the Python package `alignlab`, which computes it (see `requirements.txt`).

## Citation

```bibtex
{citation}
```
"""


def write_module(name: str, folder: str | Path, requirement: str | None = None) -> Path:
    """Write one metric into ``folder / name``: the script, a card (README.md),
    requirements.txt, and app.py, the Space's page.

    Args:
        name: one of ``module_names()``.
        folder: where the new folder is put; made if there is none.
        requirement: the line of requirements.txt by which pip finds alignlab, such as
            an address of its repository; None asks for this version by name.

    Returns:
        The new folder. ``evaluate.load(str(path))`` loads it, offline as well.

    Raises:
        ValueError: if there is no such metric.
        AlignlabError: if there are files in that place already.
    """
    source, target = Path(module_path(name)), Path(folder) / name
    if target.exists() and any(target.iterdir()):
        raise AlignlabError(
            f"The folder {target} is not empty.", "Name another one, or remove it."
        )
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / f"{name}.py", target)
    requirement = requirement or f"alignlab=={alignlab.__version__}"
    (target / "requirements.txt").write_text(requirement + "\n")
    (target / "app.py").write_text(APP.format(name=name))
    (target / "README.md").write_text(card(name, SPECS[name]))
    return target


def card(name: str, spec: Spec) -> str:
    """The text of README.md: what the Hub reads, then what people read."""
    rows = spec.columns is OF_CLASSES
    return CARD.format(
        title=name.replace("_", " ").capitalize(),
        first=spec.description.split(". ")[0].rstrip(".") + ".",
        name=name,
        description=spec.description,
        predictions="[[0.9, 0.1], [0.4, 0.6]]" if rows else "[0.9, 0.6, 0.8]",
        references="[0, 1]" if rows else "[1, 0, 1]",
        inputs=inspect.cleandoc(spec.inputs()),
        citation=spec.citation.strip(),
    )
