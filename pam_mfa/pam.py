# SPDX-License-Identifier: Apache-2.0
"""An application's side of PAM: runs a service's real stack with a conversation of our own.

python-pam brings libpam's functions and constants; its own ``authenticate`` answers every prompt
with the one password, which serves where a password alone is asked for. Shapes are those of
security/_pam_types.h. Not used by a login: there the host program is PAM's application.
"""

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pam
from pam.__internals import PamConv, PamHandle, PamMessage, PamResponse, conv_func

from pam_mfa.errors import BrokenSystemError

Answer = Callable[[int, str], str | None]  # style and text in; the answer, or None to give up
ITEMS = {"rhost": pam.PAM_RHOST, "ruser": pam.PAM_RUSER, "tty": pam.PAM_TTY}


class Outcome(NamedTuple):
    """How a stack ended."""

    status: int  # PAM_SUCCESS is 0
    message: str  # libpam's words for it
    phase: str  # the last phase that ran: auth, account or session

    @property
    def is_success(self) -> bool:
        """Whether every phase let the user in."""
        return bool(self.status == pam.PAM_SUCCESS)


class Login(NamedTuple):
    """A login to be tried."""

    service: str
    user: str
    directory: str | None = None  # of the service file, in the place of /etc/pam.d
    items: Mapping[str, str] = {}  # PAM items to set, by their names in ITEMS
    phases: tuple[str, ...] = ("auth", "account")  # of auth, account and session


def run_stack(login: Login, answer: Answer) -> Outcome:
    """Run a login's phases through libpam, until one refuses.

    Args:
        login: the service, the user, and what PAM is told of them.
        answer: called for every message of the conversation.

    Raises:
        BrokenSystemError: libpam cannot start.
    """
    libpam = pam.PamAuthenticator()
    handle = PamHandle()
    conversation = _conversation(answer, libpam)
    status = _start(libpam, login, conversation, handle)
    if status != pam.PAM_SUCCESS:
        raise BrokenSystemError(f"libpam cannot start service {login.service} (error {status})")
    calls = {
        "auth": libpam.pam_authenticate,
        "account": libpam.pam_acct_mgmt,
        "session": libpam.pam_open_session,
    }
    phase = login.phases[0]
    try:
        for name, value in login.items.items():
            text = ctypes.c_char_p(value.encode())
            libpam.pam_set_item(handle, ITEMS[name], ctypes.cast(text, ctypes.c_void_p))
        for phase in login.phases:
            status = calls[phase](handle, 0)
            if status != pam.PAM_SUCCESS:
                break
        return Outcome(status, _words(libpam, handle, status), phase)
    finally:
        libpam.pam_end(handle, status)


def _words(libpam: Any, handle: Any, status: int) -> str:  # noqa: ANN401 - python-pam has no types
    raw: bytes = libpam.pam_strerror(handle, status)
    return raw.decode("utf-8", "replace")


def _start(libpam: Any, login: Login, conversation: Any, handle: Any) -> int:  # noqa: ANN401
    arguments = [login.service.encode(), login.user.encode("utf-8", "surrogateescape")]
    pointers = [ctypes.byref(conversation), ctypes.byref(handle)]
    if login.directory is None:
        return int(libpam.pam_start(*arguments, *pointers))
    # Linux-PAM 1.4 and later; python-pam does not bind it.
    confdir = ctypes.CDLL("libpam.so.0").pam_start_confdir
    confdir.restype = ctypes.c_int
    place = ctypes.c_char_p(login.directory.encode())
    return int(confdir(*map(ctypes.c_char_p, arguments), pointers[0], place, pointers[1]))


def _conversation(answer: Answer, libpam: Any) -> Any:  # noqa: ANN401
    """Make the C callback; libpam frees what it hands out, so libc must have allocated it."""

    def converse(count: int, messages: Any, responses: Any, _data: Any) -> int:  # noqa: ANN401
        room = libpam.calloc(count, ctypes.sizeof(PamResponse))
        array = ctypes.cast(room, ctypes.POINTER(PamResponse))
        for index in range(count):
            message: PamMessage = messages[index].contents
            style = int(message.msg_style)
            reply = answer(style, (message.msg or b"").decode("utf-8", "replace"))
            if style not in (pam.PAM_PROMPT_ECHO_OFF, pam.PAM_PROMPT_ECHO_ON):
                continue
            if reply is None:
                _free(libpam, array, index, room)
                return int(pam.PAM_CONV_ERR)
            array[index].resp = _copy(libpam, reply.encode("utf-8", "surrogateescape"))
        responses[0] = array
        return int(pam.PAM_SUCCESS)

    return PamConv(conv_func(converse), None)


def _copy(libpam: Any, value: bytes) -> Any:  # noqa: ANN401
    room = libpam.calloc(len(value) + 1, 1)
    ctypes.memmove(room, value, len(value))
    return room


def _free(libpam: Any, array: Any, filled: int, room: Any) -> None:  # noqa: ANN401
    free = libpam.libc.free
    free.argtypes, free.restype = [ctypes.c_void_p], None
    for index in range(filled):
        free(ctypes.cast(array[index].resp, ctypes.c_void_p))
    free(room)
