# SPDX-License-Identifier: Apache-2.0
"""``pam-mfad``: its usage, read by hand, and its words in the system log."""

import sys
import syslog
from collections.abc import Callable

import pytest

from pam_mfa import __version__
from pam_mfa.errors import BrokenSystemError, PamMfaError
from pam_mfa.verifier import __main__ as program
from pam_mfa.verifier import journal

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """What is told to the system log, which hears nothing of it."""
    lines: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "syslog", lambda level, line: lines.append((level, line)))
    monkeypatch.setattr(syslog, "openlog", lambda *_: None)
    return lines


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    told: list[tuple[int, str]],
) -> Run:
    """Runs ``pam-mfad`` in this process, where it can do nothing but read its arguments."""
    del told

    def run_main(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pam-mfad", *arguments])
        with pytest.raises(SystemExit) as ended:
            program.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run_main


def test_version(run: Run) -> None:
    """The version is told."""
    assert (0, f"pam-mfad {__version__}\n", "") == run("--version")


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("x",), ("--root",), ("--once",), ("--frobnicate", "x"), ("--version", "x"),
     ("--root", "/", "x"), ("--once", "x"), ("--once", ""), ("--once", "-1")],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage(run: Run, arguments: tuple[str, ...]) -> None:
    """Wrong usage is told on the standard error, with exit status 2."""
    assert (2, "", f"{program.USAGE}\n") == run(*arguments)


def test_broken_system(
    run: Run, monkeypatch: pytest.MonkeyPatch, told: list[tuple[int, str]]
) -> None:
    """A broken system is told to the system log and on the standard error; exit status 3."""

    def fail(_arguments: list[str]) -> int:
        raise BrokenSystemError("there is no seal key", hint="Restore it.")

    monkeypatch.setattr(program, "_run", fail)
    assert (3, "", "pam-mfad: there is no seal key\nRestore it.\n") == run()
    assert [(syslog.LOG_ERR, "there is no seal key. Restore it.")] == told


def test_fault(run: Run, monkeypatch: pytest.MonkeyPatch, told: list[tuple[int, str]]) -> None:
    """A fault of the program tells its place and not its text, which may quote what was typed."""

    def fail(_arguments: list[str]) -> int:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(program, "_run", fail)
    assert (3, "", "") == run()
    assert [("RuntimeError in", False)] == [
        (line[line.find("RuntimeError") :][:15], "hunter2" in line) for _, line in told
    ]


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("plain", "plain"),
        ("two\nlines", "two\\nlines"),
        ("\x1b[31m", "\\x1b[31m"),
        ("ü\u2028", "\\xfc\\u2028"),
        ("\udcff", "\\udcff"),
        ("\0%s%n", "\\x00%s%n"),
        ("x" * 5000, "x" * 1000),
    ],
    ids=["plain", "lines", "escape", "unicode", "bytes", "format", "long"],
)
def test_one_printable_line(told: list[tuple[int, str]], message: str, line: str) -> None:
    """Whatever a message contains, the system log gets one printable line of bounded length."""
    journal.tell_error(message)
    assert [(syslog.LOG_ERR, line)] == told


@pytest.mark.parametrize(("hint", "line"), [("", "what"), ("Do this.", "what. Do this.")])
def test_failure(told: list[tuple[int, str]], hint: str, line: str) -> None:
    """An error is told with what to do next."""
    journal.tell_failure(PamMfaError("what", hint=hint))
    assert [(syslog.LOG_ERR, line)] == told


def test_notice(told: list[tuple[int, str]]) -> None:
    """A notice is told as one."""
    journal.tell_notice("what")
    assert [(syslog.LOG_NOTICE, "what")] == told
