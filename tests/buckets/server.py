"""An S3-compatible server in a process of its own, told by lines on stdin to go away and come back.

python -m tests.buckets.server
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from moto.server import ThreadedMotoServer

KEYS = {
    "AWS_ACCESS_KEY_ID": "a-key-for-tests",
    "AWS_SECRET_ACCESS_KEY": "a-secret-for-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Server:
    """The process, until it is closed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.buckets.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.url}

    @property
    def files(self) -> Any:
        """A client of our own, which looks at what is there."""
        import s3fs

        return s3fs.S3FileSystem(
            key=KEYS["AWS_ACCESS_KEY_ID"],
            secret=KEYS["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=self.url,
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def go(self) -> None:
        """Goes away; what it holds stays."""
        self._say("go")

    def come(self) -> None:
        """Comes back."""
        self._say("come")

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(word, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline().strip() == "done"

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def main() -> None:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    print(port, flush=True)
    for line in sys.stdin:
        if line.strip() == "go":
            server.stop()
            assert server._server is not None
            server._server.server_close()  # else the system would go on taking calls
        else:
            server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
            server.start()
        print("done", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
