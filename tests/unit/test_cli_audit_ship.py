# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa audit ship`` and ``audit verify --fleet``: what they print, and their exit status."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_logs import LogMaker, make_lines, write_log

from pam_mfa.audit_shipping import Shipper
from pam_mfa.cli import audit_ship
from pam_mfa.cli.__main__ import main
from pam_mfa.errors import BrokenSystemError

Run = Callable[..., tuple[int, str, str]]
LINES = make_lines(20)


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a log that no verifier wrote."""
    root = tmp_path_factory.mktemp("host")
    for name in ("var/log/pam_mfa", "var/lib/pam_mfa", "etc", "target"):
        (root / name).mkdir(parents=True)
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    write_log(root / "var/log/pam_mfa/audit.jsonl", LINES)
    return root


@pytest.fixture
def run(host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``pam-mfa audit`` in this process, as the log's owner."""
    monkeypatch.setattr(audit_ship, "drop_privileges", lambda: None)

    def run_main(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pam-mfa", "--root", str(host), "audit", *arguments])
        status: object = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        assert isinstance(status, int)
        return status, *capsys.readouterr()

    return run_main


def test_shipped(run: Run, host: Path) -> None:
    """It says how many records were shipped, and where the target stands."""
    target = str(host / "target")
    status, out, err = run("ship", "--to", target, "--name", "web1")
    assert (0, "") == (status, err)
    assert f"web1: 20 records shipped; {target} has up to record 20.\n" == out
    assert "web1: 0 records shipped" in run("ship", "--to", target, "--name", "web1")[1]
    assert b"".join(LINES) == (host / "target/web1.jsonl").read_bytes()


def test_by_the_hosts_own_name(run: Run, host: Path) -> None:
    """Without a name the host's own is taken."""
    run("ship", "--to", str(host / "target"))
    assert (host / f"target/{os.uname().nodename}.jsonl").exists()


def test_something_is_wrong(run: Run, host: Path) -> None:
    """A log that was made anew is shipped, told, and status 1; verifying finds it, too."""
    target = str(host / "target")
    run("ship", "--to", target, "--name", "web1")
    write_log(host / "var/log/pam_mfa/audit.jsonl", LogMaker().add(user="x").lines)
    status, out, err = run("ship", "--to", target, "--name", "web1")
    assert (1, True) == (status, "1 records shipped" in out)
    assert "pam-mfa: web1: the log does not follow what the target has" in err
    status, out, err = run("verify", "--fleet", target, "--silent-after", "365d")
    assert (1, True) == (status, "  web1: begun_anew: its chain was begun anew" in out)
    assert "hosts to be looked at: 1 of 1" in err


def test_sound_fleet(run: Run, host: Path) -> None:
    """A sound fleet is told in a line a host and a sum; with --json the sum is not in the way."""
    target = str(host / "target")
    for name in ("web1", "web2"):
        run("ship", "--to", target, "--name", name)
    status, out, err = run("verify", "--fleet", target)
    assert (0, "Sound. Hosts: 2; records: 40.\n") == (status, err)
    assert ["web1: intact, 20", "web2: intact, 20"] == [one[:16] for one in out.splitlines()]
    status, out, _ = run("verify", "--fleet", target, "--json")
    rows = json.loads(out)
    assert (0, ["web1", "web2"]) == (status, [row["host"] for row in rows])
    assert {"host", "sound", "heard", "key_is_named", "findings", "chains"} == set(rows[0])
    assert rows[0]["chains"][0]["anchor"].startswith("pam-mfa-anchor:1,sequence=20,")


def test_silent_host(run: Run, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that was not heard of for as long as is said is found, with what to do."""
    target = str(host / "target")
    run("ship", "--to", target, "--name", "web1")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3700)
    assert 0 == run("verify", "--fleet", target)[0]
    status, out, _ = run("verify", "--fleet", target, "--silent-after", "1h")
    assert 1 == status
    assert "1 h 1 min ago" in out
    assert "systemctl status pam-mfa-audit-ship" in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("ship",), "--to"),
        (("ship", "--to", "syslog:udp://collector"), "--to"),
        (("ship", "--to", ""), "--to"),
        (("ship", "--to", "/", "--name", "a\nb"), "--name"),
        (("verify", "--fleet", "/", "--silent-after", "soon"), "--silent-after"),
        (("verify", "--fleet", "/", "--anchor"), "--fleet goes with"),
        (("verify", "--fleet", "/", "FILE"), "--fleet goes with"),
        (("verify", "--keys", "/"), "--public-key"),
    ],
    ids=lambda one: one if isinstance(one, str) else " ".join(one),
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], word: str) -> None:
    """What does not go together or is no value is wrong usage."""
    status, _, err = run(*arguments)
    assert (2, True) == (status, word in err)


def test_broken(run: Run, host: Path) -> None:
    """A target that is not there, empty, or not all readable is a broken system."""
    status, _, err = run("ship", "--to", str(host / "nowhere"))
    assert (3, True) == (status, "install -d -o pam-mfa" in err)
    assert 3 == run("verify", "--fleet", str(host / "nowhere"))[0]
    status, _, err = run("verify", "--fleet", str(host / "target"))
    assert (3, True) == (status, "there is no host's log" in err)
    run("ship", "--to", str(host / "target"), "--name", "web1")
    (host / "target/web1.jsonl.1.gz").write_bytes(b"\x1f\x8b damaged")
    status, out, _ = run("verify", "--fleet", str(host / "target"))
    assert (3, True) == (status, "web1: unreadable: " in out)


def test_hostile_names(run: Run, host: Path) -> None:
    """What somebody called a file or wrote beside one does not drive the terminal."""
    (host / "target/%1B[31m.jsonl").write_bytes(b"\x1b]0;x\x07\n")
    status, out, _ = run("verify", "--fleet", str(host / "target"))
    assert (1, False) == (status, "\x1b" in out)


def test_follow(run: Run, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage is told once, tried again at growing intervals, and told to be over."""
    ship = Shipper.ship
    outcomes: list[Exception | None] = [None, *[BrokenSystemError("it is full")] * 3, None, None]
    pauses: list[float] = []

    def try_to_ship(self: Shipper) -> int:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return ship(self)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if not outcomes:
            raise KeyboardInterrupt

    monkeypatch.setattr(Shipper, "ship", try_to_ship)
    monkeypatch.setattr(time, "sleep", pause)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    status, out, err = run("ship", "--follow", "--to", str(host / "target"), "--name", "web1")
    assert (0, True) == (status, "20 records shipped" in out)
    assert [1.0, 2.0, 4.0, 8.0, 1.0, 1.0] == pauses
    assert ["pam-mfa: it is full. It is tried again. ",
            "pam-mfa: records are shipped again."] == err.splitlines()  # fmt: skip
