# SPDX-License-Identifier: Apache-2.0
"""The cluster: what all hosts share in etcd, so that each knows who is behind which other.

Used by the daemon and the API, which make one `Cluster` (cluster.py). `etcd` is the connection;
`layout` says which key holds what; `feed` hears what others say, `presence` says what this host
has; `registry` and `addresses` make networks, ports and addresses that exist once in the cluster.
"""
