# SPDX-License-Identifier: Apache-2.0
"""The tables of the metadata server (metadata.py), made of documents.

Used by whoever fills them: tests, scripts with the API. Plain Python; uses nothing else.
"""

from collections.abc import Mapping
from typing import TypedDict

ALL = "00:00:00:00:00:00"  # instead of a guest's MAC address: for all guests
_START, _FACTOR, _WORD = 0x811C9DC5, 0x01000193, 0xFFFFFFFF
# Versions of Amazon's interface, by which cloud-init and others ask.
VERSIONS = ("latest", "2009-04-04", "2021-03-23")


class Tables(TypedDict):
    """Both tables, as the configuration and the API take them."""

    text: list[int]
    documents: dict[str, dict[str, int]]


def tables(guests: Mapping[str, Mapping[str, str | bytes]]) -> Tables:
    """The tables ``text`` and ``documents``: for each guest's MAC address (or ALL) its documents by
    path, "/latest/user-data"."""
    words: list[int] = []
    documents = {f"{ALL},0": _placed(words, _answer("404 Not Found", b"not found\n"))}
    for mac, paths in guests.items():
        for path, body in paths.items():
            octets = body.encode() if isinstance(body, str) else body
            documents[f"{mac},{path_hash(path)}"] = _placed(words, _answer("200 OK", octets))
    return {"text": words, "documents": documents}


def amazon(values: Mapping[str, str], user_data: str | bytes = b"") -> dict[str, str | bytes]:
    """A guest's documents as at Amazon: ``values`` by name ("instance-id", "local-ipv4",
    "public-keys/0/openssh-key"), with the listings of all directories."""
    below: dict[str, set[str]] = {"": set()}
    for name in values:
        parts = name.split("/")
        for depth, part in enumerate(parts):
            last = depth == len(parts) - 1
            below.setdefault("/".join(parts[:depth]), set()).add(part if last else part + "/")
    made: dict[str, str | bytes] = {}
    for version in VERSIONS:
        root = f"/{version}/meta-data"
        for name, value in values.items():
            made[f"{root}/{name}"] = value
        for name, entries in below.items():
            listing = "\n".join(sorted(entries))
            made[f"{root}/{name}/" if name else f"{root}/"] = listing
            made[f"{root}/{name}" if name else root] = listing
        if user_data:
            made[f"/{version}/user-data"] = user_data
    return made


def path_hash(path: str) -> int:
    """FNV-1a, 32 bits, of a path: the number that it is found by."""
    value = _START
    for byte in path.encode()[:255]:
        value = (value ^ byte) * _FACTOR & _WORD
    return value


def _answer(status: str, body: bytes) -> bytes:
    return (f"HTTP/1.1 {status}\r\nServer: byway\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n").encode() + body


def _placed(words: list[int], octets: bytes) -> dict[str, int]:
    """Put an answer behind the others; -> where it is."""
    at = len(words)
    padded = octets + bytes(-len(octets) % 4)
    words.extend(int.from_bytes(padded[k:k + 4], "big") for k in range(0, len(padded), 4))
    return {"at": at, "length": len(octets)}
