# SPDX-License-Identifier: Apache-2.0
"""One login on one host of a fleet, in a process of its own: ``login_once.py ROOT USER``.

Prints "ready" when the store is open and the prompt is out; reads the code from its standard input,
and prints how the login ended.
"""

import os
import sys
import time
from pathlib import Path

from pam_mfa.errors import BrokenSystemError
from pam_mfa.store.layout import Layout
from pam_mfa.store.opening import open_serving_store
from pam_mfa.store.policies import read_policy
from pam_mfa.verification import Caller, Commit, Listen, Look, attempt
from pam_mfa.wire import Phase, Request


def main(root: Path, user: str) -> str:
    """Verify one login, and return how it ended."""
    layout = Layout(root)
    policy = read_policy(layout.policy)
    store = open_serving_store(layout)
    store.choose(policy.store)
    request = Request(
        nonce=os.urandom(16), phase=Phase.AUTH, user=user, service="sshd", tty="ssh", uid=1000,
        timeout=60,
    )  # fmt: skip
    caller = Caller(pid=os.getpid(), uid=0, may_verify=True)
    running = attempt(request, caller, policy, store, time.time)
    reply: object = None
    try:
        while True:
            need = running.send(reply)
            reply = None
            if isinstance(need, Look):
                reply = need.do()
            elif isinstance(need, Commit):
                reply = store.commit([need.claim])[0]
            elif isinstance(need, Listen):
                sys.stdout.write("ready\n")
                sys.stdout.flush()
                reply = sys.stdin.readline().strip()
    except StopIteration as end:
        return str(end.value.result.name)
    except BrokenSystemError as error:
        sys.stderr.write(f"{error}\n")
        return "BROKEN"
    finally:
        store.close()


if __name__ == "__main__":
    sys.stdout.write(main(Path(sys.argv[1]), sys.argv[2]) + "\n")
