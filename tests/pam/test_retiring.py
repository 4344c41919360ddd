# SPDX-License-Identifier: Apache-2.0
"""A daemon that a newer one is to replace (SIGHUP): whoever is at a prompt is served to the end."""

import pwd
import signal

import pytest
from authenticator import enroll
from host_program import Login, Status, attempt, running
from installed import PATIENCE, DataRoot

NOBODY = pwd.getpwnam("nobody")


@pytest.mark.parametrize("uid", [None, NOBODY.pw_uid], ids=["root", "nobody"])
def test_open_prompt_is_served_to_the_end(root: DataRoot, uid: int | None) -> None:
    """A prompt that is open when the daemon retires ends well, and the daemon after it."""
    device = enroll(root, NOBODY.pw_name)
    with root.daemon() as daemon:
        attempt(root, NOBODY.pw_name, None)  # the daemon has more than begun
        with running(Login(root, NOBODY.pw_name, uid=uid)) as host:
            assert host.question() == "Verification code: "
            daemon.send_signal(signal.SIGHUP)
            assert host.finish([device.code()]).status == Status.SUCCESS
        assert daemon.wait(PATIENCE) == 0


def test_whoever_comes_meanwhile_is_served(root: DataRoot) -> None:
    """A login does not wait for the prompt that keeps a daemon from retiring."""
    enroll(root, "alice")
    bob = enroll(root, "bob")
    with root.daemon() as daemon, running(Login(root, "alice")) as host:
        assert host.question() == "Verification code: "
        daemon.send_signal(signal.SIGHUP)
        assert attempt(root, "bob", bob.code()).status == Status.SUCCESS
        assert daemon.poll() is None
        assert host.finish([None]).status == Status.AUTH_ERR
        assert daemon.wait(PATIENCE) == 0


def test_idle_daemon_ends_at_once(root: DataRoot) -> None:
    """With nobody at a prompt there is nothing to wait for."""
    enroll(root, "alice")
    with root.daemon() as daemon:
        attempt(root, "alice", None)  # the daemon has more than begun
        daemon.send_signal(signal.SIGHUP)
        assert daemon.wait(PATIENCE) == 0


def test_stop_is_stronger(root: DataRoot) -> None:
    """A daemon that is told to stop while it retires waits no two minutes."""
    enroll(root, "alice")
    with root.daemon() as daemon, running(Login(root, "alice")) as host:
        assert host.question() == "Verification code: "
        daemon.send_signal(signal.SIGHUP)
        daemon.terminate()
        assert daemon.wait(PATIENCE) == 0
        assert host.finish([None]).status != Status.SUCCESS
