# SPDX-License-Identifier: Apache-2.0
"""``byway.acl``: a stateless firewall; a list of rules says which frames pass.

A built-in network function, written on the author's page (byway.nf) alone.

The rules stand in ``rules``, each at its place: the one at the lowest place that matches a frame
says what becomes of it. What no rule matches is up to ``default``; ARP and IPv6's neighbour
discovery pass then, without which there is no IP, unless ``neighbours`` is false. Each rule counts
the frames that it was the first to match. How rules are found by look-ups is nf.Rules' matter:
10,000 cost hardly more than ten.
"""

from typing import Literal

from byway import nf

DROP, PASS, NO_RULE = 0, 1, 2
ROUTER_SOLICITATION, REDIRECT = 133, 137  # neighbour discovery's types, RFC 4861, 4


@nf.function
class Acl:
    """Pass or drop frames by a list of rules."""

    default: Literal["drop", "pass"] = "drop"  # frames that no rule matches
    neighbours: bool = True  # but ARP and neighbour discovery

    rules = nf.Rules(capacity=16000, values=("drop", "pass"))

    def process(self, frame):
        """What the first rule says that matches."""
        said = self.rules.match(frame, NO_RULE)
        if said == PASS:
            return nf.PASS
        if said == DROP:
            return nf.DROP("rule")
        if self.default == "pass" or (self.neighbours and is_neighbour(frame)):
            return nf.PASS
        return nf.DROP("no rule")


def is_neighbour(frame):
    """Is it ARP, or neighbour discovery from the link itself (RFC 4861, 6.1 and 7.1)?"""
    if frame.is_arp:
        return True
    kind = frame.icmp_type
    return (frame.is_icmpv6 and frame.ip_ttl == 255
            and kind >= ROUTER_SOLICITATION and kind <= REDIRECT)
