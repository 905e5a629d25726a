# SPDX-License-Identifier: Apache-2.0
"""Frames on their way: the batch with its heads, drop reasons, counters, pcap files.

Used by virtio and everything above it; uses machine only.
"""
