"""Commands for API keys: `new-key`, `list-keys` and `revoke-key`."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from broker_bridge.common.clock import utc_now
from broker_bridge.common.event_loop import run_bounded
from broker_bridge.common.programs.cli import Config
from broker_bridge.common.settings import SettingsError, load_settings
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.wire import format_time
from broker_bridge.registry import Registry
from broker_bridge.registry.api_keys import LAST_ADMIN_KEY, ApiKeyRecord, Role
from dashboard_api.command_line import exit_on_operator_errors
from dashboard_api.settings import ApiProgram

from .views import KeyName

AUTHOR = "command-line"
"""The author of an audit entry about a change by these commands."""
_HEADINGS = ("ID", "NAME", "ROLE", "DEVICE", "STATE", "CREATED", "EXPIRES", "LAST USED")
_PAGE = 1000


def add_key_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("new-key")(new_key)
    app.command("list-keys")(list_keys)
    app.command("revoke-key")(revoke_key)


def _checked_name(name: str) -> str:
    """Return a name that the REST API would take too."""
    try:
        return TypeAdapter[str](KeyName).validate_python(name)
    except ValidationError as error:
        raise typer.BadParameter("expected 1 to 100 characters, no control characters") from error


def _checked_id(key_id: str) -> str:
    if not re.fullmatch("[0-9a-f]{16}", key_id):
        raise typer.BadParameter("expected an id of 16 hexadecimal digits, as list-keys shows it")
    return key_id


def new_key(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="Name of the key.", callback=_checked_name)],
    role: Annotated[Role, typer.Option(help="Role of the key.")] = "viewer",
    device: Annotated[str | None, typer.Option(help="Device of the key, for the role edge.")] = None,
    expires: Annotated[
        datetime | None, typer.Option(help="Time (UTC) from which the key does not work, as in 2027-01-31.")
    ] = None,
    config: Config = None,
) -> None:
    """Create an API key and print it once: the registry keeps only its hash."""
    if (role == "edge") != (device is not None):
        raise typer.BadParameter("--role edge needs --device ID, and other roles take no --device")
    expires_at = expires and expires.replace(tzinfo=timezone.utc)
    if expires_at is not None and expires_at <= utc_now():
        raise typer.BadParameter("--expires needs a time in the future (UTC)")
    with exit_on_operator_errors():
        typer.echo(run_bounded(make_key(_load(context, config), name, role, device, expires_at)))


def list_keys(context: typer.Context, config: Config = None) -> None:
    """List all API keys, newest first, without their texts."""
    with exit_on_operator_errors():
        records = run_bounded(_read_all(_load(context, config)))
    rows = [_HEADINGS, *(_row(record, utc_now()) for record in records)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def revoke_key(
    context: typer.Context,
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the key, as in list-keys.", callback=_checked_id)
    ],
    force: Annotated[bool, typer.Option("--force", help="Revoke even the last admin key.")] = False,
    config: Config = None,
) -> None:
    """Revoke an API key for good: within a second it works in no process any more."""
    with exit_on_operator_errors():
        record = run_bounded(_revoke(_load(context, config), key_id, force))
    typer.echo(f"revoked {record.key.key_id} ({record.key.name}, {record.key.role})")


async def make_key(
    program: ApiProgram,
    name: str,
    role: Role,
    device_id: str | None = None,
    expires_at: datetime | None = None,
) -> str:
    """Return the text of a new API key.

    Raises RegistryUnavailableError, or SettingsError for an unknown device.
    """
    async with _registry(program) as registry:
        if program.api.bootstrap_key is not None:
            # Before the new key, since the configured one is created only in a database without keys.
            await registry.api_keys.ensure_first(program.api.bootstrap_key.get_secret_value())
        if device_id is not None and device_id not in await registry.devices.registered([device_id]):
            raise SettingsError([f"{device_id} is not registered: register it under /api/v1/devices first"])
        return await registry.api_keys.create(
            name, role, device_id=device_id, expires_at=expires_at, by=AUTHOR
        )


async def _read_all(program: ApiProgram) -> list[ApiKeyRecord]:
    records: list[ApiKeyRecord] = []
    async with _registry(program) as registry:
        while True:
            before = (records[-1].created_at, records[-1].key.key_id) if records else None
            page = await registry.api_keys.page(before=before, limit=_PAGE)
            records += page
            if len(page) < _PAGE:
                return records


async def _revoke(program: ApiProgram, key_id: str, force: bool) -> ApiKeyRecord:
    async with _registry(program) as registry:
        try:
            return await registry.api_keys.revoke(key_id, by=AUTHOR, at=utc_now(), force=force)
        except ContractError as error:
            if error.code != LAST_ADMIN_KEY:
                raise
            raise ContractError(error.code, f"{error.detail}, or add --force") from error


@asynccontextmanager
async def _registry(program: ApiProgram) -> AsyncIterator[Registry]:
    registry = await Registry.open(program.mongo)
    try:
        yield registry
    finally:
        await registry.close()


def _load(context: typer.Context, config: Path | None) -> ApiProgram:
    # `--config` may stand before the command as well.
    return load_settings(ApiProgram, config or context.find_object(Path), os.environ)


def _row(record: ApiKeyRecord, at: datetime) -> tuple[str, ...]:
    key = record.key
    return (
        key.key_id,
        key.name,
        key.role,
        key.device_id or "-",
        record.state(at),
        format_time(record.created_at),
        format_time(key.expires_at) if key.expires_at else "never",
        format_time(record.last_used_at) if record.last_used_at else "never",
    )
