"""prefbench: one honest table for a directory of preference-tuned checkpoints."""

__version__ = "0.1.0"
