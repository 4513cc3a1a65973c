"""Diglot builds a bilingual or multilingual language model in the open, from raw pages to a released model."""

__version__ = "0.1.0"
