# SPDX-License-Identifier: Apache-2.0
"""Checks of back ends: Byway plays the front end and the driver. `all_checks` lists them."""
