"""Deduplication: hashes propose, direct comparison with the kept document decides, and the evidence is written down."""
