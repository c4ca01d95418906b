"""The objects below one address, through fsspec: listed, fetched, and put, also on conditions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefbench.errors import InputError, StoreError

STAMPS = ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "created")
"""What tells one version of an object from the next, by the first of these that a store has."""
CONDITIONAL = ("s3", "s3a", "gs", "gcs")
"""Stores that create an object only where there is none, in one step."""
MANY = 20
"""Objects whose versions are asked for one by one; of more all are listed."""
PATIENCE: Mapping[str, Mapping[str, Any]] = {
    # The defaults wait for minutes before a run would hear that its store is away.
    "s3": {
        "config_kwargs": {
            "connect_timeout": 10,
            "read_timeout": 60,
            "retries": {"max_attempts": 2},
        }
    },
}


class NotThereError(StoreError):
    """No such object."""


class Objects:
    """What is kept below an address. Whatever a store says is a StoreError that says where.

    Keys and further options are fsspec's: its configuration files and FSSPEC_* variables, and what
    each store's own library finds in the environment.
    """

    def __init__(self, url: str) -> None:
        """Asks nobody yet.

        Raises:
            InputError: the store's library is not installed, or there is no such store.
        """
        self.url = url
        kind = url.partition("://")[0]
        self.is_conditional = kind in CONDITIONAL
        try:
            import fsspec
        except ImportError:
            raise InputError(f"{url}: results on object stores need fsspec; {_install()}") from None
        kept = {"use_listings_cache": False, "skip_instance_cache": kind != "memory"}
        said = fsspec.config.conf.get(kind, {})
        for name, value in PATIENCE.get(kind.removesuffix("a"), {}).items():
            kept[name] = said.get(name, value)
        try:
            self._system = fsspec.filesystem(kind, **kept)
        except ImportError as error:
            hint = _install() if kind in ("s3", "s3a") else str(error)
            raise InputError(f"{url}: its library is not installed; {hint}") from None
        except ValueError as error:
            raise InputError(f"{url}: no object store that fsspec knows: {error}") from None
        self._root = str(self._system._strip_protocol(url)).rstrip("/")

    def list(self, below: str = "") -> dict[str, str]:
        """All objects below a name that ends in /, each with the stamp of its version."""
        root = f"{self._root}/{below}".rstrip("/")
        with self._explained("listed"):
            found = self._system.find(root, detail=True)
            if not found and not below:
                self._find_bucket()
        start = len(self._root) + 1
        return {path[start:]: _stamp(facts) for path, facts in found.items()}

    def stamps(self, names: Sequence[str]) -> dict[str, str]:
        """The stamps of some objects, those that are there."""
        if len(names) > MANY:
            there = self.list()
            return {name: there[name] for name in names if name in there}
        found = {}
        for name in names:
            with self._explained("read"), contextlib.suppress(FileNotFoundError):
                found[name] = _stamp(self._system.info(self._path(name)))
        return found

    def check(self) -> None:
        """Makes sure that the store can be asked, and has the bucket."""
        with self._explained("listed"):
            self._system.find(f"{self._root}/plans", detail=True)
            self._find_bucket()

    def _find_bucket(self) -> None:
        """An empty prefix is a place for results; a bucket that is not there is a mistake."""
        protocol = self._system.protocol
        kinds = (protocol,) if isinstance(protocol, str) else protocol
        if not {"s3", "gs", "abfs"} & set(kinds):
            return
        bucket = self._root.split("/")[0]
        if not self._system.exists(bucket):
            raise FileNotFoundError(f"there is no bucket {bucket}")

    def get(self, files: Mapping[str, Path]) -> None:
        """Fetches objects into files, several at a time."""
        if files:
            with self._explained("read"):
                self._system.get([self._path(name) for name in files], [*map(str, files.values())])

    def put(self, files: Mapping[str, Path]) -> None:
        """Puts files, several at a time, over what is there."""
        if files:
            with self._explained("written"):
                self._make_folders(files)
                self._system.put([*map(str, files.values())], [self._path(name) for name in files])

    def read(self, name: str) -> tuple[bytes, str]:
        """An object and its stamp.

        Raises:
            NotThereError: there is none.
        """
        with self._explained("read"):
            stamp = _stamp(self._system.info(self._path(name)))
            return self._system.cat_file(self._path(name)), stamp

    def create(self, name: str, data: bytes) -> str | None:
        """Puts an object where there is none, and gives its stamp; None where there is one.

        In one step where the store can; elsewhere it is looked whether it came to be ours.
        """
        with self._explained("written"):
            self._make_folders([name])
            try:
                self._system.pipe_file(self._path(name), data, mode="create")
            except FileExistsError:
                return None
        return self._ours(name, data)

    def replace(self, name: str, data: bytes, stamp: str) -> str | None:
        """Puts an object over the version with a stamp; None where it is another by now."""
        with self._explained("written"):
            try:
                if self.is_conditional and stamp.startswith('"'):
                    self._system.pipe_file(self._path(name), data, IfMatch=stamp)
                elif _stamp(self._system.info(self._path(name))) != stamp:
                    return None
                else:
                    self._system.pipe_file(self._path(name), data)
            except FileNotFoundError:
                return None
            except OSError as error:
                if "pre-condition" not in str(error):
                    raise
                return None
        return self._ours(name, data)

    def _ours(self, name: str, data: bytes) -> str | None:
        try:
            found, stamp = self.read(name)
        except NotThereError:
            return None
        return stamp if found == data else None

    def delete(self, name: str) -> None:
        """Takes an object away, if it is there."""
        with self._explained("deleted"):
            try:
                self._system.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _make_folders(self, names: Sequence[str] | Mapping[str, Path]) -> None:
        """What only file systems need."""
        if "file" in self._system.protocol:
            for name in names:
                self._system.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            said = f"{self.url}: is not there: {error}; is there such a bucket?"
            raise NotThereError(said) from error
        except Exception as error:  # each store's library has errors of its own
            raise StoreError(f"{self.url}: cannot be {what}: {_why(error)}") from error


def _why(error: BaseException) -> str:
    """What a store's library says, and what to do."""
    text = str(error) or type(error).__name__
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"):
        return (
            f"{text}; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the "
            "environment"
        )
    if isinstance(error, PermissionError):
        return f"access is denied ({text}); these credentials lack a permission"
    if isinstance(error, TimeoutError):
        return f"it does not answer ({text})"
    return text


def _stamp(facts: Mapping[str, Any]) -> str:
    found = next((facts[name] for name in STAMPS if facts.get(name)), "")
    return f"{found}" if str(found).startswith('"') else f"{found} {facts.get('size')}"


def _install() -> str:
    return "pip install 'prefbench[s3]'"
