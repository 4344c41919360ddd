# SPDX-License-Identifier: Apache-2.0
"""How much of the verifier's work and disk callers that are not root may use up.

Pure: times are seconds on the monotonic clock and come as arguments.
"""

from typing import NamedTuple


class Limits(NamedTuple):
    """What one socket's callers may take; None: as much as there is."""

    connections: int
    connections_each: int | None = None  # of one user id, at a time
    starts_each: float | None = None  # a minute, of one user id
    starts: float | None = None  # a minute, of all together


class _Bucket:
    """Fills up to ``size`` within a minute; each start takes one out."""

    def __init__(self, size: float, now: float) -> None:
        self._size = size
        self._level = size
        self._at = now

    def take(self, now: float) -> bool:
        self._level = min(self._size, self._level + (now - self._at) * self._size / 60)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True

    def is_full(self, now: float) -> bool:
        return self._level + (now - self._at) * self._size / 60 >= self._size


_FORGET_AT = 1024  # user ids


class Budget:
    """What is left of the limits of one socket."""

    def __init__(self, limits: Limits, now: float) -> None:
        """Start with everything left."""
        self._limits = limits
        self._open: dict[int, int] = {}
        self._buckets: dict[int, _Bucket] = {}
        self._all = _Bucket(limits.starts, now) if limits.starts is not None else None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return sum(self._open.values())

    def open(self, uid: int, now: float) -> bool:
        """Take a connection for a user id; return False where it may have no more."""
        limits = self._limits
        mine = self._open.get(uid, 0)
        if self.connections >= limits.connections:
            return False
        if limits.connections_each is not None and mine >= limits.connections_each:
            return False
        if limits.starts_each is not None and not self._bucket(uid, now).take(now):
            return False
        if self._all is not None and not self._all.take(now):
            return False
        self._open[uid] = mine + 1
        return True

    def close(self, uid: int) -> None:
        """Give a connection back."""
        self._open[uid] -= 1
        if not self._open[uid]:
            del self._open[uid]

    def _bucket(self, uid: int, now: float) -> _Bucket:
        if len(self._buckets) > _FORGET_AT:
            full = [one for one, bucket in self._buckets.items() if bucket.is_full(now)]
            for one in full:
                del self._buckets[one]
        return self._buckets.setdefault(uid, _Bucket(self._limits.starts_each or 0, now))
