"""A training run over its steps, or checkpoints that were tuned one from the other."""
