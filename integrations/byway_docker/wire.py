# SPDX-License-Identifier: Apache-2.0
"""HTTP on the plugin socket: POST /METHOD with a JSON body, answered with JSON.

Used by service. An ASGI application: uvicorn speaks HTTP/1.1 with dockerd. Source: Docker's
docs/extend/plugin_api.md; moby's pkg/plugins and drivers/remote.

Docker takes status 200 for an answer and looks into its error text: "Err" of a network driver,
"Error" of an IPAM driver. Other statuses are for what is no request: 404 a method that does not
exist (Docker takes it for an optional one that is not there), 405, 413 a body of more than
MAX_BODY bytes, 408 one that does not end within BODY_SECONDS, 400 one that is no JSON object.
Arguments may be left out: no body is an empty object.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import Executor
from typing import Any

from byway_docker.model import Refused

MAX_BODY = 1 << 20  # bytes
BODY_SECONDS = 10.0
CONTENT_TYPE = b"application/vnd.docker.plugins.v1.2+json"
LOG = logging.getLogger("byway.docker")

Answer = dict[str, Any]
Method = Callable[[Mapping[str, Any]], Answer]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _NoRequest(Exception):
    """What came is no request: HTTP's status and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Application:
    """The methods by name ("NetworkDriver.Join"), carried out by the threads of `executor`."""

    def __init__(self, methods: Mapping[str, Method], executor: Executor,
                 body_seconds: float = BODY_SECONDS) -> None:
        self._methods = {"Plugin.Activate": _activate, **methods}
        self._executor = executor
        self._body_seconds = body_seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request (ASGI 3)."""
        if scope["type"] != "http":
            return
        try:
            method = self._method(scope)
            answer = await self._call(scope["path"][1:], method, await self._body(receive))
            status = 200
        except _NoRequest as error:
            status, answer = error.status, {"Err": str(error), "Error": str(error)}
        data = json.dumps(answer).encode()
        headers = [(b"content-type", CONTENT_TYPE), (b"content-length", b"%d" % len(data))]
        if status in (408, 413):  # the rest of the body is not waited for
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    def _method(self, scope: Message) -> Method:
        method = self._methods.get(scope["path"][1:])
        if method is None:
            raise _NoRequest(404, f"there is no method {scope['path']!r}")
        if scope["method"] != "POST":
            raise _NoRequest(405, f"{scope['path']} takes POST only")
        return method

    async def _body(self, receive: Receive) -> Mapping[str, Any]:
        data = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    data += message.get("body", b"")
                    if len(data) > MAX_BODY:
                        raise _NoRequest(413, f"the body has more than {MAX_BODY} bytes")
                    if message["type"] != "http.request" or not message.get("more_body"):
                        break
        except TimeoutError:
            raise _NoRequest(408, f"the body did not end within {self._body_seconds:g} s") \
                from None
        if not data.strip():
            return {}
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise _NoRequest(400, f"the body is not JSON: {error}") from None
        if body is None:
            return {}
        if not isinstance(body, dict):
            raise _NoRequest(400, "the body is no JSON object")
        return body

    async def _call(self, name: str, method: Method, body: Mapping[str, Any]) -> Answer:
        key = "Error" if name.startswith("IpamDriver.") else "Err"
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, method, body)
        except Refused as error:
            LOG.warning("%s: %s", name, error)
            return {key: f"byway: {error}"}
        except Exception as error:
            LOG.exception("%s failed", name)
            return {key: f"byway: a fault in the plugin: {error!r}; see its messages, report it"}


def _activate(body: Mapping[str, Any]) -> Answer:
    """What this plugin is."""
    return {"Implements": ["NetworkDriver", "IpamDriver"]}
