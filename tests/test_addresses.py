from __future__ import annotations

import pytest

from prefbench.addresses import is_loopback, shown, unusable
from prefbench.cells import Settings
from prefbench.errors import InputError


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8000/v1", "https://judge.example", "http://[::1]:8000/v1/", "HTTP://host"],
)
def test_what_can_be_asked(url: str) -> None:
    assert unusable(url) is None


@pytest.mark.parametrize("url", ["localhost:8000/v1", "host/v1", "ftp://host/v1", "", "http://"])
def test_what_begins_otherwise(url: str) -> None:
    assert unusable(url) == "is no address: it begins with http:// or https://"


@pytest.mark.parametrize("url", ["http://[::1/v1", "http://host:99999999/v1", "http://host:x/v1"])
def test_what_cannot_be_read(url: str) -> None:
    assert unusable(url) == "is no address"


@pytest.mark.parametrize(
    "url",
    [
        "https://me:secret@host:8000/v1",
        "https://secret@host:8000/v1",
        "https://host:8000/v1?key=secret",
        "https://host:8000/v1#secret",
    ],
)
def test_what_may_hold_a_key_is_refused_and_not_repeated(url: str) -> None:
    why = unusable(url)
    assert why
    assert why.startswith("holds more than https://host:8000/v1: a user, a password or a query")
    assert "secret" not in why


def test_what_is_shown_of_an_address() -> None:
    assert shown("https://me:secret@host:8000/v1?key=secret#x") == "https://host:8000/v1"
    assert shown("host/v1") == "host/v1"
    assert shown("http://[broken") == "(not an address)"


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1:8000", True),
        ("127.1.2.3", True),
        ("[::1]:8000", True),
        ("0.0.0.0:8000", True),  # servers print it as theirs
        ("localhost", True),
        ("judge.localhost", True),
        ("localhost.example", False),
        ("10.0.0.1", False),
        ("[broken", False),
        ("", False),
    ],
)
def test_what_is_this_machine(host: str, here: bool) -> None:
    assert is_loopback(f"http://{host}/v1") is here


@pytest.mark.parametrize("url", ["http://me:secret@host/v1", "http://host/v1?key=secret", "host"])
def test_settings_are_kept_with_the_results_and_so_refuse_what_a_client_would(url: str) -> None:
    with pytest.raises(InputError, match=r"^base_url (holds more|is no address)") as caught:
        Settings(engine="server", base_url=url)
    assert "secret" not in str(caught.value)
