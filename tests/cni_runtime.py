# SPDX-License-Identifier: Apache-2.0
"""A container runtime's part in CNI, every verb of the specification 1.1.0, as a library.

Used by the tests of byway-cni. It does what libcni does and the runtimes around us do not yet:
STATUS and GC. It derives each plugin's configuration from the list (section 3, "Deriving execution
configuration"), runs plugins in order (DEL in reverse), passes results on, keeps the last result,
and holds every answer to the specification before it returns it.
"""

import ipaddress
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

VALID = "cni.dev/valid-attachments"
SECONDS = 60


class Outcome(NamedTuple):
    """What one plugin did: exit status, the JSON object on stdout (None: nothing), its log."""

    status: int
    answer: dict[str, Any] | None
    log: str


class PluginError(Exception):
    """A plugin's error, as the specification has it."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.code = int(answer["code"])
        self.message = f"{answer['msg']}: {answer.get('details', '')}"
        super().__init__(f"code {self.code}: {self.message}")


class Runtime:
    """A runtime with one network: `network` is the content of a .conflist file.

    `path`: the folders of plugins (CNI_PATH). `prefix`: what a plugin is started with in front,
    where another network namespace is to be its host.
    """

    def __init__(self, network: Mapping[str, Any], path: Sequence[Path],
                 prefix: Sequence[str] = ()) -> None:
        self.network = dict(network)
        self.path = ":".join(map(str, path))
        self.prefix = list(prefix)
        self.results: dict[tuple[str, str], dict[str, Any]] = {}
        self.capabilities: dict[tuple[str, str], dict[str, Any]] = {}

    @property
    def version(self) -> str:
        """The version that is spoken."""
        return str(self.network["cniVersion"])

    # ------------------------------------------------------------ the verbs
    def add(self, container: str, netns: str, ifname: str = "eth0", arguments: str = "",
            **capabilities: Any) -> dict[str, Any]:
        """ADD through the whole list; after a failure DEL, as section 3 wants it."""
        key = (container, ifname)
        result: dict[str, Any] | None = None
        try:
            for plugin in self.network["plugins"]:
                config = self.configuration(plugin, result, capabilities)
                outcome = self.call("ADD", config, container, netns, ifname, arguments)
                result = self._result(outcome)
        except PluginError as error:
            if error.code != 101:  # there is an attachment of that name, which stays
                self.delete(container, netns, ifname)
            raise
        assert result is not None
        self.results[key], self.capabilities[key] = result, capabilities
        return result

    def check(self, container: str, netns: str, ifname: str = "eth0") -> None:
        """CHECK through the whole list."""
        key = (container, ifname)
        for plugin in self.network["plugins"]:
            config = self.configuration(plugin, self.results[key], self.capabilities[key])
            self._nothing(self.call("CHECK", config, container, netns, ifname))

    def delete(self, container: str, netns: str = "", ifname: str = "eth0") -> None:
        """DEL through the list in reverse, with what is known of the attachment."""
        key = (container, ifname)
        for plugin in reversed(self.network["plugins"]):
            config = self.configuration(plugin, self.results.get(key),
                                        self.capabilities.get(key, {}))
            self._nothing(self.call("DEL", config, container, netns, ifname))
        self.results.pop(key, None)
        self.capabilities.pop(key, None)

    def collect(self, valid: Sequence[tuple[str, str]] | None = None) -> None:
        """GC: what is not in `valid` (default: what this runtime has attached) goes."""
        keys = self.results if valid is None else valid
        entries = [{"containerID": container, "ifname": ifname} for container, ifname in keys]
        for plugin in self.network["plugins"]:
            config = {**self.configuration(plugin, None, {}), VALID: entries}
            self._nothing(self.call("GC", config))

    def status(self) -> None:
        """STATUS of every plugin of the list."""
        for plugin in self.network["plugins"]:
            self._nothing(self.call("STATUS", self.configuration(plugin, None, {})))

    def versions(self, kind: str) -> list[str]:
        """VERSION of the plugin `kind`."""
        outcome = self.call("VERSION", {"cniVersion": self.version, "type": kind})
        assert outcome.status == 0
        assert outcome.answer
        assert set(outcome.answer) == {"cniVersion", "supportedVersions"}
        return list(outcome.answer["supportedVersions"])

    # ------------------------------------------------------------ how
    def configuration(self, plugin: Mapping[str, Any], previous: Mapping[str, Any] | None,
                      capabilities: Mapping[str, Any]) -> dict[str, Any]:
        """What one plugin gets on stdin."""
        config = {key: value for key, value in plugin.items() if key != "capabilities"}
        config |= {"cniVersion": self.version, "name": self.network["name"]}
        wanted = {name: capabilities[name] for name, on in plugin.get("capabilities", {}).items()
                  if on and name in capabilities}
        if wanted:
            config["runtimeConfig"] = wanted
        if previous is not None:
            config["prevResult"] = previous
        return config

    def call(self, verb: str, config: Mapping[str, Any] | bytes, container: str = "",
             netns: str = "", ifname: str = "", arguments: str = "") -> Outcome:
        """Run one plugin, as it is, and hold its outcome to the specification."""
        values = {"CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": netns,
                  "CNI_IFNAME": ifname, "CNI_ARGS": arguments, "CNI_PATH": self.path}
        environment = {key: value for key, value in os.environ.items()
                       if not key.startswith("CNI_")}
        environment |= {key: value for key, value in values.items() if value}
        data = config if isinstance(config, bytes) else json.dumps(config).encode()
        kind = config["type"] if isinstance(config, Mapping) else "byway-cni"
        done = subprocess.run([*self.prefix, self._find(kind)], input=data, env=environment,
                              check=False, capture_output=True, timeout=SECONDS)
        answer = json.loads(done.stdout) if done.stdout else None
        if done.returncode:
            assert_error(answer)
        return Outcome(done.returncode, answer, done.stderr.decode())

    def _find(self, kind: str) -> str:
        return next(str(Path(folder) / kind) for folder in self.path.split(":")
                    if (Path(folder) / kind).exists())

    def _result(self, outcome: Outcome) -> dict[str, Any]:
        if outcome.status:
            raise PluginError(outcome.answer or {})
        assert outcome.answer is not None, "ADD prints a result"
        assert_result(outcome.answer, self.version)
        return outcome.answer

    def _nothing(self, outcome: Outcome) -> None:
        """These verbs print nothing where they succeed."""
        if outcome.status:
            raise PluginError(outcome.answer or {})
        assert outcome.answer is None


def assert_error(answer: Mapping[str, Any] | None) -> None:
    """Section 5, "Error"."""
    assert answer is not None, "an error is a JSON object on stdout"
    assert set(answer) <= {"cniVersion", "code", "msg", "details"}
    assert isinstance(answer.get("cniVersion", ""), str)  # some plugins leave it out
    assert isinstance(answer["code"], int)
    assert answer["code"] > 0
    assert isinstance(answer["msg"], str)
    assert answer["msg"]


def assert_result(result: Mapping[str, Any], version: str) -> None:
    """Section 5, "Add Success", and what older versions have otherwise."""
    assert result["cniVersion"] == version, "the version of the configuration"
    assert set(result) <= {"cniVersion", "interfaces", "ips", "routes", "dns"}
    interfaces = result.get("interfaces", [])
    for interface in interfaces:
        allowed = {"name", "mac", "sandbox"}
        allowed |= {"mtu", "socketPath", "pciID"} if version >= "1.1.0" else set()
        assert set(interface) <= allowed
        assert isinstance(interface["name"], str)
    for entry in result.get("ips", []):
        address = ipaddress.ip_interface(entry["address"])
        assert "/" in entry["address"]
        assert ipaddress.ip_address(entry["gateway"]) if entry.get("gateway") else True
        assert entry.get("version") == (str(address.version) if version < "1.0.0" else None)
        assert "interface" not in entry or 0 <= entry["interface"] < len(interfaces)
    for route in result.get("routes", []):
        assert ipaddress.ip_network(route["dst"])
        assert ipaddress.ip_address(route["gw"]) if route.get("gw") else True
