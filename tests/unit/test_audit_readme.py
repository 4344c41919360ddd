# SPDX-License-Identifier: Apache-2.0
"""What the README says of reading the log is so: the example runs, tables and matches fit."""

import re
import sys
from pathlib import Path

import pytest
from audit_logs import LogMaker, write_log
from doubles import REPOSITORY

from pam_mfa.audit import EventName, Outcome, Reason
from pam_mfa.audit_reading.ocsf import ACTIVITIES

_, _, SECTION = (
    (REPOSITORY / "README.md").read_text("utf-8").partition("## Reading the audit log\n")
)
SECTION = SECTION.partition("\n## ")[0]
LISTS = {"EVENT_NAME": EventName, "OUTCOME": Outcome, "REASON": Reason}


def test_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The example runs as it stands there."""
    (text,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    maker = LogMaker().sign("start").add(user="alice", outcome="denied", reason="wrong_code")
    log = write_log(tmp_path / "audit.jsonl", maker.lines)
    program = tmp_path / "example.py"
    program.write_text(text.replace("/var/log/pam_mfa/audit.jsonl", str(log)), "utf-8")
    exec(compile(program.read_text("utf-8"), program, "exec"), {})  # noqa: S102 - our own
    assert capsys.readouterr().out == "2026-11-24T08:00:01.000000Z wrong_code None\n[]\n"
    assert "pam_mfa.audit_reading" in sys.modules


def test_matches_of_the_journal() -> None:
    """The matches for journalctl name fields and words that there are, and always the writer."""
    found = re.findall(r"PAM_MFA_([A-Z_]+)=(\w+)", SECTION)
    assert found
    wrong = [(key, word) for key, word in found if key in LISTS and word not in set(LISTS[key])]
    assert [] == wrong
    assert {"USER", *LISTS} >= {key for key, _ in found}
    commands = [line for line in SECTION.splitlines() if "journalctl" in line and "PAM_MFA" in line]
    assert [] == [line for line in commands if "$me" not in line and "_UID=" not in line]


def test_table_of_ocsf() -> None:
    """The table has each event, with its class and activity."""
    rows = re.findall(
        r"^\| (\w+(?:, \w+)*) \| [\w ]+ \((\d{4})\) \| (.*) \|$", SECTION, re.MULTILINE
    )
    assert set(EventName) == {name for names, _, _ in rows for name in names.split(", ")}
    for names, class_uid, activities in rows:
        for name in names.split(", "):
            activity = ACTIVITIES[EventName(name)]
            assert int(class_uid) == activity.class_uid
            assert str(activity.activity_id) in re.findall(r"\d+", activities)
