# SPDX-License-Identifier: Apache-2.0
"""Checks of front ends: Byway plays the back end and the device. `checks.all_checks` lists them."""
