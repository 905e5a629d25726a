# SPDX-License-Identifier: Apache-2.0
"""The commands. They speak to a switch through byway.client; only run, demo and bench are one.

One module a group of commands; `main` joins them, `output` prints tables, `reach` finds the
switch. Exit status: 0 done; 1 the switch refused, failed or is not there; 2 a wrong call or
configuration. Messages go to stderr.
"""
