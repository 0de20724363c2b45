"""Cross-validation folds that keep together what belongs together."""

import numpy as np
import pandas as pd
import pyarrow as pa

from poleng_assets.study.schema import Study


def fold_of(rows: pa.Table, study: Study) -> np.ndarray:
    """Return the fold of each row: int64 in [0, folds), shape (n,).

    Rows of one person, and rows with the very same answers, stand in the same fold: a copy of a row
    that is predicted must not be learned from.

    Args:
        rows: the id, the features and the target, n rows.
        study: names the columns; its training policy the number of folds and the seed.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    policy = study.policies.training
    people = pd.factorize(rows[study.id].to_pandas())[0]
    answers = rows.select(study.feature_names).to_pandas().groupby(study.feature_names, dropna=False).ngroup()
    # Each row joins a person and a set of answers; what hangs together is one group.
    size = len(people) * 2
    joined = coo_matrix((np.ones(len(people)), (people, len(people) + answers)), shape=(size, size))
    group = connected_components(joined, directed=False)[1][people]
    # Dealt out one after another, target by target: every fold gets the same share of each class.
    heads, first = np.unique(group, return_index=True)
    target = rows[study.target.name].to_numpy()[first]
    dealt = np.lexsort((np.random.default_rng(policy.seed).random(len(heads)), target))
    fold = np.empty(len(heads), dtype=np.int64)
    fold[dealt] = np.arange(len(heads)) % policy.folds
    return fold[np.searchsorted(heads, group)]
