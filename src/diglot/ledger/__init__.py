"""Fingerprints, manifests, artifacts and their lineage: the memory of every run."""
