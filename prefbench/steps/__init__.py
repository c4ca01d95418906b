"""A training run over its steps."""
