"""Models: the tiny one and any other, to load, to sample from, to score text with."""
