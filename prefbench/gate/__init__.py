"""Whether checkpoints lost more than a policy allows."""
