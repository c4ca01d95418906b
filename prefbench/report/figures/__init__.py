"""Figures for papers: points with intervals, each method in its own colour and shape."""
