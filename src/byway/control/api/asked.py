# SPDX-License-Identifier: Apache-2.0
"""Work that is done for whoever asked, and for nobody else.

Used by functions, for calls that wait long. Uses the connection of a request.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

T = TypeVar("T")


async def while_asked(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """What comes of some work; None: it was called off, for the client has gone. The request's
    body must have been read, or be none."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        gone.cancel()
        if task.cancel():
            await asyncio.wait((task,))  # it tidies up, and the next may ask for the same


async def _gone(request: Request) -> None:
    """Returns when the client is no longer there."""
    while (await request.receive())["type"] != "http.disconnect":
        pass  # an empty body
