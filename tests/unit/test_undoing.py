# SPDX-License-Identifier: Apache-2.0
"""What waits for a confirmation: the time that it is given, and the programs that it calls."""

import os
from pathlib import Path

import pytest

from pam_mfa.errors import RefusedError
from pam_mfa.switching import undoing
from pam_mfa.switching.undoing import (
    Charge,
    arm,
    current_boot,
    expire_patiently,
    seconds_since_boot,
)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemd-run that notes how it was called; returns where."""
    called = tmp_path / "called"
    program = tmp_path / "systemd-run"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{called}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("sys.argv", [str(program)])
    real = Path.is_dir
    monkeypatch.setattr(Path, "is_dir", lambda path: str(path).endswith("/systemd/system")
                        or real(path))  # fmt: skip
    return called


def test_timer_of_systemd(systemd: Path) -> None:
    """Where systemd runs, its timer calls the program that is running now, after the time."""
    charge = Charge(list, lambda: True)
    assert "systemd" == arm(Path("/"), 300.0, charge)
    words = systemd.read_text().splitlines()
    assert "--on-active=300s" in words
    assert ["--", str(systemd.with_name("systemd-run")), "switch", "expire"] == words[-4:]


def test_process_ends_where_nothing_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose switch is confirmed does not stay for the rest of its time."""
    reading, writing = os.pipe()
    monkeypatch.setattr(undoing, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(os, "closerange", lambda *_: None)  # the pipe tells of its end

    assert "process" == arm(tmp_path, 3600.0, Charge(list, lambda: False))
    os.close(writing)
    assert b"" == os.read(reading, 1)  # comes when the process has ended
    os.close(reading)


def test_another_switch_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The undoing comes again while another switch keeps it out."""
    answers: list[list[str]] = [["undone"]]
    monkeypatch.setattr(undoing, "_RETRY_SECONDS", 0.0)
    tries = []

    def expire() -> list[str]:
        tries.append(1)
        if len(tries) < 3:
            raise RefusedError("another one is at work")
        return answers.pop()

    assert ["undone"] == expire_patiently(expire)


def test_time_and_boot() -> None:
    """The boot has a name, and its time goes on."""
    assert current_boot() == current_boot()
    assert 0.0 < seconds_since_boot() <= seconds_since_boot()
