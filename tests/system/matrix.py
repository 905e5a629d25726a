# SPDX-License-Identifier: Apache-2.0
"""The matrix: every peer and option that passes traffic through Byway, as cases and as a table.

Used by test_matrix.py, which runs the cases and writes or compares docs/reference/matrix.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "matrix.md"
HEAD = """# Peers and options

Every row is a peer that passes traffic through a Byway port in both directions, its content
checked, in a test. DPDK's virtio_user ports send back the frames of a guest in the test, which
compares every byte; QEMU's guests exchange pings of several lengths and patterns with another
guest, and files of 2 MiB over TCP. These guests run with `intel_iommu=on iommu=pt`; the cards with
`iommu_platform=on` are behind that [IOMMU](../explanation/iommu.md).

The table is written by the test that runs the cases: `BYWAY_WRITE_MATRIX=1 pytest
tests/system/test_matrix.py`. Without that variable, the test compares what it saw with this page.
*Features* are what the peer took, as `byway port show` prints them.

"""
OFFLOADS = (
    *("csum", "gso", "guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo"),
    *("host_tso4", "host_tso6", "host_ecn", "host_ufo"),
)
IOMMU = "iommu_platform=on,disable-legacy=on,ats=on"
LEGACY = "disable-modern=on,disable-legacy=off"


@dataclass(frozen=True)
class DpdkCase:
    """A virtio_user port; its options have the names of DPDK's."""

    queue_size: int = 256
    packed_vq: int = 0
    in_order: int = 0
    mrg_rxbuf: int = 0
    vectorized: int = 0
    queues: int = 1

    @property
    def options(self) -> str:
        """The options as DPDK takes them."""
        return ",".join(f"{f.name}={getattr(self, f.name)}" for f in fields(self))

    @property
    def features(self) -> dict[str, bool]:
        """The features that these options decide about."""
        return {
            "ring_packed": bool(self.packed_vq),
            "in_order": bool(self.in_order),
            "mrg_rxbuf": bool(self.mrg_rxbuf),
            "mq": self.queues > 1,
        }


@dataclass(frozen=True)
class QemuCase:
    """A card of a guest. `far` are the options of the other guest's card, where it needs some."""

    options: str
    queues: int = 1
    mtu: int = 1500
    far: str = ""

    @property
    def shown(self) -> str:
        """The options as the table shows them."""
        queues = f"queues={self.queues}" if self.queues > 1 else ""
        return ",".join(filter(None, [self.options, queues])) or "none"

    @property
    def features(self) -> dict[str, bool]:
        """The features that these options decide about."""
        given = dict(word.split("=") for word in self.options.split(",") if word)
        return {
            "ring_packed": given.get("packed") == "on",
            "mq": given.get("mq") == "on",
            "mtu": "host_mtu" in given,
            "access_platform": given.get("iommu_platform") == "on",
            "version_1": given.get("disable-modern") != "on",
            "csum": given.get("csum") != "off",
            "host_tso4": given.get("host_tso4") != "off",
            "guest_tso6": given.get("guest_tso6") != "off",
            "mrg_rxbuf": given.get("mrg_rxbuf") != "off",
            "indirect_desc": given.get("indirect_desc") != "off",
            "event_idx": given.get("event_idx") != "off",
        }


def dpdk_groups() -> list[list[DpdkCase]]:
    """The cases of DPDK, those with the same sizes together: they share a process."""
    switches = [(order, merge) for order in (0, 1) for merge in (0, 1)]
    first = [DpdkCase(packed_vq=p, in_order=o, mrg_rxbuf=m) for p in (0, 1) for o, m in switches]
    first += [DpdkCase(vectorized=1), DpdkCase(vectorized=1, packed_vq=1, in_order=1)]
    groups = [first]
    for size in (64, 1024, 4096, 32768):
        groups.append([
            DpdkCase(size, packed, in_order=order, mrg_rxbuf=1)
            for packed, order in ((0, 0), (0, 1), (1, 0), (1, 1))
        ])
    for size in (112, 1000, 30000):  # no powers of two: for packed rings only
        groups.append([DpdkCase(size, 1, order, merge) for order, merge in switches])
    for queues in (2, 4):
        groups.append([
            DpdkCase(packed_vq=packed, in_order=order, mrg_rxbuf=merge, queues=queues)
            for packed in (0, 1) for order, merge in ((0, 1), (1, 0))
        ])
    return groups


def qemu_cases() -> list[QemuCase]:
    """The cases of QEMU: all are cards of one guest."""
    no_offloads = ",".join(f"{name}=off" for name in OFFLOADS)
    return [
        QemuCase(""),
        QemuCase("packed=on"),
        QemuCase("mq=on", queues=2),
        QemuCase("packed=on,mq=on", queues=2),
        QemuCase("mrg_rxbuf=off"),
        QemuCase("packed=on,mrg_rxbuf=off"),
        QemuCase("indirect_desc=off"),
        QemuCase("event_idx=off"),
        QemuCase("packed=on,indirect_desc=off,event_idx=off"),
        QemuCase("rx_queue_size=1024,tx_queue_size=1024"),
        QemuCase("host_mtu=9000", mtu=9000, far="host_mtu=9000"),
        QemuCase(LEGACY),
        QemuCase(f"{LEGACY},mrg_rxbuf=off"),
        QemuCase(IOMMU),
        QemuCase(f"{IOMMU},packed=on"),
        QemuCase(no_offloads),
        QemuCase("host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off"),
        QemuCase("guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off"),
    ]


def misunderstood(case: DpdkCase | QemuCase, acked: Iterable[str]) -> list[str]:
    """The features that the peer took against its options, or did not take."""
    acked = set(acked)
    return [name for name, wanted in case.features.items() if wanted != (name in acked)]


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    peer: str
    options: str
    features: str
    seen: str  # which code of the driver ran, or which guest it was
    result: str

    @property
    def case(self) -> tuple[str, str]:
        """What names the row: the peer without its version, and the options."""
        return self.peer.split()[0], self.options

    def line(self) -> str:
        """The row in Markdown."""
        cells = [self.peer, f"`{self.options}`", self.features, self.seen, self.result]
        return f"| {' | '.join(cells)} |"


def page(rows: Iterable[Row]) -> str:
    """The page with these rows."""
    head = ["| peer | options | features | driver | result |", "|---|---|---|---|---|"]
    return HEAD + "\n".join(head + [row.line() for row in rows]) + "\n"


def parse(text: str) -> list[Row]:
    """The rows of a page."""
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [Row(peer, options.strip("`"), *rest) for peer, options, *rest in cells]


def expected() -> list[tuple[str, str]]:
    """The rows that the page must have, in order."""
    dpdk = [("DPDK", case.options) for group in dpdk_groups() for case in group]
    return dpdk + [("QEMU", case.shown) for case in qemu_cases()]
