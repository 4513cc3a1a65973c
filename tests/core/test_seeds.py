from __future__ import annotations

from diglot.core.seeds import derive_seed


def test_seeds_differ_by_every_name_and_stay_the_same_for_ever():
    assert derive_seed(17, "a", "b") != derive_seed(17, "ab")
    assert derive_seed(17, "a") != derive_seed(18, "a")
    assert derive_seed(17, "pretrain", "shuffle", 3) == 3742609667054800244  # a stored run depends on it
