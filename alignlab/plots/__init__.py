"""Figures: one look for all of them, and the drawings that several notebooks share."""

from alignlab.plots.style import interval_line, use_style

__all__ = ["interval_line", "use_style"]
