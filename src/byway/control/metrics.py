# SPDX-License-Identifier: Apache-2.0
"""The switch's counters as Prometheus text (GET /metrics).

Used by the API. Uses prometheus-client with a registry of its own: no global collectors.
Format: Prometheus text exposition format 0.0.4.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from byway.control.wanted import SwitchEngine

_PORT_COUNTERS = {
    "rx_frames": "Frames received from the port, into the switch.",
    "rx_bytes": "Bytes received from the port, into the switch.",
    "tx_frames": "Frames sent out of the port.",
    "tx_bytes": "Bytes sent out of the port.",
}
_HOST_COUNTERS = {
    "rx_frames": "Frames received from the host, by its tunnel.",
    "rx_bytes": "Bytes received from the host, by its tunnel.",
    "tx_frames": "Frames sent to the host, by its tunnel.",
    "tx_bytes": "Bytes sent to the host, by its tunnel.",
}
_SERVICE_COUNTERS = {
    "bypassed": "Frames that went on without the service, as no appliance worked.",
    "blocked": "Frames that were dropped, as no appliance worked.",
}
_FUNCTION_COUNTERS = {
    "frames": "Frames that came to the network function.",
    "faults": "Frames dropped because something went wrong in the network function.",
}
_WORKER_COUNTERS = {
    "passes": "Passes of the worker's loop.",
    "busy_passes": "Passes that moved frames.",
    "frames": "Frames that the worker moved.",
    "busy_cycles": "Cycles of the time stamp counter in passes that moved frames.",
    "sleeps": "Times that the worker had nothing hot and slept.",
}


def metrics_text(engine: SwitchEngine) -> bytes:
    """Every counter of the switch as Prometheus text."""
    registry = CollectorRegistry()
    registry.register(_EngineCollector(engine))
    return generate_latest(registry)


class _EngineCollector(Collector):
    def __init__(self, engine: SwitchEngine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the ports (this also spares a first collection)."""
        return []

    def collect(self) -> Iterable[Metric]:
        """One family a counter, a sample a port, network, host, service, function or worker."""
        yield from self._port_families()
        yield from self._network_families()
        yield from self._host_families()
        yield from self._service_families()
        yield from self._function_families()
        yield from self._worker_families()

    def _port_families(self) -> Iterable[Metric]:
        ports = self._engine.ports()
        labels = ["port", "network"]
        up = GaugeMetricFamily("byway_port_up", "1 while the port's peer is there.", labels=labels)
        for port in ports:
            up.add_metric([port["name"], port["network"]], int(port["state"] == "up"))
        yield up
        for key, text in _PORT_COUNTERS.items():
            family = CounterMetricFamily(f"byway_port_{key}", text, labels=labels)
            for port in ports:
                family.add_metric([port["name"], port["network"]], port[key])
            yield family
        drops = CounterMetricFamily(
            "byway_port_drops", "Frames from the port that were dropped, by reason.",
            labels=[*labels, "reason"])
        for port in ports:
            for reason, count in port["drops"].items():
                drops.add_metric([port["name"], port["network"], reason], count)
        yield drops

    def _network_families(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "byway_network_fdb_entries", "Learned addresses.", labels=["network"])
        for network in self._engine.networks():
            family.add_metric([network["name"]], network["fdb_entries"])
        yield family

    def _host_families(self) -> Iterable[Metric]:
        """Of tunnels; those of the underlay, which belong to no host, under an empty name."""
        underlay = self._engine.underlay()
        rows = [*self._engine.hosts(), *([{**underlay, "name": ""}] if underlay else [])]
        for key, text in _HOST_COUNTERS.items():
            family = CounterMetricFamily(f"byway_host_{key}", text, labels=["host"])
            for row in rows:
                family.add_metric([row["name"]], row[key])
            yield family
        drops = CounterMetricFamily(
            "byway_host_drops", "Frames to or from the host that were dropped, by reason.",
            labels=["host", "reason"])
        for row in rows:
            for reason, count in row["drops"].items():
                drops.add_metric([row["name"], reason], count)
        yield drops

    def _service_families(self) -> Iterable[Metric]:
        services = self._engine.services()
        up = GaugeMetricFamily("byway_service_appliance_up", "1 while the appliance works.",
                               labels=["service", "left"])
        for service in services:
            for one in service["appliances"]:
                up.add_metric([service["name"], one["left"]], int(one["state"] == "up"))
        yield up
        for key, text in _SERVICE_COUNTERS.items():
            family = CounterMetricFamily(f"byway_service_{key}", text, labels=["service"])
            for service in services:
                family.add_metric([service["name"]], service[key])
            yield family

    def _function_families(self) -> Iterable[Metric]:
        instances = self._engine.functions.shown()
        for key, text in _FUNCTION_COUNTERS.items():
            family = CounterMetricFamily(f"byway_function_{key}", text, labels=["instance"])
            for one in instances:
                family.add_metric([one["name"]], one[key])
            yield family
        drops = CounterMetricFamily(
            "byway_function_drops", "Frames that a network function dropped, by its reasons.",
            labels=["instance", "reason"])
        for one in instances:
            for reason, count in one["drops"].items():
                drops.add_metric([one["name"], reason], count)
        yield drops

    def _worker_families(self) -> Iterable[Metric]:
        workers = self._engine.workers()
        for key, text in _WORKER_COUNTERS.items():
            family = CounterMetricFamily(f"byway_worker_{key}", text, labels=["worker"])
            for number, worker in enumerate(workers):
                family.add_metric([str(number)], worker[key])
            yield family
        asleep = GaugeMetricFamily(
            "byway_worker_asleep", "1 while the worker blocks in the kernel.", labels=["worker"])
        for number, worker in enumerate(workers):
            asleep.add_metric([str(number)], int(worker["asleep"]))
        yield asleep
