"""Compiled loops over UTF-8 text. N documents come as offsets int64 [N + 1] into bytes uint8 [offsets[N]], as in Arrow.

Each kernel says which plain Python function defines it; a property test holds the two equal. Text must be valid UTF-8,
which Arrow strings are. Importing a kernel imports numba (0.6 s); nothing compiles before the first call.
"""
