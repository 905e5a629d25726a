# SPDX-License-Identifier: Apache-2.0
"""Workers: the plan they follow, one pass over the ports that have work, sleep and wake-up.

Used by control; uses ports and switch, and is the only package that knows both.
"""
