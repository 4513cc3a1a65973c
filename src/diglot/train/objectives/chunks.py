"""How many logits `linear_cross_entropy` makes at once, readable without torch by what foretells its memory."""

from __future__ import annotations

# 64 MB of float32. Products of few rows are slow: 4,096 tokens of width 384 over a vocabulary of 16k took 1.46 s by 128
# rows at a time and 1.11 s by 1,024, on two cores.
CHUNK_LOGITS = 2**24
# 4,096 rows of a vocabulary of 64k, about 2.7 GB while a chunk is worked on. Each chunk reads and writes the gradient
# of the whole output matrix once: for fewer rows that would take longer than the products.
CHUNK_LOGITS_ON_A_GPU = 2**28
