# SPDX-License-Identifier: Apache-2.0
"""The records of a port with one pair of queues, for tests of the kernels that read them.

Used by tests that have no engine; see ports/record.py for what the fields say.
"""

from byway.machine.layout import address_of, alloc
from byway.packet.counters import COUNTERS
from byway.ports.record import PORT, RXQ, TXQ, Kind


class PortRecords:
    """PORT, RXQ and TXQ of port number ``index``, of queues of a ``kind``.

    ``rx``, ``tx``: addresses of the kind's records (0: none); ``counters``: address of the COUNTERS
    of what goes out (0: ``sent``).
    """

    def __init__(self, kind: Kind, index: int, rx: int = 0, tx: int = 0, counters: int = 0) -> None:
        self.port, self.rxq, self.txq = alloc(PORT, 1), alloc(RXQ, 1), alloc(TXQ, 1)
        self.received, self.sent = alloc(COUNTERS, 1), alloc(COUNTERS, 1)
        self.address, self.rx_address = address_of(self.port), address_of(self.rxq)
        port, rxq, txq = self.port[0], self.rxq[0], self.txq[0]
        port["index"], port["alarm"] = index, -1
        port["txqs"], port["ntx"], port["first"] = address_of(self.txq), 1, self.rx_address
        rxq["kind"], txq["kind"] = int(kind), int(kind)
        rxq["port"], rxq["number"], rxq["queue"] = self.address, index, rx
        rxq["counters"] = address_of(self.received)
        txq["queue"], txq["counters"] = tx, counters or address_of(self.sent)
