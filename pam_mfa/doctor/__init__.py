# SPDX-License-Identifier: Apache-2.0
"""What is wrong with this host, and what to do: one small check a subject, over one view of it.

``view`` is all that checks may look through, ``examination`` runs them, ``repairing`` and
``rebuilding`` mend the little that a program may mend. Checks change nothing.
"""
