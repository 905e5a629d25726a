# SPDX-License-Identifier: Apache-2.0
"""Container engines, started and ended by a test: Docker, podman, containerd with ctr and the CRI,
and a CNI runtime of our own.

Used by the tests of containers. Everything happens in a network namespace that the test made
(`namespace.py`), below a folder that it gives, and in control groups named after it; `sweep.py`
takes away what an engine that was killed left. All run one image (`image.py`), whose containers
answer pings, serve a file and measure (`station.py`).
"""
