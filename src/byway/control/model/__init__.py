# SPDX-License-Identifier: Apache-2.0
"""The wanted state of a switch as passive, frozen data: all that users write.

Used by config (which reads it from TOML), diff, the API (which reads it from JSON), the cluster and
the engine. Uses pydantic, values and problem: nothing here opens a file, looks at the machine or
knows a worker. What one table alone can say is checked here; what tables say together in
fitting.py, and what the machine says about them in config.check_machine.
"""

from byway.control.model.function import FunctionConfig, steps
from byway.control.model.network import NetworkConfig, RouterConfig, StaticRoute
from byway.control.model.overlay import (
    OVERHEAD,
    ClusterConfig,
    EntryConfig,
    HostConfig,
    UnderlayConfig,
    entry_name,
)
from byway.control.model.policy import (
    AddressPair,
    GroupConfig,
    LimitConfig,
    MirrorConfig,
    RuleConfig,
)
from byway.control.model.ports import (
    IN_PLACE,
    KINDS,
    AfPacketPort,
    AfXdpPort,
    AnyPort,
    FeatureChoice,
    NullPort,
    PcapPort,
    PortConfig,
    Route,
    TapPort,
    UdpPort,
    VhostKernelPort,
    VhostUserPort,
    VirtioUserPort,
)
from byway.control.model.service import ApplianceConfig, ServiceConfig
from byway.control.model.whole import Config, SwitchConfig

__all__ = [
    "IN_PLACE", "KINDS", "OVERHEAD", "AddressPair", "AfPacketPort", "AfXdpPort", "AnyPort",
    "ApplianceConfig", "ClusterConfig", "Config", "EntryConfig", "FeatureChoice", "FunctionConfig",
    "GroupConfig", "HostConfig", "LimitConfig", "MirrorConfig", "NetworkConfig", "NullPort",
    "PcapPort", "PortConfig", "Route", "RouterConfig", "RuleConfig", "ServiceConfig",
    "StaticRoute", "SwitchConfig", "TapPort", "UdpPort", "UnderlayConfig", "VhostKernelPort",
    "VhostUserPort", "VirtioUserPort", "entry_name", "steps",
]
