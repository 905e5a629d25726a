# SPDX-License-Identifier: Apache-2.0
"""The small client: the same API as the real one speaks to, found at the same place."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from byway_cni.problem import CniError, Code
from byway_cni.switch import NotReachable, Refused, Switch
from tests.cni_switch import CniSwitch
from tests.unit.control.fake_switch import FakeSwitch


@pytest.fixture
def real(tmp_path: Path) -> Iterator[FakeSwitch]:
    """The real API over a fake engine."""
    switch = FakeSwitch(tmp_path / "api.sock")
    yield switch
    switch.close()


def test_it_speaks_to_the_real_api(real: FakeSwitch) -> None:
    switch = Switch(str(real.path))
    found = switch.get("/v1/switch")
    assert found
    assert found["name"] == "lab"
    assert switch.get("/v1/ports/nobody") is None
    port = switch.put("/v1/ports/a", {"network": "blue", "kind": "null"})
    assert switch.get("/v1/ports/a") == port
    switch.delete("/v1/ports/a")
    switch.delete("/v1/ports/a")
    assert switch.get("/v1/ports/a") is None
    with pytest.raises(Refused, match="there is no network") as caught:
        switch.put("/v1/ports/a", {"network": "none", "kind": "null"})
    assert (caught.value.code, caught.value.status) == (Code.REFUSED, 422)
    switch.close()
    switch.close()


def test_a_connection_that_was_closed_is_opened_again(tmp_path: Path) -> None:
    with CniSwitch(tmp_path / "api.sock") as fake:
        switch = Switch(fake.path)
        assert switch.get("/v1/switch")
        fake.stop()
        with pytest.raises(NotReachable):
            Switch(fake.path).get("/v1/switch")
        fake.start()
        assert switch.put("/v1/networks/blue", {})["mtu"] == 1500
        switch.close()


def test_it_is_found_like_commands_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BYWAY_API", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("byway.machine.rundir.SYSTEM_DIRECTORY", tmp_path / "none")
    with pytest.raises(CniError, match="no switch is running") as caught:
        Switch("").get("/v1/switch")
    assert caught.value.code == Code.LATER
    (tmp_path / "byway").mkdir()
    with CniSwitch(tmp_path / "byway" / "lab.sock") as fake:
        assert Switch("").get("/v1/switch")
        monkeypatch.setenv("BYWAY_API", str(tmp_path / "other.sock"))
        with pytest.raises(NotReachable, match=r"other\.sock"):
            Switch("").get("/v1/switch")
        assert Switch(fake.path).get("/v1/switch")
