# SPDX-License-Identifier: Apache-2.0
"""Waiting for a person: touches, refusals, keepalives, cancelling, pulling out."""

import errno
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fido2.ctap import STATUS, CtapError
from fido2.ctap2.base import Ctap2

from security_key.conftest import PlugIn
from security_key.host import credential_of, register, sign_in
from security_key.injected import InjectedKey
from security_key.model import Model
from security_key.person import Touch


def test_one_keepalive_at_least(injected: InjectedKey) -> None:
    """However quick the touch, the host is told once that one is needed."""
    seen: list[STATUS] = []
    register(Ctap2(injected.connect()), on_keepalive=seen.append)
    assert [STATUS.UPNEEDED] == seen
    assert 1 == injected.counters["keepalives"]


def test_touch_after_a_while(plug_in: PlugIn) -> None:
    """A slow person is waited for, with keepalives."""
    key = plug_in(Model(keepalive=0.02))
    key.person.delay = 0.2
    began = time.monotonic()
    register(Ctap2(key.connect()))
    assert time.monotonic() - began >= 0.2
    assert key.counters["keepalives"] >= 3


def test_slow_key(plug_in: PlugIn) -> None:
    """A key that works slowly says that it is working, and then that it wants a touch."""
    seen: list[STATUS] = []
    register(Ctap2(plug_in(Model(processing=0.05)).connect()), on_keepalive=seen.append)
    assert [STATUS.PROCESSING, STATUS.UPNEEDED] == seen


def test_refusal(injected: InjectedKey) -> None:
    """A person may refuse."""
    injected.person.touch = Touch.NO
    with pytest.raises(CtapError) as raised:
        register(Ctap2(injected.connect()))
    assert CtapError.ERR.OPERATION_DENIED == raised.value.code
    assert [] == injected.key.memory.credentials


def test_nobody_there(plug_in: PlugIn) -> None:
    """A key gives up in its own time."""
    key = plug_in(Model(touch_timeout=0.1))
    key.person.touch = Touch.WAIT
    with pytest.raises(CtapError) as raised:
        register(Ctap2(key.connect()))
    assert CtapError.ERR.USER_ACTION_TIMEOUT == raised.value.code


def test_touch_when_told(injected: InjectedKey) -> None:
    """A person who waits touches when told to, while the command is under way."""
    injected.person.touch = Touch.WAIT

    def tell(status: STATUS) -> None:
        assert STATUS.UPNEEDED == status
        injected.person.touch = Touch.YES

    register(Ctap2(injected.connect()), on_keepalive=tell)
    assert 1 == injected.counters["touches"]


def test_one_touch(plug_in: PlugIn) -> None:
    """A single touch is good for one command; the next one waits."""
    key = plug_in(Model(touch_timeout=0.1))
    key.person.touch = Touch.ONCE
    ctap = Ctap2(key.connect())
    credential_id = credential_of(register(ctap)).credential_id
    with pytest.raises(CtapError) as raised:
        sign_in(ctap, credential_id)
    assert CtapError.ERR.USER_ACTION_TIMEOUT == raised.value.code
    assert (1, Touch.WAIT) == (key.counters["touches"], key.person.touch)


def test_cancel(plug_in: PlugIn) -> None:
    """An event ends the wait, and the key is ready for the next command."""
    key = plug_in(Model(keepalive=0.02))
    key.person.touch = Touch.WAIT
    ctap, event = Ctap2(key.connect()), threading.Event()
    with pytest.raises(CtapError) as raised:
        register(ctap, event=event, on_keepalive=lambda _: event.set())
    assert CtapError.ERR.KEEPALIVE_CANCEL == raised.value.code
    assert key.counters["cancels"] >= 1
    key.person.touch = Touch.YES
    register(ctap)


def test_selection(injected: InjectedKey) -> None:
    """A key is chosen among several by a touch."""
    Ctap2(injected.connect()).selection()
    assert 1 == injected.counters["touches"]


def test_pulled_out_while_waiting(injected: InjectedKey) -> None:
    """Pulling the key out ends the wait with the error that hidraw gives; it can come back."""
    injected.person.touch = Touch.WAIT
    ctap, waiting = Ctap2(injected.connect()), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(register, ctap, on_keepalive=lambda _: waiting.set())
        assert waiting.wait(10)
        injected.unplug()
        with pytest.raises(OSError, match="unplugged") as raised:
            future.result(10)
    assert errno.EIO == raised.value.errno
    with pytest.raises(OSError, match="not plugged in"):
        injected.connect()
    injected.plug()
    injected.person.touch = Touch.YES
    register(Ctap2(injected.connect()))
