"""The worker's settings and command line work without a server."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from broker_bridge.common.settings import SettingsError, load_settings
from broker_bridge.contract.spaces import SpaceRecord
from device.embed_worker import app
from device.embedding.bootstrap import open_worker
from device.embedding.progress import BarReporter, JobTally, LogReporter
from device.embedding.settings import WorkerSettings

NEEDED = {
    "WFM_WORKER__BACKEND_URL": "http://backend.example:8000",
    "WFM_WORKER__BACKEND_KEY": "a-secret-key",
    "WFM_WORKER__CATALOG_URL": "https://alfred.example/catalog/",
}


def load(**changed: str) -> WorkerSettings:
    more = {f"WFM_WORKER__{name.upper()}": value for name, value in changed.items()}
    return load_settings(WorkerSettings, None, {**NEEDED, **more})


def test_three_settings_are_enough() -> None:
    """All other settings have defaults, and keys are not shown."""
    settings = load()
    assert settings.worker.group_photos == 32
    assert settings.worker.worker_id
    assert "a-secret-key" not in repr(settings)


def test_a_file_is_read_and_the_environment_overrides_it(tmp_path: Path) -> None:
    """The section is `worker`."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"worker": {"backend_url": "http://x", "group_photos": 8}}))
    assert load_settings(WorkerSettings, file, NEEDED).worker.group_photos == 8


@pytest.mark.parametrize(
    "changed",
    [
        {"backend_url": "backend:8000"},
        {"backend_url": "ftp://backend"},
        {"catalog_url": "http://user:word@alfred"},
        {"catalog_url": "http://alfred/?a=1"},
        {"group_photos": "65"},
        {"lease_seconds": "5"},
        {"space": "face:other-512"},
        {"detector": "scrfd"},
        {"worker_id": "a b"},
        {"backend_key": ""},
        {"catalog_key": "two words"},
        {"photo_mb": "0"},
        {"nonsense": "1"},
    ],
)
def test_a_wrong_setting_is_named(changed: dict[str, str]) -> None:
    """The error is one sentence."""
    with pytest.raises(SettingsError) as caught:
        load(**changed)
    (mistake,) = caught.value.mistakes
    assert mistake.startswith("worker")


def test_help_describes_the_command() -> None:
    """The help also lists the exit statuses."""
    output = " ".join(CliRunner().invoke(app, ["--help"]).output.split())
    for words in ("--once", "--config", *NEEDED, "Status 0", "no photo is written"):
        assert words in output


@pytest.mark.parametrize("content", [None, "not a certificate"])
async def test_an_unusable_ca_file_is_a_settings_error(tmp_path: Path, content: str | None) -> None:
    """The file is missing or contains no certificate."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    worker = load(ca_file=str(file)).worker
    with pytest.raises(SettingsError, match="ca_file: "):
        async with open_worker(
            worker,
            object(),  # type: ignore[arg-type]
            SpaceRecord(space="face:test-8", dimension=8),
            LogReporter(),
            once=True,
        ):
            raise AssertionError("it must not open")


def test_the_bar_shows_photos_faces_and_skipped_photos() -> None:
    """The bar starts at the position of the job."""
    console = Console(force_terminal=True, width=120, record=True, file=io.StringIO())
    bar = BarReporter(console)
    bar.begin("job-1", 30, 50)
    for n in range(1, 6):
        bar.photo_processed(JobTally(photos=n, faces=n, skipped={"photo-no-face": 2, "no-person": 1}))
    bar.stored(35, 50, JobTally())
    bar.end()
    shown = console.export_text()
    assert "job-1" in shown
    assert "35/50" in shown
    assert "5 faces, 3 skipped" in shown


def test_a_log_has_a_line_for_each_group(caplog: pytest.LogCaptureFixture) -> None:
    """The log line has the same numbers as the bar."""
    log = LogReporter()
    with caplog.at_level("INFO", "device.embedding.progress"):
        log.begin("job-1", 0, 50)
        log.photo_processed(JobTally(photos=1))
        log.stored(32, 50, JobTally(photos=32, faces=30, skipped={"no-person": 2}))
    assert caplog.messages == [
        "job started job_id=job-1 position=0 total=50",
        "job progress job_id=job-1 position=32 total=50 faces=30 skipped=2",
    ]
