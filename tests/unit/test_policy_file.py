# SPDX-License-Identifier: Apache-2.0
"""The policy file in a running verifier: read again when it changes, never weaker by accident."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pam_mfa.errors import PolicyError
from pam_mfa.policy import Policy
from pam_mfa.verifier.policy_file import PolicyFile

GOOD = "version: 1\ndefaults: {prompts: 1}\n"
NEW = "version: 1\ndefaults: {prompts: 2}\n"
BROKEN = "version: 1\nmod: enforce\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the policy is to be."""
    return tmp_path / "policy.yaml"


@pytest.fixture
def told() -> list[str]:
    """What was told."""
    return []


@pytest.fixture
def policy_file(path: Path, told: list[str]) -> PolicyFile:
    """The policy file of a verifier that has not looked at it yet."""
    return PolicyFile(path, told.append)


def write(path: Path, text: str) -> None:
    """Replace the policy file, as editors and configuration management do."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.chmod(0o644)
    draft.rename(path)


def test_first(policy_file: PolicyFile, path: Path, told: list[str]) -> None:
    """The policy is read when first asked for, and nothing is told."""
    write(path, GOOD)
    assert (Policy(prompts=1), []) == (policy_file.current(), told)


def test_unchanged(policy_file: PolicyFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has not changed is not read again."""
    write(path, GOOD)
    policy = policy_file.current()
    monkeypatch.setattr("pam_mfa.store.policies.read_file", None)
    assert policy is policy_file.current()


def test_change(policy_file: PolicyFile, path: Path, told: list[str]) -> None:
    """A changed file is in force from the next look on, and that is told once."""
    write(path, GOOD)
    policy_file.current()
    write(path, NEW)
    policies = [policy_file.current().prompts for _ in range(3)]
    assert ([2, 2, 2], [f"the policy {path} was read again and is in force"]) == (policies, told)


def test_change_in_place(policy_file: PolicyFile, path: Path) -> None:
    """A file that was written over in its place counts as changed, by its time alone."""
    write(path, GOOD)
    policy_file.current()
    path.write_text(NEW)
    os.utime(path, ns=(1, 1))
    assert 2 == policy_file.current().prompts


def remove(path: Path) -> None:
    """Take the file away."""
    path.unlink()


def misspell(path: Path) -> None:
    """Misspell a key."""
    write(path, BROKEN)


def empty(path: Path) -> None:
    """Empty the file."""
    write(path, "")


def let_all_write(path: Path) -> None:
    """Let everybody write the file."""
    path.chmod(0o666)


def let_group_write(path: Path) -> None:
    """Let the group write the file."""
    path.chmod(0o664)


def link(path: Path) -> None:
    """Put a link to a good file in its place."""
    write(path.with_name("other.yaml"), NEW)
    path.unlink()
    path.symlink_to("other.yaml")


def fifo(path: Path) -> None:
    """Put a fifo in its place."""
    path.unlink()
    os.mkfifo(path, 0o600)


def directory(path: Path) -> None:
    """Put a directory in its place."""
    path.unlink()
    path.mkdir()


def grow(path: Path) -> None:
    """Make the file longer than it may be."""
    write(path, NEW + "#" * 65536)


def wrong_tag(path: Path) -> None:
    """Give a value a tag that it does not fit."""
    write(path, "version: !!bool x\n")


def huge_number(path: Path) -> None:
    """Write a number of thousands of digits."""
    write(path, f"version: 1\ntotp: {{window: 0x{'f' * 5000}}}\n")


SPOIL = pytest.mark.parametrize(
    "spoil",
    [remove, misspell, empty, let_all_write, let_group_write, link, fifo, directory, grow,
     wrong_tag, huge_number],
)  # fmt: skip


@SPOIL
def test_broken(
    policy_file: PolicyFile, path: Path, told: list[str], spoil: Callable[[Path], None]
) -> None:
    """A broken new file keeps the policy read before in force, and that is told once."""
    write(path, GOOD)
    before = policy_file.current()
    spoil(path)
    assert [before, before] == [policy_file.current(), policy_file.current()]
    assert [True] == [line.startswith("POLICY BROKEN: ") for line in told]
    assert str(path) in told[0]
    assert told[0].endswith("; the policy read before stays in force")


@SPOIL
def test_broken_from_the_start(
    policy_file: PolicyFile, path: Path, told: list[str], spoil: Callable[[Path], None]
) -> None:
    """Where there has been no usable policy, nothing can be decided, and that is told once."""
    write(path, GOOD)
    spoil(path)
    for _ in range(2):
        with pytest.raises(PolicyError, match=f"there is no usable policy at {path}"):
            policy_file.current()
    assert [True] == [line.endswith("; every login is refused") for line in told]


def test_broken_line(policy_file: PolicyFile, path: Path, told: list[str]) -> None:
    """A mistake is told with its line and the nearest known key."""
    write(path, BROKEN)
    with pytest.raises(PolicyError):
        policy_file.current()
    expected = f"POLICY BROKEN: {path}, line 2: 'mod' is not a known key. Did you mean 'mode'?; "
    assert [f"{expected}every login is refused"] == told


@SPOIL
def test_mended(
    policy_file: PolicyFile, path: Path, told: list[str], spoil: Callable[[Path], None]
) -> None:
    """Once a broken file was mended, it is in force."""
    write(path, GOOD)
    policy_file.current()
    spoil(path)
    policy_file.current()
    if path.is_dir():
        path.rmdir()
    write(path, NEW)
    assert 2 == policy_file.current().prompts
    assert told[-1].endswith("was read again and is in force")


def test_mended_mode(policy_file: PolicyFile, path: Path) -> None:
    """A mode that was mended is noticed without any change of the content."""
    write(path, GOOD)
    path.chmod(0o666)
    with pytest.raises(PolicyError):
        policy_file.current()
    path.chmod(0o644)
    assert 1 == policy_file.current().prompts


def test_other_owner(
    policy_file: PolicyFile, path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    """A policy of another user than root and the verifier's own is not read."""
    write(path, GOOD)
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        values = list(real(descriptor))
        values[4] = os.geteuid() + 1
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(PolicyError):
        policy_file.current()
    assert f"belongs to user id {os.geteuid() + 1}" in told[0]
