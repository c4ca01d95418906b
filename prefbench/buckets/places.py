"""Where results are kept: a directory, or an address of an object store and its working copy.

<cache>/results/<name>-<digest>/remote.json   names the address that a working copy belongs to

The cache is PREFBENCH_CACHE, else `prefbench` in the user's own. A `remote.json` anywhere else
counts for nothing: a directory that somebody else made must not say where results are sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from prefbench.addresses import shown
from prefbench.errors import InputError, StoreError

MARK = "remote.json"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::|://)")
READ_ALONE = ("http", "https")
ACCOUNTS = ("abfs", "abfss", "wasb", "wasbs")
"""Whose addresses have the account behind an @, which is no password."""


@dataclass(frozen=True)
class WorkingCopy:
    """The folder that stands for an address on this machine."""

    folder: Path
    url: str
    name: str
    """Drawn once: which machine's copy it is."""


def is_address(text: str) -> bool:
    """Whether what a user names is an address, and no path."""
    return bool(_ADDRESS.match(text))


def place(text: str | Path) -> Path:
    """The directory of results that a user names; of an address its working copy, made if need be.

    Asks no server yet.

    Raises:
        InputError: the address is none, holds a key, or cannot be written to.
        StoreError: the working copy cannot be made.
    """
    if isinstance(text, Path) or not is_address(text):
        return Path(text)
    url = checked(text)
    folder = folder_of(url)
    mark = folder / MARK
    if not mark.exists():
        temporary = folder / f".{MARK}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"url": url, "copy": uuid.uuid4().hex}) + "\n")
            try:
                os.link(temporary, mark)  # of two processes the first one's counts
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        except OSError as error:
            raise StoreError(
                f"{folder}: the working copy of {url} cannot be made: {error.strerror or error}; "
                "PREFBENCH_CACHE names another place"
            ) from error
    return folder


def told(results: Path) -> str:
    """What a user calls a directory of results: for a working copy, the address.

    `place` gives the directory back, also on another machine.
    """
    copy = working_copy(results)
    return copy.url if copy else str(results)


def working_copy(results: Path) -> WorkingCopy | None:
    """Whose working copy a directory is; None for a directory of its own."""
    mark = results / MARK
    try:
        facts = json.loads(mark.read_text(encoding="utf-8"))
        url, name = str(facts["url"]), str(facts["copy"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return WorkingCopy(results, url, name) if results.resolve() == folder_of(url) else None


def checked(text: str) -> str:
    """An address without what it needs not.

    Raises:
        InputError: no results can be kept there, or it holds a key; without repeating it.
    """
    try:
        parts = urlsplit(text)
        kind, where = parts.scheme.lower(), parts.netloc
    except ValueError:
        raise InputError("the address of results cannot be read") from None
    user, at, _ = where.rpartition("@")
    if "::" in text.partition("//")[0] or kind in READ_ALONE:
        raise InputError(
            f"{shown(text)}: no results can be kept there; name an object store: s3://bucket/prefix"
        )
    if parts.query or parts.fragment or (at and (":" in user or kind not in ACCOUNTS)):
        raise InputError(
            f"{shown(text)}: the address holds more than a bucket and a prefix; keys come from the "
            "environment (AWS_PROFILE, AWS_ACCESS_KEY_ID, …) or from fsspec's own configuration"
        )
    path = parts.path.rstrip("/")
    if not where and not path:
        raise InputError(f"{kind}://: names no bucket")
    if any(part in (".", "..") for part in path.split("/")):
        raise InputError(f"{shown(text)}: the prefix of an address has no . and no .. in it")
    return f"{kind}://{where}{path}"


def folder_of(url: str) -> Path:
    """Where an address's working copy is, whether it is there or not."""
    # The same name of a bucket on another server is another bucket.
    server = endpoint(os.environ) if url.startswith(("s3:", "s3a:")) else ""
    digest = hashlib.sha256(f"{url} {server}".encode()).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9]+", "-", url.partition("://")[2]).strip("-")[:60]
    return cache(os.environ) / "results" / f"{name}-{digest}"


def endpoint(environment: Mapping[str, str]) -> str:
    """The server that S3 addresses are asked of, where it is not Amazon's."""
    return environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""


def cache(environment: Mapping[str, str]) -> Path:
    """Where working copies are kept."""
    if named := environment.get("PREFBENCH_CACHE"):
        return Path(named).expanduser().resolve()
    home = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home).resolve() / "prefbench"
