"""Figures of the toys: what is known as lines, what came out as points and bands."""
