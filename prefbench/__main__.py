"""`python -m prefbench`."""

from prefbench.cli import main

main()
