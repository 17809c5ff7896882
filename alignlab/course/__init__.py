"""The course: checking exercises, hints, and building the notebooks."""

from alignlab.course.checks import check, hint

__all__ = ["check", "hint"]
