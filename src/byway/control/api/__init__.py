# SPDX-License-Identifier: Apache-2.0
"""The REST API of a running switch: JSON over a Unix socket, described at /openapi.json.

Used by the daemon, which serves it. Its parts: app (the paths), handlers (one method a call),
bodies (what comes in), refusals (what is answered when it cannot be done).
"""

from byway.control.api.app import make_app

__all__ = ["make_app"]
