"""Benchmark items and held-out documents inside training documents: found by n-grams, judged by coverage."""
