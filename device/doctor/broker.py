"""Check the login at the broker and the expiry of certificates."""

import ipaddress
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import JsonValue

from broker_bridge.common.settings import MqttSettings, SettingsError
from broker_bridge.contract.wire import format_time
from device.bootstrap import AlreadyRunningError, sole_owner
from device.mqtt.config import check_tls_files
from device.store.connection import StoreError

from .broker_probe import BrokerContact, BrokerError, probe_broker
from .certificates import certificate_ends
from .check import CheckResult

_SOON = timedelta(days=30)


def check_broker(
    settings: MqttSettings, device_id: str, data_dir: Path, now: datetime, seconds: float = 5.0
) -> CheckResult:
    """Check name, TCP, TLS and login.

    Skip the login while a device runs on `data_dir`.
    """
    values: dict[str, JsonValue] = {
        "host": settings.host,
        "port": settings.port,
        "tls": settings.ca_file is not None,
    }
    try:
        check_tls_files(settings)
    except SettingsError as error:
        return CheckResult("broker", "fault", str(error), "check the file, or name another", values)
    own_ends = certificate_ends(settings.cert_file) if settings.cert_file else None
    values["certificate_ends"] = format_time(own_ends) if own_ends else None
    if own_ends is not None and own_ends <= now:
        detail = f"this device's certificate {settings.cert_file} expired on {own_ends:%Y-%m-%d}"
        return CheckResult("broker", "fault", detail, _RENEW, values)
    with _login_obstacle(data_dir) as obstacle:
        try:
            contact = probe_broker(settings, device_id, login=obstacle is None, seconds=seconds)
        except BrokerError as error:
            return CheckResult("broker", "fault", str(error), error.advice, values)
    values.update(
        connect_ms=round(contact.connect_ms, 1),
        tls_version=contact.tls,
        broker_certificate_ends=format_time(contact.ends) if contact.ends else None,
        login_ms=None if contact.login_ms is None else round(contact.login_ms, 1),
    )
    detail = _describe(settings, contact, obstacle, own_ends)
    advice = _advice(settings, now, [end for end in (contact.ends, own_ends) if end is not None])
    return CheckResult("broker", "warning" if advice else "ok", detail, advice, values)


_RENEW = "have it renewed by the operator of the broker's authority"


@contextmanager
def _login_obstacle(data_dir: Path) -> Iterator[str | None]:
    """Yield the reason to skip the login, or None: a second login would end the first."""
    obstacle = None
    with ExitStack() as stack:
        if data_dir.exists():
            try:
                stack.enter_context(sole_owner(data_dir))
            except AlreadyRunningError:
                obstacle = "a device runs on this data folder and would be disconnected"
            except StoreError:
                obstacle = "the data folder cannot be locked, so a device may be running on it"
        yield obstacle


def _describe(
    settings: MqttSettings, contact: BrokerContact, obstacle: str | None, own_ends: datetime | None
) -> str:
    parts = [f"{settings.host}:{settings.port} answers in {contact.connect_ms:.0f} ms"]
    parts.append(
        f"{contact.tls}, its certificate lasts until {contact.ends:%Y-%m-%d}" if contact.ends else "no TLS"
    )
    if own_ends is not None:
        parts.append(f"this device's until {own_ends:%Y-%m-%d}")
    if contact.login_ms is None:
        parts.append(f"login not tried: {obstacle}")
    else:
        parts.append(f"login takes {contact.login_ms:.0f} ms")
    return ", ".join(parts)


def _advice(settings: MqttSettings, now: datetime, ends: list[datetime]) -> str | None:
    if any(end - now < _SOON for end in ends):
        return "renew the certificate that ends within 30 days"
    if settings.ca_file is None and not _is_loopback(settings.host):
        return "set WFM_MQTT__CA_FILE: without TLS, passwords and face templates are sent unencrypted"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
