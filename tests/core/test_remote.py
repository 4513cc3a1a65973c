"""A folder behind an address is used alike whatever serves it, and its errors say what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from diglot.core.errors import ConfigError, DiglotError
from diglot.core.remote import RemoteFolder, explain


@pytest.fixture(params=["memory", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteFolder:
    return RemoteFolder(f"{request.param}://{tmp_path}/store/run")


def test_files_come_back_and_go(folder: RemoteFolder, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"0123456789")
    assert folder.sizes() == {}
    folder.upload(tmp_path / "local", "1/state")
    folder.write_bytes("1/manifest.json", b"{}")
    folder.write_bytes("2/manifest.json", b"[]")
    assert folder.sizes() == {"1/manifest.json": 2, "1/state": 10, "2/manifest.json": 2}
    assert folder.read_bytes("2/manifest.json") == b"[]"
    with folder.open("1/state") as stream:
        stream.seek(4)
        assert stream.read() == b"456789"
    folder.delete(["1/manifest.json", "1", "absent"])
    assert folder.sizes() == {"2/manifest.json": 2}


def test_a_test_write_leaves_nothing(folder: RemoteFolder) -> None:
    folder.check_writable()
    assert folder.sizes() == {}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ConfigError, match=r"s3://bucket/runs cannot be opened: .*\. pip install s3fs\."):
        RemoteFolder("s3://bucket/runs")


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ConfigError, match="s4://bucket cannot be opened"):
        RemoteFolder("s4://bucket")


@pytest.mark.parametrize("url", ["sftp://me:hunter2@host/runs", "s3://bucket/runs?token=hunter2"])
def test_an_address_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="carries a password or a query") as found:
        RemoteFolder(url)
    assert "hunter2" not in str(found.value)


def test_errors_say_what_to_do_and_carry_no_signature() -> None:
    url = "s3://bucket/runs"
    assert "no permission while writing s3://bucket/runs. Check which credentials" in str(
        explain(PermissionError("Access Denied"), url, "writing")
    )
    assert "Create the bucket" in str(explain(FileNotFoundError("The specified bucket does not exist"), url, "writing"))
    lost = explain(OSError("no route to https://host/key?X-Amz-Signature=secret\nmore"), url, "writing")
    assert isinstance(lost, DiglotError)
    assert str(lost).startswith(
        "writing s3://bucket/runs failed: OSError: no route to https://host/key?[left out]. Check"
    )
    assert "secret" not in str(lost)
    assert "same command goes on" in str(lost)
