"""What somebody else's file says, without what opens a door."""

from __future__ import annotations

import json
import re
from typing import Any

from prefbench.addresses import shown

_NAMES_A_SECRET = re.compile(
    r"(hf|auth|access|refresh|bearer|use_auth)?_?token|key|auth|.*api_?key|.*(access|secret)_?key"
    r"|.*(passw|secret|credential|authorization|header|cookie).*",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"\w+://\S+")


def unsecret(value: Any) -> Any:
    """Anything that JSON can hold, without entries whose names say that they are secret.

    Addresses stay without a user, a password and a query. Tokens of a vocabulary, such as
    `pad_token`, are no secrets.
    """
    if isinstance(value, dict):
        return {
            name: unsecret(each) for name, each in value.items() if not _names_a_secret(str(name))
        }
    if isinstance(value, list):
        return [unsecret(each) for each in value]
    if isinstance(value, str) and _ADDRESS.fullmatch(value.strip()):
        return shown(value.strip())
    return value


def unsecret_arguments(value: Any) -> Any:
    """lm-eval's `model_args` without secrets: an object, or a text of it, or `name=value,…`."""
    if not isinstance(value, str):
        return unsecret(value)
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        pairs = (part.partition("=") for part in value.split(","))
        kept = ((name, sign, each) for name, sign, each in pairs if not _names_a_secret(name))
        return ",".join(f"{name}{sign}{unsecret(each)}" for name, sign, each in kept)
    return json.dumps(unsecret(read), ensure_ascii=False) if isinstance(read, dict) else value


def _names_a_secret(name: str) -> bool:
    return bool(_NAMES_A_SECRET.fullmatch(name.strip()))
