"""The heavy packages are an extra; whoever lacks them is told what to install instead of shown a traceback."""

import importlib.util


class ExtraMissing(ImportError):
    """A package of an extra is not installed; the message says how to get it."""


def require(extra: str, *packages: str) -> None:
    """Raise ExtraMissing unless all packages can be found; imports none of them."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExtraMissing(f"{', '.join(missing)} is not installed: pip install 'training-wheels[{extra}]'")
