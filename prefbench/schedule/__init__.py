"""Units that measure and gate on their own: for cron, systemd, Slurm and GitHub Actions.

Each writer takes a Job and returns texts by file name. All say the same: run what is missing, then,
if that went well, the gate; never twice at once; keys by the names of their variables only.
"""
