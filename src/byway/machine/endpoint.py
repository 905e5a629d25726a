# SPDX-License-Identifier: Apache-2.0
"""An IP address with a port number, as users write it: "192.0.2.1:4000", "[2001:db8::1]:4000".

Used by the model of the udp port and by the port. Source: RFC 3986, 3.2.2 (the brackets).
"""

import ipaddress


def split_endpoint(text: str) -> tuple[str, int]:
    """("127.0.0.1", 4000) of "127.0.0.1:4000", ("::1", 4000) of "[::1]:4000".

    ValueError where it is neither, or its port number is not one of 1 to 65535.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 1 << 16:
        raise ValueError(text)
    version = 6 if host.startswith("[") and host.endswith("]") else 4
    found = ipaddress.ip_address(host[1:-1] if version == 6 else host)
    if found.version != version or "%" in host:
        raise ValueError(text)
    return str(found), int(port)
