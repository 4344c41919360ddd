# SPDX-License-Identifier: Apache-2.0
"""PAM files with the module's lines: where they stand, what skips them, and how they come out."""

from pathlib import Path

import pytest
from host_tree import FILES, MODULE, HostTree
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.host import pam_reader
from pam_mfa.pam_services import parse_service
from pam_mfa.switching.bypasses import find_bypasses
from pam_mfa.switching.stacks import StackError, drop_module, parse_candidate, strip

OURS = "auth     required  pam_mfa.so  # pam-mfa switch\n"


@pytest.fixture
def tree(tmp_path: Path) -> HostTree:
    """A host's files."""
    return HostTree(tmp_path)


def modules(tree: HostTree, name: str, text: str, phase: str) -> list[str]:
    """Return the modules of a phase in the order in which PAM comes to them."""
    service = parse_candidate(name, text, pam_reader(tree.root))
    return [line.module for line in service.lines if line.type == phase]


@pytest.mark.parametrize("name", ["sudo", "login", "su", "sshd"])
def test_behind_the_password(tree: HostTree, name: str) -> None:
    """The auth line comes after the password's, and nothing but a choice of root's skips it."""
    changed = tree.protect(name, FILES[name])
    found = modules(tree, name, changed, "auth")
    assert found.index(MODULE) > found.index("pam_unix.so")
    service = parse_candidate(name, changed, pam_reader(tree.root))
    assert [] == [one for one in find_bypasses(service) if not one.is_choice]


def test_session_line_before_the_users_environment(tree: HostTree) -> None:
    """pam_env with user_readenv could put a user's word over sshd's: ours stands before it."""
    changed = tree.protect("sshd", FILES["sshd"], "auth", "account", "session")
    found = modules(tree, "sshd", changed, "session")
    assert found.index(MODULE) < found.index("pam_env.so")


def test_key_in_the_place_of_the_password(tree: HostTree) -> None:
    """Where sshd has checked a key, PAM asks for the code alone."""
    changed = tree.protect("sshd", FILES["sshd"], replaces_password=True)
    assert [MODULE, "pam_permit.so"] == modules(tree, "sshd", changed, "auth")
    assert changed.startswith("#pam-mfa switch# @include common-auth\n")


def test_include_that_would_skip_us_becomes_a_substack(tree: HostTree) -> None:
    """What is sufficient in an included file ends that file, and not the login."""
    text = "auth include system-auth\naccount include system-auth\nsession include system-auth\n"
    changed = tree.protect("demo", text)
    assert "auth     substack  system-auth  # pam-mfa switch\n" in changed
    assert [] == find_bypasses(parse_candidate("demo", changed, pam_reader(tree.root)))
    assert text == strip(changed)


def test_only_the_include_that_would_skip_us_is_changed(tree: HostTree) -> None:
    """Another include, behind ours, stays as its distribution has it."""
    (tree.services / "postlogin").write_text("auth sufficient pam_lastlog.so\n")
    changed = tree.protect("demo", "auth include system-auth\nauth include postlogin\n")
    assert changed.endswith("auth include postlogin\n")
    assert 1 == changed.count("substack")


def test_sufficient_line_of_the_files_own(tree: HostTree) -> None:
    """A file whose own line lets in without us is refused, with the line."""
    with pytest.raises(StackError, match=r"by demo, line 1 \(pam_unix.so, sufficient\)"):
        tree.protect("demo", "auth sufficient pam_unix.so\nauth required pam_deny.so\n")


def test_jump_is_not_broken(tree: HostTree) -> None:
    """No line is put where a jump counts on there being none."""
    text = FILES["common-auth"] + "auth optional pam_cap.so\naccount required pam_unix.so\n"
    changed = tree.protect("demo", text)
    assert ["pam_unix.so", "pam_deny.so", MODULE, "pam_permit.so", "pam_cap.so"] == modules(
        tree, "demo", changed, "auth"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("account required pam_unix.so\n", "has no auth line"),
        ("auth required pam_unix.so\nauth required pam_mfa.so\n", "has pam_mfa.so already"),
        ("auth include nothing-of-this-name\n", "PAM does not take its file"),
    ],
)
def test_refused(tree: HostTree, text: str, words: str) -> None:
    """What cannot be changed soundly is refused with the reason."""
    with pytest.raises(StackError, match=words):
        tree.protect("demo", text)


def test_own_password_line_is_not_replaced(tree: HostTree) -> None:
    """A password's line of the file's own may be part of a jump: it is left to a person."""
    with pytest.raises(StackError, match="no plain include"):
        tree.protect("sshd", "auth required pam_unix.so\n", replaces_password=True)


@pytest.mark.parametrize("name", ["sudo", "login", "su", "sshd"])
@pytest.mark.parametrize("replaces", [False, True])
def test_strip_undoes_protect(tree: HostTree, name: str, replaces: bool) -> None:  # noqa: FBT001
    """Without our lines a file is what it was, byte for byte."""
    changed = tree.protect(name, FILES[name], "auth", "account", replaces_password=replaces)
    assert FILES[name] == strip(changed)


@given(st.text(alphabet="ab \t\\#[]=1\n", max_size=60), st.sampled_from(["sudo", "sshd"]))
def test_strip_undoes_protect_of_any_file(
    tmp_path_factory: pytest.TempPathFactory, extra: str, name: str
) -> None:
    """Whatever else stands in a file, it comes out as it went in, or is refused."""
    tree = HostTree(tmp_path_factory.mktemp("tree"))
    text = f"{FILES[name]}{extra}\n"
    try:
        changed = tree.protect(name, text, "auth", "account")
    except StackError:
        return
    assert text == strip(changed)


def test_edit_is_kept(tree: HostTree) -> None:
    """Lines that somebody has added or taken away meanwhile stay so."""
    changed = tree.protect("sudo", FILES["sudo"], "auth", "account")
    edited = changed.replace("#%PAM-1.0\n", "# mine\n")
    assert FILES["sudo"].replace("#%PAM-1.0\n", "# mine\n") == strip(edited)


def test_drop_module_takes_lines_put_there_by_hand() -> None:
    """By force every line that names the module goes, and no comment on it."""
    text = "auth required pam_unix.so\nauth required /opt/x/pam_mfa.so\n# no pam_mfa.so here\n"
    assert "auth required pam_unix.so\n# no pam_mfa.so here\n" == drop_module(text)


@pytest.mark.parametrize(
    ("before", "is_skipped"),
    [
        ("auth sufficient pam_unix.so", True),
        ("auth [success=done default=ignore] pam_unix.so", True),
        ("auth [success=1 default=ignore] pam_unix.so", True),
        ("auth [success=ok default=1] pam_unix.so", True),
        ("auth required pam_unix.so", False),
        ("auth requisite pam_unix.so", False),
        ("auth optional pam_unix.so", False),
        ("auth sufficient pam_deny.so", False),
        ("auth [success=1 default=ignore] pam_unix.so\nauth requisite pam_deny.so", False),
        ("auth substack system-auth", False),
        ("auth include system-auth", True),
        ("auth [success=1 default=ignore] pam_unix.so\nauth substack system-auth", False),
        ("auth [success=2 default=ignore] pam_unix.so\nauth substack system-auth", True),
    ],
)
def test_what_skips_the_module(tree: HostTree, before: str, is_skipped: bool) -> None:  # noqa: FBT001
    """A line skips ours where a result of its module goes on behind ours."""
    (tree.services / "demo").write_text(f"{before}\nauth required {MODULE}\nauth required x.so\n")
    service = parse_service("demo", pam_reader(tree.root))
    assert is_skipped == bool(find_bypasses(service))
