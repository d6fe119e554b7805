"""Define the settings of wfm-fleet, section `fleet` or `WFM_FLEET__*`."""

from typing import Annotated

from pydantic import AfterValidator, Field, HttpUrl

from broker_bridge.common.settings import BearerKey, FilePath, Section, Settings

Seconds = Annotated[float, Field(ge=0.01, le=604_800)]


def _check_base(url: HttpUrl) -> HttpUrl:
    if url.username or url.password or url.query or url.fragment:
        raise ValueError(
            "an address is like https://wfm.example.com, without user, ? and #: the key is api_key"
        )
    return url


class FleetSection(Section):
    """The address of the API and a key.

    The role `source` imports; `operator` and `admin` also export.
    """

    api_url: Annotated[HttpUrl, AfterValidator(_check_base)] = HttpUrl("http://127.0.0.1:8000")
    api_key: BearerKey
    ca_file: FilePath | None = None
    """Certificate authorities for the API's certificate; None: the system's."""
    timeout_seconds: Seconds = 60.0
    """The timeout of one request, in seconds."""
    patience_seconds: Seconds = 300.0
    """The time for which the API may be unavailable before the command gives up, in seconds."""


class FleetSettings(Settings):
    """The settings of `wfm-fleet`."""

    fleet: FleetSection
