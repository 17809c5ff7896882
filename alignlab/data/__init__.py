"""Data in any of its usual forms in TRL's columns, and real data sets without a hub."""

from alignlab.data.checks import Report, checks
from alignlab.data.loading import load

__all__ = ["Report", "checks", "load"]
