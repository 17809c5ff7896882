"""The course: checking exercises, building the notebooks that students get."""

from alignlab.course.checks import check

__all__ = ["check"]
