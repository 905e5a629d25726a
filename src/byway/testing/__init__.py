# SPDX-License-Identifier: Apache-2.0
"""Peers for tests, public: guests, front ends and frames that behave, and those that do not.

Imported by tests, examples, `byway demo` and `byway bench` only.
"""
