# SPDX-License-Identifier: Apache-2.0
"""The manual pages and the completion say what the code knows, and nothing else."""

import importlib.util
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from doubles import REPOSITORY

from pam_mfa.cli.__main__ import commands
from pam_mfa.devices import _READERS, parse_devices
from pam_mfa.document import Section
from pam_mfa.errors import DocumentError
from pam_mfa.policy.parsing import check_policy
from pam_mfa.verifier.__main__ import USAGE

PACKAGING = REPOSITORY / "packaging"
PAGES = PACKAGING / "man"
NATIVE = REPOSITORY / "pam_mfa/native/pam_mfa.c"
# Every section that a policy can have; what is in them does not matter here.
POLICY = b"""
version: 1
defaults: {x: 1}
totp: {x: 1}
hotp: {x: 1}
lockout: {x: 1}
self_service: {x: 1}
fido: {x: 1, attestation: {x: 1}}
agent: {x: 1}
audit: {x: 1}
store: {engine: postgresql, tls: {x: 1}, administrator: {x: 1}, offline: {x: 1}}
rules: [{x: 1, match: {x: 1}}]
"""


def load(path: Path) -> ModuleType:
    """Load a program of packaging/."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


write_pages = load(PAGES / "write_pages.py")
write_scripts = load(PACKAGING / "completion/write_scripts.py")


def keys_of_page(name: str) -> dict[str, set[str]]:
    """Return the keys that a page lists, by its subsection."""
    found: dict[str, set[str]] = {}
    section = ""
    for line in (PAGES / name).read_text("ascii").splitlines():
        if line.startswith(".S"):
            section = line[4:] if line.startswith(".Ss ") else ""
        elif line.startswith(".It Cm ") and section:
            found.setdefault(section, set()).update(line[7:].replace(" ,", "").split())
    return found


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """What sections were asked for which keys, by the sections' paths without numbers."""
    asked: dict[str, set[str]] = {}
    refuse = Section.unknown_keys

    def record(self: Section, keys: Collection[str]) -> Iterator[DocumentError]:
        asked.setdefault(re.sub(r"\[\d+\]", "", self.path), set()).update(keys)
        return refuse(self, keys)

    monkeypatch.setattr(Section, "unknown_keys", record)
    return asked


def test_policy_page_has_every_key(known: dict[str, set[str]]) -> None:
    """pam_mfa.policy(5) lists the keys that the parser knows, section by section."""
    check_policy(POLICY, "policy.yaml")
    listed = keys_of_page("pam_mfa.policy.5")
    assert {path or "policy": keys for path, keys in known.items()} == listed


def test_devices_page_has_every_key(known: dict[str, set[str]]) -> None:
    """pam_mfa.devices(5) lists every type of device and the keys of each."""
    listed = keys_of_page("pam_mfa.devices.5")
    by_type = {}
    for device_type in _READERS:
        known.clear()
        text = f"version: 1\nuser: a\ndevices: [{{type: {device_type}}}]\n"
        with pytest.raises(DocumentError):  # all else is missing
            parse_devices(text.encode(), "a.yaml", "a")
        by_type[device_type] = known["devices"]
        assert known[""] == listed["file"]
    del listed["file"]
    assert by_type == {one: keys for head, keys in listed.items() for one in head.split(", ")}


def test_module_page_has_every_argument() -> None:
    """pam_mfa(8) lists the arguments that the C source reads."""
    source = NATIVE.read_text()
    body = source[source.index("static bool read_arguments") : source.index("get_item(")]
    read = set(re.findall(r'argv\[i\], "([a-z_]+)', body))
    page = (PAGES / "pam_mfa.8").read_text()
    options = page[page.index(".Sh OPTIONS") : page.index(".Sh MODULE TYPES")]
    assert {"root", "timeout", "debug", "forward_pass"} <= read
    assert read - {"argument"} == set(re.findall(r"^\.It Cm ([a-z_]+)", options, re.MULTILINE))


def test_daemons_page_has_every_option() -> None:
    """pam-mfad(8) lists the options of both daemons."""
    page = (PAGES / "pam-mfad.8").read_text()
    selfd = (REPOSITORY / "pam_mfa/self_service/__main__.py").read_text()
    own = (REPOSITORY / "pam_mfa/verifier/__main__.py").read_text()
    options = {*re.findall(r'"--([a-z]+)"', selfd + own), "help"}  # --help is argparse's
    assert set(re.findall(r"--([a-z]+)", USAGE)) <= options
    assert options == set(re.findall(r"^\.It Fl Fl ([a-z]+)", page, re.MULTILINE))


def leaves(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Go through the commands that are no groups, by their whole names."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def plain(roff: str) -> str:
    """Return a page's text as words."""
    return " ".join(re.sub(r"^\.\w\w ?", "", roff, flags=re.MULTILINE)
                    .replace(r"\&", "").replace(r"\-", "-")
                    .replace(r"\(dq", '"').split())  # fmt: skip


def test_command_page_has_every_command_and_option() -> None:
    """pam-mfa(1) has each command with the very words of its --help, and no other."""
    page = write_pages.command_page()
    chapters = {plain(part.split("\n", 1)[0]): part for part in page.split("\n.Ss ")[1:]}
    found = dict(leaves(commands, "pam-mfa"))
    assert set(chapters) == {path for path, command in found.items() if not command.hidden}
    for path, chapter in chapters.items():
        words = plain(chapter)
        assert " ".join((found[path].help or "").split()) in words
        for param in found[path].params:
            if isinstance(param, click.Option):
                assert param.opts[0] in words
                assert " ".join((param.help or "").split()) in words


def test_pages_name_no_place_of_an_installation_from_source() -> None:
    """Packages put the pages where /opt/pam-mfa is not."""
    assert [name for name, text in write_pages.pages().items() if "/opt/" in text] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_asks_the_program(shell: str) -> None:
    """Each shell's completion runs pam-mfa itself, so it cannot drift from the commands."""
    script = write_scripts.script(shell)
    assert f"_PAM_MFA_COMPLETE={shell}_complete" in script
    assert "pam-mfa" in script


def test_every_pinned_package_has_its_licence_named() -> None:
    """debian/copyright names each wheel that the package brings along."""
    pins = re.findall(
        r"^([a-z0-9-]+)==", (PACKAGING / "requirements.txt").read_text(), re.MULTILINE
    )
    text = (PACKAGING / "debian/copyright").read_text()
    assert [name for name in pins if not re.search(rf"\b{name} \(", text.replace("\n ", " "))] == []


def test_one_version() -> None:
    """The package's changelog begins with the version that the program tells."""
    from pam_mfa import __version__  # noqa: PLC0415 - for this test alone

    first = (PACKAGING / "debian/changelog").read_text().split("\n")[0]
    assert first.startswith(f"pam-mfa ({__version__}) ")
