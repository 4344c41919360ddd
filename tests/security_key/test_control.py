# SPDX-License-Identifier: Apache-2.0
"""Commanding a key through its socket."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2

from security_key.control import Control, tell
from security_key.host import register, verify_attestation
from security_key.injected import InjectedKey
from security_key.key import load_key

Tell = Callable[..., Any]


@pytest.fixture
def words(injected: InjectedKey, tmp_path: Path) -> Tell:
    """What says words to the key."""
    path, state = tmp_path / "control", tmp_path / "key.json"
    control = Control(injected.server, path)

    def listen() -> None:
        injected.server.sides.append(control)
        injected.server.state = state

    injected.server.submit(listen)
    return lambda *said: tell(path, *said)


def test_touch(injected: InjectedKey, words: Tell) -> None:
    """The person is told what to do."""
    assert "no" == words("touch", "no")["touch"]
    with pytest.raises(CtapError):
        register(Ctap2(injected.connect()))
    words("touch", "yes", "0.25")
    assert 0.25 == injected.person.delay


def test_finger(injected: InjectedKey, words: Tell) -> None:
    """The finger is the right one, or is not."""
    assert "fail" == words("finger", "fail")["finger"]
    assert not injected.person.is_finger_right
    assert "ok" == words("finger", "ok")["finger"]


def test_fault(injected: InjectedKey, words: Tell) -> None:
    """A fault is switched on for a command, and off."""
    ctap = Ctap2(injected.connect())
    assert ["empty"] == words("fault", "empty", "on", "60", "get_info")["faults"]
    with pytest.raises(IndexError):
        ctap.get_info()
    assert [] == words("fault", "empty", "off")["faults"]
    words("fault", "hang", "on")
    assert [] == words("fault", "all", "off")["faults"]
    assert "BASIC" == verify_attestation(register(ctap))


def test_plug(injected: InjectedKey, words: Tell) -> None:
    """The key is pulled out and plugged in."""
    assert words("unplug")["is_plugged"] is False
    with pytest.raises(OSError, match="not plugged in"):
        injected.connect()
    assert words("plug")["is_plugged"] is True
    injected.connect()


def test_status(injected: InjectedKey, words: Tell) -> None:
    """What was counted is told, and the state file is as new as the answer before."""
    register(Ctap2(injected.connect()))
    status = words("status")
    assert (1, 1) == (status["credentials"], status["counters"]["make_credential"])
    path = injected.server.state
    assert path is not None
    assert 1 == len(load_key(path).memory.credentials)


@pytest.mark.parametrize(
    "said",
    [(), ("dance",), ("touch",), ("touch", "maybe"), ("fault", "hunger", "on"),
     ("fault", "hang", "perhaps"), ("fault",), ("finger", "thumb")],
)  # fmt: skip
def test_no_such_word(words: Tell, said: tuple[str, ...]) -> None:
    """What the key does not understand it says, and goes on."""
    answer = words(*said)
    assert answer["ok"] is False
    assert answer["error"]
    assert words("status")["ok"] is True


def test_several_lines(injected: InjectedKey, words: Tell) -> None:
    """One connection may say many lines; one that is no JSON does not end it."""
    words("status")
    (control,) = injected.server.sides
    assert isinstance(control, Control)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(control.path))
        connection.sendall(b'["touch", "wait"]\n{nonsense\n["status"]\n')
        with connection.makefile("rb") as lines:
            answers = [json.loads(lines.readline())["ok"] for _ in range(3)]
    assert [True, False, True] == answers


def test_quit(injected: InjectedKey, words: Tell, tmp_path: Path) -> None:
    """A key that is told to quit answers and takes its socket away."""
    assert words("quit")["ok"] is True
    injected.thread.join(10)
    assert not injected.thread.is_alive()
    assert ["key.json"] == [path.name for path in tmp_path.iterdir()]
