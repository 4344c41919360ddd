# SPDX-License-Identifier: Apache-2.0
"""When the database last answered, by a clock that cannot be turned back.

The time of the last answer and the latest time that was ever seen here are kept on disk, sealed. A
clock that runs behind the latter was set back, and could make an hour last for ever.
"""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pam_mfa.errors import SealError, UnreachableError, UnsafeFileError
from pam_mfa.policy import Offline
from pam_mfa.secret import Secret
from pam_mfa.store.files import replace_file
from pam_mfa.store.offline.files import make_directory, read_sealed
from pam_mfa.store.seal import Sealer

ASK_AGAIN = 5.0  # seconds after which a database that did not answer is asked again
WRITTEN_EVERY = 60.0  # seconds; until then the last answer counts as that much older
BEHIND_MAX = 120.0  # seconds that clocks are set back by for their own good
_BOUND = ("?", "offline/contact")  # what the sealed text is bound to: no user, no device


class Contact(NamedTuple):
    """What is kept."""

    at: float = 0.0  # of the last answer; seconds since the epoch; 0: never
    latest: float = 0.0  # the latest time that was seen


class Link:
    """Whether the database is asked, and how long it has been silent; for several threads."""

    def __init__(
        self, path: Path, rules: Offline, sealer: Callable[[], Sealer], clock: Callable[[], float]
    ) -> None:
        """Take where it is kept, what policy says, what seals, and the clock (since the epoch)."""
        self._path = path
        self._rules = rules
        self._sealer = sealer
        self._clock = clock
        self._lock = threading.Lock()
        self._ask_at = 0.0  # by time.monotonic
        self._written: Contact | None = None  # by this process, last
        self.is_down = False

    def is_cut(self) -> bool:
        """Whether it did not answer moments ago, so that nobody has to wait for it again."""
        return self.is_down and time.monotonic() < self._ask_at

    def note_silence(self) -> bool:
        """Note that it did not answer; return whether it had before."""
        with self._lock:
            was_down, self.is_down = self.is_down, True
            self._ask_at = time.monotonic() + ASK_AGAIN
            return not was_down

    def note_answer(self) -> bool:
        """Note that it answered; return whether it had not before.

        Raises:
            BrokenSystemError: that could not be written.
        """
        now = self._clock()
        with self._lock:
            was_down, self.is_down = self.is_down, False
            known = self._written or self._read()
            if was_down or not 0 <= now - known.at < WRITTEN_EVERY:
                # The database's word is as good as a look at the clock: a wrong time may be mended.
                self._write(Contact(now, now))
            return was_down

    def require_allowed(self) -> float:
        """Return the seconds that are left to go on without it.

        Raises:
            UnreachableError: policy lets nobody in any more.
        """
        now = self._clock()
        with self._lock:
            known = self._read()
            if now < known.latest - BEHIND_MAX:
                raise UnreachableError(
                    "the database cannot be reached, and this host's clock was set back by "
                    f"{known.latest - now:.0f} s since it could, so nobody knows for how long",
                    hint="Set the clock right: date -u",
                )
            left = known.at + self._rules.seconds - max(now, known.latest)
            if not known.at or left <= 0:
                since = f"for more than {self._rules.seconds:.0f} s" if known.at else "ever"
                raise UnreachableError(
                    f"the database has not been reached {since}, so policy lets nobody in "
                    "without it (store: offline)",
                    hint="Mend the way to the database. See: pam-mfa store status",
                )
            if now > known.latest:
                self._write(known._replace(latest=now))
            return left

    def read(self) -> Contact:
        """Return what is kept."""
        with self._lock:
            return self._read()

    def _read(self) -> Contact:
        """Return what is kept; what cannot be read is as good as none."""
        try:
            data = read_sealed(self._path, self._sealer(), _BOUND)
            fields = json.loads(data.reveal()) if data else {}
            return Contact(float(fields.get("at", 0)), float(fields.get("latest", 0)))
        except (SealError, UnsafeFileError, ValueError, TypeError, AttributeError):
            return Contact()

    def _write(self, contact: Contact) -> None:
        text = json.dumps(contact._asdict()).encode("ascii")
        sealed = self._sealer().seal(Secret(text), *_BOUND)
        make_directory(self._path.parent)
        replace_file(self._path, sealed.encode("ascii"), 0o600)
        self._written = contact
