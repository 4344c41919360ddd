# SPDX-License-Identifier: Apache-2.0
"""What long commands show on a terminal, and keep out of their output."""

import csv
import subprocess
from pathlib import Path

from authenticator import enroll
from installed import DataRoot


def test_report(root: DataRoot, tmp_path: Path) -> None:
    """A report into a file shows on the terminal how far it is; the file is the report alone."""
    enroll(root, "nobody")
    report, screen = tmp_path / "report.csv", tmp_path / "screen"
    command = f"{root.prefix}/bin/pam-mfa --root {root.path} report >{report}"
    subprocess.run(["script", "-qec", command, screen], check=True, timeout=60,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # fmt: skip
    assert "Reporting" in screen.read_text(errors="replace")
    assert [row["user"] for row in csv.DictReader(report.read_text().splitlines())] == ["nobody"]


def test_report_on_the_terminal(root: DataRoot, tmp_path: Path) -> None:
    """A report that is itself on the terminal is not written over."""
    enroll(root, "nobody")
    screen = tmp_path / "screen"
    command = f"{root.prefix}/bin/pam-mfa --root {root.path} report"
    subprocess.run(["script", "-qec", command, screen], check=True, timeout=60,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # fmt: skip
    shown = screen.read_text(errors="replace")
    assert ("nobody" in shown, "Reporting" in shown) == (True, False)
