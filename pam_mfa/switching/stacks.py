# SPDX-License-Identifier: Apache-2.0
"""The text of a PAM service file with the module's lines in it, and without them again.

Pure. Each line of ours ends in a mark, and a line that we put out of force begins with one, so that
they are found again in a file that somebody has edited since.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from pam_mfa.pam_services import OTHER, Line, ReadText, Service, find_jumps, parse_service
from pam_mfa.switching.bypasses import Bypass, find_bypasses, name_of

MARK: Final = "# pam-mfa switch"
SET_ASIDE: Final = "#pam-mfa switch# "
_PASSWORD_MODULES = (
    "pam_unix.so", "pam_sss.so", "pam_ldap.so", "pam_krb5.so", "pam_winbind.so",
    "pam_systemd_home.so", "pam_pwdb.so", "pam_fscrypt.so",
)  # fmt: skip


class StackError(ValueError):
    """A file cannot be changed by a program; the text says why, and what to do by hand."""


class Wish(NamedTuple):
    """What a service's file is to get."""

    name: str  # of the service
    module: str  # path or name, and arguments
    phases: Sequence[str]
    replaces_password: bool = False  # sshd has checked a key, so PAM asks for the code alone


class _Part(NamedTuple):
    """A line of a file as PAM joins it, and the modules that it brings in."""

    first: int  # index of its first physical line
    last: int
    words: str
    lines: tuple[Line, ...]  # of what it includes, or its own; [] for a comment


def protect(text: str, wish: Wish, read_text: ReadText) -> str:
    """Return a file's text with the module's lines, behind the password's.

    Args:
        text: the file's.
        wish: what it is to get.
        read_text: returns the text of the other files.

    Raises:
        StackError: nothing that is sound can be made of it.
    """
    _refuse_ours(text, wish, read_text)
    changed = (
        _replace_password(text, wish, read_text)
        if wish.replaces_password
        else _insert(text, wish, "auth", read_text)
    )
    for phase in wish.phases:
        if phase != "auth":
            changed = _insert(changed, wish, phase, read_text)
    return _close_bypasses(changed, wish, read_text)


def strip(text: str) -> str:
    """Return a file's text without what ``protect`` has put into it."""
    kept = []
    for line in text.splitlines(keepends=True):
        if line.startswith(SET_ASIDE):
            kept.append(line.removeprefix(SET_ASIDE))
        elif not is_ours(line):
            kept.append(line)
    return "".join(kept)


def is_ours(line: str) -> bool:
    """Whether a line has been put into a file by us."""
    return line.rstrip().endswith(MARK) and not line.startswith(SET_ASIDE)


def drop_module(text: str) -> str:
    """Return a file's text without any line that names the module, whoever wrote it."""
    lines = strip(text).splitlines(keepends=True)
    return "".join(line for line in lines if "pam_mfa.so" not in line.partition("#")[0])


def parse_candidate(name: str, text: str, read_text: ReadText) -> Service:
    """Return a service as PAM would see it if its file had this text."""
    return parse_service(name, lambda file: text if file == name else read_text(file))


def our_line(phase: str, module: str) -> str:
    """Return a line of the module's."""
    return f"{phase:<8} required  {module}  {MARK}\n"


def _refuse_ours(text: str, wish: Wish, read_text: ReadText) -> None:
    service = parse_candidate(wish.name, text, read_text)
    if service.faults:
        raise StackError(f"PAM does not take its file as it is: {service.faults[0]}")
    lines = [line for line in service.lines if name_of(line) == "pam_mfa.so"]
    if lines:
        raise StackError(
            f"it has pam_mfa.so already, in {lines[0].file}, line {lines[0].number}; what was put "
            "there by hand, take out by hand"
        )


def _insert(text: str, wish: Wish, phase: str, read_text: ReadText) -> str:
    """Put the module's line of a phase where it belongs."""
    parts = _split(text, wish.name, read_text)
    at = _find_place(parts, phase)
    if at is None:
        if phase == "auth":
            raise StackError("it has no auth line that ours could stand behind")
        return text  # the phase is another file's, and one line of ours would take its place
    return _put(text, parts[at - 1].last + 1, our_line(phase, wish.module))


def _put(text: str, at: int, line: str) -> str:
    lines = text.splitlines(keepends=True)
    if at and at == len(lines) and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return "".join([*lines[:at], line, *lines[at:]])


def _split(text: str, name: str, read_text: ReadText) -> list[_Part]:
    """Return a file's lines as PAM joins them, each with what it brings in."""
    parts, words, first = [], "", -1
    for number, raw in enumerate(text.split("\n")):
        content, mark, _ = raw.partition("#")
        content = content.strip(" \t")
        if not content:
            continue
        first = number if first < 0 else first
        words += content.removesuffix("\\") + " "
        if content.endswith("\\") and not mark:
            continue
        parts.append(_Part(first, number, words, _lines_of(words, name, read_text)))
        words, first = "", -1
    return parts


def _lines_of(words: str, name: str, read_text: ReadText) -> tuple[Line, ...]:
    def read_one(file: str) -> str:
        if file == OTHER:
            raise FileNotFoundError(2, "there is none", file)  # stands in for phases of the whole
        return words if file == name else read_text(file)

    return parse_service(name, read_one).lines


def _find_place(parts: Sequence[_Part], phase: str) -> int | None:
    """Return how many parts stand before the module's line; None: the phase has no line here."""
    with_phase = [at for at, part in enumerate(parts) if _of_phase(part, phase)]
    if not with_phase:
        return None
    passwords = [at for at in with_phase if any(map(_checks_password, _of_phase(parts[at], phase)))]
    place = (passwords or with_phase)[-1] + 1
    if phase == "session":
        # pam_env with user_readenv puts a user's words over sshd's: ours must have read them.
        place = min([place, *(at for at in with_phase if _reads_users_words(parts[at]))])
    return _past_jumps(parts, phase, place)


def _of_phase(part: _Part, phase: str) -> list[Line]:
    return [line for line in part.lines if line.type == phase]


def _checks_password(line: Line) -> bool:
    return name_of(line) in _PASSWORD_MODULES


def _reads_users_words(part: _Part) -> bool:
    return any(
        name_of(line) == "pam_env.so" and "user_readenv=1" in line.arguments for line in part.lines
    )


def _past_jumps(parts: Sequence[_Part], phase: str, place: int) -> int:
    """Move a place behind every jump that would be a line short by a line put there."""
    lines, owners = [], []
    for at, part in enumerate(parts):
        for line in _of_phase(part, phase):
            lines.append(line)
            owners.append(at)
    is_settled = False
    while not is_settled:
        is_settled = True
        border = next((at for at, owner in enumerate(owners) if owner >= place), len(lines))
        for at in range(border):
            for result, target in find_jumps(lines, at):
                if lines[at].actions[result].isdecimal() and border < target:
                    place = owners[min(target, len(lines)) - 1] + 1
                    is_settled = False
            if not is_settled:
                break
    return place


def _replace_password(text: str, wish: Wish, read_text: ReadText) -> str:
    """Set the lines aside that ask for the password, and put the module in their place."""
    parts = _split(text, wish.name, read_text)
    found = [part for part in parts if any(map(_checks_password, _of_phase(part, "auth")))]
    if not found:
        raise StackError("it has no line that asks for a password, which a code could replace")
    if any(len({line.type for line in part.lines}) > 1 or not _includes(part) for part in found):
        raise StackError(
            "its password's lines are no plain include; put ours in their place by hand"
        )
    lines = text.splitlines(keepends=True)
    for part in found:
        for at in range(part.first, part.last + 1):
            lines[at] = SET_ASIDE + lines[at].rstrip("\n") + "\n"
    # Whom policy lets by, the module ignores, and PAM refuses where every module does.
    ours = our_line("auth", wish.module) + our_line("auth", "pam_permit.so")
    return _put("".join(lines), found[0].last + 1, ours)


def _includes(part: _Part) -> bool:
    words = part.words.split()
    return words[0].lower() == "@include" or words[1].lower() in ("include", "substack")


def _close_bypasses(text: str, wish: Wish, read_text: ReadText) -> str:
    """Turn an include whose lines would skip the module into a substack, which they cannot leave.

    Raises:
        StackError: the file's own lines skip it.
    """
    own_name, candidate = wish.name, text
    for part in reversed(_split(text, wish.name, read_text)):
        brought = [one for one in _holes(candidate, wish, read_text) if one.line.file != own_name]
        if not brought:
            break
        if _includes(part) and {"auth"} == {line.type for line in part.lines}:
            tried = _as_substack(candidate, part)
            if len(_holes(tried, wish, read_text)) < len(_holes(candidate, wish, read_text)):
                candidate = tried
    holes = _holes(candidate, wish, read_text)
    if holes:
        line = holes[0].line
        raise StackError(
            f"by {line.file}, line {line.number} ({name_of(line)}, {line.control}), a login gets "
            "in without coming to pam_mfa.so; make that line 'required' first"
        )
    return candidate


def _holes(text: str, wish: Wish, read_text: ReadText) -> list[Bypass]:
    service = parse_candidate(wish.name, text, read_text)
    return [one for one in find_bypasses(service) if not one.is_choice]


def _as_substack(text: str, part: _Part) -> str:
    lines = text.splitlines(keepends=True)
    file = part.words.split()[1 if part.words.startswith("@") else 2]
    old = "".join(SET_ASIDE + line for line in lines[part.first : part.last + 1])
    new = f"auth     substack  {file}  {MARK}\n"
    return "".join([*lines[: part.first], old, new, *lines[part.last + 1 :]])
