# SPDX-License-Identifier: Apache-2.0
"""The module in C under libFuzzer, AddressSanitizer and UBSan, with calls of libc that fail."""

from collections.abc import Callable
from pathlib import Path

import pytest
from harnesses import CORPUS, HARNESSES, build, fuzz

SECONDS = 6
PLANTED_SECONDS = 30
Spoil = Callable[[str], str]


def swap(old: str, new: str) -> Spoil:
    """Return what plants a fault."""
    return lambda text: text.replace(old, new)


PLANTED: dict[str, tuple[str, Spoil]] = {
    "a field may be longer than its packet": ("frame_reader", swap("length > size - at", "0")),
    "a tag may be any": ("frame_reader", swap("tag > TAG_LAST", "0")),
    "the nonce may be any": ("relay", swap("memcmp(data + 2, nonce, NONCE_SIZE) != 0", "0")),
    "what is no result is ignored": (
        "relay",
        swap("? denied[phase] : PAM_AUTHINFO_UNAVAIL", "? denied[phase] : PAM_IGNORE"),
    ),
    "a socket stays open": ("relay", swap("close(call->fd);", "")),
    "a code may be longer than its room": (
        "relay",
        swap("length - split < digits && isdigit", "isdigit"),
    ),
    "an answer is not wiped and freed": ("relay", swap("\tfree(text);", "")),
}  # fmt: skip


@pytest.mark.parametrize("name", HARNESSES)
def test_nothing_is_found(tmp_path: Path, name: str) -> None:
    """No input, and no call that fails, makes the module err or tell what no verdict said."""
    new = tmp_path / "new"
    new.mkdir()
    program = build(HARNESSES[name], tmp_path)
    done = fuzz(program, new, CORPUS / name, seconds=SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_fault_is_found(tmp_path: Path, fault: str) -> None:
    """A check that is taken out of the module is missed within seconds."""
    name, spoil = PLANTED[fault]
    new = tmp_path / "new"
    new.mkdir()
    program = build(HARNESSES[name], tmp_path, spoil)
    done = fuzz(program, new, CORPUS / name, seconds=PLANTED_SECONDS)
    assert done.returncode != 0
    assert "SUMMARY" in done.stderr or "ERROR: libFuzzer" in done.stderr
