# SPDX-License-Identifier: Apache-2.0
"""The layer vm: a guest with a kernel, systemd, udev, sshd and tty1 of its own, in QEMU.

A package, unlike the other layers' folders: its names are used from several places.
"""
