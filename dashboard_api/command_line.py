"""Parts that all commands of the API's program share."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.errors import ContractError
from broker_bridge.registry import RegistryUnavailableError


@contextmanager
def exit_on_operator_errors() -> Iterator[None]:
    """Exit with status 2 and the sentences of a settings, registry or contract error."""
    try:
        yield
    except (SettingsError, RegistryUnavailableError, ContractError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
