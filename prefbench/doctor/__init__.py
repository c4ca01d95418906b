"""The doctor: what this machine can use, and what to do about the rest."""
