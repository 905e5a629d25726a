# SPDX-License-Identifier: Apache-2.0
"""Which prefix a pool gets when none is asked for. Used by pools.

The candidates are the prefixes of a given length in a few larger ones, in order. Taken ones are
jumped over, not counted through: a /8 may be cut into pieces of /30.
"""

from collections.abc import Iterable, Sequence

from byway.ipam.prefix import Span, prefix_text, read_prefix, size_of
from byway.ipam.problem import IpamError

# (where pieces are cut, the prefix length of a piece). IPv6 ones come from the file's own prefix.
Defaults = Sequence[tuple[str, int]]
DEFAULTS: Defaults = (("10.192.0.0/12", 24), ("172.24.0.0/14", 24))
OWN_LENGTH = 64  # what IPv6 subnets have (RFC 4291 2.5.1)


def choose(defaults: Defaults, version: int, taken: Iterable[Span]) -> str:
    """The first free piece of the defaults of this IP version; IpamError where there is none."""
    ordered = sorted(taken)
    for whole, length in defaults:
        found, span = read_prefix(whole)
        if found != version:
            continue
        size = size_of(length, version)
        start = _first_gap(span, size, ordered)
        if start is not None:
            return prefix_text(start, length, version)
    raise IpamError(f"no IPv{version} pool is left of those to choose from",
                    "name a pool, or release one that is not needed any more")


def _first_gap(span: Span, size: int, ordered: Sequence[Span]) -> int | None:
    """The first aligned place of `size` addresses that no taken span touches."""
    start = span.first
    for other in ordered:
        if other.first > start + size - 1:
            break
        if other.last >= start:
            start = (other.last // size + 1) * size
    return start if start + size - 1 <= span.last else None
