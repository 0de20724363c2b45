"""The jobs: what sensors, the command line and people in the UI launch."""

import dagster as dg

from poleng_assets.storage.home import KINDS

RETRAIN_JOB = "retrain_and_promote"
LINE_TAG = "poleng/line"  # dagster.yaml lets one run of a line go at a time, first come, first served

ARCHIVE_CHECK = "archive_holds_what_was_taken_in"
_ARCHIVE_CHECKS = [dg.AssetCheckKey(dg.AssetKey(kind), ARCHIVE_CHECK) for kind in KINDS]


def _arrival(first: str, *others: str) -> dg.AssetSelection:
    """Select what is made of a dropped file, without reading the whole archive again for each."""
    return dg.AssetSelection.assets(first, *others) - dg.AssetSelection.checks(*_ARCHIVE_CHECKS)


ingest_field_study = dg.define_asset_job(
    "ingest_field_study", selection=_arrival("field_studies"), description="Take a field study in."
)
process_batch = dg.define_asset_job(
    "process_batch",
    selection=_arrival("batches", "predictions", "drift_report", "contact_list", "overview"),
    description="Take a batch in, score it, judge it, and make its list unless it is held.",
    tags={LINE_TAG: "batches"},
)
score_batch = dg.define_asset_job(
    "score_batch",
    selection=["predictions", "drift_report", "contact_list", "overview"],
    description="Score a batch with the present champion, judge it, and make its list unless it is held.",
)
release_batch = dg.define_asset_job(
    "release_batch",
    selection=["contact_list"],
    description="Make the list of a held batch with the scores it has.",
)
ingest_outcomes = dg.define_asset_job(
    "ingest_outcomes",
    selection=_arrival("outcomes", "realised_performance", "overview"),
    description="Take labels in and measure how good the scores were.",
)
draw_overview = dg.define_asset_job(
    "draw_overview",
    selection=["overview"],
    description="Draw the page of all batches, when the run that should have drawn it died.",
)
retrain_and_promote = dg.define_asset_job(
    RETRAIN_JOB,
    selection=["training_data", "challenger", "champion"],
    description="Train a challenger on all field studies, and let it serve if it is truly better.",
)

request_field_study = dg.define_asset_job(
    "request_field_study",
    selection=["field_study_request"],
    description="Say whom to interview next, when the overseer wants labels and has none.",
)

check_archive = dg.define_asset_job(
    "check_archive",
    selection=dg.AssetSelection.checks(*_ARCHIVE_CHECKS),
    description="Compare every archived file with the hash that it had when it was taken in.",
)

ASSET_JOBS = [
    check_archive,
    ingest_field_study,
    process_batch,
    score_batch,
    release_batch,
    ingest_outcomes,
    draw_overview,
    retrain_and_promote,
    request_field_study,
]
