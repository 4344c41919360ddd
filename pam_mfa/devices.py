# SPDX-License-Identifier: Apache-2.0
"""What an MFA device is, and its form in a device file.

Pure: texts and bytes in, devices out. A device's secret stays sealed here; only ``store`` opens
it. New types of device are added to ``_READERS``.
"""

import base64
import binascii
import datetime
import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from pam_mfa.document import Section, parse_document
from pam_mfa.errors import RefusedError
from pam_mfa.libyaml import yaml
from pam_mfa.oath import DIGITS, PERIODS, Algorithm, Parameters
from pam_mfa.policy import SMS_REASON
from pam_mfa.ssh_keys import KeyFormatError, SshKey, format_key, parse_any_key

VERSION: Final = 1
DEVICES_MAX: Final = 8  # AWS IAM's limit
USER_BYTES_MAX: Final = 256  # LOGIN_NAME_MAX of limits.h
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


class VirtualDevice(NamedTuple):
    """An authenticator application that makes codes from a seed: time-based, or imported HOTP."""

    serial_number: str
    name: str
    enabled_at: datetime.datetime  # UTC
    parameters: Parameters
    sealed_seed: str

    @property
    def type(self) -> str:
        """The type's word in device files and policy."""
        return "virtual"


class TokenDevice(NamedTuple):
    """A hardware token of the inventory, time-based or event-based."""

    serial_number: str  # the vendor's
    name: str
    enabled_at: datetime.datetime  # UTC
    parameters: Parameters
    sealed_seed: str

    @property
    def type(self) -> str:
        """The type's word in device files and policy."""
        return "token"


class RecoveryCodes(NamedTuple):
    """A set of codes on paper, each good once; only keyed hashes are kept."""

    serial_number: str
    name: str
    enabled_at: datetime.datetime  # UTC
    hashes: tuple[str, ...]

    @property
    def type(self) -> str:
        """The type's word in device files and policy."""
        return "recovery"


class Bypass(NamedTuple):
    """One code that an administrator issued, good once and for a time."""

    serial_number: str
    name: str
    enabled_at: datetime.datetime  # UTC
    expires_at: datetime.datetime  # UTC
    hashes: tuple[str, ...]  # one

    @property
    def type(self) -> str:
        """The type's word in device files; no policy needs to name it."""
        return "bypass"


class FidoDevice(NamedTuple):
    """A credential on a FIDO security key that is attached to the machine."""

    serial_number: str
    name: str
    enabled_at: datetime.datetime  # UTC
    credential_id: bytes
    public_key: bytes  # COSE_Key (RFC 9052) in CBOR
    rp_id: str  # of the credential: it stays what it was when the key was enabled
    aaguid: str  # the model, as a UUID; "" where the key did not say
    user_verification: str  # "required", where this credential needs more than policy says; or ""

    @property
    def type(self) -> str:
        """The type's word in device files and policy."""
        return "fido"


class SshKeyDevice(NamedTuple):
    """An SSH key of the client's, on a security key there; in a file only by policy's own word."""

    serial_number: str
    name: str
    enabled_at: datetime.datetime  # UTC
    key: SshKey

    @property
    def type(self) -> str:
        """The type's word in device files and policy."""
        return "ssh-key"


CodeDevice = VirtualDevice | TokenDevice
PaperDevice = RecoveryCodes | Bypass
Device = CodeDevice | PaperDevice | FidoDevice | SshKeyDevice


def count_devices(devices: Iterable[Device]) -> int:
    """Return how many of a user's eight places are taken; a bypass takes none."""
    return sum(1 for device in devices if not isinstance(device, Bypass))


def require_user(user: str) -> None:
    """Refuse what cannot be an account's name.

    Raises:
        RefusedError: it is empty, too long, not UTF-8, or has characters that do not print.
    """
    if not user:
        raise RefusedError("the user name is empty", hint="Name the account to act on.")
    if len(user.encode("utf-8", "surrogateescape")) > USER_BYTES_MAX:
        raise RefusedError(f"the user name is longer than {USER_BYTES_MAX} bytes")
    if not user.isprintable():
        raise RefusedError(
            "the user name has a character in it that cannot be printed, or is not UTF-8"
        )


def require_name(name: str) -> None:
    """Refuse a device name that could not stand in a serial number.

    Raises:
        RefusedError: it has other characters than letters, digits, dot, dash and underscore.
    """
    if not _NAME.fullmatch(name):
        raise RefusedError(
            f"'{name}' cannot be a device's name",
            hint="Use 1 to 64 letters, digits, dots, dashes and underscores.",
        )


def serial_number_of(device_type: str, user: str, name: str) -> str:
    """Return the serial number of a device that has none of its own, as AWS makes an ARN."""
    return f"{device_type}/{user}/{name}"


def parse_devices(data: bytes, source: str, user: str) -> tuple[Device, ...]:
    """Read a device file.

    Args:
        data: the file's bytes.
        source: its name, for messages.
        user: whose file it must be.

    Raises:
        DocumentError: it is not this user's, of another version, or a device in it is wrong.
    """
    top = parse_document(data, source)
    top.require_known(("version", "user", "devices"))
    if top.require("version", int) != VERSION:
        raise top.error("version", f"must be {VERSION} for this program")
    # A file copied to another user's name must not lend its devices.
    if top.require("user", str) != user:
        raise top.error("user", "is not the user whose file this is")
    sections = top.sections("devices")
    if len(sections) > DEVICES_MAX + 1:  # and a bypass
        raise top.error("devices", f"lists {len(sections)} devices, more than {DEVICES_MAX}")
    devices = tuple(_parse_device(section) for section in sections)
    if count_devices(devices) > DEVICES_MAX:
        raise top.error("devices", f"lists {len(sections)} devices, more than {DEVICES_MAX}")
    for index, device in enumerate(devices):
        for other in devices[:index]:
            for key in ("serial_number", "name"):
                if getattr(device, key) == getattr(other, key):
                    raise sections[index].error(key, "is another device's as well")
    return devices


def _parse_device(section: Section) -> Device:
    device_type = section.require("type", str)
    if device_type.lower() == "sms":
        raise section.error("type", f"is sms. {SMS_REASON}")
    if device_type not in _READERS:
        raise section.error("type", f"is '{device_type}', not one of {', '.join(_READERS)}")
    return _READERS[device_type](section)


def _parse_virtual(section: Section) -> VirtualDevice:
    section.require_known((*_COMMON_KEYS, *_CODE_KEYS))
    return VirtualDevice(*_common(section), _parameters(section), _text(section, "secret"))


def _parse_token(section: Section) -> TokenDevice:
    section.require_known((*_COMMON_KEYS, *_CODE_KEYS))
    return TokenDevice(*_common(section), _parameters(section), _text(section, "secret"))


def _parse_recovery(section: Section) -> RecoveryCodes:
    section.require_known((*_COMMON_KEYS, "hashes"))
    return RecoveryCodes(*_common(section), tuple(section.texts("hashes")))


def _parse_bypass(section: Section) -> Bypass:
    section.require_known((*_COMMON_KEYS, "expires_at", "hashes"))
    return Bypass(*_common(section), _time(section, "expires_at"), tuple(section.texts("hashes")))


def _parse_fido(section: Section) -> FidoDevice:
    keys = ("credential_id", "public_key", "rp_id", "aaguid", "user_verification")
    section.require_known((*_COMMON_KEYS, *keys))
    verification = section.get("user_verification", str, default="")
    if verification not in ("", "required"):
        raise section.error("user_verification", "can be 'required' or absent")
    return FidoDevice(
        *_common(section),
        _bytes(section, "credential_id"),
        _bytes(section, "public_key"),
        _text(section, "rp_id"),
        section.get("aaguid", str, default=""),
        verification,
    )


def _parse_ssh_key(section: Section) -> SshKeyDevice:
    section.require_known((*_COMMON_KEYS, "public_key"))
    try:
        key = parse_any_key(_text(section, "public_key"))
    except KeyFormatError as error:
        raise section.error("public_key", f"is not that of a security key: {error}") from error
    return SshKeyDevice(*_common(section), key)


def _bytes(section: Section, key: str) -> bytes:
    text = _text(section, key)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise section.error(key, "is not base64url") from error


def _common(section: Section) -> tuple[str, str, datetime.datetime]:
    return (
        _text(section, "serial_number"),
        _text(section, "name"),
        _time(section, "enabled_at"),
    )


def _parameters(section: Section) -> Parameters:
    is_event_based = section.get("counter", bool, default=False)
    if is_event_based and "period" in section:
        raise section.error("period", "does not go with 'counter: true'")
    period = 0 if is_event_based else section.require("period", int)
    algorithm, digits = section.require("algorithm", str), section.require("digits", int)
    if algorithm not in set(Algorithm):
        raise section.error("algorithm", f"is not one of {', '.join(Algorithm)}")
    if digits not in DIGITS:
        raise section.error("digits", f"is not one of {DIGITS}")
    if not is_event_based and period not in PERIODS:
        raise section.error("period", f"is not one of {PERIODS} seconds")
    return Parameters(Algorithm(algorithm), digits, period)


def _text(section: Section, key: str) -> str:
    text = section.require(key, str)
    if not text:
        raise section.error(key, "is empty")
    return text


def _time(section: Section, key: str) -> datetime.datetime:
    moment = section.require(key, datetime.datetime)
    if moment.tzinfo is None:
        raise section.error(key, "has no time zone; write it in UTC with a final Z")
    try:
        return moment.astimezone(datetime.UTC)
    except OverflowError as error:
        raise section.error(key, "is outside the calendar") from error


_COMMON_KEYS: Final = ("serial_number", "type", "name", "enabled_at")
_CODE_KEYS: Final = ("algorithm", "digits", "period", "counter", "secret")
_READERS: Final[dict[str, Callable[[Section], Device]]] = {
    "virtual": _parse_virtual,
    "token": _parse_token,
    "recovery": _parse_recovery,
    "bypass": _parse_bypass,
    "fido": _parse_fido,
    "ssh-key": _parse_ssh_key,
}


def format_devices(user: str, devices: Iterable[Device]) -> bytes:
    """Return the device file's bytes, which ``parse_devices`` reads back to the same devices."""
    document = {
        "version": VERSION,
        "user": user,
        "devices": [_format_device(device) for device in devices],
    }
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=4096)
    return text.encode()


def _format_device(device: Device) -> dict[str, object]:
    values: dict[str, object] = {
        "serial_number": device.serial_number,
        "type": device.type,
        "name": device.name,
        "enabled_at": device.enabled_at,
    }
    if isinstance(device, VirtualDevice | TokenDevice):
        parameters = device.parameters
        values |= {"algorithm": parameters.algorithm.value, "digits": parameters.digits}
        values |= {"counter": True} if parameters.is_event_based else {"period": parameters.period}
        values["secret"] = device.sealed_seed
    elif isinstance(device, FidoDevice):
        values["credential_id"] = _base64url(device.credential_id)
        values["public_key"] = _base64url(device.public_key)
        values |= {"rp_id": device.rp_id, "aaguid": device.aaguid}
        if device.user_verification:
            values["user_verification"] = device.user_verification
    elif isinstance(device, SshKeyDevice):
        values["public_key"] = format_key(device.key)
    elif isinstance(device, Bypass):
        values |= {"expires_at": device.expires_at, "hashes": list(device.hashes)}
    else:
        values["hashes"] = list(device.hashes)
    return values


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode("ascii").rstrip("=")


class _Dumper(yaml.CSafeDumper):
    """libyaml's safe dumper with times as RFC 3339 writes them, in UTC, and without aliases."""

    def ignore_aliases(self, data: object) -> bool:
        """Write what two devices share, such as a moment, twice: the reader refuses aliases."""
        del data
        return True


def _represent_time(dumper: yaml.CSafeDumper, moment: datetime.datetime) -> yaml.Node:
    text = moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return dumper.represent_scalar("tag:yaml.org,2002:timestamp", text)


_Dumper.add_representer(datetime.datetime, _represent_time)
