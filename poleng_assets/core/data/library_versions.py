"""Which release of a library is installed, whatever its distribution is called on this platform."""

from importlib.metadata import PackageNotFoundError, version

# The same modules, built without code for graphics processors; constraints.txt chooses by platform.
_OTHER_NAMES = {"xgboost": "xgboost-cpu"}


def library_version(name: str) -> str:
    """Return the installed release of a distribution, as in ``library_version("xgboost")``.

    Raises:
        PackageNotFoundError: neither it nor its other build is installed.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        if name not in _OTHER_NAMES:
            raise
        return version(_OTHER_NAMES[name])
