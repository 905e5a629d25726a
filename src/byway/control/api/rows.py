# SPDX-License-Identifier: Apache-2.0
"""Rows of tables that come in with a call: {"rows": {...}} or {"rows": [...]}.

Used by functions. Uses bodies, whose limit is of other bodies; and how much memory there is.

A table may have a million rows: parsed at once, they would hold up the control thread for seconds.
So of a large body one row is parsed after the other, and every few milliseconds others go on.
"""

import asyncio
import json
import re
from typing import Any

from fastapi import Request

from byway.control.api.bodies import (
    MAX_BODY,
    may_have_halves,
    no_json,
    parse_body,
    read_bytes,
    refuse_halves,
    too_large,
)
from byway.machine.memory_left import memory_left

MAX_ROWS = 64 << 20  # bytes; a million rows of a record each
STEP = 256  # rows that are parsed at once
_GROWTH = 24  # what parsed JSON takes at the most, in bytes a byte of the body: "[],[],"
_SPACE = r"[ \t\n\r]*"
_BEGIN = re.compile(rf'{_SPACE}\{{{_SPACE}"rows"{_SPACE}:{_SPACE}([{{\[]){_SPACE}')
_SIGN = re.compile(rf"{_SPACE}([,:}}\]]){_SPACE}")
_END = re.compile(rf"{_SPACE}\}}{_SPACE}")
_decode = json.JSONDecoder().raw_decode


async def read_rows(request: Request) -> dict[str, Any]:
    """The JSON object of a request: at most MAX_BODY bytes of it, or MAX_ROWS where it begins with
    rows."""
    data = await read_bytes(request, MAX_ROWS)
    if len(data) <= MAX_BODY:
        return parse_body(data)
    if _GROWTH * len(data) > memory_left():
        raise too_large(f"the machine has no memory for a body of {len(data)} bytes")
    try:
        text = data.decode()
        begin = _BEGIN.match(text)
        if begin is None:
            raise too_large(f"the body has more than {MAX_BODY} bytes, and is no "
                            '{"rows": ...}')
        return {"rows": await _parsed(text, begin, may_have_halves(data))}
    except (ValueError, RecursionError) as error:
        raise no_json(error) from None


async def _parsed(text: str, begin: re.Match[str], doubtful: bool) -> Any:
    """The rows of a body. ``doubtful``: there may be half a character. ValueError: it is no JSON.
    """
    at = begin.end()
    listed = begin[1] == "["
    closing = "]" if listed else "}"
    rows: dict[Any, Any] = {}
    number, sign = 0, ","
    if text.startswith(closing, at):
        sign, at = closing, at + 1
    while sign != closing:
        key: Any = number
        if not listed:
            key, at = _decode(text, at)
            if not isinstance(key, str):
                raise ValueError(f"a key is no text, before character {at}")
            _, at = _sign(text, at, ":")
        value, at = _decode(text, at)
        if doubtful:
            refuse_halves([key, value])
        rows[key] = value
        sign, at = _sign(text, at, f",{closing}")
        number += 1
        if number % STEP == 0:
            await asyncio.sleep(0)
    if not _END.fullmatch(text, at):
        raise ValueError(f"rows are all that may be, and something is at character {at}")
    return [*rows.values()] if listed else rows


def _sign(text: str, at: int, wanted: str) -> tuple[str, int]:
    """The sign at this place, and what is behind it. ValueError: it is none of those."""
    found = _SIGN.match(text, at)
    if found is None or found[1] not in wanted:
        raise ValueError(f"there is none of {wanted} at character {at}")
    return found[1], found.end()
