"""Readers: from folders, archives, datasets and packages to records, each with its place in its container."""
