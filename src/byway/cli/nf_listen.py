# SPDX-License-Identifier: Apache-2.0
"""The process of a listener: `byway nf listen NAME`, which a switch starts for an instance.

Used by nf_switch. Imports the author's file and runs ``listen`` of its class with a Session; what
it asks comes over the API. It ends with the instance, or with the switch.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from byway.client import Client, ClientError
from byway.functions.finding import find

FRESH_SECONDS = 1.0  # what the switch said is taken to be true for so long


class Session:
    """What a listener has of its instance.

        async def listen(session):
            async for event in session.events("seen"):
                session.log(f"{event['source']} is noisy")
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name
        self._known: dict[str, tuple[float, Any]] = {}
        found = client.function(name)
        self.use: str = found["use"]
        self._epoch: float = found["since_1970"] - found["now"] / 1e9

    @property
    def instance(self) -> str:
        """The instance's name."""
        return self.name

    @property
    def parameters(self) -> dict[str, Any]:
        """Its parameters, as their users write them."""
        found: dict[str, Any] = self._fresh(
            "parameters", lambda: self._client.function(self.name)["parameters"])
        return found

    @property
    def ports(self) -> dict[int, str]:
        """Names of ports by the numbers that functions know them by."""
        found: dict[int, str] = self._fresh(
            "ports", lambda: {port["index"]: port["name"] for port in self._client.ports()})
        return found

    def _fresh(self, what: str, ask: Any) -> Any:
        now = time.monotonic()
        if what not in self._known or self._known[what][0] < now - FRESH_SECONDS:
            self._known[what] = now, ask()
        return self._known[what][1]

    async def events(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """What the instance emits as its event ``name``, until it is gone; fields by name,
        addresses as text, bytes as hexadecimal digits, ``time`` in ns as nf.now()."""
        import httpx

        transport = httpx.AsyncHTTPTransport(uds=self._client.path)
        path = f"/v1/functions/{quote(self.name, safe='')}/events?event={quote(name, safe='')}"
        async with (httpx.AsyncClient(transport=transport, base_url="http://byway", timeout=None,
                                      trust_env=False) as http,
                    http.stream("GET", path) as answer):
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                row = json.loads(line) if line else {}
                if "missed" in row:
                    self.log(f"{row['missed']} events were missed: this listener is too slow")
                elif row:
                    yield row

    async def table(self, name: str, limit: int = 1_000_000) -> list[dict[str, Any]]:
        """Entries of a table, each with ``key`` and ``value``."""
        return await asyncio.to_thread(self._own, "function_table", name, limit)

    async def set(self, name: str, value: Any) -> None:
        """Change a parameter of the instance."""
        await asyncio.to_thread(self._own, "set_function", {name: value})

    async def put(self, table: str, rows: dict[str, Any]) -> None:
        """Put entries into a table of the instance."""
        await asyncio.to_thread(self._own, "put_function_table", table, rows)

    def _own(self, call: str, *arguments: Any) -> Any:
        with Client(self._client.path) as client:  # a client is of one thread
            return getattr(client, call)(self.name, *arguments)

    def since_1970(self, nanoseconds: int | None = None) -> float:
        """The wall time, in seconds, of a time of nf.now(); now, where none is given."""
        return time.time() if nanoseconds is None else self._epoch + nanoseconds / 1e9

    def log(self, text: str) -> None:
        """Say something in the switch's messages."""
        print(f"byway: {self.name}: {text}", file=sys.stderr, flush=True)


def run_listener(name: str, api: str) -> int:
    """Run the listener of an instance until it ends; -> the exit status."""
    import httpx

    with Client(api) as client:
        try:
            session = Session(client, name)
            cls, _ = find(session.use, Path("/"))
            asyncio.run(vars(cls)["listen"].__func__(session))
        except (ClientError, httpx.HTTPError) as error:
            print(f"byway: {name}: {error}", file=sys.stderr)
            return 1
    return 0
