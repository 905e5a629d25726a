# SPDX-License-Identifier: Apache-2.0
"""Tests of other people's vhost-user implementations: back ends and front ends, over their socket.

Used by cli.conform. Uses vhost (messages, connection), virtio (feature bits), machine (sockets).
Nothing here is compiled: the drivers and the device are slow and obvious, so that what they find
wrong is wrong.
"""
