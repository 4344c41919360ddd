# SPDX-License-Identifier: Apache-2.0
"""Bits of the state that a disk turns: it is noticed, or it changes nothing."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from host_program import Status, attempt
from serving import wait_until_gone
from strained import Strained

from pam_mfa.errors import StateError
from pam_mfa.lockout import LockState
from pam_mfa.store import Change, Claim, Known
from pam_mfa.store.log_state import LogState
from pam_mfa.store.state import Outbox, Settled, State

pytest_plugins = ["strained_fixtures"]

PLACES = 1000
PLACES_OF_LOGINS = 16
SEED = 20261124
USERS = 40  # more than one page of each table
USED = 59_000_000
LOCK = LockState((1.0, 2.0), 1.7e9)


def damaged(whole: bytes, places: int, seed: int = SEED) -> Iterator[bytes]:
    """Return copies with one byte changed; every second place is one that is in use."""
    chance = random.Random(seed)  # noqa: S311 - to be the same every time
    in_use = [at for at, value in enumerate(whole) if value]
    for number in range(places):
        at = chance.choice(in_use) if number % 2 else chance.randrange(len(whole))
        changed = bytearray(whole)
        changed[at] ^= chance.randrange(1, 256)
        yield bytes(changed)


def settle(_outbox: Outbox, log: LogState) -> Settled:
    """Take no record out of the outbox."""
    return Settled(0, log)


def write_state(path: Path) -> bytes:
    """Write a state in which every user has used a code and has failed; return its bytes."""
    state = State(path, lambda _event, _head: b"")
    names = [f"user{number}" for number in range(USERS)]
    state.commit([claim(name, LOCK) for name in names], settle)
    state.close()
    return path.read_bytes()


def claim(name: str, lock: LockState | None = None) -> Claim:
    """Claim a code of a user's device that is good once."""
    serial_number = f"virtual/{name}/phone"

    def judge(known: Known) -> Change:
        if lock is not None:
            return Change(accepted=True, events=(), lock=lock, used_steps={serial_number: USED})
        assert known.used_steps.get(serial_number, -1) >= USED, "a used code is good again"
        assert known.lock == LOCK, "wrong codes are forgotten"
        return Change(accepted=False, events=())

    return Claim(name, (serial_number,), judge)


def offer_again(path: Path, damage: bytes) -> str:
    """Offer every user's used code again to a damaged state; return what is said first."""
    for leftover in path.parent.iterdir():
        leftover.unlink()
    path.write_bytes(damage)
    path.chmod(0o600)
    state = State(path, lambda _event, _head: b"")
    try:
        for number in range(USERS):
            state.commit([claim(f"user{number}")], settle)
    except StateError as error:
        return error.hint
    finally:
        state.close()
    return ""


def test_damage_makes_no_code_good_twice(tmp_path: Path) -> None:
    """Whatever byte of the state is another, it is seen, or no code and no failure is forgotten."""
    path = tmp_path / "state.db"
    said = Counter(offer_again(path, damage) for damage in damaged(write_state(path), PLACES))
    told = [hint for hint in said if "pam-mfa doctor --repair" in hint]
    assert sum(said[hint] for hint in told) > PLACES / 4
    assert said[""] > 0


def test_damage_is_said_with_what_mends_it(tmp_path: Path) -> None:
    """A state that is no database names the command that repairs it."""
    path = tmp_path / "state.db"
    whole = write_state(path)
    assert "pam-mfa doctor --repair" in offer_again(path, b"x" * 100 + whole[100:])


def test_lost_page_of_a_table(tmp_path: Path) -> None:
    """A page that reads as zeros is seen, whichever of the two copies it held."""
    path = tmp_path / "state.db"
    whole = write_state(path)
    pages = [at for at in range(4096, len(whole), 4096) if whole[at] in (2, 10)]
    assert len(pages) >= 4
    for at in pages:
        lost = whole[:at] + bytes(4096) + whole[at + 4096 :]
        offer_again(path, lost)


def test_login_on_a_damaged_state(strained: Strained) -> None:
    """A used code lets in on no damaged state; mended, the next code does."""
    assert strained.log_in().status == Status.SUCCESS
    wait_until_gone(strained.root)
    strained.root.holds_schema = False  # a record that was on its way may be damaged, too
    path = strained.root.library / "state.db"
    whole, records = path.read_bytes(), strained.root.audit_log.read_bytes()
    for damage in damaged(whole, PLACES_OF_LOGINS):
        path.write_bytes(damage)
        status = attempt(strained.root, "alice", strained.code()).status
        assert status in (Status.AUTH_ERR, Status.AUTHINFO_UNAVAIL)
        wait_until_gone(strained.root)
        for leftover in strained.root.library.glob("state.db-*"):
            leftover.unlink()
        strained.root.audit_log.write_bytes(records)  # beside a log that goes further none counts
    path.write_bytes(whole)
    assert attempt(strained.root, "alice", strained.code(1)).status == Status.SUCCESS
