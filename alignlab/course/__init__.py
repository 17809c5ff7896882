"""The course: checking exercises and building the notebooks."""

from alignlab.course.checks import check

__all__ = ["check"]
