# SPDX-License-Identifier: Apache-2.0
"""``python3 -m security_key``: a key of the kernel's, run as root, commanded through a socket.

Prints ``ready`` when the device is there; ``security_key.control`` says what it can be told.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

from security_key.control import Control
from security_key.faults import Fault
from security_key.gadget import Gadget
from security_key.key import SecurityKey, load_key
from security_key.model import Model, parse_model
from security_key.person import Touch
from security_key.server import Link, Server
from security_key.uhid import Uhid


def parse_setting(text: str) -> tuple[str, object]:
    """Return a field of the model and its value, which is JSON."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError("a setting is FIELD=JSON")
    return name, json.loads(value)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's words."""
    parser = argparse.ArgumentParser(prog="security_key", description=__doc__)
    parser.add_argument("--transport", choices=("uhid", "gadget"), required=True)
    parser.add_argument("--state", type=Path, required=True, help="made where it is not there")
    parser.add_argument("--control", type=Path, required=True, help="the socket")
    parser.add_argument("--fault", type=Fault, action="append", default=[], metavar="NAME")
    parser.add_argument("--touch", type=Touch, default=Touch.YES, choices=tuple(Touch))
    parser.add_argument("--unplugged", action="store_true", help="wait for the word 'plug'")
    parser.add_argument(
        "--set",
        type=parse_setting,
        action="append",
        default=[],
        metavar="FIELD=JSON",
        help="of a new key's model, such as built_in_uv=true",
    )
    return parser.parse_args()


def make_link(transport: str, model: Model) -> Link:
    """Return the link of a name."""
    return Uhid(model) if transport == "uhid" else Gadget(model)


def main() -> int:
    """Serve until told to quit."""
    arguments = parse_arguments()
    if arguments.state.exists():
        key = load_key(arguments.state)
    else:
        key = SecurityKey(parse_model(dict(arguments.set)))
    key.person.touch = arguments.touch
    key.faults.switch_on(*arguments.fault)
    link = make_link(arguments.transport, key.model)
    server = Server(key, link, arguments.state)
    server.sides.append(Control(server, arguments.control))
    if not arguments.unplugged:
        server.plug()
    print("ready", flush=True)  # noqa: T201 - whoever started it waits for this
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
