# SPDX-License-Identifier: Apache-2.0
"""The policy file in a running verifier: read again when it changes, never weaker by accident."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pam_mfa.errors import PolicyError
from pam_mfa.policy import POLICY_SIZE_MAX, Policy
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
    write(path, NEW + "#" * POLICY_SIZE_MAX)


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


INCLUDING = "version: 1\ninclude: policy.d\n"


def fragment(name: str) -> str:
    """Return a fragment of one rule."""
    return f"rules:\n- {{name: {name}, match: {{}}, then: deny}}\n"


@pytest.fixture
def directory_of_fragments(path: Path) -> Path:
    """The directory that a policy includes, with two fragments in it."""
    made = path.parent / "policy.d"
    made.mkdir(mode=0o755)
    write(made / "20-b.yaml", fragment("b"))
    write(made / "10-a.yaml", fragment("a"))
    (made / "README").write_text("no fragment\n")
    (made / ".hidden.yaml").write_text("no fragment\n")
    write(path, INCLUDING)
    return made


def names(policy_file: PolicyFile) -> list[str]:
    """Return the names of the rules in force."""
    return [rule.name for rule in policy_file.current().rules]


def test_fragments(policy_file: PolicyFile, directory_of_fragments: Path, told: list[str]) -> None:
    """Fragments are read in the order of their names, and nothing else in their directory is."""
    del directory_of_fragments
    assert (["a", "b"], []) == (names(policy_file), told)


def test_fragments_unchanged(
    policy_file: PolicyFile, directory_of_fragments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where neither file nor fragments have changed, nothing is read again."""
    del directory_of_fragments
    policy = policy_file.current()
    monkeypatch.setattr("pam_mfa.store.policies.read_file", None)
    assert policy is policy_file.current()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda made: write(made / "15-c.yaml", fragment("c")), ["a", "c", "b"]),
        (lambda made: (made / "10-a.yaml").unlink(), ["b"]),
        (lambda made: write(made / "10-a.yaml", fragment("x")), ["x", "b"]),
        (lambda made: (made / "10-a.yaml").write_text(fragment("in-place")), ["in-place", "b"]),
        (lambda made: (made / "10-a.yaml").rename(made / "30-a.yaml"), ["b", "a"]),
    ],
    ids=["added", "removed", "replaced", "in place", "renamed"],
)
def test_fragment_changes(
    policy_file: PolicyFile,
    directory_of_fragments: Path,
    told: list[str],
    change: Callable[[Path], object],
    expected: list[str],
) -> None:
    """A change in the directory is in force from the next look on, and told once."""
    policy_file.current()
    change(directory_of_fragments)
    assert [expected, expected] == [names(policy_file), names(policy_file)]
    assert 1 == len(told)


def break_fragment(made: Path) -> None:
    """Misspell a key."""
    write(made / "10-a.yaml", "rulez: []\n")


def link_fragment(made: Path) -> None:
    """Put a link in a fragment's place."""
    (made / "10-a.yaml").rename(made / "elsewhere")
    (made / "10-a.yaml").symlink_to("elsewhere")


def let_all_write_fragment(made: Path) -> None:
    """Let everybody write a fragment."""
    (made / "10-a.yaml").chmod(0o666)


def let_all_write_directory(made: Path) -> None:
    """Let everybody put fragments in."""
    made.chmod(0o777)


def link_directory(made: Path) -> None:
    """Put a link in the directory's place."""
    made.rename(made.with_name("elsewhere"))
    made.symlink_to("elsewhere")


def remove_directory(made: Path) -> None:
    """Take the directory away."""
    made.rename(made.with_name("elsewhere"))


def include_itself(made: Path) -> None:
    """Have a fragment include its own directory."""
    write(made / "10-a.yaml", "include: .\n")


def repeat_name(made: Path) -> None:
    """Use a rule's name once more."""
    write(made / "30-c.yaml", fragment("a"))


SPOIL_FRAGMENTS = pytest.mark.parametrize(
    "spoil_fragments",
    [break_fragment, link_fragment, let_all_write_fragment, let_all_write_directory,
     link_directory, remove_directory, include_itself, repeat_name],
)  # fmt: skip


@SPOIL_FRAGMENTS
def test_broken_fragment(
    policy_file: PolicyFile,
    directory_of_fragments: Path,
    told: list[str],
    spoil_fragments: Callable[[Path], None],
) -> None:
    """A broken or unsafe fragment keeps the policy read before in force, and is told once."""
    before = policy_file.current()
    spoil_fragments(directory_of_fragments)
    assert [before, before] == [policy_file.current(), policy_file.current()]
    assert [True] == [line.startswith("POLICY BROKEN: ") for line in told]
    assert "policy.d" in told[0]


@SPOIL_FRAGMENTS
def test_fragment_mended(
    policy_file: PolicyFile, directory_of_fragments: Path, spoil_fragments: Callable[[Path], None]
) -> None:
    """A verifier that starts with a broken fragment refuses, and notices when it is mended."""
    spoil_fragments(directory_of_fragments)
    with pytest.raises(PolicyError):
        policy_file.current()
    if directory_of_fragments.is_symlink():
        directory_of_fragments.unlink()
    if not directory_of_fragments.exists():
        directory_of_fragments.with_name("elsewhere").rename(directory_of_fragments)
    directory_of_fragments.chmod(0o755)
    for name in ("10-a.yaml", "30-c.yaml"):
        (directory_of_fragments / name).unlink(missing_ok=True)
    assert ["b"] == names(policy_file)


def test_news(policy_file: PolicyFile, path: Path) -> None:
    """Each reading leaves the hash of what was read, and whether it is in force, for a record."""
    news = []
    for text in (GOOD, BROKEN, NEW):
        write(path, text)
        policy_file.current()
        news.append(policy_file.news)
    hashes = [
        hashlib.sha256(len(text).to_bytes(8, "big") + text.encode()).hexdigest()
        for text in (GOOD, BROKEN, NEW)
    ]
    assert [(hashes[0], True), (hashes[1], False), (hashes[2], True)] == news


def test_news_of_fragments(policy_file: PolicyFile, path: Path) -> None:
    """A fragment's content is a part of the hash."""
    directory, news = path.with_name("policy.d"), []
    directory.mkdir(mode=0o755)
    write(path, "version: 1\ninclude: policy.d\n")
    for name in ("one", "other"):
        rule = f"rules: [{{name: {name}, match: {{}}, then: deny}}]\n"
        write(directory / "a.yaml", rule)
        policy_file.current()
        news.append(policy_file.news)
    assert (2, [True, True]) == (len(set(news)), [one[1] for one in news if one])


def test_news_of_no_file(policy_file: PolicyFile) -> None:
    """Where there is nothing to read, there is no hash."""
    with pytest.raises(PolicyError):
        policy_file.current()
    assert ("", False) == policy_file.news
