# SPDX-License-Identifier: Apache-2.0
"""The API's client: all that another program needs to look at a running switch and to change it.

    from byway.client import Client, find_socket

    with Client(find_socket()) as switch:
        switch.add_port({"name": "vm3", "network": "blue", "kind": "vhost-user",
                         "socket": "/tmp/vm3.sock"})
        print(switch.port("vm3")["state"])

Used by the commands and by integrations. Imports neither the data path nor control.
"""

from byway.client.client import Client, ClientError, NotReachable, SeveralSwitches
from byway.client.find import find_socket

__all__ = ["Client", "ClientError", "NotReachable", "SeveralSwitches", "find_socket"]
