"""How long the graph may go without news before its UI says so.

Batches come when their sources deliver, so a short silence means nothing. A long one means that a source, a
survey or a retraining was forgotten: nothing fails then, and nothing else would tell.
"""

from datetime import timedelta

import dagster as dg

# For each asset, after how many days of silence it is warned of, and after how many it counts as failed.
WINDOWS = {
    "field_studies": (180, 365),  # answers to the same questions change with the years
    "champion": (180, 365),  # nobody has challenged it
    "batches": (35, 90),  # a source has dried up
    "predictions": (35, 90),
    "contact_list": (35, 90),  # batches come, and their lists are held back
    "realised_performance": (90, 180),  # only estimates say how good the model is
}


def with_freshness(spec: dg.AssetSpec) -> dg.AssetSpec:
    """Return an asset with its freshness policy, if it has one."""
    window = WINDOWS.get(spec.key.to_user_string())
    if window is None:
        return spec
    warn, fail = (timedelta(days=days) for days in window)
    return spec.replace_attributes(
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=warn)
    )
