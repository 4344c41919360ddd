# SPDX-License-Identifier: Apache-2.0
"""How long a decision takes under many rules, and how long they take to be read and checked.

Run: `python tests/bench/policy.py [--rules N] [--groups N]`, with the repository on PYTHONPATH.
Every rule has an MFA age, and asks for a service, source networks and a group; none of them matches
before the last, so each decision asks them all. The user is in as many groups, which are told as
the name service would have told them. Figures are printed and never judged.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from pam_mfa.policy import Context, Policy, check_policy, decide
from pam_mfa.policy.checking import Facts, find_warnings
from pam_mfa.wire import Phase

NOW = 1_700_000_045.0
ROUNDS = 200


def make_policy(count: int) -> bytes:
    """Return a policy of so many rules."""
    rules = (
        f"  - name: rule {n}\n"
        f"    match: {{service: [sshd], group: [team{n}], not_from: [10.{n % 256}.0.0/16], "
        f"weekday: [tue], time: '20:00-23:59'}}\n"
        "    require: [fido]\n"
        "    mfa_age: 15m"
        for n in range(count)
    )
    return "\n".join(["version: 1", "rules:", *rules, ""]).encode()


def measure(act: Callable[[], object], rounds: int) -> list[float]:
    """Return the milliseconds of each round."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        act()
        seconds.append((time.perf_counter() - start) * 1000)
    return seconds


def tell(what: str, figures: list[float]) -> None:
    """Print the median and the slowest."""
    median, most = statistics.median(figures), max(figures)
    sys.stdout.write(f"{what:<52} median {median:9.3f} ms   most {most:9.3f} ms\n")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", type=int, default=1000)
    parser.add_argument("--groups", type=int, default=500)
    options = parser.parse_args()
    data = make_policy(options.rules)
    policy, errors = check_policy(data, "bench")
    if errors:
        sys.exit(str(errors[0]))
    groups = frozenset(f"other{n}" for n in range(options.groups))
    context = Context(
        Phase.AUTH, "alice", "sshd", "ssh", "192.0.2.7", at=NOW, groups=groups
    )  # fmt: skip
    facts = Facts(lambda _: True, lambda _: True, None, groups, NOW)
    sys.stdout.write(f"{options.rules} rules, {len(data)} bytes; {options.groups} groups\n")
    tell(
        "decision, every condition of every rule asked",
        measure(lambda: decide(policy, context), ROUNDS),
    )
    account = context._replace(phase=Phase.ACCOUNT)
    tell("the same in the account phase", measure(lambda: decide(policy, account), ROUNDS))
    other = context._replace(service="sudo")
    tell("decision, a service that no rule names", measure(lambda: decide(policy, other), ROUNDS))
    tell("decision, no rules", measure(lambda: decide(Policy(), context), ROUNDS))
    tell("reading the file", measure(lambda: check_policy(data, "bench"), 5))
    tell("warnings of policy check", measure(lambda: list(find_warnings(policy, facts)), 3))


if __name__ == "__main__":
    main()
