# SPDX-License-Identifier: Apache-2.0
"""Virtqueues and virtio-net: feature bits, memory tables, the chain walk, device and driver sides.

Used by vhost and ports; uses machine and packet. Sections cited are those of VIRTIO 1.2.
"""
