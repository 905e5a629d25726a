# SPDX-License-Identifier: Apache-2.0
"""How containers reach the outside, and are reached: address translation by the kernel, nftables.

Used by the engine (gateway ports), the Docker plugin and byway-cni. Uses the program `nft`, no
other package of Byway, and nothing that takes long to import.

`Table` is the door: one table of the kernel for each owner, in any network namespace.
"""

from byway.nat.publication import NatError, Publication
from byway.nat.table import Content, Table

__all__ = ["Content", "NatError", "Publication", "Table"]
