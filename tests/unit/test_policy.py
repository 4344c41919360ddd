# SPDX-License-Identifier: Apache-2.0
"""Policy: what a file means, and how a mistake in it is told."""

import re

import pytest
from doubles import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.errors import DocumentError
from pam_mfa.lockout import LockoutRule
from pam_mfa.policy import (
    DEVICE_TYPES,
    Action,
    Agent,
    AgentKeys,
    AuditRules,
    Context,
    Decision,
    Effect,
    Mode,
    OnFailure,
    Policy,
    Unenrolled,
    UnknownUsers,
    asks_everyone,
    decide,
    parse_duration,
    parse_policy,
)
from pam_mfa.wire import Phase

KEYS = (
    "agent", "agent_keys", "audit", "defaults", "fido", "hotp", "include", "lockout", "mode",
    "rules", "self_service", "store", "totp", "version",
)  # fmt: skip


def read(text: str) -> Policy:
    """Read a policy file of this name."""
    return parse_policy(text.encode(), "p.yaml")


def refusal(text: str) -> tuple[str, str]:
    """Return the sentence and the hint with which a policy is refused."""
    with pytest.raises(DocumentError) as caught:
        read(text)
    return str(caught.value), caught.value.hint


def test_shipped_policy() -> None:
    """The shipped file spells out what holds without it."""
    shipped = parse_policy((REPOSITORY / "config/policy.yaml").read_bytes(), "policy.yaml")
    assert Policy() == shipped


def test_shipped_examples() -> None:
    """The rules that stand in the shipped file as examples are sound."""
    text = (REPOSITORY / "config/policy.yaml").read_text("utf-8")
    settings, mark, examples = text.partition("#rules:")
    lines = (mark + examples).splitlines()
    policy = read(
        "\n".join([settings, *(line.removeprefix("#") for line in lines if _is_code(line))])
    )
    effects = [Effect.SKIP, Effect.DENY, Effect.REQUIRE, Effect.REQUIRE, Effect.REQUIRE]
    assert effects == [rule.effect for rule in policy.rules]
    assert 900.0 == policy.memory


def _is_code(line: str) -> bool:
    return line.startswith(("#rules", "#  ", "#include"))


def test_defaults() -> None:
    """A policy of its version alone enforces, denies the unenrolled and locks after five."""
    expected = Policy(
        Mode.ENFORCE, DEVICE_TYPES, Unenrolled.DENY, 3, 1, LockoutRule(5, 300.0, 900.0)
    )
    assert expected == read("version: 1\n")


def test_every_key() -> None:
    """Every key is read into its own place."""
    text = """\
version: 1
mode: report-only
defaults: {devices: [virtual, fido], unenrolled: allow, prompts: 2}
totp: {window: 4, minimum_seed_bits: 80}
lockout: {failures: 7, within: 2m, for: 3h}
audit: {on_failure: allow, unknown_users: name, journal: false, syslog: false, kernel: true,
        checkpoint_every: 7, checkpoint_within: 2h}
"""
    expected = Policy(
        Mode.REPORT_ONLY,
        ("virtual", "fido"),
        Unenrolled.ALLOW,
        2,
        4,
        LockoutRule(7, 120.0, 10800),
        minimum_seed_bits=80,
        audit=AuditRules(
            OnFailure.ALLOW,
            UnknownUsers.NAME,
            journal=False,
            syslog=False,
            kernel=True,
            checkpoint_every=7,
            checkpoint_within=7200.0,
        ),
    )
    assert expected == read(text)


@pytest.mark.parametrize(
    ("lines", "message", "hint"),
    [
        ("mod: enforce", "line 2: 'mod' is not a known key", "Did you mean 'mode'?"),
        ("Mode: enforce", "line 2: 'Mode' is not a known key", "Did you mean 'mode'?"),
        ("default: {}", "line 2: 'default' is not a known key", "Did you mean 'defaults'?"),
        ("defaults:\n  unenroled: deny", "line 3: 'defaults.unenroled' is not a known key",
         "Did you mean 'unenrolled'?"),
        ("totp:\n  windows: 1", "line 3: 'totp.windows' is not a known key",
         "Did you mean 'window'?"),
        ("lockout:\n  failure: 5", "line 3: 'lockout.failure' is not a known key",
         "Did you mean 'failures'?"),
        ("lockout:\n  withn: 5m", "line 3: 'lockout.withn' is not a known key",
         "Did you mean 'within'?"),
        ("zzz: 1", "line 2: 'zzz' is not a known key", f"Known: {', '.join(KEYS)}."),
    ],
)  # fmt: skip
def test_unknown_keys(lines: str, message: str, hint: str) -> None:
    """A misspelled key is refused with its line and the nearest known key."""
    assert (f"p.yaml, {message}", hint) == refusal(f"version: 1\n{lines}\n")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("mode: on", "line 2: 'mode' must be text"),
        ("audit: {journal: 1}", "line 2: 'audit.journal' must be true or false"),
        ("audit: {on_failure: warn}",
         "line 2: 'audit.on_failure' is 'warn', not one of deny, allow"),
        ("audit: {unknown_users: text}",
         "line 2: 'audit.unknown_users' is 'text', not one of hash, name"),
        ("audit: {checkpoint_every: 0}", "line 2: 'audit.checkpoint_every' is 0, not 1 to 1000000"),
        ("audit: {checkpoint_within: 1}", "line 2: 'audit.checkpoint_within' must be text"),
        ("mode: enforced", "line 2: 'mode' is 'enforced', not one of enforce, report-only"),
        ("mode: Enforce", "line 2: 'mode' is 'Enforce', not one of enforce, report-only"),
        ("mode: ''", "line 2: 'mode' is '', not one of enforce, report-only"),
        ("defaults: deny", "line 2: 'defaults' must be a mapping of keys to values"),
        ("defaults:", "line 2: 'defaults' must be a mapping of keys to values"),
        ("defaults:\n  unenrolled: no", "line 3: 'defaults.unenrolled' must be text"),
        ("defaults:\n  unenrolled: skip",
         "line 3: 'defaults.unenrolled' is 'skip', not one of deny, allow"),
        ("defaults:\n  prompts: 0", "line 3: 'defaults.prompts' is 0, not 1 to 10"),
        ("defaults:\n  prompts: 11", "line 3: 'defaults.prompts' is 11, not 1 to 10"),
        ("defaults:\n  prompts: yes", "line 3: 'defaults.prompts' must be a whole number"),
        ("defaults:\n  prompts: '3'", "line 3: 'defaults.prompts' must be a whole number"),
        ("defaults:\n  prompts: 3.0", "line 3: 'defaults.prompts' must be a whole number"),
        ("defaults:\n  prompts: ~", "line 3: 'defaults.prompts' must be a whole number"),
        ("defaults:\n  devices: virtual", "line 3: 'defaults.devices' must be a list"),
        ("defaults:\n  devices: []",
         "line 3: 'defaults.devices' is empty, so nobody could ever log in"),
        ("defaults:\n  devices: [1]", "line 3: 'defaults.devices' must be a list of words"),
        ("defaults:\n  devices: [virtual, virtual]",
         "line 3: 'defaults.devices' names 'virtual' twice"),
        ("defaults:\n  devices: [Fido]", "line 3: 'defaults.devices' names 'Fido', not one of ssh"),
        ("totp: 1", "line 2: 'totp' must be a mapping of keys to values"),
        ("totp:\n  window: -1", "line 3: 'totp.window' is -1, not 0 to 10"),
        ("totp:\n  window: 11", "line 3: 'totp.window' is 11, not 0 to 10"),
        ("totp:\n  minimum_seed_bits: 79",
         "line 3: 'totp.minimum_seed_bits' is 79, not 80 to 256"),
        ("totp:\n  minimum_seed_bits: 257",
         "line 3: 'totp.minimum_seed_bits' is 257, not 80 to 256"),
        ("totp:\n  window: true", "line 3: 'totp.window' must be a whole number"),
        ("lockout: []", "line 2: 'lockout' must be a mapping of keys to values"),
        ("lockout:\n  failures: 0", "line 3: 'lockout.failures' is 0, not 1 to 1000"),
        ("lockout:\n  failures: 1001", "line 3: 'lockout.failures' is 1001, not 1 to 1000"),
        ("lockout:\n  failures: yes", "line 3: 'lockout.failures' must be a whole number"),
        ("lockout:\n  within: 5", "line 3: 'lockout.within' must be text"),
        ("lockout:\n  within: 5 m", "line 3: 'lockout.within' is not a length of time"),
        ("lockout:\n  for: forever", "line 3: 'lockout.for' is not a length of time"),
        ("lockout:\n  for: 0s", "line 3: 'lockout.for' is not a length of time"),
        ("version: 1", "line 2: 'version' stands here a second time, first in line 1"),
    ],
)  # fmt: skip
def test_wrong_values(lines: str, message: str) -> None:
    """A value that a key cannot have is refused with the line and what it could be."""
    assert refusal(f"version: 1\n{lines}\n")[0].startswith(f"p.yaml, {message}")


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "0b" + "1" * 60000, "1" * 4000])
def test_huge_numbers(number: str) -> None:
    """A number of thousands of digits is refused like any other that is out of range."""
    assert refusal(f"version: 1\ntotp:\n  window: {number}\n")[0].startswith("p.yaml, line 3: ")


@pytest.mark.parametrize("word", ["sms", "SMS", "Sms"])
def test_sms(word: str) -> None:
    """SMS as a device type is refused with the reason, in whatever case."""
    message, _ = refusal(f"version: 1\ndefaults:\n  devices: [virtual, {word}]\n")
    assert message.startswith(
        "p.yaml, line 3: 'defaults.devices' names sms. SMS is not a device type: messages are "
        "intercepted"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mode: enforce\n", "p.yaml, line 1: 'version' is missing"),
        ("version: 2\n", "p.yaml, line 1: 'version' must be 1 for this program"),
        ("version: 0\n", "p.yaml, line 1: 'version' must be 1 for this program"),
        ("version: '1'\n", "p.yaml, line 1: 'version' must be a whole number"),
        ("version: yes\n", "p.yaml, line 1: 'version' must be a whole number"),
        ("version: 1.0\n", "p.yaml, line 1: 'version' must be a whole number"),
    ],
)
def test_version(text: str, message: str) -> None:
    """A policy without this program's version is refused."""
    assert message == refusal(text)[0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("45s", 45), ("15m", 900), ("12h", 43200), ("7d", 604800), ("366d", 31622400),
     ("000000015m", 900)],
)  # fmt: skip
def test_duration(text: str, seconds: float) -> None:
    """A length of time is a whole number of seconds, minutes, hours or days."""
    assert seconds == parse_duration(text)


@pytest.mark.parametrize(
    "text",
    ["", "s", "5", "0s", "-5s", "+5s", "5 s", " 5s", "5s ", "5s\n", "5S", "5w", "1h30m", "1.5h",
     "1e3s", "367d", "999999999d", "1234567890s", "٥s", "0x5s", "5s5s"],
)  # fmt: skip
def test_no_duration(text: str) -> None:
    """Anything else, nothing, and more than a year is no length of time."""
    with pytest.raises(ValueError, match=rf"\A{re.escape(text)}\Z"):
        parse_duration(text)


@given(
    st.integers(1, 366 * 86400), st.sampled_from([("s", 1), ("m", 60), ("h", 3600), ("d", 86400)])
)
def test_durations(count: int, unit: tuple[str, int]) -> None:
    """Every length of time up to a year is its number times its unit."""
    seconds = count * unit[1]
    if seconds <= 366 * 86400:
        assert seconds == parse_duration(f"{count}{unit[0]}")
    else:
        with pytest.raises(ValueError, match=str(count)):
            parse_duration(f"{count}{unit[0]}")


def test_duration_hint() -> None:
    """A wrong length of time comes with examples of right ones."""
    hint = refusal("version: 1\nlockout: {within: soon}\n")[1]
    assert "Write it as 45s, 15m, 12h or 7d." == hint


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (Phase.AUTH, Decision(Action.VERIFY, ("virtual",))),
        (Phase.ACCOUNT, Decision(Action.NOTHING, ())),
        (Phase.SESSION, Decision(Action.NOTHING, ())),
    ],
)
def test_decide(phase: Phase, expected: Decision) -> None:
    """Only the phase in which PAM authenticates has something to verify."""
    assert expected == decide(Policy(devices=("virtual",)), Context(phase))


@pytest.mark.parametrize(
    ("mode", "unenrolled", "expected"),
    [
        (Mode.ENFORCE, Unenrolled.DENY, True),
        (Mode.ENFORCE, Unenrolled.ALLOW, False),
        (Mode.REPORT_ONLY, Unenrolled.DENY, False),
        (Mode.REPORT_ONLY, Unenrolled.ALLOW, False),
    ],
)
def test_asks_everyone(mode: Mode, unenrolled: Unenrolled, expected: bool) -> None:  # noqa: FBT001
    """Whoever has no device is asked like the others where all of them are refused."""
    assert expected is asks_everyone(Policy(mode=mode, unenrolled=unenrolled))


MODELS = "fido: {attestation: {%s}}\n"


def test_attestation() -> None:
    """Models are named by AAGUID, by their makers' roots, or by the FIDO Alliance's metadata."""
    model = "5ec0de00-c0de-4a11-900d-feedfacebeef"
    text = f"aaguids: [{model}], roots: /r, metadata: /m, metadata_root: /s"
    fido = read(f"version: 1\n{MODELS % text}").fido
    assert ((model,), "/m", "/s", "/r") == fido[4:]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("aaguids: []", "'fido.attestation.aaguids' is empty"),
        ("aaguids: [YubiKey]", "'fido.attestation.aaguids' must be a list of UUIDs"),
        ("aaguids: x", "'fido.attestation.aaguids' must be a list"),
        ("roots: r.pem", "'fido.attestation.roots' must be an absolute path"),
        ("metadata: ''", "'fido.attestation.metadata' must be an absolute path"),
        ("metadata_root: /s", "'fido.attestation.metadata_root' goes with 'metadata' only"),
        ("aaguid: []", "'fido.attestation.aaguid' is not a known key"),
    ],
)
def test_bad_attestation(text: str, reason: str) -> None:
    """A mistake in what a key must prove is told with its line and key."""
    sentence, _ = refusal(f"version: 1\n{MODELS % text}")
    assert sentence.startswith(f"p.yaml, line 2: {reason}")


def test_agent() -> None:
    """How long an agent is waited for, and which keys count, can be said."""
    assert Agent() == read("version: 1\n").agent
    policy = read("version: 1\nagent: {timeout: 5s}\nagent_keys: any\n")
    assert Agent(5.0, AgentKeys.ANY) == policy.agent


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("agent_keys: all", "line 2: 'agent_keys' is 'all', not one of sk, any"),
        ("agent: {timeout: soon}", "line 2: 'agent.timeout' is not a length of time"),
        ("agent: {keys: any}", "line 2: 'agent.keys' is not a known key"),
    ],
)
def test_wrong_agent(lines: str, message: str) -> None:
    """What is misspelled about agents is refused with its line."""
    assert f"p.yaml, {message}" == refusal(f"version: 1\n{lines}\n")[0]
