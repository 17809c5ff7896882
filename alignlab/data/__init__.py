"""Data: pinned sources, the world and its facts, instruction tasks, preferences."""
