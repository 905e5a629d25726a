# SPDX-License-Identifier: Apache-2.0
"""The control side of the switch: the wanted state, how it is read, compared, applied, served.

model (passive data) <- config (TOML to model) <- diff (actions) <- wanted (applies them to the
engine) <- api (REST over a Unix socket) <- daemon (`byway run`). The package runs in one thread,
the control thread; it never shares a lock with a worker.
"""
