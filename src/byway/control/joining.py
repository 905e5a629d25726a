# SPDX-License-Identifier: Apache-2.0
"""How a running switch becomes a member of the cluster that its configuration names.

Used by the daemon, once its ports are open. Uses cluster and the engine: the libraries of etcd are
imported by who needs them only.
"""

from collections.abc import Callable

from byway.control.cluster.cluster import Cluster
from byway.control.cluster.desk import WantedDesk
from byway.control.engine import Engine
from byway.control.membership import Membership
from byway.control.wanted import Wanted


def join(wanted: Wanted, engine: Engine, say: Callable[[str], None]) -> Membership:
    """The membership, not started. The configuration has a cluster and an underlay; ``say`` is told
    sentences for the log."""
    cluster, underlay = wanted.has.cluster, wanted.has.underlay
    if cluster is None or underlay is None:
        raise ValueError("the configuration has no cluster, or no underlay")
    return Cluster(cluster, wanted.has.switch.name, underlay.address, engine.overlay.population,
                   WantedDesk(wanted), say, together=engine.overlay.changing)
