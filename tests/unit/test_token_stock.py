# SPDX-License-Identifier: Apache-2.0
"""The stock of tokens: an import may be cut off and repeated, and nothing clashes unnoticed."""

import json
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from doubles import STEP, Clock, code_of, make_layout

from pam_mfa.errors import StateError
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.secret import Secret
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.token_stock import BATCH, BadDeliveryError, Intake, TokenStock
from pam_mfa.tokens import BadEntry, Delivery, Token

ACTOR = Actor(uid=0, pid=4321, login_uid=1000)
CUT = BadEntry(9, "A-9", "its seed is not hex, or is cut")


class Place(NamedTuple):
    """A store on a disk, and what may be done to it."""

    layout: Layout
    store: EmbeddedStore
    stock: TokenStock
    lifecycle: Lifecycle

    def serial_numbers(self) -> list[str]:
        """Return the serial numbers in stock."""
        return [token.serial_number for token in self.stock.list_tokens()]

    def records(self) -> list[dict[str, Any]]:
        """Return the records of imports, oldest first."""
        lines = self.layout.audit_log.read_text("ascii").splitlines()
        records: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [one for one in records if one["event_name"] == "ImportDevices"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Make an empty store of a user without rights."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    layout = make_layout(tmp_path)
    store = EmbeddedStore(layout)
    clock = Clock()
    yield Place(layout, store, TokenStock(store, clock, ACTOR), Lifecycle(store, clock, ACTOR))
    store.close()


def seed_of(number: int) -> Secret:
    """Return a seed of its own for each number."""
    return Secret(b"seed of a token " + number.to_bytes(4, "big"))


def token(number: int, **fields: Any) -> Token:  # noqa: ANN401 - any field
    """Return a token as a file describes it."""
    usual = Token(f"A-{number}", "Acme", Parameters(), 0, seed_of(number), number + 2)
    return usual._replace(**fields)


def deliver(tokens: Sequence[Token], *bad: BadEntry) -> Delivery:
    """Return what a file of these tokens says."""
    return Delivery("a file", tuple(tokens), tuple(bad))


def enable_phone(place: Place, seed: Secret) -> None:
    """Enable Alice's phone with a seed."""
    pending = place.lifecycle.begin_virtual("alice", seed=seed)
    place.lifecycle.enable(pending, code_of(seed, STEP - 1), code_of(seed, STEP))


def bytes_on_disk(place: Place) -> bytes:
    """Return everything that the store has written, logs of SQLite included."""
    place.store.close()
    return b"".join(path.read_bytes() for path in place.layout.root.rglob("*") if path.is_file())


def test_import(place: Place) -> None:
    """Every token of a file is in stock afterwards with all its parameters, and free."""
    event = Parameters(Algorithm.SHA512, 8, 0)
    tokens = [token(1), token(2, parameters=event, counter=77, manufacturer="")]
    assert place.stock.take_in(deliver(tokens), "t.csv") == Intake(2, 0, ())
    first, second = place.stock.list_tokens()
    assert (first.serial_number, first.manufacturer, first.parameters, first.user) == (
        "A-1", "Acme", Parameters(), None,
    )  # fmt: skip
    assert (second.parameters, second.counter, second.manufacturer) == (event, 77, "")


def test_record(place: Place) -> None:
    """An import is one record: who, how many, from which file."""
    place.stock.take_in(deliver([token(1), token(2)]), "tokens 2024.csv")
    (record,) = place.records()
    expected = {"reason": "requested", "caller_uid": 0, "login_uid": 1000,
                "detail": "2 tokens from tokens 2024.csv"}  # fmt: skip
    assert expected.items() <= record.items()


def test_idempotent(place: Place) -> None:
    """The same file again adds nothing and changes nothing."""
    delivery = deliver([token(number) for number in range(5)])
    place.stock.take_in(delivery, "t.csv")
    before = place.stock.list_tokens()
    assert place.stock.take_in(delivery, "t.csv") == Intake(0, 5, ())
    assert place.stock.list_tokens() == before


def test_longer_file(place: Place) -> None:
    """Of a file that grew, what is new is added."""
    place.stock.take_in(deliver([token(1)]), "t.csv")
    assert place.stock.take_in(deliver([token(0), token(1), token(2)]), "t.csv") == Intake(2, 1, ())
    assert place.serial_numbers() == ["A-0", "A-1", "A-2"]


def test_given_token_stays_given(place: Place) -> None:
    """An import does not take a token away from the user who has it."""
    place.stock.take_in(deliver([token(1)]), "t.csv")
    pending = place.lifecycle.begin_token("alice", "A-1")
    place.lifecycle.enable(pending, code_of(seed_of(1), STEP - 1), code_of(seed_of(1), STEP))
    assert place.stock.take_in(deliver([token(1)]), "t.csv") == Intake(0, 1, ())
    assert [one.user for one in place.stock.list_tokens()] == ["alice"]


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_interrupted(place: Place, batches: int) -> None:
    """An import that is cut off between batches is complete when it is taken again."""
    delivery = deliver([token(number) for number in range(2 * BATCH + 10)])
    seen: list[int] = []

    def cut_off(count: int) -> None:
        seen.append(count)
        if len(seen) == batches:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.stock.take_in(delivery, "t.csv", progress=cut_off)
    there = min(batches * BATCH, len(delivery.tokens))
    assert (len(place.serial_numbers()), place.layout.audit_log.exists()) == (there, False)
    assert place.stock.take_in(delivery, "t.csv") == Intake(2010 - there, there, ())
    assert sorted(place.serial_numbers()) == sorted(one.serial_number for one in delivery.tokens)


def test_progress(place: Place) -> None:
    """Each batch is told, and together they are all tokens."""
    told: list[int] = []
    delivery = deliver([token(number) for number in range(BATCH + 1)])
    place.stock.take_in(delivery, "t.csv", progress=told.append)
    assert told == [BATCH, 1]


def clash_in_file(place: Place) -> Delivery:
    """Return a file in which two tokens have one seed."""
    del place
    return deliver([token(1), token(2), token(3, seed=seed_of(1))])


def clash_with_phone(place: Place) -> Delivery:
    """Return a file with a token whose seed is a phone's."""
    enable_phone(place, seed_of(3))
    return deliver([token(1), token(2), token(3)])


def clash_with_stock(place: Place) -> Delivery:
    """Return a file with a token that is in stock with another seed."""
    place.stock.take_in(deliver([token(3, seed=seed_of(33))]), "old.csv")
    return deliver([token(1), token(2), token(3)])


def clash_with_other_token(place: Place) -> Delivery:
    """Return a file with a token whose seed another one in stock has."""
    place.stock.take_in(deliver([token(33, seed=seed_of(3))]), "old.csv")
    return deliver([token(1), token(2), token(3)])


CLASHES = pytest.mark.parametrize(
    ("make", "reason"),
    [
        (clash_in_file, "its seed is another device's already"),
        (clash_with_phone, "its seed is another device's already"),
        (clash_with_stock, "it is in stock with another seed"),
        (clash_with_other_token, "its seed is another device's already"),
    ],
)


@CLASHES
def test_clash_refuses_everything(place: Place, make: Any, reason: str) -> None:  # noqa: ANN401
    """A clash refuses the whole file, names the line, and leaves stock and log as they were."""
    delivery: Delivery = make(place)
    before, records = place.serial_numbers(), place.layout.audit_log.exists() and place.records()
    with pytest.raises(BadDeliveryError, match=r"t\.csv has 1 bad entries") as caught:
        place.stock.take_in(delivery, "t.csv")
    assert caught.value.entries == (BadEntry(5, "A-3", reason),)
    assert "--skip-bad" in caught.value.hint
    assert place.serial_numbers() == before
    assert (place.layout.audit_log.exists() and place.records()) == records


@CLASHES
def test_clash_is_skipped(place: Place, make: Any, reason: str) -> None:  # noqa: ANN401
    """Where bad entries may be skipped, the clash is left out and the others are taken."""
    delivery: Delivery = make(place)
    before = place.serial_numbers()
    intake = place.stock.take_in(delivery, "t.csv", skip_bad=True)
    assert intake == Intake(2, 0, (BadEntry(5, "A-3", reason),))
    assert place.serial_numbers() == sorted([*before, "A-1", "A-2"])


def test_skipped_clash_keeps_the_old_seed(place: Place) -> None:
    """A token in stock keeps its seed, whatever a later file says."""
    delivery = clash_with_stock(place)
    place.stock.take_in(delivery, "t.csv", skip_bad=True)
    assert place.lifecycle.begin_token("alice", "A-3").seed == seed_of(33)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_bad_entries(place: Place, skip_bad: bool) -> None:  # noqa: FBT001 - a table's column
    """A file's bad entries refuse it whole, unless they may be skipped."""
    delivery = deliver([token(1)], CUT)
    if skip_bad:
        assert place.stock.take_in(delivery, "t.csv", skip_bad=True) == Intake(1, 0, (CUT,))
    else:
        with pytest.raises(BadDeliveryError) as caught:
            place.stock.take_in(delivery, "t.csv")
        assert caught.value.entries == (CUT,)
    assert place.serial_numbers() == (["A-1"] if skip_bad else [])


def test_list_shows_owners(place: Place) -> None:
    """The list is in the order of serial numbers and says which are free and who has the others."""
    place.stock.take_in(deliver([token(number) for number in (3, 1, 2)]), "t.csv")
    pending = place.lifecycle.begin_token("alice", "A-2")
    place.lifecycle.enable(pending, code_of(seed_of(2), STEP - 1), code_of(seed_of(2), STEP))
    found = [(one.serial_number, one.user) for one in place.stock.list_tokens()]
    assert found == [("A-1", None), ("A-2", "alice"), ("A-3", None)]


def test_empty_list(place: Place) -> None:
    """A new host has no token."""
    assert place.stock.list_tokens() == []


def test_seeds_are_sealed(place: Place) -> None:
    """No seed can be read from what is written, in bytes, hex or as SQLite would keep it."""
    place.stock.take_in(deliver([token(number) for number in range(50)]), "t.csv")
    assert place.lifecycle.begin_token("alice", "A-7").seed == seed_of(7)
    written = bytes_on_disk(place)
    for number in range(50):
        raw = seed_of(number).reveal()
        for form in (raw, raw.hex().encode(), raw.hex().upper().encode()):
            assert form not in written
    assert b"seed of a token" not in written


def test_state_is_nobody_else_s(place: Place) -> None:
    """The database of the stock can be read by its owner only."""
    place.stock.take_in(deliver([token(1)]), "t.csv")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in
             place.layout.library.glob("state.db*")}  # fmt: skip
    assert set(modes.values()) == {0o600}


def test_sealed_seed_of_another_token(place: Place) -> None:
    """A sealed seed that is copied to another token's row does not open there."""
    place.stock.take_in(deliver([token(1), token(2)]), "t.csv")
    one, two = place.stock.list_tokens()
    with pytest.raises(Exception, match="A-2 does not open"):
        place.store.sealer.open(one.sealed_seed, "", "A-2")
    assert one.sealed_seed != two.sealed_seed


def test_unwritable_state(place: Place) -> None:
    """Where the state cannot be used, nothing is said to be imported."""
    place.layout.state.mkdir()
    with pytest.raises(StateError):
        place.stock.take_in(deliver([token(1)]), "t.csv")


def test_phone_with_a_token_s_seed(place: Place) -> None:
    """A phone whose seed is in stock already is refused, so the two cannot be confused."""
    place.stock.take_in(deliver([token(1)]), "t.csv")
    with pytest.raises(Exception, match="this secret is another device's already"):
        enable_phone(place, seed_of(1))
    assert place.lifecycle.list_devices("alice") == ()
