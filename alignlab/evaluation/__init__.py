"""Judging replies: right or wrong, well formed or not, better or worse than another."""
