# SPDX-License-Identifier: Apache-2.0
"""Docker's remote network and IPAM driver: containers become ports of a running switch.

Started by `byway docker-plugin`. A service of its own beside the switch: if it dies, packets go on.
Imports byway.client, byway.ipam and byway.nat, and nothing else of Byway.

    wire            HTTP on the plugin socket: one POST a method, JSON in and out
    network_driver  the methods NetworkDriver.*
    ipam_driver     the methods IpamDriver.*
    request, model  what a request says, and what of it is kept
    state           where it is kept: one SQLite file, written before anything is answered
    switch          what is asked of the switch
    namespace       what is looked up in containers' network namespaces
    outside         masquerade and published ports
    reconcile       brings the switch to what is kept, whoever was killed and started again
    service         all of it joined, from start to end
"""
