# SPDX-License-Identifier: Apache-2.0
"""Ports: the ways into and out of the switch, one file a kind, and the dispatch between kinds.

Used by worker (kernels) and control (objects); uses virtio and vhost. Knows nothing of switching.
"""
