"""A webhook is told what stands in the outbox, beside measuring and never in its way."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from types import TracebackType

import httpx
from filelock import FileLock, Timeout

from prefbench.addresses import unusable
from prefbench.errors import InputError, PrefbenchError
from prefbench.watch.outbox import Message, Outbox, payload

LONGEST = 300.0
"""Seconds between two tries, at most."""
GRACE = 5.0
"""Seconds at the end for what has not arrived; the next watch sends the rest."""


class Webhook:
    """Posts messages until each has arrived, for the length of a `with`."""

    def __init__(
        self,
        url: str,
        outbox: Outbox,
        log: Callable[[str], None],
        *,
        first_wait: float = 1.0,
        timeout: float = 20.0,
    ) -> None:
        """Sends nothing yet.

        Args:
            url: a secret: said nowhere, neither in the log nor in errors.
            outbox: what is to be sent.
            log: told when messages cannot be delivered, and when they can again.
            first_wait: seconds before a second try; twice as long each time.
            timeout: seconds that an answer may take.

        Raises:
            InputError: the address makes no sense.
        """
        if not url or unusable(url):
            raise InputError("the webhook's variable holds no http or https address")
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it would tell the address
        self._url = url
        self.outbox = outbox
        self.log = log
        self.first_wait = first_wait
        self.timeout = timeout
        self._end = threading.Event()
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._deliver, name="webhook", daemon=True)
        self._troubled = False

    def __enter__(self) -> Webhook:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._news.set()
        self._thread.join(GRACE)

    def wake(self) -> None:
        """There may be something to send."""
        self._news.set()

    def _deliver(self) -> None:
        """Of several watchers one at a time delivers."""
        alone = FileLock(self.outbox.file.with_name("webhook.lock"))
        wait = self.first_wait
        with httpx.Client(timeout=self.timeout, follow_redirects=False) as client:
            while True:
                ended = self._end.is_set()  # then this is the last time
                try:
                    with alone.acquire(timeout=0):
                        delivered = self._all(client)
                except Timeout:
                    delivered = True
                except (OSError, PrefbenchError):  # the results cannot be written now
                    delivered = False
                if ended:
                    return
                wait = self.first_wait if delivered else min(2 * wait, LONGEST)
                if delivered:
                    self._news.wait(LONGEST)
                    self._news.clear()
                else:
                    self._end.wait(wait)

    def _all(self, client: httpx.Client) -> bool:
        for message in self.outbox.unsent():
            why = self._post(client, message)
            if why and not self._troubled:
                self.log(f"webhook: not delivered ({why}); tried again until it is")
            if not why and self._troubled:
                self.log("webhook: delivered again")
            self._troubled = why is not None
            if why:
                return False
            self.outbox.sent(message)
        return True

    def _post(self, client: httpx.Client, message: Message) -> str | None:
        """Why a message has not arrived, in words that hold nothing of the address."""
        body = json.dumps(payload(message)).encode()  # in ASCII: a name may be no Unicode
        headers = {"content-type": "application/json"}
        try:
            status = client.post(self._url, content=body, headers=headers).status_code
        except Exception as error:  # noqa: BLE001  # its text may quote the address
            return type(error).__name__
        return None if 200 <= status < 300 else f"HTTP {status}"
