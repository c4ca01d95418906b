"""OpenAI-compatible endpoints: which there are, whether they answer, and what they serve."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from prefbench import plain_yaml
from prefbench.addresses import is_loopback, shown
from prefbench.doctor.findings import Finding, State, joined
from prefbench.doctor.questions import Question, Reply

OPENAI_KEY = "OPENAI_API_KEY"
SERVE = "python -m vllm.entrypoints.openai.api_server --model CHECKPOINT --port PORT"


@dataclass(frozen=True)
class Endpoint:
    """An address, the variable that its key is in (None: no key is sent), and who wants it."""

    address: str
    key_variable: str | None = OPENAI_KEY
    wanted_by: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    """What judges ask it for."""
    needed: bool = False


def find_endpoints(
    addresses: Sequence[str], *, key_variable: str = OPENAI_KEY, judges: Path | None = None
) -> list[Endpoint]:
    """Endpoints by argument, by OPENAI_BASE_URL and by the judges of a folder, each once."""
    found = [Endpoint(address, key_variable, ("--endpoint",), needed=True) for address in addresses]
    if address := os.environ.get("OPENAI_BASE_URL"):
        found.append(Endpoint(address, OPENAI_KEY, ("OPENAI_BASE_URL",)))
    for file in sorted(judges.glob("*.yaml")) if judges else ():
        found += [
            Endpoint(
                str(block["base_url"]),
                str(block["api_key_env"]) if block.get("api_key_env") else None,
                (f"judge {file.stem}",),
                tuple([block["model"]] if isinstance(block.get("model"), str) else []),
            )
            for block in _with_address(_read(file))
        ]
    merged: dict[tuple[str, str | None], Endpoint] = {}
    for one in found:
        key = one.address.rstrip("/"), one.key_variable
        before = merged.get(key, replace(one, wanted_by=(), models=()))
        merged[key] = replace(
            before,
            wanted_by=(*before.wanted_by, *one.wanted_by),
            models=(*before.models, *one.models),
            needed=before.needed or one.needed,
        )
    return list(merged.values())


def _read(file: Path) -> Any:
    """A judge's file; whether it is a good one is for others to say."""
    try:
        return plain_yaml.load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return None


def _with_address(node: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings in a YAML tree that have a base_url."""
    if isinstance(node, Mapping):
        if isinstance(node.get("base_url"), str):
            yield node
        for value in node.values():
            yield from _with_address(value)


def ask_endpoint(endpoint: Endpoint, *, time_limit: float) -> Question:
    """Asks an endpoint for its models."""
    url = endpoint.address.rstrip("/") + "/models"
    return Question(url, key=_key(endpoint), time_limit=time_limit)


def is_worth_asking(endpoint: Endpoint) -> bool:
    """Whether an address can say more than that it wants the key, which is not set."""
    has_key = endpoint.key_variable is None or _key(endpoint) is not None
    return has_key or endpoint.needed or is_loopback(endpoint.address)


def unasked(endpoint: Endpoint) -> Reply:
    """What stands for the reply of an address that is not worth asking."""
    return Reply(shown(endpoint.address), problem="not asked without its key")


def _key(endpoint: Endpoint) -> str | None:
    return os.environ.get(endpoint.key_variable or "", "").strip() or None


def endpoint_finding(endpoint: Endpoint, reply: Reply) -> Finding:
    """Whether an endpoint answers as judges need it."""
    variable = endpoint.key_variable
    if variable and not variable.isidentifier():
        variable = "…"  # somebody put the key itself where its variable's name belongs
    has_key = _key(endpoint) is not None
    told = f"{variable} is {'set' if has_key else 'not set'}" if variable else "no key is sent"
    key_fix = f"export {variable}=…" if variable else "api_key_env: NAME   # in the judge's file"
    state, detail, fix = _judged(endpoint, reply, has_key=has_key, key_fix=key_fix)
    by = joined(sorted(set(endpoint.wanted_by) - {"--endpoint"}))
    return Finding(
        "endpoints",
        shown(endpoint.address),
        state,
        f"{detail}; {told}" + (f" (for {by})" if by else ""),
        fix,
        endpoint.needed,
        {
            "status": reply.status,
            "models": list(reply.models or ()),
            "key_variable": variable,
            "key_set": has_key,
            "wanted_by": list(endpoint.wanted_by),
        },
    )


def _judged(
    endpoint: Endpoint, reply: Reply, *, has_key: bool, key_fix: str
) -> tuple[State, str, str | None]:
    show = f"curl {shlex.quote(reply.address)}   # shows what it answers"
    if not is_worth_asking(endpoint):
        return "missing", str(reply.problem), key_fix
    if reply.status is None:
        return "missing", str(reply.problem), SERVE if is_loopback(endpoint.address) else show
    if reply.status in (401, 403):
        refused = "refuses the key" if has_key else "wants a key"
        state: State = "broken" if has_key else "missing"
        return state, f"{refused} (HTTP {reply.status})", key_fix
    if reply.status != 200:
        detail = f"HTTP {reply.status} instead of a list of models"
        return "broken", detail, _longer(endpoint) or show
    if reply.models is None:
        return "broken", "answers with something other than a list of models", show
    serves = f"serves {joined(list(reply.models))}" if reply.models else "serves no model"
    lacking = sorted(set(endpoint.models) - set(reply.models))
    if lacking or not reply.models:
        detail = serves + (f", not {joined(lacking)}" if lacking else "")
        model = shlex.quote(lacking[0]) if lacking else "CHECKPOINT"
        return "broken", detail, SERVE.replace("CHECKPOINT", model)
    return "ok", serves, None


def _longer(endpoint: Endpoint) -> str | None:
    """The address as it is mostly meant, where its end is lacking."""
    if endpoint.address.rstrip("/").endswith("/v1"):
        return None
    address = shlex.quote(shown(endpoint.address).rstrip("/") + "/v1")
    if endpoint.needed:
        return f"prefbench doctor --endpoint {address}"
    if "OPENAI_BASE_URL" in endpoint.wanted_by:
        return f"export OPENAI_BASE_URL={address}"
    return f"base_url: {address}   # in the judge's file"
