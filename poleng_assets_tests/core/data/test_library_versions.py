from importlib.metadata import PackageNotFoundError

import pytest
import xgboost

from poleng_assets.core.data import library_versions
from poleng_assets.core.data.library_versions import library_version


def test_the_release_of_xgboost_is_known_whichever_build_is_installed():
    assert library_version("xgboost") == xgboost.__version__


def test_the_build_for_processors_alone_is_asked_when_the_usual_one_is_not_installed(monkeypatch):
    installed = {"xgboost-cpu": "2.1.4"}

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(library_versions, "version", version)

    assert library_version("xgboost") == "2.1.4"
    with pytest.raises(PackageNotFoundError, match="duckdb"):
        library_version("duckdb")
