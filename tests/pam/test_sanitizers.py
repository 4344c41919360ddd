# SPDX-License-Identifier: Apache-2.0
"""The module and its host built with AddressSanitizer, its leak checker, and UBSan."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import running_agent
from authenticator import enroll
from host_program import Login, Outcome, Status, compile_host, exact_service, run
from installed import DataRoot, install
from lying_verifier import SUCCESS, Exchange, lying, telling
from serving import each_way, serving
from sk_keys import make_sk_key, public_half
from test_lying_verifier import LIES

FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
FOUND = 99
NOBODY = 65534
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "ASAN_OPTIONS": f"detect_leaks=1:exitcode={FOUND}:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


@pytest.fixture(scope="module")
def instrumented() -> Iterator[Path]:
    """Install a module that checks itself, with a host that does."""
    directory = Path(tempfile.mkdtemp(prefix="pam-mfa-sanitized-", dir="/var/tmp"))
    directory.chmod(0o755)
    install(directory / "prefix", FLAGS)
    compile_host(directory / "host", *FLAGS.split())
    yield directory / "prefix"
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def checked(instrumented: Path) -> Iterator[DataRoot]:
    """Share a data root whose module checks itself; each test has a user of its own."""
    root = DataRoot(instrumented)
    yield root
    root.remove()


def run_checked(login: Login, *answers: str | None) -> Outcome:
    """Run an instrumented host; a finding of a sanitizer makes it end with a failure."""
    return run(login._replace(environment=ENVIRONMENT), *answers)


def test_sanitizers_are_in(instrumented: Path) -> None:
    """The module under test is the instrumented one."""
    assert b"__asan_report_load" in (instrumented / "lib/security/pam_mfa.so").read_bytes()


@pytest.mark.parametrize("lie", LIES)
def test_lies_do_no_harm(checked: DataRoot, lie: str) -> None:
    """No frame of a lying verifier makes the module read or write out of bounds, or leak."""
    with lying(checked, LIES[lie]):
        run_checked(Login(checked, "alice"), *["123456"] * 100)


@each_way
def test_logins_do_no_harm(checked: DataRoot, way: str) -> None:
    """Right and wrong codes, and verifiers started on demand, leave no finding."""
    phone = enroll(checked, way)
    with serving(checked, way):
        phases = Login(checked, way, phases="auth,account,session")
        assert run_checked(phases, phone.wrong_code(), None).status == Status.AUTH_ERR
        assert run_checked(phases, phone.code()).status == Status.IGNORE
        for phase in ("account", "session"):
            assert run_checked(Login(checked, way, phases=phase)).status == Status.IGNORE


@pytest.mark.parametrize("typed", [None, "", "1", "123456", "x" * 5000, "9" * 5000, "€1234567"])
@pytest.mark.parametrize("argument", ["", "forward_pass", "forward_pass=8"])
def test_answers_do_no_harm(checked: DataRoot, argument: str, typed: str | None) -> None:
    """No answer, split or whole, makes the module touch what is not its own."""

    def script(exchange: Exchange) -> None:
        exchange.ask(b"x" * 511)
        exchange.ask(b"x", 2)
        exchange.verdict(SUCCESS)

    with lying(checked, script):
        login = Login(checked, "alice", exact_service(checked, argument))
        assert run_checked(login, typed, typed).status == Status.SUCCESS


@pytest.mark.parametrize("argument", ["nullok", "root=/" + "x" * 4000, "timeout=1"])
def test_early_ends_do_no_harm(checked: DataRoot, argument: str) -> None:
    """Arguments that refuse, and a timeout, leave no finding."""

    def wait(exchange: Exchange) -> None:
        exchange.connection.recv(1)  # until the module closes

    with lying(checked, wait):
        login = Login(checked, "alice", exact_service(checked, argument))
        assert run_checked(login).status == Status.AUTHINFO_UNAVAIL


@pytest.mark.parametrize("option", [
    "close-standard", "ignore-sigchld", "silent", "rhost=" + "x" * 4000,
    "SSH_CONNECTION=" + "x" * 20000, "SSH_AUTH_INFO_0=" + "x" * 16384,
])  # fmt: skip
def test_odd_hosts_do_no_harm(checked: DataRoot, option: str) -> None:
    """Hosts with odd items and descriptors leave no finding."""
    with lying(checked, telling(SUCCESS)):
        run_checked(Login(checked, "alice", options=[option]))


@pytest.mark.parametrize("path", ["", "/", "/nothing", "/" + "x" * 5000, "agent", None])
def test_agents_do_no_harm(checked: DataRoot, tmp_path: Path, path: str | None) -> None:
    """An agent that is there, and every SSH_AUTH_SOCK that leads to none, leave no finding."""
    program = checked.prefix.parent / "setuid-host"
    if not program.exists():
        shutil.copyfile(checked.prefix.parent / "host", program)
        program.chmod(0o4755)
    key, user = make_sk_key(tmp_path / "laptop"), "nobody"
    checked.command("enable", "ssh-key", user, "--public-key", str(public_half(key)), "--vouch")
    with running_agent(NOBODY) as agent:
        agent.add(key)
        socket = {} if path is None else {"SSH_AUTH_SOCK": path or str(agent.socket)}
        login = Login(checked, user, options=[f"ruser={user}"], uid=NOBODY, program=program)
        # No leak checker: in a setuid program it may not look.
        options = ENVIRONMENT["ASAN_OPTIONS"].replace("detect_leaks=1", "detect_leaks=0")
        environment = {**ENVIRONMENT, "ASAN_OPTIONS": options, **socket}
        outcome = run(login._replace(environment=environment), None)
    expected = Status.SUCCESS if path == "" else Status.AUTH_ERR
    assert outcome.status == expected


@pytest.mark.parametrize("fault", ["b[argc] = 1; free(b)", "b = argc > 9 ? b : 0"])
def test_finding_would_be_seen(tmp_path: Path, fault: str) -> None:
    """With these flags a write out of bounds, and a leak, end a program with a failure."""
    source = tmp_path / "faulty.c"
    source.write_text(
        "#include <stdlib.h>\nint main(int argc, char **argv)"
        f"{{ char *volatile b = malloc((size_t)argc); (void)argv; {fault}; return 0; }}\n"
    )
    subprocess.run(["gcc", *FLAGS.split(), source, "-o", tmp_path / "faulty"], check=True)
    done = subprocess.run(
        [tmp_path / "faulty"], env=ENVIRONMENT, check=False, capture_output=True, timeout=60
    )
    assert done.returncode == FOUND
