# SPDX-License-Identifier: Apache-2.0
"""vhost-user: the protocol by which a virtual machine monitor hands rings to another process.

`FrontEnd` is a library of its own: with it a program plays the part of the monitor. `BackEnd`
serves one conversation. Built on machine and virtio; used by ports and testing.
"""

from byway.vhost.backend import BackEnd
from byway.vhost.connection import Closed
from byway.vhost.frontend import FrontEnd
from byway.vhost.messages import ProtocolError

__all__ = ["BackEnd", "Closed", "FrontEnd", "ProtocolError"]
