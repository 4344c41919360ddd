# SPDX-License-Identifier: Apache-2.0
"""Rules of the policy through real libpam: who is skipped, who denied, who is asked for what."""

import contextlib
import json
from typing import Any

import pytest
from authenticator import Authenticator, enroll
from host_program import Login, Outcome, Status, run, running, write_service
from installed import DataRoot, new_secret, wait_for_step
from serving import each_way, serving

GATE = "Come by the gate."


def set_rules(root: DataRoot, *rules: str, more: str = "") -> None:
    """Replace the policy by one of these rules."""
    lines = [f"  - {{name: r{number}, {rule}}}" for number, rule in enumerate(rules)]
    root.policy.write_text("\n".join(["version: 1", more, "rules:", *lines, ""]))


def log_in(root: DataRoot, user: str = "alice", *answers: str, **items: str) -> Outcome:
    """Run the auth phase with PAM items; who is not asked does not answer."""
    return run(Login(root, user, options=[f"{key}={items[key]}" for key in items]), *answers)


@each_way
def test_skip(root: DataRoot, way: str) -> None:
    """A rule for the first console lets root by there, unasked and recorded, and nowhere else."""
    set_rules(root, "match: {user: [root], tty: [tty1]}, then: skip")
    with serving(root, way):
        first = log_in(root, "root", tty="/dev/tty1")
        second = log_in(root, "root", "000000", "000000", "000000", tty="/dev/tty2")
    assert (first.status, first.prompts) == (Status.IGNORE, [])
    assert second.status == Status.AUTH_ERR
    (skip,) = root.audit("SkipMfa")
    assert (skip["reason"], skip["rule"], skip["outcome"]) == ("skipped_by_rule", "r0", "success")
    assert {"rule" in record for record in root.audit()} == {False}


@each_way
def test_skip_without_a_store(root: DataRoot, way: str) -> None:
    """A rule that skips holds on the day on which the store is gone; all else is refused."""
    set_rules(root, "match: {user: [root], tty: [tty1]}, then: skip")
    (root.library / "seal.key").write_bytes(b"spoilt")
    with serving(root, way):
        assert log_in(root, "root", tty="tty1").status == Status.IGNORE
        assert log_in(root, "root", "000000").status == Status.AUTHINFO_UNAVAIL


@each_way
def test_deny(root: DataRoot, way: str) -> None:
    """A rule that denies asks nothing, tells its message, and is recorded by name."""
    phone = enroll(root, "alice")
    set_rules(root, f"match: {{user: [alice]}}, then: deny, message: {GATE}")
    with serving(root, way):
        outcome = log_in(root, "alice", phone.code())
    assert (outcome.status, outcome.prompts) == (Status.AUTH_ERR, [])
    assert [message.text for message in outcome.messages] == [GATE]
    assert [(one["reason"], one["rule"]) for one in root.audit()] == [("denied_by_rule", "r0")]


@each_way
def test_require(root: DataRoot, way: str) -> None:
    """A rule that requires a type refuses the right code of a device of another."""
    phone = enroll(root, "alice")
    set_rules(
        root,
        "match: {tty: [remote], not_from: [10.0.0.0/8]}, require: [token]",
        "match: {}, require: [virtual]",
    )
    wait_for_step(10)
    code = phone.code()
    with serving(root, way):
        outside = log_in(root, "alice", code, code, code, rhost="192.0.2.7")
        inside = log_in(root, "alice", code, rhost="::ffff:10.1.2.3")
    assert (outside.status, inside.status) == (Status.AUTH_ERR, Status.SUCCESS)
    reasons = [(one["reason"], one["rule"]) for one in root.audit()]
    assert reasons == [("no_acceptable_device", "r0")] * 3 + [("code_accepted", "r1")]


@each_way
def test_report_only_rule(root: DataRoot, way: str) -> None:
    """A rule that only reports lets by whom it would refuse, and the report lists them."""
    phone = enroll(root, "alice")
    set_rules(
        root,
        f"match: {{from: [192.0.2.0/24]}}, then: deny, message: {GATE}, mode: report-only",
        "match: {user: [alice]}, require: [virtual], mode: report-only",
    )
    with serving(root, way):
        denied = log_in(root, "root", rhost="192.0.2.7")
        wrong = log_in(root, "alice", *[phone.wrong_code()] * 3)
        forgiven = log_in(root, "alice", phone.wrong_code(), phone.code())
        strict = log_in(root, "root", "000000", "000000", "000000")
    statuses = (denied.status, wrong.status, forgiven.status, strict.status)
    assert statuses == (Status.IGNORE, Status.IGNORE, Status.SUCCESS, Status.AUTH_ERR)
    assert GATE not in [message.text for message in denied.messages]
    rows = json.loads(root.command("report", "--would-refuse", "--since", "1h", "--json").stdout)
    found = {(row["user"], row["reason"], row["rule"], row["count"]) for row in rows}
    assert found == {("root", "denied_by_rule", "r0", 1), ("alice", "wrong_code", "r1", 1)}


@each_way
def test_group(root: DataRoot, way: str) -> None:
    """A rule on groups holds for whom the host's name service has in one of them."""
    set_rules(root, "match: {group: [daemon, no-such-group]}, then: deny")
    with serving(root, way):
        member = log_in(root, "daemon")
        other = log_in(root, "bin", "000000", "000000", "000000")
        unknown = log_in(root, "no-such-account", "000000", "000000", "000000")
    assert (member.status, member.prompts) == (Status.AUTH_ERR, [])
    assert other.prompts == unknown.prompts
    assert len(other.prompts) == 3


def test_service(root: DataRoot) -> None:
    """A rule on a service holds for just that one."""
    set_rules(root, "match: {service: [exact]}, then: deny")
    other = write_service(root, "other-service", f"auth required {root.module}")
    assert log_in(root, "alice").prompts == []
    assert len(run(Login(root, "alice", other), "0", "0", "0").prompts) == 3


def test_change_under_a_daemon(root: DataRoot) -> None:
    """Fragments that come and go are in force from the next login on, and end no conversation."""
    directory = root.policy.parent / "policy.d"
    directory.mkdir()
    phone = enroll(root, "alice")
    root.policy.write_text("version: 1\ninclude: policy.d\n")
    with root.daemon():
        with running(Login(root, "alice")) as host:
            assert host.question() is not None
            (directory / "10-deny.yaml").write_text("rules: [{name: f, match: {}, then: deny}]\n")
            denied = log_in(root, "alice")
            (directory / "10-deny.yaml").write_text("rules: [{name: f, match: {}, then: dony}]\n")
            kept = log_in(root, "alice")
            host.answer(phone.code())
            assert host.finish().status == Status.SUCCESS
        (directory / "10-deny.yaml").unlink()
        assert len(log_in(root, "alice", "0", "0", "0").prompts) == 3
    assert (denied.status, kept.status) == (Status.AUTH_ERR, Status.AUTH_ERR)


def test_reload_under_load(root: DataRoot) -> None:
    """A policy that changes 20 times while 16 people are at the prompt drops none of them.

    Each change is in force at once: by turns nobody new is let in, a mistake changes nothing, and
    somebody who was asked under the first policy is answered under it.
    """
    people = [f"user{number}" for number in range(16)]
    phones = {name: Authenticator(name, "phone", new_secret()) for name in people}
    wait_for_step()
    for phone in phones.values():
        phone.enable(root)
    policies = ("match: {}, then: deny", "match: {}, then: dony", "match: {}, require: [virtual]")
    set_rules(root, policies[2])
    wait_for_step(25.0)
    with root.daemon(), contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(running(Login(root, name))) for name in people]
        assert all(host.question() is not None for host in hosts)
        seen = []
        for change in range(20):
            set_rules(root, policies[change % 3])
            seen.append(log_in(root, "alice", "0", "0", "0").prompts == [])
        for host, name in zip(hosts, people, strict=True):
            host.answer(phones[name].code())
        assert [host.finish().status for host in hosts] == [Status.SUCCESS] * 16
    assert [change % 3 != 2 for change in range(20)] == seen
    assert root.reasons().count("code_accepted") == 16


def explain(root: DataRoot, *options: str) -> dict[str, Any]:
    """Return the explanation of a login of Alice's."""
    done = root.command("policy", "explain", "alice", *options, "--json")
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def test_explain(root: DataRoot) -> None:
    """An explanation has each rule, the verdict, the devices and what would be asked."""
    enroll(root, "alice")
    set_rules(
        root,
        "match: {service: [login], user: [root]}, then: skip",
        "match: {not_from: [10.0.0.0/8], weekday: [sun], time: '08:00-10:00'}, require: [token]",
    )
    options = ("--service", "exact", "--rhost", "192.0.2.7", "--at")
    sunday = explain(root, *options, "2026-11-22T09:00")
    monday = explain(root, *options, "2026-11-23T09:00")
    assert [rule["decides"] for rule in sunday["rules"]] == [False, True]
    assert [rule["decides"] for rule in monday["rules"]] == [False, False]
    assert [one["holds"] for one in sunday["rules"][0]["conditions"]] == [False, False]
    assert (sunday["verdict"]["rule"], monday["verdict"]["rule"]) == ("r1", None)
    assert [day["devices"][0]["would_do"] for day in (sunday, monday)] == [False, True]
    assert sunday["next_login"]["text"].startswith("refused: no MFA device of a type that policy")
    assert monday["next_login"]["text"] == "asks for a verification code (phone)"
    text = root.command("policy", "explain", "alice", *options, "2026-11-22T09:00").stdout
    assert "rule 'r1' (" in text
    assert "it is sun 09:00 UTC, within sun 08:00-10:00" in text


def test_explanation_comes_true(root: DataRoot) -> None:
    """What an explanation says of a login is what then happens to it."""
    set_rules(root, f"match: {{from: [192.0.2.0/24]}}, then: deny, message: {GATE}")
    for rhost, status in (("192.0.2.7", Status.AUTH_ERR), ("198.51.100.1", Status.AUTH_ERR)):
        row = explain(root, "--service", "exact", "--rhost", rhost)
        outcome = log_in(root, "alice", "0", "0", "0", rhost=rhost)
        assert outcome.status == status
        assert (row["verdict"]["action"] == "deny") == (outcome.prompts == [])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("--at", "noon"), "--at"), ((), "--service")],
)
def test_explain_usage(root: DataRoot, arguments: tuple[str, ...], word: str) -> None:
    """A wrong use of explain is told, with status 2."""
    service = ("--service", "sshd") if arguments else ()
    done = root.command("policy", "explain", "alice", *service, *arguments, check=False)
    assert (done.returncode, word in done.stderr) == (2, True)


def test_check(root: DataRoot) -> None:
    """All mistakes are told at once with status 3; what is only odd is a warning with status 0."""
    set_rules(
        root,
        "match: {}, then: deny",
        "match: {user: [alice]}, then: skip",
        more="defaults: {unenrolled: allow}",
    )
    odd = root.command("policy", "check")
    assert "the rule 'r1'" in odd.stderr
    assert "root has no way in from any console" in odd.stderr
    set_rules(root, "match: {usr: [x]}, then: skp", "match: {from: [10.1.1.1/8]}, then: skip")
    wrong = root.command("policy", "check", check=False)
    assert wrong.returncode == 3
    for word in ("match.usr", "'rules[0].then' is 'skp'", "Did you mean '10.0.0.0/8'?"):
        assert word in wrong.stderr


@each_way
def test_mfa_age(root: DataRoot, way: str) -> None:
    """Within one host program: asked once, then neither in account nor when the session begins."""
    phone = enroll(root, "alice")
    set_rules(root, "match: {phase: [auth, account, session]}, require: [virtual], mfa_age: 15m")
    with serving(root, way):
        outcome = run(Login(root, "alice", phases="auth,account,session"), phone.code())
        again = log_in(root, "alice", "0", "0", "0", rhost="192.0.2.7")
    assert (outcome.status, len(outcome.prompts)) == (Status.SUCCESS, 1)
    assert root.reasons()[:3] == ["code_accepted", "verified_earlier", "verified_earlier"]
    assert len(again.prompts) == 3


def test_explained_age(root: DataRoot) -> None:
    """An explanation says which verification counts from which address, and foretells by it."""
    phone = enroll(root, "alice")
    set_rules(root, "match: {}, require: [virtual], mfa_age: 15m, scope: host")
    options = ("--service", "exact", "--rhost")
    before = explain(root, *options, "192.0.2.7")
    assert log_in(root, "alice", phone.code(), rhost="192.0.2.7").status == Status.SUCCESS
    here, there = explain(root, *options, "192.0.2.7"), explain(root, *options, "192.0.2.8")
    assert (before["remembered"], before["verdict"]["mfa_age"]) == ([], 900)
    assert [[one["counts"] for one in row["remembered"]] for row in (here, there)] == [
        [True], [False]
    ]  # fmt: skip
    assert here["next_login"]["outcome"] == "not asked"
    assert "not within 900 s of a verification from the same" in there["next_login"]["text"]
    assert log_in(root, "alice", rhost="192.0.2.7").prompts == []
    (row,) = json.loads(root.command("sessions", "alice", "--json").stdout)
    assert (row["source"], row["device"]) == ("192.0.2.7", "virtual/alice/phone")
    text = root.command("policy", "explain", "alice", *options, "192.0.2.7").stdout
    assert "or a verification of the last 900 s (scope host)" in text


@each_way
def test_age_and_enrolling(root: DataRoot, way: str) -> None:
    """In the account phase whoever has a device is held to the age, and nobody else is past it."""
    phone = enroll(root, "alice")
    rule = "match: {}, require: [virtual], mfa_age: 15m"
    set_rules(root, rule, more="defaults: {unenrolled: enroll}")
    with serving(root, way):
        refused = run(Login(root, "alice", phases="account"), "0", "0", "0")
        verified = run(Login(root, "alice", phases="account"), phone.code())
        enrolling = run(Login(root, "nobody", phases="account"), *["0"] * 6)
    assert (refused.status, verified.status) == (Status.PERM_DENIED, Status.SUCCESS)
    assert (enrolling.status, enrolling.prompts[0]) == (Status.PERM_DENIED, "First code: ")
