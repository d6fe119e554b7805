"""Parts that all commands of the API's program share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.errors import ContractError
from broker_bridge.registry import RegistryUnavailableError

Config = Annotated[
    Path | None, typer.Option("--config", help="Settings as JSON; WFM_* variables go over them.")
]


@contextmanager
def exit_on_operator_errors() -> Iterator[None]:
    """Exit with status 2 and the sentences of a settings, registry or contract error."""
    try:
        yield
    except (SettingsError, RegistryUnavailableError, ContractError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
