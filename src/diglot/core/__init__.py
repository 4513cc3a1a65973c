"""Storage, hardware facts, progress, seeds and errors: what every other room stands on."""
