"""Train a bilingual vocabulary, run it exactly, export it, and measure how well it fits each language."""
