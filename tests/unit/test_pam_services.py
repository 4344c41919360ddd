# SPDX-License-Identifier: Apache-2.0
"""PAM service files: what pam.d(5) means by them."""

import errno
import os
from collections.abc import Callable

import pytest
from doubles import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.pam_services import TYPES, Service, find_jumps, parse_service


def reader(files: dict[str, str]) -> Callable[[str], str]:
    """Return what reads files of a directory that is not there."""

    def read_text(name: str) -> str:
        if name not in files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return files[name]

    return read_text


def parse(text: str, **others: str) -> Service:
    """Read the service ``s``; other files are named by keywords."""
    return parse_service("s", reader({"s": text, "other": "", **others}))


def modules(service: Service, type_: str = "auth") -> list[str]:
    """Return a phase's modules in their order."""
    return [line.module for line in service.lines if line.type == type_]


def test_line() -> None:
    """A line has a type, a control, a module and arguments, and is known by its place."""
    service = parse("\n# a comment\nauth required /x/pam_mfa.so root=/d timeout=9\n")
    (line,) = service.lines
    assert ("auth", "required", "/x/pam_mfa.so", ("root=/d", "timeout=9"), "s", 3) == line[:6]
    assert () == service.faults


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("AUTH Required a.so", "a.so"),
        ("-auth optional a.so", "a.so"),
        ("\t auth\trequired \t a.so\t", "a.so"),
        ("auth required a.so # b.so", "a.so"),
        ("auth required a.so# b.so", "a.so"),
        ("auth \\\nrequired \\\n  a.so", "a.so"),
        ("auth \\\n# a comment\n\nrequired a.so", "a.so"),
        ("auth required a.so # no more \\\nauth required b.so", "a.so b.so"),
        ("auth [success=1 default=ignore] a.so", "a.so"),
        ("auth [success=1 default=ignore]a.so", "a.so"),
        ("auth [required] a.so", "a.so"),
        ("#auth required a.so", ""),
        ("auth required a.so\r", "a.so\r"),
    ],
)
def test_forms(text: str, module: str) -> None:
    """A line is read in every form that libpam takes."""
    assert module == " ".join(modules(parse(text)))


def test_brackets() -> None:
    """An argument in brackets is one, without them; a bracket in it is escaped."""
    (line,) = parse("auth [a=1 b=2] m.so [x y] z [p[q\\] r] [open").lines
    assert ("a=1 b=2", ("x y", "z", "p[q] r", "open")) == (line.control, line.arguments)


@pytest.mark.parametrize(
    ("control", "result", "expected"),
    [
        ("required", "auth_err", True),
        ("requisite", "auth_err", True),
        ("REQUIRED", "auth_err", True),
        ("sufficient", "auth_err", False),
        ("optional", "auth_err", False),
        ("[success=ok default=bad]", "auth_err", True),
        ("[success=ok default=ignore]", "auth_err", False),
        ("[success=ok auth_err=die default=ignore]", "auth_err", True),
        ("[success=ok auth_err=die default=ignore]", "perm_denied", False),
        ("[success = ok  default = die]", "auth_err", True),
        ("[success=2]", "auth_err", True),
        ("[default=1]", "auth_err", False),
    ],
)
def test_control(control: str, result: str, expected: bool) -> None:  # noqa: FBT001
    """A control says whether the module's refusal is PAM's."""
    (line,) = parse(f"auth {control} m.so").lines
    assert expected is line.is_binding(result)


@pytest.mark.parametrize("word", ["include", "substack", "Include"])
def test_include(word: str) -> None:
    """A line that includes a file takes its lines of one type, in their place."""
    common = "auth required c.so\naccount required d.so\n"
    text = f"auth required a.so\nauth {word} common\nauth required b.so\n"
    service = parse(text, common=common)
    assert (["a.so", "c.so", "b.so"], []) == (modules(service), modules(service, "account"))


def test_include_of_everything() -> None:
    """Debian's @include takes a file's lines of every type."""
    common = "auth required c.so\naccount required d.so\n"
    service = parse("@include common\nsession required e.so\n", common=common)
    assert ["c.so", "d.so", "e.so"] == [line.module for line in service.lines]
    assert ("common", 2) == (service.lines[1].file, service.lines[1].number)


def test_include_within_include() -> None:
    """A type asked for holds for what the included file includes."""
    service = parse(
        "auth include x\n", x="@include y\n", y="account required a.so\nauth required b.so"
    )
    assert ["b.so"] == [line.module for line in service.lines]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("auth include nothing", "nothing cannot be read: No such file or directory"),
        ("auth include", "s, line 1: names no file to include"),
        ("@include", "s, line 1: names no file to include"),
        ("auth include s", "s is included more than 15 files deep"),
        ("auth required", "s, line 1: names no module"),
        ("auth", "s, line 1: names no module"),
        ("\nautj required a.so", "s, line 2: 'autj' is no type of module"),
        ("auth required a.so\\", "s ends in the middle of a line"),
    ],
)
def test_faults(text: str, fault: str) -> None:
    """What libpam would not take is told with its place."""
    assert (fault,) == parse(text).faults


def test_doubling_includes_end() -> None:
    """Files that include each other twice are read to an end, and it is told that it was cut."""
    files = {f"f{n}": f"auth include f{n + 1}\nauth include f{n + 1}\n" for n in range(14)}
    files["f14"] = "auth required a.so\n" * 10
    service = parse_service("f0", reader(files))
    assert (4096, True) == (len(service.lines), bool(service.faults))


def test_other() -> None:
    """A phase that a service has no line for is that of the service other."""
    other = "auth required pam_deny.so\naccount required pam_deny.so\n"
    service = parse("auth required a.so\n", other=other)
    assert (["a.so"], ["pam_deny.so"]) == (modules(service), modules(service, "account"))
    assert ["pam_deny.so"] == modules(parse_service("other", reader({"other": other})))


def test_lines_of() -> None:
    """A module's lines are found wherever it lies, by its file name and in one phase."""
    text = "auth required pam_mfa.so\nauth required /a/pam_mfa.so\nauth required xpam_mfa.so\n"
    service = parse(f"{text}account required /b/pam_mfa.so\n")
    assert ["pam_mfa.so", "/a/pam_mfa.so"] == [
        line.module for line in service.lines_of("auth", "pam_mfa.so")
    ]


@pytest.mark.parametrize("name", ["sshd", "sshd-key-and-code", "sudo", "login"])
def test_shipped_files(name: str) -> None:
    """The shipped examples have the module in the phases that they are written for."""
    folder = REPOSITORY / "config/pam.d"

    def read_text(file: str) -> str:
        return "" if file.startswith("common-") or file == "other" else (folder / file).read_text()

    service = parse_service(name, read_text)
    assert ((), 1, 1) == (
        service.faults,
        len(service.lines_of("auth", "pam_mfa.so")),
        len(service.lines_of("account", "pam_mfa.so")),
    )


@given(st.text(alphabet="auth @includes#\\[]\n\t= required", max_size=200), st.text(max_size=100))
def test_any_text(text: str, other: str) -> None:
    """Whatever a file holds, it is read to an end, and each line is of a known type."""
    service = parse_service("s", reader({"s": text, "other": other, "i": text}))
    assert all(line.type in TYPES and line.module for line in service.lines)


def jumps(text: str, **others: str) -> list[tuple[str, int]]:
    """Return where the first auth line's results go on."""
    lines = [line for line in parse(text, **others).lines if line.type == "auth"]
    return list(find_jumps(lines, 0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auth required a\nauth required b", []),
        ("auth sufficient a\nauth required b", [("success", 2), ("new_authtok_reqd", 2)]),
        ("auth [success=1 default=bad] a\nauth required b\nauth required c", [("success", 2)]),
        ("auth [success=9 default=bad] a\nauth required b", [("success", 2)]),
        ("auth [success=1] a\nauth substack t\nauth required c", [("success", 3)]),
        ("auth [success=done] a\nauth substack t\nauth required c", [("success", 4)]),
    ],
)
def test_where_a_jump_leads(text: str, expected: list[tuple[str, int]]) -> None:
    """A jump counts modules, a substack as one; done goes behind all of them."""
    assert expected == jumps(text, t="auth required x\nauth required y\n")


def test_jump_does_not_leave_its_substack() -> None:
    """Neither done nor a jump in a substack goes further than its end."""
    inner = "auth [success=done default=5] x\nauth required y\n"
    found = jumps("auth substack t\nauth required c\n", t=inner)
    assert [("success", 2), ("default", 2)] == found
