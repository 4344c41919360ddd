# SPDX-License-Identifier: Apache-2.0
"""What an administrator changes while somebody is at the prompt."""

from collections.abc import Iterator

import pytest
from authenticator import enroll
from host_program import Host, Login, Status
from installed import DataRoot
from serving import each_way, serving

SERIAL_NUMBER = "virtual/alice/phone"


@pytest.fixture
def host(root: DataRoot) -> Iterator[Host]:
    """A host program for alice."""
    started = Host(Login(root, "alice"))
    yield started
    started.kill()


@each_way
@pytest.mark.parametrize("others", [False, True], ids=["the only device", "one of two"])
def test_deactivated_at_the_prompt(root: DataRoot, host: Host, way: str, *, others: bool) -> None:
    """A phone that is deactivated while its finder is at the prompt lets nobody in any more."""
    phone = enroll(root, "alice")
    if others:
        root.enroll("alice", "tablet")
    with serving(root, way):
        host.begin()
        assert host.question() is not None
        root.command("deactivate", "alice", SERIAL_NUMBER, "--leave-none")
        host.answer(phone.code())
        assert host.finish([phone.code(1)]).status == Status.AUTH_ERR
    assert root.reasons()[:2] == ["devices_changed", "devices_changed"]


@each_way
def test_another_device_at_the_prompt(root: DataRoot, host: Host, way: str) -> None:
    """A device that is enabled while its user is at the prompt keeps nobody out."""
    phone = enroll(root, "alice")
    with serving(root, way):
        host.begin()
        assert host.question() is not None
        root.enroll("alice", "tablet")
        host.answer(phone.code())
        assert host.finish().status == Status.SUCCESS
    assert root.reasons() == ["code_accepted"]
