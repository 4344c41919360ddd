# SPDX-License-Identifier: Apache-2.0
"""A CTAP2 authenticator: bytes of a command in, bytes out, and a pause where a person is needed."""

from security_key.assertion import Assertion
from security_key.cbor import Item, encode
from security_key.client_pin import SHORTEST, ClientPin
from security_key.ctap import PUBLIC_KEY, Command
from security_key.exchange import Need, Step, require_gesture
from security_key.model import FIDO_2_0
from security_key.parameters import Parameters, parse_parameters
from security_key.parts import Parts
from security_key.registration import CRED_PROTECT, CREDENTIAL_ID_SIZE, Registration
from security_key.status import Status, StatusError

LIST_SIZE = 8
FINGERPRINT_MODALITY = 0x02
FIRMWARE = 1


class Authenticator:
    """CTAP2 on one key's parts."""

    def __init__(self, parts: Parts) -> None:
        """Work on these parts."""
        self.parts = parts
        self.registration = Registration(parts)
        self.assertion = Assertion(parts)
        self.client_pin = ClientPin(parts)

    def run(self, request: bytes) -> Step[bytes]:
        """Answer a command: a status, and what CTAP has follow it."""
        try:
            answer = yield from self._run(request)
        except StatusError as error:
            return bytes((error.status,))
        return bytes((Status.SUCCESS,)) + (encode(answer) if answer else b"")

    def _run(self, request: bytes) -> Step[dict[int, Item]]:
        """Answer a command, or raise the status."""
        if len(request) > self.parts.model.max_message_size:
            raise StatusError(Status.REQUEST_TOO_LARGE)
        try:
            command = Command(request[0])
        except (ValueError, IndexError) as error:
            raise StatusError(Status.INVALID_COMMAND) from error
        parameters = parse_parameters(request[1:])
        if command is not Command.GET_NEXT_ASSERTION:
            self.parts.power.queue = None
        answer = yield from self._dispatch(command, parameters)
        return answer

    def _dispatch(self, command: Command, parameters: Parameters) -> Step[dict[int, Item]]:
        """Run a command that the key has."""
        answer: dict[int, Item] = {}
        model = self.parts.model
        if command is Command.GET_INFO:
            answer = self._info()
        elif command is Command.MAKE_CREDENTIAL:
            answer = yield from self.registration.run(parameters)
        elif command is Command.GET_ASSERTION:
            answer = yield from self.assertion.run(parameters)
        elif command is Command.GET_NEXT_ASSERTION:
            answer = self.assertion.run_next()
        elif command is Command.CLIENT_PIN and (model.client_pin or model.built_in_uv):
            answer = yield from self.client_pin.run(parameters)
        elif command is Command.RESET:
            yield from self._reset()
        elif command is Command.SELECTION and model.is_2_1:
            yield from require_gesture(Need.TOUCH)
        else:
            raise StatusError(Status.INVALID_COMMAND)
        return answer

    def _info(self) -> dict[int, Item]:
        """Return what the key can do (section 6.4)."""
        model, memory = self.parts.model, self.parts.memory
        info: dict[int, Item] = {
            0x01: model.versions,
            0x02: [CRED_PROTECT],
            0x03: self.parts.aaguid,
            0x04: self._options(),
            0x05: model.max_message_size,
            0x07: LIST_SIZE,
            0x08: CREDENTIAL_ID_SIZE,
            0x09: ["usb"],
            0x0A: [{"alg": each, "type": PUBLIC_KEY} for each in model.algorithms],
        }
        if model.client_pin or model.built_in_uv:
            info[0x06] = model.pin_protocols
        if model.is_2_1:
            stored = sum(each.is_discoverable for each in memory.credentials)
            info |= {
                0x0C: False,
                0x0D: SHORTEST,
                0x0E: FIRMWARE,
                0x14: max(0, model.max_discoverable - stored),
            }
            if model.built_in_uv:
                info |= {0x11: 1, 0x12: FINGERPRINT_MODALITY}
            return info
        if FIDO_2_0 in model.versions:
            del info[0x07], info[0x08], info[0x09], info[0x0A]
        return info

    def _options(self) -> dict[str, bool]:
        """Return the options of getInfo; one that the key knows nothing of is not there."""
        model = self.parts.model
        options = {"rk": model.resident_keys, "up": True, "plat": False}
        if model.client_pin:
            options["clientPin"] = self.parts.memory.pin_hash is not None
        if model.built_in_uv:
            options["uv"] = True
        if model.is_2_1:
            options["alwaysUv"] = model.always_uv
            options["makeCredUvNotRqd"] = model.make_cred_uv_not_rqd
            if model.client_pin or model.built_in_uv:
                options["pinUvAuthToken"] = True
        return options

    def _reset(self) -> Step[None]:
        """Forget everything, for who plugs the key in and touches it soon."""
        parts = self.parts
        if parts.clock() - parts.power.since > parts.model.reset_within:
            raise StatusError(Status.NOT_ALLOWED)
        yield from require_gesture(Need.TOUCH)
        parts.memory.reset()
        parts.power_up()
