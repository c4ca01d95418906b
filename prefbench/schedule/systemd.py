"""A systemd service and its timer."""

from __future__ import annotations

import re
from pathlib import PurePath

from prefbench.errors import InputError
from prefbench.schedule.crontab import refuse_unset_keys
from prefbench.schedule.jobs import Job, refuse_breaks
from prefbench.schedule.quoting import for_shell, for_systemd, setting, whole_line

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?")
_TEMPORARY = (PurePath("/tmp"), PurePath("/var/tmp"))  # hidden by PrivateTmp

HARDENING = """\
NoNewPrivileges=true
ProtectSystem=strict
ProtectHome=read-only
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectKernelLogs=true
ProtectControlGroups=true
ProtectHostname=true
CapabilityBoundingSet=
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
SystemCallArchitectures=native
LockPersonality=true
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
# No PrivateDevices, ProtectClock or MemoryDenyWriteExecute: GPUs are devices, and torch compiles.
"""


def write_systemd(job: Job, *, user: str, cache: PurePath | None = None) -> dict[str, str]:
    """The service and the timer, for the system's own systemd.

    A oneshot service is never started twice at once, and its second command runs only if the first
    ended well.

    Args:
        job: what to run, with absolute paths.
        user: who it runs as.
        cache: the user's cache directory, where data and fingerprints are kept.

    Raises:
        InputError: a path that systemd cannot hold, or nothing would set the keys.
    """
    refuse_unset_keys(job, "systemd")
    refuse_breaks("XDG_CACHE_HOME", cache)
    if not _USER.fullmatch(user):
        raise InputError(f"--user: {user!r} is no name that systemd takes")
    return {f"{job.name}.service": _service(job, user, cache), f"{job.name}.timer": _timer(job)}


def _service(job: Job, user: str, cache: PurePath | None) -> str:
    results = for_shell(["mkdir", "-p", "--", str(job.results)])
    lines = [
        f"# Copy it and {job.name}.timer to /etc/systemd/system, then",
        f"#   {results}  # as {user}: all else is read-only to it",
        f"#   systemctl daemon-reload && systemctl enable --now {job.name}.timer",
        f"#   systemctl start {job.name}.service; journalctl -u {job.name}  # a turn at once",
        "[Unit]",
        "Description=prefbench: measure what is missing" + (", then the gate" * bool(job.policy)),
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=oneshot",
        f"User={user}",
        f"WorkingDirectory={whole_line('the working directory', str(job.folder))}",
        *_environment(job),
        *(f"ExecStart={for_systemd(words)}" for words in job.commands()),
        # Interrupted, it loses the batch in flight; the next turn goes on.
        "TimeoutStartSec=infinity",
        "TimeoutStopSec=2min",
        "Nice=10",
        "IOSchedulingClass=idle",
        f"ReadWritePaths={setting(str(job.results))}",
    ]
    if cache is not None:
        lines.append(f"ReadWritePaths={setting(f'-{cache}')}")
    if not _uses_temporary(job):
        lines.append("PrivateTmp=true")
    return "\n".join(lines) + "\n" + HARDENING


def _timer(job: Job) -> str:
    lines = [
        "[Unit]",
        f"Description={job.name}, by the clock",
        "",
        "[Timer]",
        *(f"OnCalendar={one}" for one in job.timing.calendars()),
        # A turn that was due while the machine was off is made up for.
        "Persistent=true",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return "\n".join(lines) + "\n"


def _environment(job: Job) -> list[str]:
    path = f"PATH={PurePath(job.python).parent}:/usr/local/bin:/usr/bin:/bin"
    lines = [f"Environment={setting(path)}"]
    lines += [f"Environment={setting(f'{k}={v}')}" for k, v in job.environment().items()]
    if job.env_file is not None:
        # systemd takes it for a pattern (glob(7)).
        plain = re.sub(r"([\\*?\[])", r"\\\1", str(job.env_file))
        lines.append(f"EnvironmentFile={whole_line('--env-file', plain)}")
    return lines


def _uses_temporary(job: Job) -> bool:
    """Whether anything lies where PrivateTmp would hide it."""
    named = (job.python, job.folder, job.results, *job.runs, *job.mirrors, job.policy, job.env_file)
    paths = [PurePath(each) for each in named if each is not None]
    return any(path.is_relative_to(place) for path in paths for place in _TEMPORARY)
