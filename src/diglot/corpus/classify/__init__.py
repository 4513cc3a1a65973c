"""Classifiers of documents: trained from labels or from parts of the corpus itself, and applied to every document."""
