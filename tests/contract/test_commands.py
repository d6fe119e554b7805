"""The table of commands names every command and checks its arguments."""

import pytest

from broker_bridge.contract.commands import COMMANDS, check_command
from broker_bridge.contract.errors import ContractError


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_of_the_table_accepts_unknown_arguments(name: str) -> None:
    """A device of another version may have further parameters."""
    check_command(name, {})
    check_command(name, {"n": 1})


def test_a_command_outside_the_table_is_unknown() -> None:
    with pytest.raises(ContractError, match="the commands are: resync, run_canary"):
        check_command("reboot", {})
