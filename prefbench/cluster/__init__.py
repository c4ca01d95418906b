"""Cells on clusters: by actors of Ray, or by jobs of Slurm."""
