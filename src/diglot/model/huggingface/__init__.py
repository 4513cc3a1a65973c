"""Hugging Face's layout of a decoder: config.json and tensor names, read and written."""
