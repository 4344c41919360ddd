# SPDX-License-Identifier: Apache-2.0
"""The ways to prove: one module each."""
