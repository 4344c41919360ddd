# SPDX-License-Identifier: Apache-2.0
"""The audit log's reading side, for programs as well as for ``pam-mfa audit``; no login loads it.

``open_logs`` opens a log's files, packed ones too; ``Reader`` gives the records of a ``Selection``,
oldest first, and ``ChainCheck`` finds out whether the chain is whole::

    from pathlib import Path
    from pam_mfa.audit_reading import ChainCheck, PublicKeys, Reader, Selection, Wanted, open_logs

    with open_logs(Path("/var/log/pam_mfa/audit.jsonl")) as logs:
        for record in Reader(logs, Selection(device="virtual/alice/phone")).records():
            print(record["time"], record["event_name"], record["outcome"])

    with open_logs(Path("/var/log/pam_mfa/audit.jsonl")) as logs:
        check = ChainCheck(Wanted(PublicKeys()))
        for log in logs:
            check.check(log)
        report = check.finish()
    print(report.is_intact, report.findings)

The contract:

- A **record** is a ``dict``, as its line has it; ``record.schema.json`` in ``pam_mfa.audit`` says
  what may be in it. The texts in it may be anybody's: escape them before a terminal sees them.
- Times are texts as records have them (``format_moment`` makes them of ``datetime`` values); they
  sort as the times do.
- A ``Report`` has what was found, each finding with its file, line and sequence. An intact report
  says that the lines join and that the signatures are right. It cannot say that nobody who holds
  the signing key has made the whole log anew: compare an ``Anchor`` for that, kept elsewhere.
- ``RefusedError``: a file may not be read. ``BrokenSystemError``: one is damaged, or packed by what
  this Python cannot unpack. Both have a ``hint``.
- Nothing is written, and no lock is taken: a verifier goes on meanwhile.

``files`` opens and unpacks, ``lines`` splits, ``records`` parses and selects, ``seeking`` finds
times, ``reading`` puts these together, ``following`` waits for more; ``chain_check`` goes through
the chain, ``links`` judges what does not join, ``signatures`` checks checkpoints, ``anchors`` is
the line to keep; ``ocsf`` and ``spreadsheet`` are other forms of a record.
"""

from pam_mfa.audit_reading.anchors import Anchor, parse_anchor
from pam_mfa.audit_reading.chain_check import ChainCheck, Wanted
from pam_mfa.audit_reading.files import LogFile, find_logs, open_logs
from pam_mfa.audit_reading.findings import End, Finding, Kind, Note, Place, Report
from pam_mfa.audit_reading.reading import Reader
from pam_mfa.audit_reading.records import (
    Record,
    RecordError,
    Selection,
    format_moment,
    parse_moment,
    parse_record,
)
from pam_mfa.audit_reading.signatures import PublicKeys, read_public_key

__all__ = [
    "Anchor",
    "ChainCheck",
    "End",
    "Finding",
    "Kind",
    "LogFile",
    "Note",
    "Place",
    "PublicKeys",
    "Reader",
    "Record",
    "RecordError",
    "Report",
    "Selection",
    "Wanted",
    "find_logs",
    "format_moment",
    "open_logs",
    "parse_anchor",
    "parse_moment",
    "parse_record",
    "read_public_key",
]
