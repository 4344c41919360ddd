# SPDX-License-Identifier: Apache-2.0
"""All that one store keeps, copied into another: devices, used steps, locks, tokens, sessions.

A second run copies what is missing, and nothing where nothing is; so one that was killed is run
again. Whatever says that something was used goes first, and devices last: nobody is in the other
store whose used codes are not. Two stores with the same seal key: no secret is opened, and codes
on paper stay what they are. Two different states of one user are not merged.

``close`` takes the source out of service before what was used meanwhile is brought over: after it
no code that the source took is good at the target.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from pam_mfa.actor import Actor
from pam_mfa.audit import Event, EventName, Outcome, Reason
from pam_mfa.devices import Device, TokenDevice, VirtualDevice, format_devices
from pam_mfa.errors import BrokenSystemError, RefusedError, SealError
from pam_mfa.lockout import LockState
from pam_mfa.mfa_age import Verified
from pam_mfa.store import (
    AdministratorsStore,
    Change,
    Claim,
    DeviceState,
    Inventory,
    StoredToken,
)
from pam_mfa.store.rows import LockRow, Rows, SeedRow, StateRow, rows_of

if TYPE_CHECKING:
    from hashlib import _Hash

_BATCH: Final = 500
_NAMED_MAX: Final = 20  # users that are named in one message
_NOTHING: Final = Change(accepted=False, events=())
_Row = TypeVar("_Row")
_Key = TypeVar("_Key")


class Side(NamedTuple):
    """A store, and what it is called."""

    name: str
    store: AdministratorsStore
    is_closed: bool = False  # out of service since a run that was killed: users are copied


class Stage(NamedTuple):
    """A part of the work, for who shows how far it is."""

    name: str
    total: int


Advance = Callable[[int], None]
Watch = Callable[[Stage], Advance]


@dataclass
class Summary:
    """What a run has done, and what the target has now of the source's."""

    copied: dict[str, int] = field(default_factory=dict)  # by what it is
    held: dict[str, int] = field(default_factory=dict)
    digest: str = ""  # SHA-256 over all that was compared, the same on both sides

    @property
    def is_idle(self) -> bool:
        """Whether there was nothing to copy."""
        return not any(self.copied.values())


class Move:
    """Copies one store into another."""

    def __init__(self, source: Side, target: Side, actor: Actor, watch: Watch) -> None:
        """Take both, who acts, and what shows how far it is."""
        self._source = source.store
        self._target = target.store
        self._names = (source.name, target.name)
        self._is_closed = source.is_closed
        self._actor = actor
        self._watch = watch
        self._summary = Summary()

    def run(self, close: Callable[[], None] | None = None) -> Summary:
        """Copy what is missing and verify that all is there.

        Args:
            close: takes the source out of service, in the end.

        Raises:
            RefusedError: both have a user or token in different states; nothing was copied.
            BrokenSystemError: a store cannot be read or written; run it again.
        """
        with self._source.documents.lock():  # administrators wait; logins do not
            users = {} if self._is_closed else self._digest_users("Reading", self._source)
            missing = self._find_missing(users)
            self._require_mergeable()
            ours = self._copy_rows()
            self._copy_documents(missing)
            copied = self._digest_users("Verifying", self._target, users)
            if close is not None:
                close()
                # Behind every login that was accepted before that; no other one is.
                self._source.commit([Claim("", (), lambda _: _NOTHING)])
                ours = self._copy_rows()
        here, there = hashlib.sha256(), hashlib.sha256()
        for user in sorted(users):
            here.update(users[user])
            there.update(copied.get(user, b""))
        theirs = self._read(self._target)
        self._digest(here, ours, ours.joined(theirs))
        self._digest(there, ours, theirs)
        self._summary.held = {"users": len(users), **ours.counts()}
        self._summary.digest = there.hexdigest()
        if here.digest() != there.digest():
            raise BrokenSystemError(
                f"what {self._names[1]} has is not what {self._names[0]} has",
                hint="Somebody changes devices or takes locks away there meanwhile. Run it again.",
            )
        self._record(is_closed=close is not None)
        return self._summary

    def _find_missing(self, users: Mapping[str, bytes]) -> list[str]:
        """Return the users whom the target lacks.

        Raises:
            RefusedError: it has others' devices under the same name.
        """
        there = self._digest_users("Comparing", self._target, users)
        different = [user for user in users if there.get(user, users[user]) != users[user]]
        if different:
            raise RefusedError(
                f"{len(different)} users have other devices in {self._names[1]} than in "
                f"{self._names[0]}: {_list(different)}; nothing was copied",
                hint="Which ones count is for you to say: take the others away where they are, "
                "with pam-mfa deactivate USER --all --leave-none, and run it again.",
            )
        return [user for user in users if user not in there]

    def _digest_users(
        self, what: str, store: AdministratorsStore, wanted: Collection[str] | None = None
    ) -> dict[str, bytes]:
        """Return a hash of each user's devices, or of those that are wanted, by name.

        Raises:
            BrokenSystemError: a user's devices cannot be read.
        """
        found: dict[str, bytes] = {}
        advance = self._watch(Stage(what, len(store.documents.entries())))
        for (user, problem), devices in store.documents.read_all():
            advance(1)
            if wanted is not None and user not in wanted:
                continue
            if problem:
                raise BrokenSystemError(problem, hint="See: pam-mfa status; pam-mfa doctor")
            plain = tuple(_bare(store, user, device) for device in devices)
            found[user] = hashlib.sha256(format_devices(user, plain)).digest()
        return found

    def _require_mergeable(self) -> None:
        """Make sure that no token and no seed is somebody's here and somebody else's there."""
        ours, theirs = self._read(self._source), self._read(self._target)
        wrong = {
            *(
                owner
                for seed, owner in ours.seeds.items()
                if theirs.seeds.get(seed, owner) != owner
            ),
            *(
                name
                for name, token in ours.tokens.items()
                if theirs.tokens.get(name, token) != token
            ),
        }
        if wrong:
            raise RefusedError(
                f"{len(wrong)} devices or tokens are not the same in {self._names[1]} as in "
                f"{self._names[0]}: {_list(sorted(wrong))}; nothing was copied",
                hint="Deactivate each where it does not belong, and run it again.",
            )

    def _copy_rows(self) -> "_Kept":
        """Copy all that is no device, what was used first; return what the source has."""
        ours, theirs = self._read(self._source), self._read(self._target)
        joined = ours.joined(theirs)
        states = [StateRow(*one) for one in _new(joined.states, theirs.states)]
        self._put("used codes", states, lambda rows, part: rows.raise_states(part))
        locks = [LockRow(*one) for one in _new(joined.locks, theirs.locks)]
        self._put("locks", locks, lambda rows, part: rows.raise_locks(part))
        tokens = [ours.sealed[name] for name, _ in _new(joined.tokens, theirs.tokens)]
        self._put("tokens", tokens, lambda rows, part: rows.add_tokens(part))
        seeds = [SeedRow(*one) for one in _new(joined.seeds, theirs.seeds)]
        self._put("seeds", seeds, lambda rows, part: rows.add_seeds(part))
        sessions = [one for one, _ in _new(joined.sessions, theirs.sessions)]
        self._put("sessions", sessions, lambda rows, part: rows.add_sessions(part))
        return ours

    def _put(
        self, what: str, rows: Sequence[_Row], put: Callable[[Rows, Sequence[_Row]], None]
    ) -> None:
        """Put rows into the target, a batch a transaction."""
        advance = self._watch(Stage(f"Copying {what}", len(rows))) if rows else None
        for batch in _batches(rows):
            claim = Claim("", (), lambda _: _NOTHING, _putting(batch, put))
            self._target.commit([claim])
            if advance is not None:
                advance(len(batch))
        self._summary.copied[what] = self._summary.copied.get(what, 0) + len(rows)

    def _copy_documents(self, users: Sequence[str]) -> None:
        advance = self._watch(Stage("Copying users", len(users))) if users else None
        for batch in _batches(users):
            owners = {user: self._source.documents.read(user) for user in batch}
            with self._target.documents.lock():
                self._target.documents.write_all(owners)
            if advance is not None:
                advance(len(owners))
        self._summary.copied["users"] = len(users)

    @staticmethod
    def _digest(digest: "_Hash", wanted: "_Kept", found: "_Kept") -> None:
        """Add what is found of all that is wanted."""
        for name in _Kept._fields[:-1]:
            rows = getattr(found, name)
            for key in sorted(getattr(wanted, name)):
                digest.update(repr((name, key, rows.get(key))).encode())

    def _record(self, *, is_closed: bool) -> None:
        """Record what was copied and closed; nothing where nothing was."""
        told = [f"{count} {what}" for what, count in self._summary.copied.items() if count]
        if is_closed:
            told.append(f"{self._names[0]} closed")
        if not told:
            return
        event = Event(
            EventName.COPY_STORE, Outcome.SUCCESS, Reason.REQUESTED, time.time(),
            caller_uid=self._actor.uid, caller_pid=self._actor.pid,
            login_uid=self._actor.login_uid,
            detail=f"from {self._names[0]} to {self._names[1]}: {', '.join(told)}",
        )  # fmt: skip
        change = Change(accepted=True, events=(event,))
        self._target.commit([Claim("", (), lambda _: change)])

    @staticmethod
    def _read(store: AdministratorsStore) -> "_Kept":
        return store.read_inventory(lambda inventory: _read_kept(rows_of(inventory), store))


class _Kept(NamedTuple):
    """All that a store keeps besides devices."""

    states: Mapping[str, DeviceState]
    locks: Mapping[str, LockState]
    seeds: Mapping[str, str]
    tokens: Mapping[str, StoredToken]  # with a keyed hash in the place of each sealed text
    sessions: Mapping[Verified, bool]
    sealed: Mapping[str, StoredToken] = {}  # the tokens as they are

    def joined(self, other: "_Kept") -> "_Kept":
        """Return what another store is to have of this one: what was used in either is used."""
        return _Kept(
            {key: join_states(one, other.states.get(key)) for key, one in self.states.items()},
            {key: join_locks(one, other.locks.get(key)) for key, one in self.locks.items()},
            self.seeds,
            self.tokens,
            self.sessions,
        )

    def counts(self) -> dict[str, int]:
        """Return how many there are of each."""
        return {
            "used codes": len(self.states),
            "locks": len(self.locks),
            "tokens": len(self.tokens),
            "seeds": len(self.seeds),
            "sessions": len(self.sessions),
        }


def _bare(store: AdministratorsStore, user: str, device: Device) -> Device:
    """Return a device with a keyed hash of its seed in the place of the sealed text.

    The same seed has another text wherever the key that seals was changed in between.
    """
    if not isinstance(device, VirtualDevice | TokenDevice):
        return device
    with contextlib.suppress(SealError):  # one that does not open is compared as it is
        seed = store.sealer.open(device.sealed_seed, user, device.serial_number)
        return device._replace(sealed_seed=store.sealer.fingerprint(seed))
    return device


def _bare_token(store: AdministratorsStore, token: StoredToken) -> StoredToken:
    with contextlib.suppress(SealError):
        seed = store.sealer.open(token.sealed_seed, "", token.serial_number)
        return token._replace(sealed_seed=store.sealer.fingerprint(seed))
    return token


def join_states(one: DeviceState, other: DeviceState | None) -> DeviceState:
    """Return what is known of a device by two stores; what either has used is used."""
    if other is None:
        return one
    latest = max(one, other, key=lambda state: state.last_used_at)
    step, used_at = max(one.step, other.step), latest.last_used_at
    return DeviceState(step, latest.drift, used_at)


def join_locks(one: LockState, other: LockState | None) -> LockState:
    """Return a user's lock by two stores; neither's guesses are forgiven."""
    if other is None:
        return one
    failures = tuple(sorted({*one.failures, *other.failures}))
    return LockState(failures, max(one.locked_until, other.locked_until))


def _read_kept(rows: Rows, store: AdministratorsStore) -> _Kept:
    tokens = {token.serial_number: token for token in rows.tokens()}
    return _Kept(
        {row.serial_number: row.state for row in rows.states()},
        {row.user_key: row.lock for row in rows.locks() if row.lock != LockState()},
        {row.fingerprint: row.owner for row in rows.seeds()},
        {name: _bare_token(store, token) for name, token in tokens.items()},
        dict.fromkeys(rows.sessions(), True),
        tokens,
    )


def _new(wanted: Mapping[_Key, _Row], found: Mapping[_Key, _Row]) -> list[tuple[_Key, _Row]]:
    """Return what is wanted and not found as it is wanted."""
    return [(key, row) for key, row in wanted.items() if found.get(key) != row]


def _putting(
    batch: Sequence[_Row], put: Callable[[Rows, Sequence[_Row]], None]
) -> Callable[[Inventory], None]:
    return lambda inventory: put(rows_of(inventory), batch)


def _batches(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    for at in range(0, len(rows), _BATCH):
        yield rows[at : at + _BATCH]


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more
