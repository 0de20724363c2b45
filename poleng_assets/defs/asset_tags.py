"""Who reads each asset, and whether it holds data of single people: the tags by which the UI filters.

``tag:personal_data=yes`` finds whatever must be kept as safe as the answers themselves.
"""

from __future__ import annotations

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


def with_audience(spec: dg.AssetSpec) -> dg.AssetSpec:
    """Return an asset with the tags that say who reads it and what it holds."""
    audience = AUDIENCES[spec.key.to_user_string()]
    tags = {"read_by": audience.read_by, "personal_data": "yes" if audience.personal_data else "no"}
    return spec.merge_attributes(tags=tags)
