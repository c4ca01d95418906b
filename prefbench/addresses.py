"""Addresses of servers: whether one can be asked, and what may be told of it."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def unusable(url: str) -> str | None:
    """Why no request can go there, as the end of a sentence that begins with the address's name.

    Tells nothing of what may be a key.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return "is no address"
    if parts.scheme not in ("http", "https") or not host:
        return "is no address: it begins with http:// or https://"
    if "@" in parts.netloc or parts.query or parts.fragment:
        return (
            f"holds more than {shown(url)}: a user, a password or a query, which end up in logs "
            "and results; put the key into an environment variable and name that"
        )
    return None


def shown(url: str) -> str:
    """An address without a password or a query, which may hold a key."""
    try:
        parts = urlsplit(url)
        where = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(not an address)"
    return f"{parts.scheme}://{where}{parts.path}" if parts.scheme else where + parts.path


def is_loopback(url: str) -> bool:
    """Whether an address is this machine, which no proxy reaches."""
    host = ""
    try:
        host = urlsplit(url).hostname or ""
        address = ipaddress.ip_address(host)
    except ValueError:  # no address, or a name
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
