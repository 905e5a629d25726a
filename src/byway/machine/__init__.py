# SPDX-License-Identifier: Apache-2.0
"""The machine below the data path: kernels, raw memory, records, shared regions, faults.

Used by every package above it; imports nothing of Byway.
"""
