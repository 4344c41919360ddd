# SPDX-License-Identifier: Apache-2.0
"""Secrets sealed anew by the key that seals now, and the count of what is sealed by which key.

Owns which places hold sealed texts: device files, the tokens in stock, the key that signs the
audit log. Each is replaced whole or not at all, and may be done again: a run that was killed goes
on where it stopped. Whoever seals and stores does it under the lock of the device files, so behind
a key that has just begun to seal nothing new is sealed by the one before. No login loads it.
"""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from pam_mfa.devices import Device, TokenDevice, VirtualDevice
from pam_mfa.errors import DocumentError, NoRightError, SealError, UnsafeFileError
from pam_mfa.store import AdministratorsStore, Change, Claim, Entry, Inventory, StoredToken
from pam_mfa.store.files import read_file, remove_drafts, replace_file
from pam_mfa.store.layout import Layout
from pam_mfa.store.seal import SIGNING_KEY, SIGNING_KEY_SIZE_MAX, Sealer

_Item = TypeVar("_Item")
_BATCH = 100  # of files, or of tokens, while others wait for their lock


class Holder(NamedTuple):
    """Something whose secret is sealed."""

    user: str  # "": nobody's: a token in stock, or the key that signs the audit log
    serial_number: str

    @property
    def words(self) -> str:
        """What it is called in messages."""
        return f"{self.user} {self.serial_number}".strip()


class Census(NamedTuple):
    """What is sealed by which key."""

    counts: dict[str, Counter[str]]  # by the key's name: how many "devices", "tokens", "keys"
    holders: dict[str, list[Holder]]  # by the name of a key that does not seal: whose
    unread: tuple[str, ...]  # sentences: what could not be looked at


def take_census(store: AdministratorsStore, layout: Layout, listed_max: int = 20) -> Census:
    """Count what is sealed by which key; nothing is opened.

    Args:
        store: the store.
        layout: where it is.
        listed_max: so many holders are named for each key that does not seal.

    Raises:
        BrokenSystemError: the store cannot be read.
    """
    sealer = store.sealer
    counts: dict[str, Counter[str]] = {}
    holders: dict[str, list[Holder]] = {}
    unread: list[str] = []

    def count(kind: str, holder: Holder, sealed: str) -> None:
        name = sealer.key_of(sealed)
        counts.setdefault(name, Counter())[kind] += 1
        if name != sealer.ring.used:
            named = holders.setdefault(name, [])
            if len(named) < listed_max:
                named.append(holder)

    for entry in store.documents.entries():
        try:
            for device in _read(store, entry):
                if isinstance(device, VirtualDevice | TokenDevice):
                    holder = Holder(entry.user, device.serial_number)
                    count("devices", holder, device.sealed_seed)
        except (UnsafeFileError, DocumentError) as error:
            unread.append(str(error))
    for token in _list_tokens(store):
        count("tokens", Holder("", token.serial_number), token.sealed_seed)
    sealed = _read_signing_key(layout)
    if sealed:
        count("keys", Holder("", str(layout.signing_key)), sealed)
    return Census(counts, holders, tuple(unread))


def _read(store: AdministratorsStore, entry: Entry) -> tuple[Device, ...]:
    """Return an entry's devices.

    Raises:
        UnsafeFileError: it cannot be told whose it is, or it is not safe to read.
        DocumentError: its content is wrong.
    """
    if entry.problem:
        raise UnsafeFileError(entry.problem)
    return store.documents.read(entry.user)


def _list_tokens(store: AdministratorsStore) -> list[StoredToken]:
    """Return the tokens in stock; none on a host of a fleet that may not see them.

    Such a host opens none, so it needs no key for them; whoever gives them out sees them.
    """
    try:
        return store.read_inventory(lambda stock: list(stock.list_tokens()))
    except NoRightError:
        return []


def _read_signing_key(layout: Layout) -> str:
    """Return the sealed text of the key that signs the audit log; "" where there is none.

    Raises:
        UnsafeFileError: it is not safe to read.
    """
    owners = {os.geteuid()}
    try:
        data = read_file(
            layout.signing_key, owners=owners, forbidden=0o077, size_max=SIGNING_KEY_SIZE_MAX
        )
    except FileNotFoundError:
        return ""
    return data.decode("ascii", "replace").strip()


class Resealing:
    """Everything of one store, sealed anew."""

    def __init__(
        self, store: AdministratorsStore, layout: Layout, progress: Callable[[int], None]
    ) -> None:
        """Take the store, where it is, and who is told how many files and tokens were gone over."""
        self._store = store
        self._layout = layout
        self._progress = progress
        self.problems: list[str] = []
        """Sentences: what could not be sealed anew, and stands as it was."""

    def size(self) -> int:
        """Return how many files and tokens there are to go over."""
        return len(self._store.documents.entries()) + len(_list_tokens(self._store))

    def carry_out(self) -> int:
        """Seal everything by the key that seals now; return how many secrets were sealed anew.

        Raises:
            BrokenSystemError: something could not be written; run it again.
        """
        files = self._store.documents
        with files.lock():  # what a killed run has left
            files.remove_drafts()
            remove_drafts(self._layout.library, self._layout.signing_key.name)
        done = 0
        for entries in _batches(files.entries()):
            with files.lock():
                done += self._seal_files(entries)
            self._progress(len(entries))
        for batch in _batches(_list_tokens(self._store)):
            with files.lock():
                done += self._seal_tokens(batch)
            self._progress(len(batch))
        with files.lock():
            done += self._seal_signing_key()
        return done

    def _seal_files(self, entries: Sequence[Entry]) -> int:
        """Seal the devices of these files; call it under their lock."""
        sealer, changed, done = self._store.sealer, {}, 0
        for entry in entries:
            try:
                devices = _read(self._store, entry)
            except (UnsafeFileError, DocumentError) as error:
                self.problems.append(str(error))
                continue
            new = tuple(self._seal_device(sealer, entry.user, device) for device in devices)
            if new != devices:
                changed[entry.user] = new
                done += sum(1 for one, other in zip(devices, new, strict=True) if one != other)
        self._store.documents.write_all(changed)
        return done

    def _seal_device(self, sealer: Sealer, user: str, device: Device) -> Device:
        if not isinstance(device, VirtualDevice | TokenDevice):
            return device
        try:
            sealed = sealer.seal_anew(device.sealed_seed, user, device.serial_number)
        except SealError as error:
            self.problems.append(f"{user}: {error}")
            return device
        return device._replace(sealed_seed=sealed)

    def _seal_tokens(self, batch: Sequence[StoredToken]) -> int:
        """Seal tokens of the stock, in one transaction; call it under the lock."""
        sealer = self._store.sealer
        new: dict[str, str] = {}
        for token in batch:
            try:
                sealed = sealer.seal_anew(token.sealed_seed, "", token.serial_number)
            except SealError as error:
                self.problems.append(str(error))
                continue
            if sealed != token.sealed_seed:
                new[token.serial_number] = sealed

        def replace(inventory: Inventory) -> None:
            for serial_number, sealed in new.items():
                inventory.replace_seed(serial_number, sealed)

        if new:
            nothing = Change(accepted=True, events=())
            self._store.commit([Claim("", (), lambda _: nothing, replace)])
        return len(new)

    def _seal_signing_key(self) -> int:
        sealed, sealer = _read_signing_key(self._layout), self._store.sealer
        if not sealed or sealer.is_current(sealed):
            return 0
        try:
            new = sealer.seal_anew(sealed, *SIGNING_KEY)
        except SealError as error:
            self.problems.append(str(error))
            return 0
        self._write_signing_key(new)
        return 1

    def hand_over(self, sealer: Sealer) -> None:
        """Seal the key that signs the audit log for another ring, before that is this host's.

        Raises:
            SealError: it opens by neither.
        """
        sealed = _read_signing_key(self._layout)
        if not sealed:
            return
        try:
            sealer.open(sealed, *SIGNING_KEY)  # a run that was killed had done it
        except SealError:
            secret = self._store.sealer.open(sealed, *SIGNING_KEY)
            self._write_signing_key(sealer.seal(secret, *SIGNING_KEY))

    def _write_signing_key(self, sealed: str) -> None:
        replace_file(self._layout.signing_key, sealed.encode("ascii") + b"\n", 0o600)


def _batches(items: Iterable[_Item]) -> Iterator[Sequence[_Item]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, _BATCH)):
        yield batch
