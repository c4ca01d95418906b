"""The table for a paper, and for a page that exists."""
