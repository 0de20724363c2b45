"""How much each column moves the margin of boosted trees: TreeSHAP, several times as fast as XGBoost 2.

The values are those of ``pred_contribs`` (Lundberg et al. 2018, arXiv:1802.03888). XGBoost 2 goes through
every tree again for each row and each depth. Here all trees are gone through at once, level by level, for
some rows at a time, in the form of Linear TreeSHAP (Yu et al. 2022, arXiv:2209.08192); its polynomials stand
as their values at a few points, as in XGBoost after release 3.2 (dmlc/xgboost#12106), which NannyML's
dependencies do not allow.

Take a leaf with value v. For each column on the way to it let f be 1 when a row follows all its edges, else
0, and z the share of the training rows that do, among those that come to them. If each column is known with
probability t, the leaf is reached with probability P(t), the product over these columns of
p = t f + (1 - t) z. The leaf's part in the Shapley value of a column is v (f - z) times the integral of P / p
over t from 0 to 1. P / p is a polynomial of a degree below the number of columns: half as many Gauss-Legendre
points give its integral exactly. P goes down the trees edge by edge, v P is summed up on the way back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

# Rows that are worked on at a time: what belongs to them stays in a core's own memory.
ROWS = 16
# A branch that no training row took; its share cancels out, and must not be nothing.
NO_SHARE = 1e-9


@dataclass(frozen=True)
class _Edges:
    """The edges between a level and the next one, those of one question side by side.

    Attributes:
        parent: place of each edge's upper end in its level, shape (edges,).
        question: which question it answers, shape (edges,).
        left: whether it is the left answer, shape (edges, 1).
        earlier: the last edge before it on its way that asks the same column; 0 when there is none.
        first: the first of these edges among all of them.
        down: p of its column with this edge by p without it, shape (3 * edges, points): for a row that
            was lost before, for one that is lost here, and for one that follows.
        share: what this edge adds to the contribution of its column by what is below it; same shape.
        columns: which column each edge belongs to: a sparse matrix, shape (columns, edges).
    """

    parent: np.ndarray
    question: np.ndarray
    left: np.ndarray
    earlier: np.ndarray
    first: int
    down: np.ndarray
    share: np.ndarray
    columns: Any

    @cached_property
    def states(self) -> np.ndarray:
        """Where the three states of each edge begin, shape (edges, 1)."""
        return 3 * np.arange(len(self.parent))[:, None]


@dataclass(frozen=True)
class _Level:
    """The nodes of all trees at one depth.

    Attributes:
        values: of the leaves, shape (leaves, 1, 1).
        inner: the places of the other nodes.
        edges: down from those.
    """

    leaves: np.ndarray
    values: np.ndarray
    inner: np.ndarray
    edges: _Edges | None


@dataclass(frozen=True)
class _Questions:
    """What the inner nodes of all trees ask, and who goes left.

    Attributes:
        column: that each one asks, shape (questions,).
        threshold: smaller values go left, shape (questions, 1).
        missing_left: whether a missing value goes left, shape (questions, 1).
        nominal: the questions that ask for a category.
        right: the categories that go right there, shape (nominal, categories + 1); the last one stands for
            any that they do not know.
    """

    column: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray
    nominal: np.ndarray
    right: np.ndarray

    def go_left(self, columns: np.ndarray) -> np.ndarray:
        """Return who goes left: bool, shape (questions, rows); ``columns`` has shape (columns, rows)."""
        missing = np.isnan(columns)
        left = columns.take(self.column, axis=0) < self.threshold
        if len(self.nominal):
            unknown = self.right.shape[1] - 1
            known = (columns >= 0) & (columns < unknown)
            category = np.where(known, columns, unknown).astype(np.intp)
            asked = category.take(self.column[self.nominal], axis=0)
            left[self.nominal] = ~np.take_along_axis(self.right, asked, axis=1)
        return np.where(missing.take(self.column, axis=0), self.missing_left, left)


@dataclass(frozen=True)
class TreeShap:
    """The trees of one booster, laid out for explanations.

    Attributes:
        questions: of all inner nodes.
        levels: of all trees, from the roots down.
        edges: how many there are, and one: edge 0 is one that everybody follows.
        trees: how many there are.
        points: of the integral.
        width: columns of the matrix.
    """

    questions: _Questions
    levels: tuple[_Level, ...]
    edges: int
    trees: int
    points: int
    width: int

    @classmethod
    def of(cls, booster: Any) -> TreeShap:
        """Lay the trees of an ``xgboost.Booster`` with one output out: 0.1 s for a hundred of them."""
        model = json.loads(booster.save_raw("json"))["learner"]
        nodes = _Nodes(model["gradient_booster"]["model"]["trees"])
        return _Layout(nodes, int(model["learner_model_param"]["num_feature"])).laid_out()

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        """Return how much each column moves the margin of each row: float64, shape (rows, columns).

        Args:
            matrix: float32, shape (rows, columns), as the booster reads it; NaN is missing.
        """
        contributions = np.empty((len(matrix), self.width))
        for start in range(0, len(matrix), ROWS):
            block = np.ascontiguousarray(matrix[start : start + ROWS].T)
            contributions[start : start + ROWS] = self._of_block(block).T
        return contributions

    def _of_block(self, columns: np.ndarray) -> np.ndarray:
        """Return the contributions of some rows, shape (columns, rows)."""
        reached, states = self._down(columns)
        contributions = np.zeros(columns.shape)
        below: np.ndarray = np.empty(0)
        for depth in reversed(range(len(self.levels))):
            level = self.levels[depth]
            at_depth = np.empty(
                (len(level.leaves) + len(level.inner), columns.shape[1], self.points), np.float32
            )
            at_depth[level.leaves] = reached[depth]
            if level.edges is not None:
                at_depth[level.inner] = below[0::2] + below[1::2]
            below = at_depth
            if depth > 0 and (edges := self.levels[depth - 1].edges) is not None:
                moved = np.einsum("erp,erp->er", below, edges.share.take(states[depth - 1], axis=0))
                contributions += edges.columns @ moved
        return contributions

    def _down(self, columns: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return v P of the leaves of each level, and the state of each edge below it."""
        left = self.questions.go_left(columns)
        follows = np.empty((self.edges, columns.shape[1]), dtype=bool)
        follows[0] = True
        product = np.ones((self.trees, columns.shape[1], self.points), np.float32)
        reached, states = [], []
        for level in self.levels:
            reached.append(product.take(level.leaves, axis=0) * level.values)
            if level.edges is None:
                break
            edges = level.edges
            before = follows.take(edges.earlier, axis=0)
            now = (left.take(edges.question, axis=0) == edges.left) & before
            follows[edges.first : edges.first + len(now)] = now
            state = edges.states + before + now
            states.append(state)
            product = product.take(edges.parent, axis=0)
            product *= edges.down.take(state, axis=0)
        return reached, states


class _Nodes:
    """The nodes of all trees in one row, from XGBoost's JSON.

    https://xgboost.readthedocs.io/en/release_2.1.0/tutorials/saving_model.html describes it.
    """

    def __init__(self, trees: list[dict[str, Any]]) -> None:
        sizes = [len(tree["left_children"]) for tree in trees]
        self.roots = np.cumsum([0, *sizes[:-1]])[: len(trees)]

        def joined(name: str, kind: type) -> np.ndarray:
            return np.array([value for tree in trees for value in tree[name]], kind)

        self.is_leaf = joined("left_children", np.intp) == -1
        moved = np.repeat(self.roots, sizes)
        sides = (joined(name, np.intp) + moved for name in ("left_children", "right_children"))
        self.children = np.stack(tuple(sides), axis=1)
        self.column = joined("split_indices", np.intp)
        # Of a leaf it is its value.
        self.threshold = joined("split_conditions", np.float32)
        self.missing_left = joined("default_left", bool)
        self.rows = joined("sum_hessian", np.float64)
        self.categories = {
            root + node: tree["categories"][begin : begin + size]
            for root, tree in zip(self.roots, trees, strict=True)
            for node, begin, size in zip(
                *(tree[f"categories_{what}"] for what in ("nodes", "segments", "sizes")), strict=True
            )
        }

    def levels(self) -> Iterator[np.ndarray]:
        """Yield the nodes of each depth, those of one question side by side."""
        nodes = self.roots
        while len(nodes):
            yield nodes
            nodes = self.children[nodes[~self.is_leaf[nodes]]].ravel()


class _Layout:
    def __init__(self, nodes: _Nodes, width: int) -> None:
        self.nodes = nodes
        self.width = width
        self.depths = list(nodes.levels())
        self.points = max(1, len(self.depths) // 2)
        self.edges = 1

    def laid_out(self) -> TreeShap:
        levels = tuple(self._levels())
        trees = len(self.nodes.roots)
        return TreeShap(self._questions(), levels, self.edges, trees, self.points, self.width)

    def _levels(self) -> Iterator[_Level]:
        # For each node of a level and each column: the last edge before it that asked, and its z.
        last = np.zeros((len(self.nodes.roots), self.width), np.intp)
        share = np.ones(last.shape)
        for nodes in self.depths:
            leaf = self.nodes.is_leaf[nodes]
            inner = np.flatnonzero(~leaf)
            values = self.nodes.threshold[nodes[leaf]][:, None, None]
            edges = None
            if len(inner):
                edges, last, share = self._below(nodes[inner], inner, last[inner], share[inner])
            yield _Level(np.flatnonzero(leaf), values, inner, edges)

    def _below(
        self, parents: np.ndarray, places: np.ndarray, last: np.ndarray, share: np.ndarray
    ) -> tuple[_Edges, np.ndarray, np.ndarray]:
        """Return the edges below some inner nodes, and ``last`` and ``share`` of the nodes below."""
        taken = self.nodes.rows[self.nodes.children[parents]] / self.nodes.rows[parents][:, None]
        columns = self.nodes.column[parents].repeat(2)
        last, share = last.repeat(2, axis=0), share.repeat(2, axis=0)
        edges = np.arange(len(columns))
        earlier, before = last[edges, columns], share[edges, columns]
        z = np.maximum(taken.ravel(), NO_SHARE) * before
        last[edges, columns], share[edges, columns] = self.edges + edges, z
        down, share_of = self._tables(z, before)
        added = _Edges(
            parent=places.repeat(2),
            question=(self.edges - 1 + edges) // 2,
            left=np.tile([True, False], len(parents))[:, None],
            earlier=earlier,
            first=self.edges,
            down=down,
            share=share_of,
            columns=_membership(columns, self.width),
        )
        self.edges += len(edges)
        return added, last, share

    def _tables(self, z: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ``down`` and ``share`` of edges with these z, and the z without them."""
        points, weights = np.polynomial.legendre.leggauss(self.points)
        t, weights = (points + 1) / 2, weights / 2
        # Lost before, lost here, follows: f with the edge, and without it.
        f, f_before = np.array([0, 0, 1])[:, None], np.array([0, 1, 1])[:, None]
        z, before = z[:, None, None], before[:, None, None]
        p, p_before = t * f + (1 - t) * z, t * f_before + (1 - t) * before
        down = p / p_before
        # What is below counted for the edge before, too: with an f and a z that this edge replaces.
        share = ((f - z) / p - (f_before - before) / p_before) * weights
        return (
            down.reshape(-1, self.points).astype(np.float32),
            share.reshape(-1, self.points).astype(np.float32),
        )

    def _questions(self) -> _Questions:
        nodes = np.concatenate(self.depths)
        asked = nodes[~self.nodes.is_leaf[nodes]]
        nominal = [position for position, node in enumerate(asked) if node in self.nodes.categories]
        categories = [self.nodes.categories[node] for node in asked[nominal]]
        right = np.zeros(
            (len(nominal), max((max(codes) for codes in categories if codes), default=-1) + 2), bool
        )
        for row, codes in zip(right, categories, strict=True):
            row[codes] = True
        return _Questions(
            column=self.nodes.column[asked],
            threshold=self.nodes.threshold[asked][:, None],
            missing_left=self.nodes.missing_left[asked][:, None],
            nominal=np.array(nominal, np.intp),
            right=right,
        )


def _membership(columns: np.ndarray, width: int) -> Any:
    """Return a sparse matrix that sums values of edges by their columns: float32, shape (width, edges)."""
    from scipy.sparse import csr_matrix

    ones = np.ones(len(columns), np.float32)
    return csr_matrix((ones, (columns, np.arange(len(columns)))), shape=(width, len(columns)))
