"""How many logits `linear_cross_entropy` makes at once, readable without torch by what foretells its memory."""

from __future__ import annotations

CHUNK_LOGITS = 2**21  # 8 MB of float32: what a core's share of the last-level cache holds
# 4,096 rows of a vocabulary of 64k, about 2.7 GB while a chunk is worked on. Each chunk reads and writes the gradient
# of the whole output matrix once: for fewer rows that would take longer than the products.
CHUNK_LOGITS_ON_A_GPU = 2**28
