"""MLflow's application for pages of its own address only; `harness ui` serves it by its name among MLflow's apps, vae-harness.

A page of another server, on this machine too, may be open in the same browser. What it asks for comes with its own origin.
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
            return await self.inner(scope, receive, send)
        await send({"type": "http.response.start", "status": REFUSED, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"this server answers to its own pages only"})


app = OwnOrigin(mlflow_app, frozenset(os.environ.get(MLFLOW_SERVER_CORS_ALLOWED_ORIGINS.name, "").split(",")))
