# SPDX-License-Identifier: Apache-2.0
"""The shapes of what the API answers, for its OpenAPI description and the tests that hold it to it.

Used by api. Uses pydantic only. Units: frames, bytes, seconds, cycles of the time stamp counter.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    # A later release may add keys; it takes none away.
    model_config = ConfigDict(extra="allow")


class FeatureNames(_Answer):
    """Virtio features by name: what the back end offers, what was agreed, and why the others are
    off."""

    offered: list[str]
    acked: list[str]
    off: dict[str, str] = {}


class RingAnswer(_Answer):
    """One virtqueue. rx is into the switch, tx out of it; `size` in descriptors, 0 while it is
    not set up; `enabled`: frames pass. Counters are null where a port has them per port only."""

    index: int
    way: Literal["rx", "tx"]
    format: Literal["split", "packed"]
    size: int
    enabled: bool
    frames: int | None = None
    bytes: int | None = None
    calls: int | None = None


class PortAnswer(_Answer):
    """One port: its place, its peer, its counters. rx is into the switch, tx out of it.

    `reason` says why a port is not up; `peer` is its socket or file. `queues` is the number of
    queue pairs that were configured, `queues_enabled` that of pairs which frames pass now."""

    name: str
    network: str
    kind: str
    state: Literal["up", "waiting", "down"]
    reason: str
    last_trouble: str | None = None
    index: int
    mac: str | None
    queues: int
    queues_enabled: int | None = None
    mtu: int
    peer: str | None = None
    features: FeatureNames
    rings: list[RingAnswer] = []
    rx_frames: int
    rx_bytes: int
    tx_frames: int
    tx_bytes: int
    drops: dict[str, int]


class NetworkAnswer(_Answer):
    """One network and the names of its ports."""

    name: str
    vni: int | None
    mtu: int
    ports: list[str]
    fdb_entries: int
    fdb_limit: int


class UnderlayAnswer(_Answer):
    """What carries the tunnels. `drops`: of datagrams that belong to no host or no network."""

    state: Literal["up", "waiting", "down"]
    reason: str
    rx_frames: int
    rx_bytes: int
    tx_frames: int
    tx_bytes: int
    drops: dict[str, int]


class HostAnswer(_Answer):
    """Another host: where its tunnels end, and the networks whose floods go to it."""

    name: str
    address: str
    networks: list[str]


class EntryAnswer(_Answer):
    """A static entry: what was said to be behind another host."""

    network: str
    mac: str
    ips: list[str]
    host: str


class RuleAnswer(_Answer):
    """A rule, as configured."""

    direction: Literal["ingress", "egress"]
    ethertype: Literal["ipv4", "ipv6"] | None
    protocol: str | int | None
    ports: str | None
    icmp_type: int | None
    icmp_code: int | None
    remote: str | None
    remote_group: str | None


class GroupAnswer(_Answer):
    """A security group, and the names of the ports that have it."""

    name: str
    rules: list[RuleAnswer]
    ports: list[str]


class RouterAnswer(_Answer):
    """A router, as configured."""

    name: str
    networks: list[str]
    routes: list[dict[str, str]]


class ApplianceAnswer(_Answer):
    """One appliance. `slots`: how many of 256 parts of the flows pass it; `reason` says why it does
    not work."""

    left: str
    right: str
    state: Literal["up", "down"]
    reason: str
    slots: int


class ServiceAnswer(_Answer):
    """A service as configured, and how it is. `bypassed`, `blocked`: frames that found no
    appliance."""

    name: str
    appliances: list[ApplianceAnswer]
    down: Literal["block", "bypass"]
    spread: Literal["flow", "addresses"]
    probe: int
    misses: int
    bypassed: int
    blocked: int


class FunctionAnswer(_Answer):
    """An instance of a network function: where it stands, its parameters, what it did. `state`
    says whether its code is there; `reason` why not. `frames` came to it; `drops` by the reasons of
    its author, `faults` went wrong in it. One alone also has `declared`, `states` and `doc`."""

    name: str
    use: str
    function: str | None
    summary: str
    ports: list[str]
    state: Literal["ready", "building", "failed"]
    reason: str
    parameters: dict[str, bool | int | float | str]
    frames: int
    drops: dict[str, int]
    faults: int
    last_fault: str | None
    copies_lost: int


class TraceAnswer(_Answer):
    """What became of a frame, function by function, up to the one that ended its way; `frame` as
    it was left, in hexadecimal digits. Each of `steps` has `name`, `verdict`, `reason`, `port`,
    `fault`, `changed` (fields with the value before and after) and `copies`."""

    steps: list[dict[str, Any]]
    frame: str


class WatchedAnswer(_Answer):
    """A frame that went through a chain: its `headers` as it came, and `steps`, each with the
    `function`, its `verdict`, and what it `changed`: the headers before and after."""

    length: int
    headers: dict[str, Any]
    steps: list[dict[str, Any]]


class ChainAnswer(_Answer):
    """The network functions that frames go through, as written: of a port, and out of it; and where
    one was put into them, the `name` of its instance."""

    name: str = ""
    chain: list[str]
    chain_tx: list[str] = []


class RowAnswer(_Answer):
    """An entry of a table; an address in it is text, and so is a key of several parts."""

    key: Any
    value: Any


class ReloadAnswer(_Answer):
    """The functions whose code is another one now, as they are used."""

    changed: list[str]


class PopulationAnswer(_Answer):
    """One address and where it is: at a local port (`host` is null), or behind a host."""

    network: str
    mac: str
    ips: list[str]
    host: str | None
    port: str | None


class ConnectionAnswer(_Answer):
    """One connection of a port. `direction` is the guest's; `idle` and `left` in seconds: since
    its last frame, and until it is forgotten."""

    port: str
    direction: Literal["ingress", "egress"]
    protocol: int
    source: str
    destination: str
    state: str
    idle: float
    left: float


class TableAnswer(_Answer):
    """A table as the cluster keeps it, with what it chose for "auto"."""

    name: str


class ClusterAnswer(_Answer):
    """How the cluster is; `synced`: everything that etcd has is known here."""

    etcd: list[str]
    host: str
    connected: bool
    synced: bool


class FdbAnswer(_Answer):
    """One learned address; `age` in seconds since its last frame. `port` is null where it is behind
    another `host`."""

    network: str
    mac: str
    port: str | None
    host: str | None = None
    age: float


class WorkerAnswer(_Answer):
    """One worker; `cpu` is null where it is not pinned."""

    cpu: int | None
    passes: int
    busy_passes: int
    frames: int
    busy_cycles: int
    cycles_per_frame: float | None
    sleeps: int
    asleep: bool
    ports: list[str]
    plan: int


class SwitchAnswer(_Answer):
    """The switch itself; `uptime` in seconds."""

    name: str
    version: str
    pid: int
    uptime: float
    workers: list[int] | None
    api: str
    networks: int
    ports: int
    underlay: dict[str, str | int | bool | None] | None
    cluster: bool


class ChangesAnswer(_Answer):
    """The names that a change touched; all empty: there was nothing to do. Also `changed_ports`,
    `changed_networks`, and the same of other things, where there are any."""

    added_networks: list[str]
    removed_networks: list[str]
    added_ports: list[str]
    removed_ports: list[str]


class ProblemAnswer(_Answer):
    """Why a call was refused: a word for programs, the problem and the fix for people."""

    error: Literal["bad-request", "not-found", "method", "too-large", "invalid", "refused", "fault"]
    problem: str
    fix: str
