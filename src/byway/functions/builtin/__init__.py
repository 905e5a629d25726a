# SPDX-License-Identifier: Apache-2.0
"""The network functions that come with Byway: one a file, written as anybody would write them.

Used in chains as "byway.<file>". Each uses the author's page (byway.nf) only.
"""
