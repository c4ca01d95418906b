"""Checkpoints are measured while training writes them."""
