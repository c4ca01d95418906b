"""Messages to a webhook that must arrive: kept in a file until somebody has taken them.

results/watch/outbox.jsonl   a line per message, and a line per message that has arrived

A message may arrive twice, after `kill -9` between its arrival and the line that says so; its `id`
tells. The file knows neither the webhook's address nor any other secret.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from prefbench.files import explained
from prefbench.manifest import now
from prefbench.watch.lines import Lines
from prefbench.watch.status import Row

FORMAT = 1
LONGEST = 500
"""Characters of a name or a reason in a message's text."""

Trouble = Literal["failure", "regression"]
Kind = Literal["failure", "regression", "recovered"]


@dataclass(frozen=True)
class Message:
    """What is posted, but for `text`: see `payload`."""

    id: str
    when: str
    event: Kind
    of: Trouble
    """What recovered, or else the event itself."""
    checkpoint: str
    path: str
    state: str
    reason: str | None
    step: int | None
    method: str | None
    gate: Mapping[str, Any] | None
    watcher: str


class Outbox:
    """The messages of a results directory; several watchers may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "outbox.jsonl"
        self.alone = FileLock(folder / "outbox.lock")
        self._lines = Lines(self.file)
        self._reading = threading.Lock()  # the webhook has a thread of its own
        self._unsent: dict[str, Message] = {}
        self._open: set[tuple[str, str]] = set()

    def unsent(self) -> list[Message]:
        """What has not arrived, the oldest first.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._reading:
            self._take_new()
            return list(self._unsent.values())

    def tell(self, rows: Sequence[Row], watcher: str) -> None:
        """Adds what is new about checkpoints: one fails, regresses, or does so no more.

        Raises:
            StoreError: the file cannot be read or written.
        """
        if not self._news(rows):
            return
        with explained(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.alone.acquire()
        try:
            for row, of, event in self._news(rows):  # another watcher may have said it
                self._lines.append({"message": vars(_message(row, event, of, watcher))})
        finally:
            self.alone.release()

    def _news(self, rows: Sequence[Row]) -> list[tuple[Row, Trouble, Kind]]:
        """What is not yet in the file."""
        self._refresh()
        news: list[tuple[Row, Trouble, Kind]] = []
        for row in rows:
            outcome = row.gate["outcome"] if row.gate else None
            # Inconclusive is no recovery, and what is tried again has not yet succeeded.
            troubles: tuple[tuple[Trouble, bool, bool], ...] = (
                ("failure", row.state == "failed", row.state in ("measured", "judged")),
                ("regression", outcome == "regression", outcome == "pass"),
            )
            for of, is_so, is_over in troubles:
                known = (row.path, of) in self._open
                if is_so and not known:
                    news.append((row, of, of))
                elif is_over and known:
                    news.append((row, of, "recovered"))
        return news

    def sent(self, message: Message) -> None:
        """Writes down that a message has arrived."""
        self._lines.append({"sent": message.id})
        self._refresh()

    def _refresh(self) -> None:
        with self._reading:
            self._take_new()

    def _take_new(self) -> None:
        for line in self._lines.new():
            self._take(line)

    def _take(self, found: Any) -> None:
        try:
            if "sent" in found:
                self._unsent.pop(found["sent"], None)
                return
            message = Message(**found["message"])
        except (TypeError, LookupError):  # of no form that is known
            return
        self._unsent[message.id] = message
        about = (message.path, message.of)
        self._open.discard(about) if message.event == "recovered" else self._open.add(about)


def _message(row: Row, event: Kind, of: Trouble, watcher: str) -> Message:
    return Message(
        id=os.urandom(12).hex(),
        when=now(),
        event=event,
        of=of,
        checkpoint=row.name,
        path=row.path,
        state=row.state,
        reason=row.reason,
        step=row.step,
        method=row.method,
        gate=row.gate,
        watcher=watcher,
    )


def payload(message: Message) -> dict[str, Any]:
    """What is posted: all fields, and `text`, which chats show."""
    why = message.reason if message.of == "failure" else None
    if message.of == "regression" and message.gate:
        lost = [one for one in message.gate["checks"] if one["outcome"] == "regression"]
        why = "; ".join(f"{one['task']} {one['metric']} {one['asked']}" for one in lost) or None
    parts = [message.event, message.checkpoint, why or message.state]
    text = f"prefbench {parts[0]}: " + ": ".join(f"`{_harmless(part)}`" for part in parts[1:])
    return {"format": FORMAT, **vars(message), "text": text}


def _harmless(text: str) -> str:
    """Foreign text as a chat shows it between backticks, where it can call nobody."""
    shown = "".join(c if c.isprintable() and c != "`" else "\ufffd" for c in text[:LONGEST])
    for sign, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("@", "@\u200b")):
        shown = shown.replace(sign, safe)
    return shown
