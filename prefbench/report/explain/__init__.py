"""What is behind one number."""
