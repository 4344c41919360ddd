# SPDX-License-Identifier: Apache-2.0
"""SECURITY.md names tests that exist."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_NAMES = re.compile(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`")


def named_tests() -> list[tuple[str, str]]:
    """Return the file and the test of every name in the table; "" for a whole file."""
    found = []
    for row in (REPOSITORY / "SECURITY.md").read_text("utf-8").splitlines():
        file = ""
        for match in _NAMES.finditer(row):
            file = match[1] or file
            if row.startswith("|") and file:
                found.append((file, match[2] or ""))
    return found


@pytest.mark.parametrize(("file", "name"), named_tests())
def test_exists(file: str, name: str) -> None:
    """Each attack's test is there under the name that the table gives."""
    text = (REPOSITORY / file).read_text("utf-8")
    assert name == "" or f"def {name}(" in text


def test_table_is_read() -> None:
    """The table is found at all."""
    assert len(named_tests()) > 40
