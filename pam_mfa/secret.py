# SPDX-License-Identifier: Apache-2.0
"""A value that must not be printed.

Owns only the redaction: a ``Secret`` in a log line, an exception or a debugger's view shows as
``Secret(redacted)``.
"""

from typing import NoReturn


class Secret:
    """Bytes of a seed or key; ``reveal`` is the one way to them."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        """Hold the bytes."""
        self._value = value

    def reveal(self) -> bytes:
        """Return the bytes; the caller must not keep or print them."""
        return self._value

    def __eq__(self, other: object) -> bool:
        """Compare by value, for tests; verification compares with ``hmac.compare_digest``."""
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        """Refuse to be a key by value."""
        return id(self)

    def __repr__(self) -> str:
        """Show nothing."""
        return "Secret(redacted)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled into a file or a pipe."""
        raise TypeError("a Secret is not to be serialized")
