"""What the UI shows of an asset is there: who came, figures of checks to plot, links to MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from poleng_assets.study.loading import load_study
from poleng_assets_tests.faults.quick_study import quick_survey
from poleng_assets_tests.graph.conftest import Workshop, open_founded

STUDY = load_study()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A home with a champion and one scored batch."""
    folder = tmp_path_factory.mktemp("ui")
    with quick_survey(folder) as data, open_founded(folder / "home", data) as workshop:
        reports = workshop.drop("batches", "clean_batch_1")
        assert all(report.success for report in reports)
        yield workshop


def metadata(told: Workshop, asset: str) -> dict[str, Any]:
    """Return what the newest event of an asset shows."""
    (record,) = told.instance.fetch_materializations(dg.AssetKey(asset), limit=1).records
    assert record.asset_materialization is not None
    return dict(record.asset_materialization.metadata)


@pytest.mark.parametrize("asset", ["field_studies", "batches"])
def test_a_file_shows_who_its_people_are(told: Workshop, asset: str):
    words = str(metadata(told, asset)["who_they_are"].value)
    assert all(STUDY.feature(name).title in words for name in STUDY.protected)
    assert (STUDY.target.title in words) == (asset == "field_studies")


@pytest.mark.parametrize("asset", ["challenger", "champion"])
def test_a_version_has_links_to_the_pages_that_mlflow_has_of_it(told: Workshop, asset: str):
    shown = metadata(told, asset)
    version = told.registry.champion()
    assert isinstance(shown["mlflow_version"], dg.UrlMetadataValue)
    assert str(shown["mlflow_version"].value).endswith(f"/#/models/{STUDY.name}/versions/{version.version}")
    assert str(shown["mlflow_run"].value).endswith(f"/runs/{version.run_id}")


def test_every_check_has_a_figure_to_plot(told: Workshop):
    records = told.instance.get_event_records(
        dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION), limit=100
    )
    plotted: dict[str, bool] = {}
    for record in records:
        event = record.event_log_entry.dagster_event
        assert event is not None
        check = event.asset_check_evaluation_data
        plotted[check.check_name] = any(
            isinstance(one, dg.IntMetadataValue | dg.FloatMetadataValue) for one in check.metadata.values()
        )
    assert "batch_is_not_held" in plotted
    assert "every_contact_stands_in_the_list" in plotted
    assert [name for name, has in plotted.items() if not has] == []
