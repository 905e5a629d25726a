# SPDX-License-Identifier: Apache-2.0
"""Which interface has an address, and its MTU."""

from pathlib import Path

import pytest

from byway.machine.addresses import mtu_of_address


def _has_ipv6() -> bool:
    return any(line.startswith("0" * 31 + "1 ")
               for line in Path("/proc/net/if_inet6").read_text().splitlines())


@pytest.mark.parametrize("address", ["127.0.0.1", "127.7.7.7", "::1"])
def test_the_loopback_interface(address: str) -> None:
    mtu = int(Path("/sys/class/net/lo/mtu").read_text())
    if ":" in address and not _has_ipv6():
        mtu = 0
    assert (mtu_of_address(address) or 0) == mtu


def test_an_address_of_somebody_else() -> None:
    assert mtu_of_address("203.0.113.77") is None
    assert mtu_of_address("2001:db8::77") is None
