# SPDX-License-Identifier: Apache-2.0
"""One login through the real libpam, from a private service directory, timed.

Only `pam_start_confdir`, `pam_authenticate` and `pam_end` are called and only they are timed. The
conversation runs in Python inside the timed part, the same for every contender that asks.
"""

import ctypes
import ctypes.util
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

PAM_SUCCESS = 0  # <security/_pam_types.h>
PAM_CONV_ERR = 19
PAM_PROMPT_ECHO_OFF = 1
PAM_PROMPT_ECHO_ON = 2


class PamMessage(ctypes.Structure):
    """`struct pam_message`."""

    _fields_ = (("msg_style", ctypes.c_int), ("msg", ctypes.c_char_p))


class PamResponse(ctypes.Structure):
    """`struct pam_response`; libpam's caller frees it, so the text is malloc'ed."""

    _fields_ = (("resp", ctypes.c_void_p), ("resp_retcode", ctypes.c_int))


Messages = ctypes.POINTER(ctypes.POINTER(PamMessage))
Responses = ctypes.POINTER(ctypes.POINTER(PamResponse))
Conversation = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, Messages, Responses, ctypes.c_void_p)


class PamConv(ctypes.Structure):
    """`struct pam_conv`."""

    _fields_ = (("conv", Conversation), ("appdata_ptr", ctypes.c_void_p))


@dataclass(frozen=True)
class Attempt:
    """One login's outcome: a PAM return code, and when it began and ended (perf_counter)."""

    status: int
    began: float
    ended: float

    @property
    def accepted(self) -> bool:
        """Whether libpam said PAM_SUCCESS."""
        return self.status == PAM_SUCCESS

    @property
    def seconds(self) -> float:
        """How long the login took."""
        return self.ended - self.began


class Libpam:
    """libpam, answering every prompt with the code at hand."""

    def __init__(self, service_directory: Path) -> None:
        """Load libpam; services are read from this directory and nowhere else."""
        self._pam = ctypes.CDLL("libpam.so.0")
        self._libc = ctypes.CDLL(None)
        self._libc.calloc.restype = ctypes.c_void_p
        self._libc.calloc.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
        self._libc.strdup.restype = ctypes.c_void_p
        self._libc.strdup.argtypes = (ctypes.c_char_p,)
        self._pam.pam_authenticate.argtypes = (ctypes.c_void_p, ctypes.c_int)
        self._pam.pam_end.argtypes = (ctypes.c_void_p, ctypes.c_int)
        self._directory = str(service_directory).encode()
        self._answer = b""
        self._callback = Conversation(self._converse)
        self._conv = PamConv(self._callback, None)

    def log_in(self, service: str, user: str, code: str) -> Attempt:
        """Authenticate once and return the outcome; everything else happens outside the clock."""
        self._answer = code.encode("ascii")
        service_name, user_name = service.encode(), user.encode()
        conv, handle = ctypes.byref(self._conv), ctypes.c_void_p()
        began = perf_counter()
        status = self._pam.pam_start_confdir(
            service_name, user_name, conv, self._directory, ctypes.byref(handle)
        )
        if status == PAM_SUCCESS:
            status = self._pam.pam_authenticate(handle, 0)
            self._pam.pam_end(handle, status)
        return Attempt(int(status), began, perf_counter())

    def _converse(self, count: int, messages: object, responses: object, _data: object) -> int:
        """Answer prompts with the code; text messages get an empty response."""
        shown = ctypes.cast(messages, Messages)  # type: ignore[arg-type]
        answers = self._libc.calloc(count, ctypes.sizeof(PamResponse))
        if not answers:
            return PAM_CONV_ERR
        array = ctypes.cast(answers, ctypes.POINTER(PamResponse))
        for i in range(count):
            if shown[i].contents.msg_style in {PAM_PROMPT_ECHO_OFF, PAM_PROMPT_ECHO_ON}:
                array[i].resp = self._libc.strdup(self._answer)
        ctypes.cast(responses, Responses)[0] = array  # type: ignore[arg-type]
        return PAM_SUCCESS
