# SPDX-License-Identifier: Apache-2.0
"""One petition at the desk, on a store in a temporary directory, with PAM's word made up.

The rights that the desk gives up, the real PAM and real users are for tests/login.
"""

import contextlib
import json
import os
import pwd
import socket
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles import NONCE, Clock, code_of, encode_answer, encode_frame, make_layout

from pam_mfa import oath, pam
from pam_mfa.errors import PamMfaError, RefusedError, WireError
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.oath import Parameters
from pam_mfa.secret import Secret
from pam_mfa.self_service import changes, desk
from pam_mfa.self_service.protocol import (
    End,
    Operation,
    Petition,
    Prompt,
    Rows,
    SignRequest,
    build_petition,
    parse_reply,
)
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.token_stock import TokenStock
from pam_mfa.tokens import Delivery, Token
from pam_mfa.verifier.packets import Peer
from pam_mfa.wire import Style, build_answer

UID, NO_ACCOUNT = os.geteuid(), 4242
ME = pwd.getpwuid(UID).pw_name
PASSWORD = "Password: "
ALLOWED = "self_service: {enable: true, deactivate: true, resync: true}"
WRONG = "wrong"
Answer = Callable[[str], str | None]  # a prompt's first word in; None: hang up


class Host:
    """A store, and a desk for each petition to it."""

    def __init__(self, layout: Layout) -> None:
        """Open the store, as an administrator."""
        self.layout = layout
        self.clock = Clock(time.time())
        self.store = EmbeddedStore(layout)
        self.lifecycle = Lifecycle(self.store, self.clock, Actor(0, 4321, None))
        self.phone = Secret(os.urandom(20))

    def allow(self, text: str = ALLOWED) -> None:
        """Write the policy."""
        self.layout.policy.write_text(f"version: 1\ndefaults: {{prompts: 2}}\n{text}\n")
        self.layout.policy.chmod(0o644)

    def enable(self, user: str = ME, name: str = "phone") -> None:
        """Enable a device by codes of past time steps."""
        pending = self.lifecycle.begin_virtual(user, name, seed=self.phone)
        self.lifecycle.enable(pending, self.code(-2), self.code(-1))

    def code(self, step: int = 0, seed: Secret | None = None) -> str:
        """Return the phone's code, or a seed's, of the time step this many after now."""
        return code_of(seed or self.phone, oath.time_step(time.time(), 30) + step)

    def names(self) -> list[str]:
        """Return the names of the user's devices."""
        return [device.name for device in self.lifecycle.list_devices(ME)]

    def refusals(self) -> list[tuple[str, str, str]]:
        """Return the event, the reason and the user of each record that tells no success."""
        lines = self.layout.audit_log.read_bytes().splitlines()
        records: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [
            (one["event_name"], one["reason"], one.get("user", ""))
            for one in records
            if one["outcome"] != "success"
        ]


class Talk(threading.Thread):
    """A user's end of one petition: what was shown, and how it ended."""

    def __init__(self, connection: socket.socket, packets: list[bytes], answer: Answer) -> None:
        """Take the connection, what to send first, and what answers the prompts."""
        super().__init__()
        self._connection = connection
        self._packets = packets
        self._answer = answer
        self.shown = ""
        self.prompts: list[str] = []  # their first words
        self.rows: list[dict[str, object]] = []
        self.end: PamMfaError | None = None
        self.is_ended = False

    def run(self) -> None:
        """Talk until either side hangs up."""
        with self._connection as connection:
            for packet in self._packets:
                connection.send(packet)
            while self._take(connection.recv(40000)):
                pass

    def _take(self, packet: bytes) -> bool:
        if not packet:
            return False
        reply = parse_reply(packet, NONCE)
        assert not isinstance(reply, SignRequest)
        if isinstance(reply, End):
            self.end, self.is_ended = reply.error, True
            return False
        if isinstance(reply, Rows):
            self.rows += reply.rows
            return True
        return self._show(reply)

    def _show(self, reply: Prompt) -> bool:
        self.shown += f"{reply.text}\n"
        if reply.style not in (Style.ECHO_OFF, Style.ECHO_ON):
            return True
        prompt = reply.text.split()[0].rstrip(":").lower()
        self.prompts.append(prompt)
        typed = self._answer(prompt)
        if typed is None:
            return False
        self._connection.send(build_answer(NONCE, typed))
        return True


Petitioner = Callable[..., Talk]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host on which everything is allowed and "right" is the password."""

    def run_stack(login: pam.Login, answer: pam.Answer) -> pam.Outcome:
        assert (changes.PAM_SERVICE, ME) == (login.service, login.user)
        is_right = answer(Style.ECHO_OFF, PASSWORD) == "right"
        return pam.Outcome(0 if is_right else 7, "Authentication failure", "auth")

    monkeypatch.setattr(pam, "run_stack", run_stack)
    monkeypatch.setattr(desk, "drop_privileges", lambda: None)
    monkeypatch.setattr(desk, "os", types.SimpleNamespace(geteuid=lambda: 0))
    made = Host(make_layout(tmp_path))
    made.allow()
    made.layout.pam_services.mkdir()
    (made.layout.pam_services / "pam-mfa").touch()
    yield made
    made.store.close()


@pytest.fixture
def petition(host: Host, monkeypatch: pytest.MonkeyPatch) -> Petitioner:
    """Send a petition to a desk of its own and see it through."""

    def see_through(
        wanted: Petition | bytes, answer: Answer = lambda _: "right", uid: int = UID
    ) -> Talk:
        monkeypatch.setattr(desk, "peer_of", lambda _: Peer(4321, uid))
        packet = wanted if isinstance(wanted, bytes) else build_petition(NONCE, wanted)
        user, service = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        user.settimeout(10)
        talk = Talk(user, [packet], answer)
        talk.start()
        try:
            with service:
                desk.serve_petition(service, host.layout)
        finally:
            talk.join(10)
        return talk

    return see_through


def answers(host: Host, **others: str | None) -> Answer:
    """Answer the password, a code of the phone, and whatever else is given."""
    given = {"password": "right", "verification": host.code(), **others}
    return given.__getitem__


def new_phone(host: Host, **others: str | None) -> tuple[Petition, Answer]:
    """Return a petition for another phone, and the answers of somebody who has it."""
    seed = Secret(os.urandom(20))
    secret = oath.encode_seed(seed)
    petition = Petition(Operation.ENABLE_VIRTUAL, ME, name="new", secret=secret)
    codes = {"first": host.code(-1, seed), "second": host.code(0, seed)}
    return petition, answers(host, **(codes | others))


def refusal(talk: Talk) -> str:
    """Return the sentence that a petition was refused with."""
    assert isinstance(talk.end, RefusedError), talk.end
    return str(talk.end)


def test_first_device(host: Host, petition: Petitioner) -> None:
    """Without a device the password and two codes of the new one are enough."""
    talk = petition(*new_phone(host))
    assert (None, True, ["new"]) == (talk.end, talk.is_ended, host.names())
    assert ["password", "first", "second"] == talk.prompts


def test_second_device(host: Host, petition: Petitioner) -> None:
    """With a device, a code of it is asked for before the new one's secret is shown."""
    host.enable()
    talk = petition(*new_phone(host))
    assert (None, ["phone", "new"]) == (talk.end, host.names())
    assert ["password", "verification", "first", "second"] == talk.prompts
    assert talk.shown.index("Verification code") < talk.shown.index("secret key")


@pytest.mark.parametrize("code", [WRONG, "", "x", None])
def test_without_the_device(host: Host, petition: Petitioner, code: str | None) -> None:
    """Whoever has the password only is shown no secret and enables nothing."""
    host.enable()
    if code == WRONG:
        code = next(one for one in ("000000", "000001", "000002", "000003")
                    if one not in map(host.code, (-1, 0, 1)))  # fmt: skip
    with contextlib.suppress(OSError):  # hung up
        talk = petition(*new_phone(host, verification=code))
        assert "secret key" not in talk.shown
    assert ["phone"] == host.names()
    assert {"VerifyMfa"} == {name for name, _, _ in host.refusals()}


@pytest.mark.parametrize(
    "rule",
    ["then: skip", "then: deny, mode: report-only", "require: [virtual], mode: report-only"],
)
def test_no_rule_lets_by(host: Host, petition: Petitioner, rule: str) -> None:
    """A rule that lets logins by is no verification here: a wrong code enables nothing."""
    host.enable()
    host.allow(f"{ALLOWED}\nrules:\n  - {{name: r, match: {{}}, {rule}}}\n")
    wrong = next(
        f"{n:06}" for n in range(4) if f"{n:06}" not in map(host.code, (-1, 0, 1))
    )  # fmt: skip
    with contextlib.suppress(OSError):  # hung up
        talk = petition(*new_phone(host, verification=wrong))
        assert "secret key" not in talk.shown
    assert ["phone"] == host.names()


@pytest.mark.parametrize("password", ["wrong", "", None])
def test_wrong_password(host: Host, petition: Petitioner, password: str | None) -> None:
    """Whoever does not know the password gets no further, and that is recorded."""
    wanted, answer = new_phone(host, password=password)
    with contextlib.suppress(OSError):  # hung up
        petition(wanted, answer)
    assert [] == host.names()
    assert [("EnableMfaDevice", "password_refused", ME)] == host.refusals()


@pytest.mark.parametrize("operation", list(Operation))
def test_somebody_else(host: Host, petition: Petitioner, operation: Operation) -> None:
    """Nobody acts for another user, and the name is not recorded: it may be a password."""
    talk = petition(Petition(operation, "somebody-else"))
    assert "your own devices only" in refusal(talk)
    assert [] == talk.prompts
    if operation not in (Operation.LIST, Operation.STATUS):
        assert [("caller_not_allowed", "")] == [one[1:] for one in host.refusals()]


@pytest.mark.parametrize("user", ["", "nobody-at-all"])
@pytest.mark.parametrize("operation", list(Operation))
def test_user_id_without_account(petition: Petitioner, operation: Operation, user: str) -> None:
    """A user id that has no name is nobody's, so it is not asked for a password, as root."""
    name = user.encode()
    packet = encode_frame(0x11, [(1, operation.encode()), (2, name)])
    talk = petition(packet, uid=NO_ACCOUNT)
    assert "your own devices only" in refusal(talk)
    assert [] == talk.prompts


@pytest.mark.parametrize("uid", [-1, -2, 2**31 - 1])
def test_odd_user_ids(petition: Petitioner, uid: int) -> None:
    """A user id at the ends of the numbers is nobody's."""
    assert "those of nobody" in refusal(petition(Petition(Operation.LIST, ME), uid=uid))


@pytest.mark.parametrize("permission", ["enable", "deactivate", "resync"])
def test_policy_decides(host: Host, petition: Petitioner, permission: str) -> None:
    """What policy does not allow is refused before anything is asked, and recorded."""
    host.allow(ALLOWED.replace(f"{permission}: true", f"{permission}: false"))
    operation = next(one for one in Operation if one.startswith(permission))
    talk = petition(Petition(operation, ME, f"virtual/{ME}/phone"))
    assert (f"does not let users {permission}" in refusal(talk), []) == (True, talk.prompts)
    assert ["not_allowed"] == [reason for _, reason, _ in host.refusals()]


def test_listing(host: Host, petition: Petitioner) -> None:
    """Own devices are listed without any question."""
    host.enable()
    listed = petition(Petition(Operation.LIST, ME))
    status = petition(Petition(Operation.STATUS, ME))
    serial_number = f"virtual/{ME}/phone"
    assert [serial_number] == [row["serial_number"] for row in listed.rows]
    (row,) = status.rows
    assert isinstance(row["devices"], list)
    assert [serial_number] == [device["serial_number"] for device in row["devices"]]
    assert [] == listed.prompts + status.prompts


@pytest.mark.parametrize(("cut", "status"), [(0, 3), (30, 3), (-20, 1)])
def test_torn_device_file_is_not_the_password_alone(
    host: Host, petition: Petitioner, cut: int, status: int
) -> None:
    """A device file that is cut, or a secret in it, is no reason to ask for the password only."""
    host.enable()
    path = host.layout.devices / f"{ME}.yaml"
    path.write_bytes(path.read_bytes()[:cut])
    talk = petition(*new_phone(host))
    assert talk.end is not None
    assert status == talk.end.exit_status
    assert "first" not in talk.prompts
    assert "secret key" not in talk.shown


def test_expired_bypass_is_not_the_password_alone(host: Host, petition: Petitioner) -> None:
    """Who has nothing but a bypass that has expired must ask an administrator again."""
    host.clock.now -= 7200
    host.lifecycle.issue_bypass(ME, 3600)
    host.clock.now += 7200
    for wanted in (new_phone(host)[0], Petition(Operation.DEACTIVATE, ME, _bypass_of(host))):
        talk = petition(wanted, answers(host))
        assert "you were not verified" in refusal(talk)
    assert ["bypass"] == host.names()


def test_bypass_lets_a_new_phone_in(host: Host, petition: Petitioner) -> None:
    """A bypass that is good verifies, once."""
    bypass = host.lifecycle.issue_bypass(ME, 3600)
    assert petition(*new_phone(host, verification=bypass)).end is None
    again, answer = new_phone(host, verification=bypass)
    assert "you were not verified" in refusal(petition(again._replace(name="third"), answer))


def test_code_is_good_for_one_petition(host: Host, petition: Petitioner) -> None:
    """A code that verified one petition verifies no other."""
    host.enable()
    recovery, code = Petition(Operation.ENABLE_RECOVERY, ME), host.code()
    assert petition(recovery, answers(host, verification=code)).end is None
    talk = petition(recovery, answers(host, verification=code))
    assert "you were not verified" in refusal(talk)
    assert "code_reused" in [reason for _, reason, _ in host.refusals()]


def test_petition_does_not_follow_the_first_device(host: Host, petition: Petitioner) -> None:
    """What was begun by the password alone ends when the user enables a first device."""
    wanted, answer = new_phone(host)

    def slow(prompt: str) -> str | None:
        if prompt == "second":
            host.enable()
        return answer(prompt)

    assert "changed meanwhile" in refusal(petition(wanted, slow))
    assert ["phone"] == host.names()
    assert [("EnableMfaDevice", "devices_changed", ME)] == host.refusals()


def test_petition_does_not_outlive_its_device(host: Host, petition: Petitioner) -> None:
    """What was begun with a stolen device ends when an administrator takes that away."""
    host.enable()
    wanted, answer = new_phone(host)

    def slow(prompt: str) -> str | None:
        if prompt == "first":
            host.lifecycle.deactivate_all(ME, leave_none=True)
        return answer(prompt)

    assert "changed meanwhile" in refusal(petition(wanted, slow))
    assert [] == host.names()


@pytest.mark.parametrize("prompt", ["verification", "first", "second"])
def test_abandoned(host: Host, petition: Petitioner, prompt: str) -> None:
    """Whoever hangs up leaves no device, no lock and no trace of the seed behind."""
    host.enable()
    wanted, answer = new_phone(host, **{prompt: None})
    with contextlib.suppress(OSError):
        petition(wanted, answer)
    assert ["phone"] == host.names()
    assert ["abandoned"] == [reason for _, reason, _ in host.refusals()]
    seed = oath.parse_seed(wanted.secret)
    codes = {"first": host.code(-1, seed), "second": host.code(0, seed)}
    talk = petition(wanted, answers(host, verification=host.code(1), **codes))
    assert (None, ["phone", "new"]) == (talk.end, host.names())


def test_tokens_of_others_are_not_told(host: Host, petition: Petitioner) -> None:
    """A token that somebody has and one that is not there are refused alike."""
    seed = Secret(os.urandom(20))
    stock = TokenStock(host.store, host.clock, Actor(0, 4321, None))
    stock.take_in(Delivery("a file", (Token("T-1", "Acme", Parameters(), 0, seed),), ()), "t.csv")
    pending = host.lifecycle.begin_token("somebody-else", "T-1")
    host.lifecycle.enable(pending, host.code(-1, seed), host.code(0, seed))
    said = []
    for serial_number in ("T-1", "T-9"):
        talk = petition(Petition(Operation.ENABLE_TOKEN, ME, serial_number))
        assert talk.end is not None
        said.append(f"{talk.end} {talk.end.hint} {talk.shown}".replace(serial_number, "T"))
    assert said[0] == said[1]
    assert "somebody" not in said[0]
    assert [("EnableMfaDevice", "not_possible", ME)] * 2 == host.refusals()


def _bypass_of(host: Host) -> str:
    return host.lifecycle.list_devices(ME)[0].serial_number


def test_last_device_stays(host: Host, petition: Petitioner) -> None:
    """A user cannot switch the second factor off, and the try is recorded."""
    host.enable()
    talk = petition(Petition(Operation.DEACTIVATE, ME, f"virtual/{ME}/phone"), answers(host))
    assert "no MFA device left" in refusal(talk)
    assert [("DeactivateMfaDevice", "not_possible", ME)] == host.refusals()


@pytest.mark.parametrize(
    "packet", [b"x", encode_answer("right"), bytes(40000), encode_frame(0x11, [(1, b"list")])],
    ids=["noise", "answer", "long", "cut"],
)  # fmt: skip
def test_no_petition(petition: Petitioner, packet: bytes) -> None:
    """What is no petition is answered nothing."""
    with pytest.raises(WireError):
        petition(packet)


def test_no_service_file(host: Host, petition: Petitioner) -> None:
    """Without a PAM service nobody's password can be right."""
    (host.layout.pam_services / "pam-mfa").unlink()
    talk = petition(*new_phone(host))
    assert talk.end is not None
    assert (3, [], []) == (talk.end.exit_status, talk.prompts, host.names())


def test_no_root(host: Host, petition: Petitioner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not root can have no password checked, so nothing is changed."""
    monkeypatch.setattr(desk, "os", types.SimpleNamespace(geteuid=lambda: 1000))
    talk = petition(*new_phone(host))
    assert talk.end is not None
    assert (3, [], []) == (talk.end.exit_status, talk.prompts, host.names())


@pytest.mark.parametrize(
    "wrong",
    [
        Petition(Operation.ENABLE_VIRTUAL, ME, algorithm="MD5"),
        Petition(Operation.ENABLE_VIRTUAL, ME, digits="5"),
        Petition(Operation.ENABLE_VIRTUAL, ME, digits="x"),
        Petition(Operation.ENABLE_VIRTUAL, ME, period="0"),
    ],
)
def test_parameters(host: Host, petition: Petitioner, wrong: Petition) -> None:
    """Parameters that no device of ours has are refused."""
    assert "is not one of" in refusal(petition(wrong))
    assert [] == host.names()
