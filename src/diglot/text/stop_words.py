"""Function words that any English text of some length contains."""

STOP_WORDS_EN = ("the", "be", "to", "of", "and", "that", "have", "with")  # Gopher's eight (arXiv 2112.11446, A.1.1)
