"""Training: one small loop for the tiny model, and the same stages on TRL's
trainers."""
