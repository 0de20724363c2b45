"""What the UI says of each asset: who reads it, whether it holds data of people, how long it may be silent.

``tag:personal_data=yes`` finds whatever must be kept as safe as the answers themselves. Batches come when
their sources deliver, so a short silence means nothing. A long one means that a source, a survey or a
retraining was forgotten: nothing fails then, and nothing else would tell.
"""

from datetime import timedelta
from typing import NamedTuple

import dagster as dg


class Audience(NamedTuple):
    """For whom an asset is made first of all, and whether it holds rows of people."""

    read_by: str
    personal_data: bool


AUDIENCES = {
    "field_studies": Audience("researcher", True),
    "batches": Audience("engineer", True),
    "outcomes": Audience("researcher", True),
    "training_data": Audience("engineer", False),  # it names the studies, and counts
    "challenger": Audience("engineer", True),  # its reference is held-out people
    "champion": Audience("auditor", False),
    "predictions": Audience("engineer", True),
    "drift_report": Audience("engineer", False),
    "contact_list": Audience("contact-centre", True),
    "realised_performance": Audience("researcher", False),
    "field_study_request": Audience("researcher", True),
    "overview": Audience("engineer", False),
}

# For each asset, after how many days of silence it is warned of, and after how many it counts as failed.
WINDOWS = {
    "field_studies": (180, 365),  # answers to the same questions change with the years
    "champion": (180, 365),  # nobody has challenged it
    "batches": (35, 90),  # a source has dried up
    "predictions": (35, 90),
    "contact_list": (35, 90),  # batches come, and their lists are held back
    "realised_performance": (90, 180),  # only estimates say how good the model is
}


def with_audience(spec: dg.AssetSpec) -> dg.AssetSpec:
    """Return an asset with the tags that say who reads it and what it holds, if they are known."""
    audience = AUDIENCES.get(spec.key.to_user_string())
    if audience is None:
        return spec
    tags = {"read_by": audience.read_by, "personal_data": "yes" if audience.personal_data else "no"}
    return spec.merge_attributes(tags=tags)


def with_freshness(spec: dg.AssetSpec) -> dg.AssetSpec:
    """Return an asset with its freshness policy, if it has one."""
    window = WINDOWS.get(spec.key.to_user_string())
    if window is None:
        return spec
    warn, fail = (timedelta(days=days) for days in window)
    return spec.replace_attributes(
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=warn)
    )
