"""Running notebooks: what they record, the verdicts on claims, and the report.

A notebook needs ``start``, ``record``, ``save_figure``, ``say`` and ``show_verdicts``.
"""

from alignlab.runs.context import (
    Run,
    record,
    save_figure,
    say,
    show_verdicts,
    start,
    verdicts,
)

__all__ = [
    "Run",
    "record",
    "save_figure",
    "say",
    "show_verdicts",
    "start",
    "verdicts",
]
