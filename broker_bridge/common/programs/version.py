"""Return the version of this software and say how to install a part of it."""

import importlib.metadata

DISTRIBUTION = "wfm-fleet"


def version() -> str:
    """Return the installed version, "unknown" in a checkout that is not installed."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def how_to_install(extra: str) -> str:
    """Return the command that installs an optional part.

    No package index has this software.
    """
    return f'pip install ".[{extra}]" in a checkout of WFM Fleet'
