# SPDX-License-Identifier: Apache-2.0
"""A state that a disk has damaged at 200 places, as a login meets it and the repair mends it.

In this process, by the store and the attempt that verifiers use; tests/pam/test_examination.py has
the installed command.
"""

import contextlib
import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from driven_attempt import drive

from pam_mfa import oath
from pam_mfa.audit import Reason
from pam_mfa.doctor import database
from pam_mfa.doctor.rebuilding import rebuild
from pam_mfa.errors import StateError
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.policy import Policy
from pam_mfa.secret import Secret
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.verification import Caller, attempt
from pam_mfa.wire import Phase, Request

PLACES = 200
SEED = 20261124
USERS = 16
NOW = 1_700_000_045.0
STEP = oath.time_step(NOW, 30)
AFTER_REPAIR = 13  # time steps
POLICY = Policy(prompts=1)
ROOT = Caller(pid=4321, uid=0, may_verify=True)


class Host(NamedTuple):
    """One host, as it was when the power was cut."""

    layout: Layout
    whole: Path  # a copy of everything

    def code(self, user: int, step: int) -> str:
        """Return a user's code."""
        (code,) = oath.codes(seed_of(user), oath.Parameters(), range(step, step + 1))
        return code

    def log_in(self, user: int, step: int) -> Reason:
        """Log in by the code of a time step, in that step."""
        now = NOW + (step - STEP) * 30
        store = EmbeddedStore(self.layout)
        with contextlib.closing(store):
            running = attempt(request_of(user), ROOT, POLICY, store, lambda: now)
            return drive(running, store, self.code(user, step))


def seed_of(user: int) -> Secret:
    """Return a seed of its own for each user."""
    return Secret(b"a seed of the user" + user.to_bytes(2, "big"))


def request_of(user: int) -> Request:
    """Return a request of a login."""
    return Request(nonce=bytes(16), phase=Phase.AUTH, user=f"user{user}", service="sshd", uid=1000)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory: thousands of commits, of which none is to outlive a power cut."""
    with tempfile.TemporaryDirectory(prefix="pam-mfa-test-", dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def host(place: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host on which everybody has used a code; the last of that is in state.db-wal alone."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(database, "drop_privileges", lambda: None)
    layout = Layout(place / "root")
    for directory in (layout.policy.parent, layout.devices, layout.audit_log.parent):
        directory.mkdir(parents=True)
    layout.library.chmod(0o700)
    layout.policy.write_text("version: 1\n", "ascii")
    host = Host(layout, place / "whole")
    store = EmbeddedStore(layout)
    lifecycle = Lifecycle(store, lambda: NOW - 60, Actor(0, 1, None))
    for user in range(USERS):
        pending = lifecycle.begin_virtual(f"user{user}", "phone", seed=seed_of(user))
        lifecycle.enable(pending, host.code(user, STEP - 3), host.code(user, STEP - 2))
    store.close()
    with contextlib.closing(sqlite3.connect(layout.state, isolation_level=None)) as held:
        held.execute("SELECT count(*) FROM used_step").fetchone()
        for user in range(USERS):
            assert host.log_in(user, STEP) is Reason.CODE_ACCEPTED
        shutil.copytree(layout.root, host.whole)
    return host


def damages(host: Host) -> Iterator[tuple[str, bytes]]:
    """Return one damaged file after the other, by name; most damage hits what is in use."""
    dice = random.Random(SEED)  # noqa: S311 - to be the same every time
    library = host.whole / host.layout.library.relative_to(host.layout.root)
    files = {name: (library / name).read_bytes() for name in ("state.db", "state.db-wal")}
    for number in range(PLACES):
        name = ("state.db", "state.db-wal")[number % 2]
        data = bytearray(files[name])
        in_use = [at for at, value in enumerate(data) if value] if number % 4 < 3 else []
        head = 100 if number % 10 == 0 else len(data)  # the file's own head now and then
        at = dice.randrange(head) if head == 100 or not in_use else dice.choice(in_use)
        data[at] ^= dice.randrange(1, 256)
        yield name, bytes(data)


def test_damage_at_200_places(host: Host) -> None:
    """Damage is refused with the command that repairs, or forgets nothing; repaired, it is over."""
    said: Counter[str] = Counter()
    for number, (name, data) in enumerate(damages(host)):
        shutil.rmtree(host.layout.root)
        shutil.copytree(host.whole, host.layout.root)
        path = host.layout.library / name
        path.write_bytes(data)
        told = {offer_again(host, user) for user in range(USERS)}
        said.update({f"{name} {one}" for one in told})
        assert told <= {"used", "refused"}
        if told != {"used"}:
            assert database.find_damage(host.layout.state) or database.find_loss(host.layout)
            rebuild(host.layout, NOW)
            assert {offer_again(host, user) for user in range(USERS)} == {"used"}
            later = host.log_in(number % USERS, STEP + AFTER_REPAIR)
            assert later is Reason.CODE_ACCEPTED
            assert not database.find_damage(host.layout.state)
            assert not database.find_loss(host.layout)
    assert said["state.db refused"] > PLACES / 20
    assert said["state.db-wal refused"] > PLACES / 5


def offer_again(host: Host, user: int) -> str:
    """Offer a used code again; return whether it is used, or refused with what repairs that."""
    try:
        reason = host.log_in(user, STEP)
    except StateError as error:
        return "refused" if "pam-mfa doctor --repair" in error.hint else f"refused: {error}"
    assert reason in (Reason.CODE_REUSED, Reason.DEVICES_UNREADABLE), reason
    return "used"
