# SPDX-License-Identifier: Apache-2.0
"""Attached keys: what a login asks of them and loads for it, and what an administrator hears."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from doubles import REPOSITORY, make_layout
from ports import KeyHost, Ports

from pam_mfa.errors import SecurityKeyError
from pam_mfa.hardware.attached_keys import AttachedKeys
from pam_mfa.hardware.keys import Credential, Method, Touch, Touched


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyHost]:
    """Make a host with ports."""
    ports = Ports(monkeypatch)
    made = KeyHost(make_layout(tmp_path), ports)
    yield made
    made.store.close()
    ports.close()


def test_one_login_asks_once_what_the_key_is(host: KeyHost) -> None:
    """What a key says of itself when it is looked at is not asked again for the touch."""
    injected = host.ports.plug()
    device = host.enable()
    before = injected.counters["get_info"]
    sight = host.keys.look((Credential(device.credential_id, device.rp_id),), Event())
    touched = host.keys.touch(Touch(sight.holders, bytes(32), Method.NONE), Event())
    assert isinstance(touched, Touched)
    assert before + 1 == injected.counters["get_info"]


def test_key_that_may_not_be_opened_is_told_to_the_administrator(host: KeyHost) -> None:
    """A key without rights for it is no key, and the administrator hears what to do."""
    warned: list[SecurityKeyError] = []
    host.ports.plug()
    host.ports.is_closed = True
    sight = AttachedKeys(warned.append).look((Credential(b"id", "pam-mfa"),), Event())
    assert ((), 1) == (sight.holders, len(sight.problems))
    assert ["Install the udev rule."] == [error.hint for error in warned]


def test_key_that_does_not_answer_is_no_affair_of_the_administrator(host: KeyHost) -> None:
    """A key that was pulled out meanwhile is told to the person alone."""
    warned: list[SecurityKeyError] = []
    host.ports.plug().close()
    sight = AttachedKeys(warned.append).look((Credential(b"id", "pam-mfa"),), Event())
    assert (1, []) == (len(sight.problems), warned)


def test_what_a_login_loads() -> None:
    """A login by FIDO2 does not load what only U2F and attestation need: half of its start."""
    code = "import sys, pam_mfa.hardware.attached_keys; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.check_output(command, cwd=REPOSITORY, text=True).split()
    assert "fido2.ctap2.base" in loaded
    assert [] == [one for one in loaded if one in ("fido2.ctap1", "cryptography.x509")]
