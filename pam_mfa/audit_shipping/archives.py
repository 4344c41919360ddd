# SPDX-License-Identifier: Apache-2.0
"""What a fleet's check reads, whatever the target is made of; a directory is such a target.

Reads only. Names of hosts are given as they are; what stands beside the records is given as bytes.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from pam_mfa.audit_reading import LogFile, open_logs
from pam_mfa.audit_reading.chain_check import Checked
from pam_mfa.audit_reading.lines import OddLine
from pam_mfa.audit_shipping.file_sink import (
    ALIVE,
    CLAIM,
    LOG,
    OTHER,
    find_chains,
    list_names,
    read_small,
)
from pam_mfa.audit_shipping.hosts import from_file_name, to_file_name


class Beside(NamedTuple):
    """What stands beside a host's records; None where there is none of it."""

    claim: bytes | None
    sign: bytes | None
    other: bytes | None  # the claim of a second machine of the same name


class Archive(Protocol):
    """A target, to be verified."""

    def hosts(self) -> Sequence[str]:
        """Return the hosts that have anything there.

        Raises:
            BrokenSystemError: the target cannot be read.
        """

    def beside(self, host: str) -> Beside:
        """Return what stands beside a host's records.

        Raises:
            RefusedError, BrokenSystemError: it cannot be read.
        """

    def chains(self, host: str) -> Sequence[tuple[int, str]]:
        """Return the numbers and names of a host's chains, the oldest first.

        Raises:
            BrokenSystemError: the target cannot be read.
        """

    def open(self, host: str, number: int) -> AbstractContextManager[Sequence[Checked]]:
        """Open a chain's lines.

        Raises:
            RefusedError, BrokenSystemError: they cannot be read.
        """

    def whose(self, host: str) -> str:
        """Return what to move to an archive where a host is gone, or made anew."""


class Directory:
    """A directory that hosts ship to."""

    def __init__(self, path: Path) -> None:
        """Take it."""
        self._path = path

    def hosts(self) -> Sequence[str]:
        """Return the hosts that have files there."""
        found = set()
        for name in list_names(self._path):
            if name.endswith(CLAIM):
                found.add(from_file_name(name.removesuffix(CLAIM)))
            elif name.endswith(LOG):
                found.add(from_file_name(name.removesuffix(LOG).partition("+")[0]))
        return sorted(found)

    def beside(self, host: str) -> Beside:
        """Return the small files of a host."""
        name = self._path / to_file_name(host)
        return Beside(*(read_small(Path(f"{name}{suffix}")) for suffix in (CLAIM, ALIVE, OTHER)))

    def chains(self, host: str) -> Sequence[tuple[int, str]]:
        """Return the files of a host's chains."""
        return [(number, path.name) for number, path in find_chains(self._path, host)]

    @contextlib.contextmanager
    def open(self, host: str, number: int) -> Iterator[Sequence[Checked]]:
        """Open a chain's files, the rotated ones first."""
        path = dict(find_chains(self._path, host))[number]
        with open_logs(path) as files:
            yield [*files[:-1], _Settled(files[-1])]

    def whose(self, host: str) -> str:
        """Return the names of a host's files."""
        return f"{to_file_name(host)}*"


class _Settled:
    """A chain's newest file without a line that is being written, or whose writer was killed.

    The next turn of the shipper completes it. That nothing is missing, the sign of life tells.
    """

    def __init__(self, file: LogFile) -> None:
        self.path = file.path
        self._file = file

    def lines(self) -> Iterator[bytes | OddLine]:
        for line in self._file.lines():
            if isinstance(line, OddLine) and line.is_cut:
                return
            yield line
