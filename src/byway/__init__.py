# SPDX-License-Identifier: Apache-2.0
"""Byway: a user-space virtual switch and virtio/vhost toolkit, its data path compiled by Numba."""

__version__ = "0.1.0"
