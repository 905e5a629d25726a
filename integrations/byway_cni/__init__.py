# SPDX-License-Identifier: Apache-2.0
"""`byway-cni`: containers on a Byway network, for every runtime that speaks CNI.

A CNI plugin is a program that a runtime starts for each call and waits for. This one asks the
running switch for a port in the container's network namespace, and remembers what it asked for. It
uses byway.ipam, byway.nat and byway.client only, and of the standard library what loads in
milliseconds.

Read `main`, then `attach` and `detach`.
"""
