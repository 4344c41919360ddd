# SPDX-License-Identifier: Apache-2.0
"""packaging/quickstart: the README's first command."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import REPOSITORY


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it with no terminal to ask on."""
    return subprocess.run(
        [REPOSITORY / "packaging/quickstart", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def place() -> Iterator[Path]:
    """Name a prefix that is not there yet, and leave none behind."""
    prefix = Path("/var/tmp/pam-mfa-quickstart-test")  # noqa: S108 - a prefix of its own
    run("--remove", "--prefix", str(prefix))
    yield prefix
    run("--remove", "--prefix", str(prefix))


def test_shows_the_main_job_twice_and_removes_itself(place: Path) -> None:
    """It logs alice in and refuses the rest, can be run again, and leaves nothing behind."""
    services = {path: path.read_bytes() for path in Path("/etc/pam.d").iterdir()}
    for _ in range(2):
        shown = run("--prefix", str(place))
        assert shown.returncode == 0, shown.stderr
        assert "demo lets alice in." in shown.stdout
        assert shown.stdout.count("Refused.") == 3
        for word in ("Or type this secret key:", "virtual/bob/phone", '"reason":"code_reused"'):
            assert word in shown.stdout
    removed = run("--remove", "--prefix", str(place))
    assert removed.returncode == 0, removed.stderr
    assert list(place.parent.glob(f"{place.name}*")) == []
    assert services == {path: path.read_bytes() for path in Path("/etc/pam.d").iterdir()}


def test_refuses_what_it_does_not_understand() -> None:
    """A mistyped argument changes nothing and is named."""
    done = run("--delete")
    assert done.returncode == 1
    assert "unknown argument '--delete'" in done.stderr
