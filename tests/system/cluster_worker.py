# SPDX-License-Identifier: Apache-2.0
"""One process of several that ask the same etcd for addresses and VNIs at once. Used by
test_cluster_addresses.py: what it got is a line of JSON each."""

import json
import sys

from byway.control.cluster.etcd import Access
from byway.control.cluster.layout import Layout
from byway.control.cluster.registry import Registry
from byway.control.problem import EngineError


def main() -> None:
    """url, host, how many ports: as many networks, and ports in the network blue."""
    url, host, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    registry = Registry(Access((url,)), Layout("/byway"))
    sys.stdin.readline()  # all begin together
    for number in range(count):
        table = {"name": f"p{number}", "network": "blue", "kind": "null", "ips": "auto"}
        try:
            print(json.dumps({"ips": registry.put_port(host, table)["ips"]}))
        except EngineError as error:
            print(json.dumps({"full": str(error)}))
        network = registry.put_network({"name": f"{host}-{number}", "vni": "auto"})
        print(json.dumps({"vni": network["vni"]}))
        if number % 3 == 2:
            registry.delete_port(host, f"p{number}")
            print(json.dumps({"freed": number}), flush=True)
    registry.close()


if __name__ == "__main__":
    main()
