"""Tags and freshness policies of the assets.

``tag:personal_data=yes`` finds the assets with personal data. Batches arrive irregularly, so a short gap is
normal. A long one means that a source, a survey or a retraining was forgotten, which no failure would show.
"""

from datetime import timedelta
from typing import NamedTuple

import dagster as dg


class Audience(NamedTuple):
    """The main audience of an asset, and whether it holds rows of people."""

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

# Days without a materialisation until a freshness warning, and until a failure.
WINDOWS = {
    "field_studies": (180, 365),  # answers to the same questions change with the years
    "champion": (180, 365),  # nobody has challenged it
    "batches": (35, 90),  # a source has dried up
    "predictions": (35, 90),
    "contact_list": (35, 90),  # batches come, and their lists are held back
    "realised_performance": (90, 180),  # only estimates say how good the model is
}


def with_audience(spec: dg.AssetSpec) -> dg.AssetSpec:
    """Return an asset with its audience tags, if it has any."""
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
