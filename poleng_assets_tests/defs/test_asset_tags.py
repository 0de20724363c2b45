"""Each asset says in the UI who reads it and whether it holds data of single people."""

import dagster as dg

from poleng_assets.definitions import build_defs
from poleng_assets.defs.asset_tags import AUDIENCES, with_audience
from poleng_assets.storage.home import Home


def test_every_asset_has_its_audience_and_every_audience_its_asset(home: Home):
    assets = {
        key.to_user_string() for key in build_defs(home=home).resolve_asset_graph().get_all_asset_keys()
    }
    assert assets - AUDIENCES.keys() == set(), "add these assets to AUDIENCES in defs/asset_tags.py"
    assert AUDIENCES.keys() - assets == set(), "AUDIENCES in defs/asset_tags.py has assets that are gone"


def test_an_asset_that_has_no_audience_yet_loads_without_tags():
    spec = dg.AssetSpec(["prefix", "batches"])
    assert with_audience(spec) == spec
