"""The jobs that sensors, the command line and people in the UI launch."""

import dagster as dg

from poleng_assets.storage.home import KINDS

RETRAIN_JOB = "retrain_and_promote"
LINE_TAG = "poleng/line"  # dagster.yaml lets one run of a line go at a time, first come, first served

ARCHIVE_CHECK = "archive_holds_what_was_taken_in"
_ARCHIVE_CHECKS = [dg.AssetCheckKey(dg.AssetKey(kind), ARCHIVE_CHECK) for kind in KINDS]


def _arrival(first: str, *others: str) -> dg.AssetSelection:
    """Select the assets of a dropped file, without the check of the complete archive."""
    return dg.AssetSelection.assets(first, *others) - dg.AssetSelection.checks(*_ARCHIVE_CHECKS)


ingest_field_study = dg.define_asset_job(
    "ingest_field_study", selection=_arrival("field_studies"), description="Ingest a field study."
)
process_batch = dg.define_asset_job(
    "process_batch",
    selection=_arrival("batches", "predictions", "drift_report", "contact_list", "overview"),
    description="Ingest a batch, score it, judge it, and issue its contact list unless it is held.",
    tags={LINE_TAG: "batches"},
)
score_batch = dg.define_asset_job(
    "score_batch",
    selection=["predictions", "drift_report", "contact_list", "overview"],
    description="Score a batch with the champion, judge it, and issue its contact list unless it is held.",
)
release_batch = dg.define_asset_job(
    "release_batch",
    selection=["contact_list"],
    description="Issue the contact list of a held batch with its existing scores.",
)
ingest_outcomes = dg.define_asset_job(
    "ingest_outcomes",
    selection=_arrival("outcomes", "realised_performance", "overview"),
    description="Ingest outcomes and measure realised performance.",
)
draw_overview = dg.define_asset_job(
    "draw_overview",
    selection=["overview"],
    description="Update the overview after a run failed to.",
)
retrain_and_promote = dg.define_asset_job(
    RETRAIN_JOB,
    selection=["training_data", "challenger", "champion"],
    description="Train a challenger on all field studies, and promote it if it is significantly better.",
)

request_field_study = dg.define_asset_job(
    "request_field_study",
    selection=["field_study_request"],
    description="Select whom to interview next when labels are needed.",
)

check_archive = dg.define_asset_job(
    "check_archive",
    selection=dg.AssetSelection.checks(*_ARCHIVE_CHECKS),
    description="Compare every archived file with its recorded hash.",
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
