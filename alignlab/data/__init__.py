"""Real data: pinned archives, their readers and data cards."""
