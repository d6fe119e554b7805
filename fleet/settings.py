"""The settings of the command: section `fleet` of the file, `WFM_FLEET__*` in the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, HttpUrl

from broker_bridge.common.settings import BearerKey, Section, Settings

Seconds = Annotated[float, Field(gt=0)]


def _check_base(url: HttpUrl) -> HttpUrl:
    if url.username or url.password or url.query or url.fragment:
        raise ValueError(
            "an address is like https://wfm.example.com, without user, ? and #: the key is api_key"
        )
    return url


class FleetSection(Section):
    """Where the API is, and a key: the role `source` imports, `operator` and `admin` export too."""

    api_url: Annotated[HttpUrl, AfterValidator(_check_base)] = HttpUrl("http://127.0.0.1:8000")
    api_key: BearerKey
    ca_file: Path | None = None
    """Authorities that the API's certificate is checked against; none set: the system's."""
    timeout_seconds: Seconds = 60.0
    """How long one answer may take."""
    patience_seconds: Seconds = 300.0
    """How long the API may be away before the command gives up."""


class FleetSettings(Settings):
    """What `wfm-fleet` reads."""

    fleet: FleetSection
