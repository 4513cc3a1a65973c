"""Conversations composed from the documents themselves: every question and answer can be traced to its page."""
