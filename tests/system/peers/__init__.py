# SPDX-License-Identifier: Apache-2.0
"""Real peers, started and spoken to: DPDK's testpmd, Open vSwitch, QEMU, and `byway run` itself.

Used by the tests beside this package and by `bench/vm2vm_testpmd.py`. Everything a peer writes goes
to a folder the caller gives; nothing but processes started here is ever ended; traffic stays on
Unix sockets.
"""
