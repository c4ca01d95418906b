"""Judges: which of two answers is better, by whom, and how surely that was read."""
