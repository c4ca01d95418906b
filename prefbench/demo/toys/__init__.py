"""Toys: problems so small that what an objective does to them is known beforehand."""
