# SPDX-License-Identifier: Apache-2.0
"""The seal keys, rotated while logins go on.

Each step is one change of the ring, made whole or not at all; verifiers see it with their next
login. Before a key seals, every host that may have to open must have it: ``stage`` on each, then
``use``, then ``finish``. One host alone does all of it by ``rotate``. Any step may be run again.
"""

import os
from collections.abc import Callable
from typing import Final, NamedTuple

from pam_mfa.audit import EventName
from pam_mfa.errors import RefusedError
from pam_mfa.lifecycle import Actor
from pam_mfa.secret import Secret
from pam_mfa.store import AdministratorsStore, Change, Claim, key_ring
from pam_mfa.store.files import remove_drafts, replace_file
from pam_mfa.store.key_ring import KEY_BYTES, KeyRing, format_ring
from pam_mfa.store.layout import Layout
from pam_mfa.store.resealing import Census, Resealing, take_census
from pam_mfa.store.seal import Sealer, find_ring, read_ring

Progress = Callable[[int], None]
_STEPS: Final[dict[str, Callable[[KeyRing], KeyRing]]] = {
    "stage": lambda ring: key_ring.stage(ring, Secret(os.urandom(KEY_BYTES))),
    "unstage": key_ring.unstage,
    "use": key_ring.use_newest,
    "finish": key_ring.retire,
}
_SHOWN = 5  # of what hinders


class Rotated(NamedTuple):
    """What a rotation came to."""

    ring: KeyRing  # as it is now
    sealed_anew: int
    retired: tuple[str, ...]  # names of keys


def _show_nothing(_count: int) -> None:
    """Tell nobody how far it is."""


class SealRotation:
    """The seal keys of one store."""

    def __init__(
        self, store: AdministratorsStore, layout: Layout, clock: Callable[[], float], actor: Actor
    ) -> None:
        """Take the store, where it is, the clock (seconds since the epoch) and who acts."""
        self._store = store
        self._layout = layout
        self._clock = clock
        self._actor = actor

    @property
    def ring(self) -> KeyRing:
        """The keys as they are."""
        return self._store.sealer.ring

    def take_census(self) -> Census:
        """Count what is sealed by which key."""
        return take_census(self._store, self._layout)

    def size(self) -> int:
        """Return how many files and tokens a rotation goes over."""
        return Resealing(self._store, self._layout, _show_nothing).size()

    def rotate(self, progress: Progress = _show_nothing) -> Rotated:
        """Make a new key, seal everything by it, and retire the old one; or end such a run.

        Raises:
            RefusedError: a key is staged for other hosts, or something cannot be sealed anew: then
                the new key seals, and the old one stays.
        """

        def begin(ring: KeyRing) -> KeyRing:
            if ring.staged:
                raise RefusedError(
                    f"the key {', '.join(ring.staged)} is staged; nothing was changed",
                    hint="When every host has it: pam-mfa seal rotate --use. To take it back: "
                    "pam-mfa seal rotate --unstage",
                )
            if ring.old:  # a run that was killed
                return ring
            return key_ring.use_newest(_STEPS["stage"](ring))

        self._change(begin)
        done = self._seal_anew(progress)
        retired = self.ring.old
        return Rotated(self.finish(), done, retired)

    def stage(self, other: KeyRing | None = None) -> KeyRing:
        """Add a new key, or those of another host's ring; they open here and do not seal.

        Raises:
            RefusedError: it is another fleet's, or the ring is full.
        """
        if other is None:
            return self._change(_STEPS["stage"])
        if other.hashing != self.ring.hashing and self._is_new_host():
            return self._adopt(other)
        return self._change(lambda ring: key_ring.join(ring, other))

    def unstage(self) -> KeyRing:
        """Take the staged keys back, which have sealed nothing here.

        Raises:
            RefusedError: something is sealed by one: by another host.
        """
        return self._take_away(self.ring.staged)

    def use(self, progress: Progress = _show_nothing) -> Rotated:
        """Have the newest key seal, and seal everything by it; old keys stay, to open.

        Raises:
            RefusedError: something cannot be sealed anew.
        """
        self._change(key_ring.use_newest)
        return Rotated(self.ring, self._seal_anew(progress), ())

    def finish(self) -> KeyRing:
        """Retire the keys that do not seal any more.

        Raises:
            RefusedError: something is sealed by one of them, or cannot be read.
        """
        return self._take_away(self.ring.old)

    def _take_away(self, names: tuple[str, ...]) -> KeyRing:
        """Take away these keys, and none that another process has made old meanwhile.

        That one was not looked for, and may be what everything is sealed by.
        """
        self._require_unneeded(names)
        return self._change(lambda ring: key_ring.without(ring, names))

    def foretell(self, step: str) -> bytes:
        """Return the bytes of the ring as it would be after a step, for a credential.

        Raises:
            RefusedError: as the step itself.
        """
        if step == "finish":
            self._require_unneeded(self.ring.old)
        elif step == "unstage":
            self._require_unneeded(self.ring.staged)
        return format_ring(_STEPS[step](self.ring))

    def _seal_anew(self, progress: Progress) -> int:
        resealing = Resealing(self._store, self._layout, progress)
        done = resealing.carry_out()
        if resealing.problems:
            raise RefusedError(
                f"{len(resealing.problems)} could not be sealed anew and stand as they were: "
                + _first_of(resealing.problems),
                hint="Mend the file, or deactivate the device and enable it again; then run this "
                "command again. The old key stays until then.",
            )
        return done

    def _require_unneeded(self, names: tuple[str, ...]) -> None:
        """Refuse to take keys away by which something is sealed, or may be.

        Raises:
            RefusedError: it is.
        """
        census = self.take_census() if names else Census({}, {}, ())
        if census.unread:
            raise RefusedError(
                "it cannot be told what they are sealed by: " + _first_of(census.unread),
                hint="Mend or remove these files, then run this command again.",
            )
        holders = [one for name in names for one in census.holders.get(name, [])]
        if holders:
            named = [one.words for one in holders]
            raise RefusedError(
                f"the key {', '.join(names)} is needed: {_first_of(named)}",
                hint="Seal them anew: pam-mfa seal rotate --use. See: pam-mfa seal status",
            )

    def _is_new_host(self) -> bool:
        """Whether nothing of any user is sealed or hashed here."""
        return not self.size()

    def _adopt(self, other: KeyRing) -> KeyRing:
        """Take another host's ring in the place of this host's own."""

        def adopt(ring: KeyRing) -> KeyRing:
            if not self._is_new_host():  # somebody was enabled since it was looked at
                return key_ring.join(ring, other)
            # The log's key first: killed behind it, the next run begins with it again.
            Resealing(self._store, self._layout, _show_nothing).hand_over(Sealer(other))
            return other

        return self._change(adopt)

    def _change(self, step: Callable[[KeyRing], KeyRing]) -> KeyRing:
        """Record a change of the ring, and make it: none without its record.

        Raises:
            RefusedError: the ring is a credential, or the step cannot be taken.
        """
        self._store.require_log()  # nothing is done that could not be recorded
        # Whoever seals and stores holds this lock: before it by the old key, behind it by the new.
        with self._store.documents.lock():
            # A killed run's has keys in it.
            remove_drafts(self._layout.library, self._layout.seal_key.name)
            ring = read_ring(self._layout)
            changed = step(ring)
            if changed != ring:
                self._require_own_file()
                self._record(_tell_change(ring, changed))
                replace_file(self._layout.seal_key, format_ring(changed), 0o600)
        return changed

    def _require_own_file(self) -> None:
        place = find_ring(self._layout)
        if place.is_credential:
            raise RefusedError(
                f"the seal keys are the systemd credential {place.path}, which is not ours to "
                "write; nothing was changed",
                hint="Have the changed ring printed (--print), and put it where the credential "
                "comes from: pam-mfa seal rotate --stage --print | systemd-creds encrypt "
                "--name=pam-mfa.seal - /etc/credstore.encrypted/pam-mfa.seal; then: systemctl "
                "restart pam-mfad. The same with --use, then --use alone, then --finish --print.",
            )

    def _record(self, detail: str) -> None:
        event = self._actor.tell(EventName.ROTATE_SEAL_KEY, self._clock(), detail)
        change = Change(accepted=True, events=(event,))
        self._store.commit([Claim("", (), lambda _: change)])


def _tell_change(before: KeyRing, after: KeyRing) -> str:
    """Return what a change of the ring is, by the names of keys."""
    added = [name for name in after.names if name not in before.names]
    gone = [name for name in before.names if name not in after.names]
    words = []
    if added:
        words.append(f"adds {' '.join(added)}")
    if after.used != before.used:
        words.append(f"{after.used} seals from now on")
    if gone:
        words.append(f"takes away {' '.join(gone)}")
    return "; ".join(words)


def _first_of(sentences: tuple[str, ...] | list[str]) -> str:
    more = f"; and {len(sentences) - _SHOWN} more" if len(sentences) > _SHOWN else ""
    return "; ".join(sentences[:_SHOWN]) + more
