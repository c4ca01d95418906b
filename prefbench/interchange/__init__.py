"""Files of other evaluation harnesses, read and written; what they say is one row type."""
