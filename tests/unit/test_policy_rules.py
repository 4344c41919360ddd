# SPDX-License-Identifier: Apache-2.0
"""Rules: what matches, which one decides, and how a mistake in one is told."""

import calendar
import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.errors import BrokenSystemError, DocumentError
from pam_mfa.policy import (
    Action,
    Context,
    Decision,
    Mode,
    Policy,
    Unenrolled,
    UnknownGroupsError,
    check_policy,
    decide,
    find_rule,
    parse_policy,
)
from pam_mfa.policy.checking import Facts, find_warnings
from pam_mfa.policy.explaining import explain
from pam_mfa.wire import Phase

NOW = 1_700_000_045.0  # Tuesday, 2023-11-14 22:14:05 UTC


def policy_of(*rules: str, more: str = "") -> Policy:
    """Return a policy of rules, each given by what stands behind its name."""
    lines = [f"  - {{name: r{number}, {rule}}}" for number, rule in enumerate(rules)]
    text = "\n".join(["version: 1", *([more] if more else []), "rules:", *lines, ""])
    return parse_policy(text.encode(), "p.yaml")


def context_of(**fields: Any) -> Context:  # noqa: ANN401 - any field
    """Return the context of Alice's login by sshd."""
    values: dict[str, Any] = {
        "phase": Phase.AUTH, "user": "alice", "service": "sshd", "tty": "ssh",
        "rhost": "192.0.2.7", "at": NOW, "groups": frozenset(),
    }  # fmt: skip
    return Context(**(values | fields))


def is_match(match: str, **fields: Any) -> bool:  # noqa: ANN401 - any field
    """Whether one rule of this match decides on a login."""
    policy = policy_of(f"match: {{{match}}}, then: skip")
    return find_rule(policy, context_of(**fields)) is not None


@pytest.mark.parametrize(
    ("match", "fields", "expected"),
    [
        ("", {}, True),
        ("service: [sshd]", {}, True),
        ("service: [login, sshd]", {}, True),
        ("service: [ssh]", {}, False),
        ("service: [SSHD]", {}, False),
        ("user: [alice]", {}, True),
        ("user: [root]", {}, False),
        ("service: [sshd], user: [root]", {}, False),
        ("group: [a, b]", {"groups": frozenset("bc")}, True),
        ("group: [a, b]", {"groups": frozenset("c")}, False),
    ],
)
def test_names(match: str, fields: dict[str, Any], expected: bool) -> None:  # noqa: FBT001
    """Every key has to match; in its list one word is enough."""
    assert expected == is_match(match, **fields)


@pytest.mark.parametrize(
    ("words", "fields", "expected"),
    [
        ("tty1", {"tty": "tty1"}, True),
        ("tty1", {"tty": "/dev/tty1"}, True),
        ("/dev/tty1", {"tty": "tty1"}, True),
        ("tty1", {"tty": "tty10"}, False),
        ("tty1", {"tty": "pts/1"}, False),
        ("pts/3", {"tty": "/dev/pts/3"}, True),
        ("local", {"tty": "tty1", "service": "login", "rhost": ""}, True),
        ("local", {"tty": "/dev/ttyS0", "service": "login", "rhost": ""}, True),
        ("local", {"tty": "/dev/console", "service": "login", "rhost": ""}, True),
        ("local", {"tty": "hvc0", "service": "login", "rhost": ""}, True),
        ("local", {"tty": "pts/0", "service": "sudo", "rhost": ""}, False),
        ("local", {"tty": "ttyp0", "service": "sudo", "rhost": ""}, False),
        ("local", {"tty": ":0", "service": "gdm-password", "rhost": ""}, False),
        ("local", {"tty": "", "service": "cron", "rhost": ""}, False),
        ("local", {"tty": "tty1", "service": "login"}, False),
        ("local", {"tty": "tty1", "service": "sudo", "rhost": "", "ssh_connection": "x"}, False),
        ("local", {"tty": "tty1", "service": "sshd", "rhost": ""}, False),
        ("local", {"tty": "tty1\n", "service": "login", "rhost": ""}, False),
        ("remote", {"tty": "tty1", "service": "login", "rhost": ""}, False),
        ("remote", {"tty": "pts/0", "service": "sudo", "rhost": ""}, True),
        ("remote", {}, True),
        ("local, pts/0", {"tty": "pts/0", "service": "sudo", "rhost": ""}, True),
        ("local, remote", {"tty": ""}, True),
    ],
)
def test_terminals(words: str, fields: dict[str, Any], expected: bool) -> None:  # noqa: FBT001
    """A terminal is meant by its name, or by being a console of this machine, or by not being."""
    assert expected == is_match(f"tty: [{words}]", **fields)


@pytest.mark.parametrize(
    ("network", "rhost", "expected"),
    [
        ("192.0.2.0/24", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.0/24", "192.0.3.7", False),
        ("192.0.2.0/24", "::ffff:192.0.2.7", True),
        ("'::ffff:192.0.2.0/120'", "192.0.2.7", True),
        ("'::ffff:0:0/96'", "192.0.2.7", True),
        ("'::/0'", "192.0.2.7", False),
        ("'::/0'", "2001:db8::1", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("0.0.0.0/0", "::ffff:1.2.3.4", True),
        ("'fe80::/10'", "fe80::1%eth0", True),
        ("'2001:db8::/32'", "2001:DB8:0::1", True),
        ("0.0.0.0/0", "host.example.com", False),
        ("0.0.0.0/0", "", False),
        ("0.0.0.0/0", "010.0.0.1", False),
        ("0.0.0.0/0", "3221226000", False),
        ("0.0.0.0/0", "192.0.2.7 ", False),
        ("0.0.0.0/0", "1" * 5000, False),
    ],
)
def test_networks(network: str, rhost: str, expected: bool) -> None:  # noqa: FBT001
    """An address is in a network or not; what is no address is in none, and outside of all."""
    inside = is_match(f"from: [{network}]", rhost=rhost)
    outside = is_match(f"not_from: [{network}]", rhost=rhost)
    assert (expected, not expected) == (inside, outside)


def at(text: str) -> float:
    """Return the seconds since the epoch of a moment in UTC."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize(
    ("match", "moment", "expected"),
    [
        ("weekday: [tue]", "2023-11-14T00:00:00", True),
        ("weekday: [tue]", "2023-11-14T23:59:59", True),
        ("weekday: [tue]", "2023-11-15T00:00:00", False),
        ("time: '08:00-18:00'", "2023-11-14T08:00:00", True),
        ("time: '08:00-18:00'", "2023-11-14T07:59:59", False),
        ("time: '08:00-18:00'", "2023-11-14T17:59:59", True),
        ("time: '08:00-18:00'", "2023-11-14T18:00:00", False),
        ("time: '18:00-24:00'", "2023-11-14T23:59:59", True),
        ("time: '22:00-06:00'", "2023-11-14T23:00:00", True),
        ("time: '22:00-06:00'", "2023-11-14T05:59:59", True),
        ("time: '22:00-06:00'", "2023-11-14T06:00:00", False),
        ("weekday: [tue], time: '22:00-06:00'", "2023-11-15T03:00:00", True),
        ("weekday: [tue], time: '22:00-06:00'", "2023-11-14T03:00:00", False),
        ("weekday: [sun], time: '22:00-06:00'", "2023-11-13T03:00:00", True),
        ("time: '08:00-18:00', zone: Europe/Berlin", "2023-11-14T07:00:00", True),
        ("time: '08:00-18:00', zone: Europe/Berlin", "2023-07-14T06:00:00", True),
        ("time: '08:00-18:00', zone: Europe/Berlin", "2023-11-14T06:59:59", False),
        ("weekday: [wed], zone: Asia/Tokyo", "2023-11-14T15:00:00", True),
    ],
)
def test_times(match: str, moment: str, expected: bool) -> None:  # noqa: FBT001
    """Days and hours are those of the zone's clock; a night belongs to the day it begins on."""
    assert expected == is_match(match, at=at(moment))


@pytest.mark.parametrize("day", range(7))
def test_weekdays(day: int) -> None:
    """The names of the days are those of the calendar."""
    name = calendar.day_abbr[day].lower()
    assert is_match(f"weekday: [{name}]", at=at(f"2023-11-{13 + day}T12:00:00"))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("then: skip", Decision(Action.SKIP, (), "r0")),
        ("then: deny, message: No.", Decision(Action.DENY, (), "r0", message="No.")),
        ("require: [fido, token]", Decision(Action.VERIFY, ("fido", "token"), "r0")),
        ("then: deny, mode: report-only", Decision(Action.DENY, (), "r0", Mode.REPORT_ONLY)),
        ("then: deny, mode: enforce", Decision(Action.DENY, (), "r0", Mode.ENFORCE)),
    ],
)
def test_effects(rule: str, expected: Decision) -> None:
    """A rule that matches decides, by its own name and mode."""
    assert expected == decide(policy_of(f"match: {{}}, {rule}"), context_of())


def test_policy_mode_holds() -> None:
    """In a policy that only reports, a rule cannot enforce."""
    policy = policy_of("match: {}, then: deny, mode: enforce", more="mode: report-only")
    assert Mode.REPORT_ONLY is decide(policy, context_of()).mode


def test_no_rule() -> None:
    """Where no rule matches, the defaults decide."""
    policy = policy_of("match: {user: [bob]}, then: skip", more="defaults: {devices: [token]}")
    assert Decision(Action.VERIFY, ("token",)) == decide(policy, context_of())


@pytest.mark.parametrize(
    ("rule", "action"),
    [
        ("then: skip", Action.NOTHING),
        ("then: deny", Action.NOTHING),
        ("require: [virtual]", Action.ENROLL),
        ("require: [virtual], mode: report-only", Action.NOTHING),
    ],
)
def test_account_phase(rule: str, action: Action) -> None:
    """Who enrolls at the first login is decided by the same rules."""
    policy = policy_of(f"match: {{}}, {rule}", more="defaults: {unenrolled: enroll}")
    assert action is decide(policy, context_of(phase=Phase.ACCOUNT)).action


def test_groups_are_needed_late() -> None:
    """Groups are asked for where all else of a rule matches and no earlier rule has decided."""
    policy = policy_of(
        "match: {user: [alice]}, then: skip",
        "match: {group: [g], service: [sudo]}, then: deny",
        "match: {user: [bob], group: [g]}, then: deny",
    )
    calm = [
        decide(policy, context_of(user=user, service=service, groups=None)).action
        for user, service in (("alice", "sudo"), ("carol", "sshd"))
    ]
    assert [Action.SKIP, Action.VERIFY] == calm
    with pytest.raises(UnknownGroupsError, match="rules ask for g"):
        decide(policy, context_of(user="bob", groups=None))


ORDINARY = "match: {user: [a]}, then: skip"


@pytest.mark.parametrize(
    ("rule", "problem", "hint"),
    [
        ("then: skip", "'rules[0].match' is missing", "Where a rule is for everybody, write: "),
        ("match: {}, then: allow", "'rules[0].then' is 'allow', not one of skip, deny", ""),
        ("match: {}, then: skip, require: [fido]", "'rules[0].then' stands beside 'require'", "A"),
        ("match: {}", "'rules[0].name' names a rule that does nothing", "A rule has one of these"),
        ("match: {}, require: []", "'rules[0].require' is empty", ""),
        ("match: {}, require: [sms]", "'rules[0].require' names sms. SMS is not a device type", ""),
        ("match: {}, require: [webauthn]", "'rules[0].require' names 'webauthn', not one of", ""),
        ("match: {}, require: [fido, fido]", "'rules[0].require' names 'fido' twice", ""),
        ("match: {}, then: skip, message: x", "'rules[0].message' goes with 'then: deny' only", ""),
        ('match: {}, then: deny, message: "a\\nb"', "'rules[0].message' must be one line", ""),
        ("match: {}, then: skip, mode: on", "'rules[0].mode' must be text", ""),
        ("match: {}, then: skip, mfa_age: 15m", "'rules[0].mfa_age' goes with 'require' only", ""),
        ("match: {}, then: deny, mfa_age: 15m", "'rules[0].mfa_age' goes with 'require' only", ""),
        ("match: {}, then: skip, scope: host", "'rules[0].scope' goes with 'mfa_age' only", "It"),
        ("match: {}, require: [fido], scope: host", "'rules[0].scope' goes with 'mfa_age'", "It"),
        ("match: {}, require: [fido], mfa_age: 1h, scope: tty", "'rules[0].scope' is 'tty', n", ""),
        ("match: {}, require: [fido], mfa_age: 5min30", "'rules[0].mfa_age' is not a length", "Wr"),
        ("match: {}, require: [fido], mfa_age: -5m", "'rules[0].mfa_age' is not a length of", "Wr"),
        ("match: {}, require: [fido], mfa_age: 0s", "'rules[0].mfa_age' is not a length of ", "Wr"),
        ("match: {}, require: [fido], mfa_age: 15", "'rules[0].mfa_age' must be text", ""),
        ("match: {phase: [login]}, then: skip", "'rules[0].match.phase' is 'login', not one", ""),
        ("match: {phase: auth}, then: skip", "'rules[0].match.phase' must be a list", ""),
        ("match: {phase: [auth, auth]}, then: skip", "'rules[0].match.phase' names 'auth' tw", ""),
        ("match: {servce: [a]}, then: skip", "'rules[0].match.servce' is not", "Did you mean 'ser"),
        ("match: {service: sshd}, then: skip", "'rules[0].match.service' must be a list", ""),
        ("match: {user: []}, then: skip", "'rules[0].match.user' is empty", ""),
        ("match: {user: [0]}, then: skip", "'rules[0].match.user' must be a list of words", ""),
        ("match: {user: [a, a]}, then: skip", "'rules[0].match.user' names 'a' twice", ""),
        ("match: {tty: [tty1, /dev/tty1]}, then: skip", "'rules[0].match.tty' names 'tty1' tw", ""),
        ("match: {tty: ['tty*']}, then: skip", "'rules[0].match.tty' names 'tty*', which is", "W"),
        ("match: {from: [10.0.0.1/8]}, then: skip",
         "'rules[0].match.from' names '10.0.0.1/8', which has host bits set",
         "Did you mean '10.0.0.0/8'?"),
        ("match: {not_from: ['fd00::1/8']}, then: skip",
         "'rules[0].match.not_from' names 'fd00::1/8', which has host bits set",
         "Did you mean 'fd00::/8'?"),
        ("match: {from: [gate.example.com]}, then: skip",
         "'rules[0].match.from' names 'gate.example.com', which is no network", "Write addresses"),
        ("match: {from: [10.0.0.0/33]}, then: skip", "'rules[0].match.from' names '10.0.0.0/33', ",
         "Write"),
        ("match: {from: [10.0.0.0/255.0.0.0]}, then: skip", "'rules[0].match.from' names '10.0.",
         "Write"),
        ("match: {from: [10.0.0.0/0.255.255.255]}, then: skip", "'rules[0].match.from' names", "W"),
        ("match: {from: [10.0.0.0/8, 10.0.0.0/8]}, then: skip",
         "'rules[0].match.from' names '10.0.0.0/8' twice", ""),
        ("match: {from: [10.0.0.0/8, '::ffff:10.0.0.0/104']}, then: skip",
         "'rules[0].match.from' names '10.0.0.0/8' twice, again as '::ffff:10.0.0.0/104'", ""),
        ("match: {weekday: [monday]}, then: skip", "'rules[0].match.weekday' is 'monday', not", ""),
        ("match: {time: '8:00-18:00'}, then: skip", "'rules[0].match.time' is '8:00-18:00', ", "W"),
        ("match: {time: '08:00-08:00'}, then: skip", "'rules[0].match.time' is '08:00-08:00'", "W"),
        ("match: {time: '24:00-08:00'}, then: skip", "'rules[0].match.time' is '24:00-08:00'", "W"),
        ("match: {time: '08:00-25:00'}, then: skip", "'rules[0].match.time' is '08:00-25:00'", "W"),
        ("match: {time: '٠8:00-18:00'}, then: skip", "'rules[0].match.time' is", "Write it as"),
        ("match: {zone: UTC}, then: skip", "'rules[0].match.zone' goes with 'weekday' and", ""),
        ("match: {weekday: [mon], zone: Mars}, then: skip", "'rules[0].match.zone' is 'Mars'", ""),
        ("match: {weekday: [mon], zone: ../../x}, then: skip", "'rules[0].match.zone' is '../", ""),
        ("match: {weekday: [mon], zone: Europe}, then: skip", "'rules[0].match.zone' is 'Eur", ""),
    ],
)  # fmt: skip
def test_mistakes(rule: str, problem: str, hint: str) -> None:
    """A mistake in a rule is told with its line, its key and what to write."""
    with pytest.raises(DocumentError) as caught:
        policy_of(rule)
    assert str(caught.value).startswith(f"p.yaml, line 3: {problem}")
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ("- {match: {}, then: skip}", "line 3: 'rules[0].name' is missing"),
        ("- {name: ' ', match: {}, then: skip}", "line 3: 'rules[0].name' must be of 1 to 100"),
        ("- {name: 7, match: {}, then: skip}", "line 3: 'rules[0].name' must be text"),
        (
            f"- {{name: a, {ORDINARY}}}\n- {{name: a, {ORDINARY}}}",
            "line 4: 'rules[1].name' is 'a', as of the rule in p.yaml, line 3",
        ),
        ("- skip", "line 2: 'rules' must be a list of mappings"),
        (" {a: b}", "line 2: 'rules' must be a list"),
    ],
)
def test_names_of_rules(rules: str, problem: str) -> None:
    """Every rule has a name of its own."""
    with pytest.raises(DocumentError) as caught:
        parse_policy(f"version: 1\nrules:\n{rules}\n".encode(), "p.yaml")
    assert str(caught.value).startswith(f"p.yaml, {problem}")


def test_every_mistake_at_once() -> None:
    """All mistakes are found, each once, in whatever part of the file."""
    text = b"""\
version: 2
mod: enforce
defaults: {prompts: 0, unenroled: deny}
lockout: {within: 5min30}
fido: {touch: -5s}
rules:
  - {name: a, match: {from: [10.0.0.1/8], usr: [x]}, then: skp}
  - {name: a, match: {}, then: deny}
"""
    keys = [str(error).split("'")[1] for error in check_policy(text, "p")[1]]
    expected = [
        "mod", "defaults.unenroled", "version", "defaults.prompts", "lockout.within", "fido.touch",
        "rules[0].match.usr", "rules[0].match.from", "rules[0].then", "rules[1].name",
    ]  # fmt: skip
    assert sorted(expected) == sorted(keys)


FRAGMENT = f"rules:\n- {{name: f, {ORDINARY}}}\n".encode()


def read_with(*fragments: tuple[str, bytes]) -> tuple[Policy, list[BrokenSystemError]]:
    """Read a policy of one rule that includes fragments."""
    text = f"version: 1\ninclude: d\nrules:\n- {{name: own, {ORDINARY}}}\n".encode()
    return check_policy(text, "p", lambda _: fragments)


def test_fragments() -> None:
    """The rules of fragments come behind the policy's own, in the fragments' order."""
    policy, errors = read_with(("d/1", FRAGMENT), ("d/2", FRAGMENT.replace(b"name: f", b"name: g")))
    assert (["own", "f", "g"], []) == ([rule.name for rule in policy.rules], errors)


@pytest.mark.parametrize(
    ("fragment", "problem"),
    [
        (b"include: e\n", "d/1, line 1: 'include' stands in a fragment, which includes nothing"),
        (b"version: 1\n", "d/1, line 1: 'version' stands in a fragment, which has rules only"),
        (b"rules: []\nmode: report-only\n", "d/1, line 2: 'mode' stands in a fragment"),
        (b"rules: [\n", "d/1, line 2: did not find expected node content"),
        (b"", "d/1 does not hold a mapping"),
        (FRAGMENT.replace(b"name: f", b"name: own"), "d/1, line 2: 'rules[0].name' is 'own', as"),
        (b"x" * 70000, "d/1 has 70000 bytes, more than 65536"),
    ],
)
def test_bad_fragments(fragment: bytes, problem: str) -> None:
    """A fragment has rules only; what is wrong in it is told with its own name."""
    _, errors = read_with(("d/1", fragment))
    assert [True] == [str(error).startswith(problem) for error in errors]


def test_huge_policy() -> None:
    """A policy of 10 MB is refused for its length."""
    with pytest.raises(DocumentError, match="has 10000000 bytes, more than 262144"):
        parse_policy(b"#" * 10_000_000, "p")


def facts(types: tuple[str, ...] | None = ("virtual",), **names: bool) -> Facts:
    """Return a host that has every user and group but those told."""
    return Facts(
        lambda user: names.get(user, True), lambda group: names.get(group, True), types,
        frozenset(), NOW,
    )  # fmt: skip


def warnings_of(*rules: str, more: str = "", host: Facts | None = None) -> list[str]:
    """Return the warnings of a policy of these rules."""
    return list(find_warnings(policy_of(*rules, more=more), host or facts()))


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("", "user: [a]", True),
        ("user: [a]", "user: [a]", True),
        ("user: [a, b]", "user: [b]", True),
        ("user: [a]", "user: [a, b]", False),
        ("user: [a]", "service: [a]", False),
        ("user: [a], service: [x]", "user: [a]", False),
        ("user: [a]", "user: [a], service: [x]", True),
        ("from: [10.0.0.0/8]", "from: [10.1.0.0/16, 10.2.0.0/16]", True),
        ("from: [10.0.0.0/8]", "from: [10.1.0.0/16, 11.0.0.0/8]", False),
        ("not_from: [10.1.0.0/16]", "not_from: [10.0.0.0/8]", True),
        ("not_from: [10.0.0.0/8]", "not_from: [10.1.0.0/16]", False),
        ("tty: [local, remote]", "tty: [tty1]", True),
        ("tty: [local]", "tty: [remote]", False),
        ("tty: [tty1, tty2]", "tty: [tty2]", True),
        ("group: [g, h]", "group: [h]", True),
        ("group: [g]", "group: [h]", False),
        ("weekday: [mon, tue]", "weekday: [tue]", True),
        ("weekday: [mon]", "weekday: [mon], time: '08:00-09:00'", False),
        ("time: '00:00-24:00'", "time: '08:00-09:00'", True),
        ("", "phase: [session]", True),
        ("phase: [auth, session]", "phase: [session]", True),
        ("phase: [auth]", "", False),
        ("phase: [auth]", "phase: [session]", False),
    ],
)
def test_unreachable(wide: str, narrow: str, expected: bool) -> None:  # noqa: FBT001
    """A rule that an earlier one surely catches is told, and no other is."""
    found = warnings_of(f"match: {{{wide}}}, then: skip", f"match: {{{narrow}}}, then: skip")
    assert expected == any("'r1' (p.yaml, line 4) is never reached" in one for one in found)


@pytest.mark.parametrize(
    "match", ["from: [10.1.0.0/16], not_from: [10.0.0.0/8]", "from: [10.0.0.0/8], tty: [local]"]
)
def test_impossible(match: str) -> None:
    """A rule whose conditions exclude each other is told."""
    assert "can never match" in warnings_of(f"match: {{{match}}}, then: skip")[0]


def test_unknown_names() -> None:
    """Users and groups that the host does not have are told by name."""
    found = warnings_of(
        "match: {user: [al], group: [gr]}, then: deny", host=facts(al=False, gr=False)
    )
    assert [True, True] == ["names the user 'al'" in found[0], "names the group 'gr'" in found[1]]


@pytest.mark.parametrize(
    ("rules", "more", "types", "expected"),
    [
        ((), "", (), True),
        ((), "", ("virtual",), False),
        ((), "", ("ssh-key",), True),
        ((), "", None, False),
        ((), "mode: report-only", (), False),
        ((), "defaults: {unenrolled: allow}", (), False),
        (("match: {service: [login], user: [root], tty: [tty1]}, then: skip",), "", (), False),
        (("match: {service: [login], tty: [local]}, then: skip",), "", (), False),
        (("match: {service: [login], tty: [pts/0]}, then: skip",), "", (), True),
        (("match: {service: [sudo]}, then: skip",), "", (), True),
        (("match: {}, then: deny",), "", None, True),
        (("match: {tty: [local]}, require: [fido]",), "", ("virtual",), True),
        (("match: {weekday: [sun], user: [root]}, then: skip",), "", (), False),
    ],
)
def test_console_way(
    rules: tuple[str, ...], more: str, types: tuple[str, ...] | None, expected: bool  # noqa: FBT001
) -> None:  # fmt: skip
    """A rule set under which root gets in at no console is told."""
    rules = (*rules, "match: {user: [x]}, then: deny")
    found = warnings_of(*rules, more=more, host=facts(types))
    assert expected == any("root has no way in from any console" in one for one in found)


SERVICES = ("sshd", "sudo", "login")
USERS = ("alice", "bob", "root")
GROUPS = ("g", "h")
TERMINALS = ("tty1", "pts/0", "")
HOSTS = ("", "10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "gate.example.com", "192.0.2.7")


def some(words: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    """Return lists of some of the words."""
    return st.lists(st.sampled_from(words), min_size=1, max_size=2, unique=True)


MATCHES = st.fixed_dictionaries(
    {},
    optional={
        "phase": some(("auth", "account", "session")),
        "service": some(SERVICES),
        "user": some(USERS),
        "group": some(GROUPS),
        "tty": some(("tty1", "pts/0", "local", "remote")),
        "from": some(("10.0.0.0/8", "fd00::/8", "192.0.2.0/24")),
        "not_from": some(("10.1.0.0/16", "fd00::/16", "192.0.2.7/32")),
        "weekday": some(("mon", "tue", "sun")),
        "time": st.sampled_from(["00:00-12:00", "22:00-06:00", "12:00-24:00"]),
    },
)
EFFECTS = st.sampled_from([
    "then: skip", "then: deny", "require: [fido]", "require: [token]",
    "require: [fido], mfa_age: 15m", "require: [token], mfa_age: 1h, scope: host",
])  # fmt: skip
MODES = st.sampled_from(["", ", mode: report-only", ", mode: enforce"])


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Return policies of up to five rules."""
    matches = draw(st.lists(MATCHES, min_size=1, max_size=5))
    more = draw(st.sampled_from(["", "mode: report-only", "defaults: {unenrolled: enroll}"]))
    rules = [f"match: {match!r}, {draw(EFFECTS)}{draw(MODES)}" for match in matches]
    return policy_of(*rules, more=more)


CONTEXTS = st.builds(
    Context,
    phase=st.sampled_from(Phase),
    user=st.sampled_from(USERS),
    service=st.sampled_from(SERVICES),
    tty=st.sampled_from(TERMINALS),
    rhost=st.sampled_from(HOSTS),
    ssh_connection=st.sampled_from(["", "10.1.2.3 1 10.1.2.4 22"]),
    at=st.integers(1_700_000_000, 1_701_000_000).map(float),
    groups=st.one_of(st.none(), st.frozensets(st.sampled_from(GROUPS))),
)


def alone(policy: Policy, index: int) -> Policy:
    """Return a policy of one of its rules."""
    return policy._replace(rules=policy.rules[index : index + 1])


def try_to_decide(policy: Policy, context: Context) -> Decision | None:
    """Return what is decided; None where it depends on groups that are not known."""
    try:
        return decide(policy, context)
    except UnknownGroupsError:
        return None


@given(policies(), CONTEXTS)
def test_explanation_agrees(policy: Policy, context: Context) -> None:
    """An explanation has the decision, and marks the very rule by which it was made."""
    explanation = explain(policy, context)
    decision = try_to_decide(policy, context)
    assert decision == explanation.decision
    deciding = [one.rule.name for one in explanation.rules if one.is_deciding]
    named = [decision.rule] if decision and decision.rule else []
    assert deciding == named or (decision == Decision(Action.NOTHING) and not named)


@given(policies(), CONTEXTS)
def test_first_match_decides(policy: Policy, context: Context) -> None:
    """The rule that decides is the first that would decide alone, whatever stands behind it."""
    context = context._replace(phase=Phase.AUTH, groups=context.groups or frozenset())
    singles = [decide(alone(policy, n), context) for n in range(len(policy.rules))]
    matching = [one for one in singles if one.rule]
    expected = matching[0] if matching else decide(policy._replace(rules=()), context)
    assert expected == decide(policy, context)


@given(policies(), CONTEXTS)
def test_rules_that_do_not_match_change_nothing(policy: Policy, context: Context) -> None:
    """Taking rules away that do not match leaves the decision, so their order is no surprise."""
    context = context._replace(groups=context.groups or frozenset())
    kept = tuple(
        rule
        for rule in policy.rules
        if find_rule(policy._replace(rules=(rule,)), context) is not None
    )
    assert decide(policy, context) == decide(policy._replace(rules=kept), context)


@given(policies(), CONTEXTS)
def test_unreachable_rules_never_decide(policy: Policy, context: Context) -> None:
    """What is told to be never reached, or never to match, decides on no login."""
    context = context._replace(phase=Phase.AUTH, groups=context.groups or frozenset())
    decided = {decide(policy, context._replace(phase=phase)).rule for phase in Phase}
    dead = [one for one in find_warnings(policy, facts()) if "never" in one]
    names = [f"the rule '{name}' " for name in decided if name]
    assert not [one for one in dead if one.startswith(tuple(names))]


@given(policies(), CONTEXTS)
def test_first_match_decides_in_each_phase(policy: Policy, context: Context) -> None:
    """In each phase the first rule that matches is the one that is named, or nothing is asked."""
    context = context._replace(groups=context.groups or frozenset())
    first, decision = find_rule(policy, context), decide(policy, context)
    if decision.rule:
        assert first is not None
        assert (first.name, first.mfa_age if decision.action is Action.VERIFY else 0.0) == (
            decision.rule, decision.mfa_age,
        )  # fmt: skip
    elif decision.action is not Action.NOTHING:
        assert first is None


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("match: {}, require: [fido]", (Action.VERIFY, Action.NOTHING, Action.NOTHING)),
        ("match: {}, then: deny", (Action.DENY, Action.NOTHING, Action.NOTHING)),
        ("match: {}, then: skip", (Action.SKIP, Action.NOTHING, Action.NOTHING)),
        ("match: {}, require: [fido], mfa_age: 1h",
         (Action.VERIFY, Action.VERIFY, Action.NOTHING)),
        ("match: {phase: [session]}, require: [ssh-key]",
         (Action.VERIFY, Action.NOTHING, Action.VERIFY)),
        ("match: {phase: [account]}, then: deny", (Action.VERIFY, Action.DENY, Action.NOTHING)),
        ("match: {phase: [auth]}, require: [fido], mfa_age: 1h",
         (Action.VERIFY, Action.NOTHING, Action.NOTHING)),
        ("match: {phase: [auth, account, session]}, then: skip", (Action.SKIP,) * 3),
    ],
)  # fmt: skip
def test_phases(rule: str, expected: tuple[Action, ...]) -> None:
    """A rule decides in the phases that it names; else in auth, and by its age in account."""
    policy = policy_of(rule)
    assert expected == tuple(decide(policy, context_of(phase=phase)).action for phase in Phase)


def test_rule_keeps_later_ones_from_matching() -> None:
    """A rule that is let by in auth is in every phase the first that matches."""
    policy = policy_of(
        "match: {service: [login], user: [root]}, then: skip",
        "match: {phase: [session]}, require: [ssh-key]",
    )
    root = context_of(phase=Phase.SESSION, service="login", user="root")
    assert Action.NOTHING is decide(policy, root).action
    assert Action.VERIFY is decide(policy, context_of(phase=Phase.SESSION)).action


def test_age_and_enrolling() -> None:
    """Under an age whoever has no device enables one first, in the account phase only."""
    policy = policy_of(
        "match: {}, require: [fido], mfa_age: 1h", more="defaults: {unenrolled: enroll}"
    )
    decisions = [decide(policy, context_of(phase=phase)) for phase in Phase]
    assert [False, True, False] == [one.may_enroll for one in decisions]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("match: {}, then: deny", 0.0),
        ("match: {phase: [auth]}, then: deny", 0.0),
        ("match: {phase: [session]}, then: deny", 600.0),
        ("match: {}, require: [fido], mfa_age: 30s", 600.0),
        ("match: {}, require: [fido], mfa_age: 1h", 3600.0),
    ],
)
def test_memory(rule: str, expected: float) -> None:
    """Verifications are remembered as long as a rule may want one, and else not at all."""
    assert expected == policy_of("match: {user: [x]}, then: skip", rule).memory


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("match: {phase: [auth]}, require: [fido], mfa_age: 1h", "leaves the account phase out"),
        ("match: {from: [10.0.0.0/8, 10.1.0.0/16]}, then: skip",
         "names under from '10.1.0.0/16', which lies in '10.0.0.0/8'"),
        ("match: {not_from: [10.1.0.0/16, 10.0.0.0/8]}, then: skip",
         "names under not_from '10.1.0.0/16', which lies in '10.0.0.0/8'"),
        ("match: {from: [10.0.0.0/8, 192.0.2.0/24], not_from: [10.0.0.0/8]}, then: skip",
         "names the network '10.0.0.0/8' twice, under from and under not_from"),
    ],
)  # fmt: skip
def test_oddities(rule: str, text: str) -> None:
    """Ages that nobody looks at, and networks that are written twice, are told."""
    assert [True] == [text in one for one in warnings_of(rule, host=facts(("virtual", "fido")))]


@pytest.mark.parametrize(
    ("rules", "types", "expected"),
    [
        (("match: {phase: [session]}, require: [ssh-key]",), ("virtual",), True),
        (("match: {phase: [session]}, require: [virtual]",), ("virtual",), False),
        (("match: {phase: [session]}, require: [token]",), ("virtual", "token"), False),
        (("match: {phase: [session]}, require: [ssh-key]",), None, True),
        (("match: {phase: [session]}, then: deny",), ("virtual",), True),
        (("match: {phase: [session], service: [sshd]}, then: deny",), ("virtual",), False),
        (("match: {user: [root]}, then: skip", "match: {phase: [session]}, require: [ssh-key]"),
         (), False),
        (("match: {phase: [auth]}, then: skip", "match: {phase: [session]}, require: [virtual]"),
         ("virtual",), True),
        (("match: {phase: [account]}, then: deny",), ("virtual",), True),
    ],
)  # fmt: skip
def test_console_way_in_every_phase(
    rules: tuple[str, ...], types: tuple[str, ...] | None, expected: bool  # noqa: FBT001
) -> None:  # fmt: skip
    """Root has a way in where all phases of one login let by; a session asks nothing."""
    found = warnings_of(*rules, host=facts(types))
    assert expected == any("root has no way in from any console" in one for one in found)


def test_any_agent_key_is_warned_of() -> None:
    """Where keys in files approve sudo, the check says that no touch is proven."""
    rule = "match: {user: [root]}, then: skip"
    (warning,) = [one for one in warnings_of(rule, more="agent_keys: any") if "agent" in one]
    assert "no touch is proven" in warning
    assert not [one for one in warnings_of(rule, more="agent_keys: sk") if "agent" in one]


def test_enrolling_is_of_the_account_phase() -> None:
    """Phases without anything to decide ask no rule, and need no groups."""
    policy = policy_of("match: {group: [g]}, then: deny")
    contexts = [context_of(phase=phase, groups=None) for phase in (Phase.ACCOUNT, Phase.SESSION)]
    assert [Action.NOTHING] * 2 == [decide(policy, one).action for one in contexts]
    assert Unenrolled.DENY is policy.unenrolled
