"""The sweeps that the notebooks show: each arm trained once, remembered, repeatable."""
