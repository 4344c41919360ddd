# SPDX-License-Identifier: Apache-2.0
"""A host whose time of day jumps, both ways, between logins and in the middle of one."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from authenticator import Authenticator, enroll
from host_program import Login, Status, attempt, running
from installed import PERIOD, DataRoot, wait_for_step
from serving import DAEMON, each_way, wait_until_gone
from strained import Strained

pytest_plugins = ["strained_fixtures"]

FAILURES = 5  # config/policy.yaml
HOUR = 3600  # seconds
SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """The verifier's time of day; the device's and the test's stay right."""

    def __init__(self, directory: Path) -> None:
        """Compile it; it goes right."""
        self._offset = directory / "offset"
        library = directory / "clock.so"
        flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
        subprocess.run(["gcc", *flags, SOURCE, "-o", library], check=True, timeout=60)
        self.command = ["env", f"LD_PRELOAD={library}", f"CLOCK_OFFSET={self._offset}"]
        self.set(0)

    def set(self, seconds: int) -> None:
        """Let it be wrong by so many seconds from now on."""
        draft = self._offset.with_suffix(".new")
        draft.write_text(str(seconds), "ascii")
        draft.replace(self._offset)


@pytest.fixture
def clock(strained: Strained) -> Clock:
    """Give the clock of a verifier."""
    return Clock(strained.root.path)


@contextlib.contextmanager
def ticking(strained: Strained, clock: Clock, way: str) -> Iterator[DataRoot]:
    """Have verifiers go by this clock."""
    if way == DAEMON:
        with strained.root.daemon(clock.command):
            yield strained.root
    else:
        strained.strain(*clock.command)
        yield strained.root
        wait_until_gone(strained.root)


def log_in(root: DataRoot, phone: Authenticator, code: str) -> int:
    """Log in once."""
    return attempt(root, phone.user, code).status


@each_way
def test_no_jump_makes_a_code_good_again(strained: Strained, clock: Clock, way: str) -> None:
    """A used code stays used wherever the clock jumps, and the next one counts at the right time.

    A leap second is a jump of one second, into the time step before where one has just begun.
    """
    phone = enroll(strained.root, "bob")
    with ticking(strained, clock, way) as root:
        wait_for_step(20)
        code, following = phone.code(), phone.code(1)
        assert log_in(root, phone, code) == Status.SUCCESS
        for jump in (-HOUR, -PERIOD, -1, PERIOD, HOUR, 0):
            clock.set(jump)
            assert log_in(root, phone, code) == Status.AUTH_ERR, jump
        root.command("unlock", "bob")
        assert log_in(root, phone, following) == Status.SUCCESS
        assert log_in(root, phone, following) == Status.AUTH_ERR


@each_way
def test_clock_set_back_hands_out_no_guesses(strained: Strained, clock: Clock, way: str) -> None:
    """Wrong codes count whatever the clock says, and the lock outlasts a clock that is set back."""
    phone = enroll(strained.root, "bob")
    wrong = phone.wrong_code()
    with ticking(strained, clock, way) as root:
        for number in range(FAILURES):
            clock.set(-HOUR * number)
            assert log_in(root, phone, wrong) == Status.AUTH_ERR
        for jump in (-HOUR * FAILURES, -HOUR, -1, 0):
            clock.set(jump)
            assert log_in(root, phone, phone.code()) == Status.AUTH_ERR
            assert log_in(root, phone, wrong) == Status.AUTH_ERR
    assert root.reasons().count("wrong_code") == FAILURES
    assert len(root.audit("LockUser")) == 1


@each_way
def test_jump_under_a_prompt_ends_no_login(strained: Strained, clock: Clock, way: str) -> None:
    """A clock that jumps a day while somebody types makes no prompt too old, nor one for ever."""
    with ticking(strained, clock, way) as root:
        for jump in (24 * HOUR, -24 * HOUR):
            clock.set(0)
            with running(Login(root, "alice")) as host:
                assert host.question() is not None
                clock.set(jump)
                assert host.finish([strained.code()]).status == Status.SUCCESS
            strained.skip()


def test_clock_of_the_test_is_in_force(strained: Strained, clock: Clock) -> None:
    """A code of an hour ahead is right where the verifier's clock is an hour ahead."""
    phone = enroll(strained.root, "bob")
    with ticking(strained, clock, DAEMON) as root:
        clock.set(HOUR)
        wait_for_step(10)
        assert log_in(root, phone, phone.code(HOUR // PERIOD)) == Status.SUCCESS
