"""Several engines at once on one host: each in a process of its own, on devices of its own."""
