"""Settings of where and when a run saves, readable without loading torch."""

from __future__ import annotations

from pathlib import Path

from diglot.core.errors import ConfigError
from diglot.core.remote import refuse_credentials
from diglot.core.storage import is_url


def check_saving(
    *, checkpoint_dir: str | None, checkpoint_every_minutes: float | None, time_limit_minutes: float | None
) -> None:
    """Raises ConfigError for a place or a time that cannot be meant."""
    if checkpoint_dir is not None and is_url(checkpoint_dir):
        refuse_credentials(checkpoint_dir)
    elif checkpoint_dir is not None and not Path(checkpoint_dir).expanduser().is_absolute():
        raise ConfigError(
            f"checkpoint_dir = '{checkpoint_dir}' is neither an absolute path nor an address such as s3://bucket/runs. "
            "Write it out, or leave it out to keep checkpoints in the step's folder."
        )
    minutes = {"checkpoint_every_minutes": checkpoint_every_minutes, "time_limit_minutes": time_limit_minutes}
    for name, value in minutes.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{name} = {value}, but it is a time above 0. Leave it out to switch it off.")


def place_of_run(checkpoint_dir: str | None, fingerprint: str) -> str | None:
    """A folder of its own for each artifact, so that two runs with one `checkpoint_dir` never mix."""
    if checkpoint_dir is None:
        return None
    parent = checkpoint_dir.rstrip("/") if is_url(checkpoint_dir) else str(Path(checkpoint_dir).expanduser())
    return f"{parent}/{fingerprint}"
