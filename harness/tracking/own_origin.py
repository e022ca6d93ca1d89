"""MLflow's application for pages of its own address only; `harness ui` serves it by its name among MLflow's apps, vae-harness.

A page of another server, on this machine too, may be open in the same browser. What it asks for comes with its own origin.

MLflow has no setting for what a page shows when it opens, so a script is put into its page. It opens the description of an
experiment or a run, of which MLflow shows a line or two. And it notes that the panel of the chat was opened before, as on a first
visit MLflow opens it by itself, over a third of the page. Without the script, as on another server of MLflow, both are a click
away.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mlflow.environment_variables import MLFLOW_SERVER_CORS_ALLOWED_ORIGINS
from mlflow.server.fastapi_app import app as mlflow_app

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

REFUSED = 403
PAGE, HEAD_ENDS = "/", b"</head>"
SCRIPT = b"""<script>
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
const closed = [
  "mlflow.experiment.metadata_editor.expand_button",
  "discovery.data_explorer.entity_comment.show_comment_text_toggle",
];
const opened = new Set();
new MutationObserver(() => {
  const button = document.querySelector(closed.map((id) => `[data-component-id="${id}"]`).join());
  const page = location.hash.split("?")[0];
  if (button && !opened.has(page)) {
    opened.add(page);
    button.click();
  }
}).observe(document, {childList: true, subtree: true});
</script>"""


class OwnOrigin:
    """An ASGI application that answers requests which name no origin, or one of its own.

    Attributes:
        inner: the application that answers.
        origins: its own origins, as browsers write them.
    """

    def __init__(self, inner: App, origins: frozenset[str]) -> None:
        self.inner, self.origins = inner, origins

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it: https://asgi.readthedocs.io/en/latest/specs/www.html."""
        origin = dict(scope.get("headers", ())).get(b"origin", b"").decode("latin-1")
        if scope["type"] != "http" or not origin or origin in self.origins:
            page = scope["type"] == "http" and scope["path"] == PAGE and scope["method"] == "GET"
            return await self.inner(scope, receive, WithScript(send).send if page else send)
        await send({"type": "http.response.start", "status": REFUSED, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"this server answers to its own pages only"})


class WithScript:
    """The end of an answer that puts the script into a page; anything else goes through as it is.

    Attributes:
        onward: sends the answer.
        start: its first message, which waits for the length of the page.
        body: what has come of the page.
    """

    def __init__(self, onward: Send) -> None:
        self.onward = onward
        self.start: Message = {}
        self.body = b""

    async def send(self, message: Message) -> None:
        """Take a message of the answer, and send all of them after the last one."""
        if message["type"] == "http.response.start":
            self.start = message
            return
        self.body += message.get("body", b"")
        if message.get("more_body"):
            return
        self.body = self.body.replace(HEAD_ENDS, SCRIPT + HEAD_ENDS, 1)
        headers = [(name, value) for name, value in self.start["headers"] if name.lower() != b"content-length"]
        await self.onward({**self.start, "headers": [*headers, (b"content-length", str(len(self.body)).encode())]})
        await self.onward({"type": "http.response.body", "body": self.body})


app = OwnOrigin(mlflow_app, frozenset(os.environ.get(MLFLOW_SERVER_CORS_ALLOWED_ORIGINS.name, "").split(",")))
