"""Define every command for devices.

Each has a name and arguments, and passes through states.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import JsonValue, ValidationError

from .errors import COMMAND_UNKNOWN, PAYLOAD_INVALID, ContractError
from .wire import WireModel

CommandAnswer = Literal["accepted", "done", "failed", "expired", "unknown"]
"""What a device answers to a command; every answer except `accepted` is final."""
CommandState = Literal["waiting", "sent", "accepted", "done", "failed", "expired", "unknown"]
"""An answer, or before it: `waiting` for the device to be online, `sent` and not answered yet."""

UNANSWERED_STATES: Final[tuple[CommandState, ...]] = ("waiting", "sent")
OPEN_STATES: Final[tuple[CommandState, ...]] = (*UNANSWERED_STATES, "accepted")
"""The states in which a final answer is missing."""


class NoArguments(WireModel):
    """The arguments of a command without parameters; unknown keys are ignored."""


@dataclass(frozen=True)
class CommandType:
    """A command that devices execute. `arguments` validates the `args` of the message."""

    name: str
    about: str
    arguments: type[WireModel] = NoArguments


RESYNC: Final = CommandType("resync", "Load the whole gallery again, as a snapshot sync")
RUN_CANARY: Final = CommandType("run_canary", "Check the embedding model with known pictures")

COMMANDS: Final[Mapping[str, CommandType]] = {command.name: command for command in (RESYNC, RUN_CANARY)}


def check_command(name: str, args: Mapping[str, JsonValue]) -> None:
    """Raise ContractError unless `name` is a command and `args` are its arguments.

    The codes are `command-unknown` and `payload-invalid`.
    """
    command = COMMANDS.get(name)
    if command is None:
        detail = f"there is no command {name}; the commands are: {', '.join(sorted(COMMANDS))}"
        raise ContractError(COMMAND_UNKNOWN, detail)
    try:
        command.arguments.model_validate(dict(args))
    except ValidationError as error:
        raise ContractError(PAYLOAD_INVALID, f"args: {error.errors()[0]['msg']}") from error
