# SPDX-License-Identifier: Apache-2.0
"""The fleet's database as a target of records, and as what a fleet's check reads.

A host adds rows and can do nothing else with them; a row that is there already is not added
again. What is checked is read as an administrator, a part at a time.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pam_mfa.audit import Head
from pam_mfa.audit_reading.chain_check import Checked
from pam_mfa.audit_shipping.archives import Beside
from pam_mfa.audit_shipping.hosts import (
    Claim,
    FormatError,
    SignOfLife,
    format_claim,
    format_sign,
    parse_claim,
)
from pam_mfa.audit_shipping.sinks import Chain
from pam_mfa.audit_shipping.source import parse_entry
from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.store.postgresql.links import Links, Question, Row

_PATIENCE: Final = 30.0  # seconds
_PART: Final = 5000  # records that are read at once
_ADD_CLAIM: Final = """INSERT INTO pam_mfa.audit_host(host, claim) VALUES (%s, %s)
    ON CONFLICT DO NOTHING"""
_ADD: Final = """INSERT INTO pam_mfa.audit_record(host, chain, sequence, hash, line)
    SELECT %s, %s, sequence, hash, line
    FROM unnest(%s::bigint[], %s::text[], %s::bytea[]) WITH ORDINALITY
        AS one(sequence, hash, line, place) ORDER BY place ON CONFLICT DO NOTHING"""
_LINES: Final = """SELECT id, line FROM pam_mfa.audit_record
    WHERE host = %s AND chain = %s AND id > %s ORDER BY id LIMIT %s"""
_BESIDE: Final = """SELECT (SELECT claim FROM pam_mfa.audit_host WHERE host = %s),
    (SELECT sign FROM pam_mfa.audit_alive WHERE host = %s),
    (SELECT claim FROM pam_mfa.audit_other WHERE host = %s)"""


class _Asking:
    """Asks one question at a time."""

    def __init__(self, links: Links) -> None:
        self._links = links

    def _ask(self, query: str, *values: object) -> list[Row]:
        with self._links.lend(_PATIENCE) as link:
            return link.ask(Question(query, values))[0]

    def close(self) -> None:
        """Let go of the database."""
        self._links.drop_idle()


class DatabaseSink(_Asking):
    """The database, opened for one host."""

    has_records = True

    def __init__(self, links: Links, claim: Claim) -> None:
        """Connect as a host's role, and claim the host's name there.

        Raises:
            RefusedError: another machine has the name.
            BrokenSystemError: the database cannot be asked.
        """
        super().__init__(links)
        self._host = claim.host
        try:
            self._require_own_name(claim, links.place)
        except BaseException:
            self.close()
            raise

    def _require_own_name(self, claim: Claim, place: str) -> None:
        text = format_claim(claim).decode("ascii")
        self._ask(_ADD_CLAIM, self._host, text)
        ((found,),) = self._ask("SELECT pam_mfa.audit_claim(%s)", self._host)
        try:
            owner = parse_claim(str(found).encode())
        except FormatError as error:
            raise BrokenSystemError(
                f"{place}: the claim of {self._host} is damaged: {error}",
                hint="Have the database's owner look at pam_mfa.audit_host.",
            ) from error
        ((is_ours,),) = self._ask("SELECT pam_mfa.has_audit_name(%s)", self._host)
        if owner.machine != claim.machine or not is_ours:
            self._ask("SELECT pam_mfa.tell_other(%s, %s)", self._host, text)
            raise RefusedError(
                f"'{self._host}' is another machine's or role's name in {place}, since "
                f"{owner.since[:19] or 'some time'}",
                hint="Two hosts of one name: give this one another (--name). The same host, "
                "installed anew: have the database's owner rename the rows of the old one.",
            )

    def chains(self) -> Sequence[Chain]:
        """Return what is there."""
        rows = self._ask("SELECT * FROM pam_mfa.audit_heads(%s)", self._host)
        return [Chain(number, Head(sequence, digest)) for number, sequence, digest in rows]

    def hash_of(self, number: int, sequence: int) -> str:
        """Return the hash of a record of a chain; "" where there is none."""
        query = "SELECT pam_mfa.audit_hash(%s, %s, %s)"
        ((found,),) = self._ask(query, self._host, number, sequence)
        return str(found or "")

    def put(self, number: int, lines: Sequence[bytes]) -> None:
        """Add lines that are not there yet, in one transaction."""
        entries = [entry for line in lines if (entry := parse_entry(line.rstrip(b"\n")))]
        self._ask(
            _ADD, self._host, number,
            [entry.head.sequence for entry in entries],
            [entry.head.hash for entry in entries],
            [entry.line.rstrip(b"\n") for entry in entries],
        )  # fmt: skip

    def tell_alive(self, sign: SignOfLife) -> None:
        """Replace the host's sign of life."""
        text = format_sign(sign).decode("ascii")
        self._ask("SELECT pam_mfa.tell_alive(%s, %s)", self._host, text)


class DatabaseArchive(_Asking):
    """The database, opened by an administrator to verify all hosts."""

    def hosts(self) -> Sequence[str]:
        """Return the hosts that have claimed a name."""
        return [row[0] for row in self._ask("SELECT host FROM pam_mfa.audit_host ORDER BY host")]

    def beside(self, host: str) -> Beside:
        """Return what stands beside a host's records."""
        ((*texts,),) = self._ask(_BESIDE, host, host, host)
        return Beside(*(text.encode() if text is not None else None for text in texts))

    def chains(self, host: str) -> Sequence[tuple[int, str]]:
        """Return the numbers of a host's chains."""
        rows = self._ask("SELECT chain FROM pam_mfa.audit_heads(%s)", host)
        return [(number, _name(host, number)) for (number,) in rows]

    @contextlib.contextmanager
    def open(self, host: str, number: int) -> Iterator[Sequence[Checked]]:
        """Give a chain's lines, in the order in which they came."""
        yield [_Lines(self, host, number)]

    def whose(self, host: str) -> str:
        """Return what to do with a host's rows where it is gone."""
        return f"the rows of {host}, by the database's owner,"

    def lines(self, host: str, number: int) -> Iterator[bytes]:
        """Go through a chain's lines.

        Raises:
            BrokenSystemError: the database cannot be asked.
        """
        last = 0
        while rows := self._ask(_LINES, host, number, last, _PART):
            yield from (bytes(line) for _, line in rows)
            last = rows[-1][0]


class _Lines:
    """One chain, as a check goes through it."""

    def __init__(self, archive: DatabaseArchive, host: str, number: int) -> None:
        self.path = Path(_name(host, number))
        self._archive = archive
        self._place = (host, number)

    def lines(self) -> Iterator[bytes]:
        return self._archive.lines(*self._place)


def _name(host: str, number: int) -> str:
    return f"{host}+{number}" if number > 1 else host
