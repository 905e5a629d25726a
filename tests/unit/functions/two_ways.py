# SPDX-License-Identifier: Apache-2.0
"""Functions; the two methods of one share what they call (test_code.py)."""

from byway import nf


@nf.function
class TwoWays:
    """Counts, by a function too long to become part of its callers."""

    sums = nf.Array(value="u64", size=4)

    def rx(self, frame):
        return self.both(frame)

    def tx(self, frame):
        if frame.is_arp:
            return nf.PASS
        return self.both(frame)

    def both(self, frame):
        if frame.is_ipv4:
            self.sums[0] += 1
            if frame.is_tcp:
                self.sums[1] += frame.tcp_seq
            elif frame.is_udp:
                self.sums[2] += frame.udp_length
            else:
                self.sums[3] += frame.ip_ttl
        elif frame.is_ipv6:
            self.sums[0] += 2
        if self.sums[0] > 1000:
            return nf.DROP("enough")
        return nf.PASS


@nf.function
class Other:
    """Stands beside it."""

    def process(self, frame):
        if self.long(frame):
            frame.ip_dscp = 1
        return nf.PASS

    def long(self, frame):
        return frame.length > 100 and frame.is_ipv4
