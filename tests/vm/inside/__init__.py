# SPDX-License-Identifier: Apache-2.0
"""Programs that run inside the guest, on its own Python and nothing else."""
