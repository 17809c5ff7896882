"""Models, the shipped ones or any other: load them, sample, score text."""
