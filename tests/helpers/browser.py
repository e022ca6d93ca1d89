"""Headless Chromium by its own protocol over two pipes: pages are opened, asked, pictured, and every request is noted."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe"
)


class Browser:
    """A browser with one page.

    Attributes:
        requested: the addresses that the page has asked for.
        failed: the addresses of those that got no answer or an error, with the reason.
    """

    def __init__(self, width: int = 1440, height: int = 2000) -> None:
        self.size = {"width": width, "height": height}
        self.requested: dict[str, str] = {}
        self.failed: list[str] = []
        self._number, self._buffer = 0, b""

    def __enter__(self) -> Self:
        """Start the browser with an empty profile."""
        self.profile = tempfile.mkdtemp(prefix="harness-browser-")
        ours, theirs = os.pipe(), os.pipe()
        command = ["chromium", *FLAGS.split(), f"--user-data-dir={self.profile}", "about:blank"]
        script = f'exec 3<&{ours[0]} 4>&{theirs[1]}; exec "$@"'
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(["bash", "-c", script, "bash", *command], pass_fds=(ours[0], theirs[1]), **quiet)
        os.close(ours[0])
        os.close(theirs[1])
        self.into, self.out = ours[1], theirs[0]
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.ask(f"{domain}.enable")
        self.resize(**self.size)
        return self

    def __exit__(self, *_: object) -> None:
        """End the browser and remove its profile."""
        self.process.terminate()
        self.process.wait(20)
        os.close(self.into)
        os.close(self.out)
        shutil.rmtree(self.profile, ignore_errors=True)

    def ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result; what else happens in between is noted."""
        self._number += 1
        number, session = self._number, {"sessionId": self.session} if hasattr(self, "session") else {}
        os.write(self.into, json.dumps({"id": number, "method": method, "params": arguments, **session}).encode() + b"\0")
        while True:
            message = self._next(60)
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def resize(self, width: int, height: int) -> None:
        """Give the window another size."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, address: str) -> None:
        """Go to an address, as if it had been typed: also one that differs from the present one after its # alone."""
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> Any:
        """Return the value of an expression once it is true; fail if it is not by then."""
        deadline = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < deadline, f"not true after {seconds:g} s: {expression}\n{self.text()[:3000]}"
            self._listen(0.1)
        return found

    def text(self) -> str:
        """Return the text that the page shows."""
        return str(self.value("document.body ? document.body.innerText : ''"))

    def picture(self, file: Path) -> None:
        """Write what the page shows as a PNG file."""
        file.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def hosts(self) -> set[str]:
        """Return the hosts and ports of all requests over a network."""
        return {urlsplit(url).netloc for url in self.requested.values() if url.startswith(("http", "ws"))}

    def _listen(self, seconds: float) -> None:
        """Note what happens for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._ready(left):
                self._next(left + 1)

    def _ready(self, seconds: float) -> bool:
        """Return whether the browser says something within so many seconds."""
        return b"\0" in self._buffer or bool(select.select([self.out], [], [], seconds)[0])

    def _next(self, seconds: float) -> dict[str, Any]:
        """Return the browser's next message, after noting what it says of requests."""
        while b"\0" not in self._buffer:
            assert self._ready(seconds), "the browser says nothing"
            self._buffer += os.read(self.out, 1 << 20)
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        said = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requested[said["requestId"]] = said["request"]["url"]
            case "Network.responseReceived" if said["response"]["status"] >= 400:
                self.failed.append(f"{said['response']['status']}: {said['response']['url']}")
            case "Network.loadingFailed" if not said.get("canceled"):
                self.failed.append(f"{said['errorText']}: {self.requested.get(said['requestId'], '')}")
        return message
