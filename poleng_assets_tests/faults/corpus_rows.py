"""Cases of the corpus about rows that came before: exported again, corrected, or of people spelled otherwise.

What is told of files that share only a part stands in ``core/ingestion/test_duplicates.py``: they are taken
in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from poleng_assets.storage.home import KINDS
from poleng_assets.study.schema import Study

# ``corpus.py`` has the functions and classes that make cases; it gives them, as it imports this module.
Make = Callable[..., Any]
Cells = list[list[str]]


def repeated_cases(
    study: Study, case: Make, text: Make, parquet: Make, refused: Make, taken: Make
) -> list[Any]:
    """Return the cases, made by the functions and classes of the corpus that are given."""
    exports: dict[str, tuple[str, dict[str, Any]]] = {
        "with semicolons": (".csv", {"delimiter": ";"}),
        "with quotes": (".csv", {"quote": True}),
        "with line ends of Windows": (".csv", {"newline": "\r\n"}),
        "in UTF-16": (".csv", {"encode": lambda text: text.encode("utf-16")}),
        "in gzip": (".csv.gz", {}),
        "in bzip2": (".csv.bz2", {}),
        "in zstandard": (".csv.zst", {}),
        "backwards": (".csv", {"edit": lambda cells: [cells[0], *cells[:0:-1]]}),
        "columns backwards": (".csv", {"edit": lambda cells: [row[::-1] for row in cells]}),
        "with a column more": (".csv", {"edit": lambda cells: [[*row, "note"] for row in cells]}),
        "codes with zeros": (".csv", {"edit": _codes_with_zeros(study)}),
        "a row twice": (".csv", {"edit": lambda cells: [*cells, cells[5]]}),
    }
    few = ("backwards", "in gzip", "codes with zeros")
    cases = []
    for kind in KINDS:
        first = f"rows that come again, {kind}"
        name = f"rows_of_{kind}"
        again = {"kind": kind, "same_people_as": first, "by_functions": True}
        known = refused(f"same 100 rows were ingested as '{name}'")
        # Ahead of its repetitions, and by the same way.
        cases.append(case(first, text(kind=kind), taken(), kind=kind, file_name=f"{name}.csv"))
        cases += [
            case(f"the same {kind} {how}", text(**{"kind": kind, **way}), known, suffix, **again)
            for how, (suffix, way) in exports.items()
            if kind == "field_studies" or how in few
        ]
        cases.append(case(f"the same {kind} in Parquet", parquet(kind=kind), known, ".parquet", **again))
        cases.append(
            case(
                f"the same {kind} in Parquet, under their name",
                parquet(kind=kind),
                known,
                file_name=f"{name}.parquet",
                **again,
            )
        )
        if kind != "outcomes":
            cases.append(case(f"a row less of {kind}", _without_last(text, kind), taken(99), **again))
    return [
        *cases,
        case(
            "the same field study under other ids",
            text(_other_ids(study, "new-{number}")),
            refused("under different ids"),
            same_people_as="rows that come again, field_studies",
            by_functions=True,
        ),
        *_of_outcomes(study, case, text, refused, taken),
    ]


def _of_outcomes(study: Study, case: Make, text: Make, refused: Make, taken: Make) -> list[Any]:
    of_the_batch = {
        "kind": "outcomes",
        "same_people_as": "rows that come again, batches",
        "by_functions": True,
    }
    spellings = {
        "in capitals": str.upper,
        "with blanks within": lambda id_: id_.replace("-", " - "),
        "with a character that cannot be seen": lambda id_: f"{id_[:3]}\u200b{id_[3:]}",
        "with quotes around them": lambda id_: f"'{id_}'",
        "with wide letters": lambda id_: id_.replace("p", "\uff50"),
    }

    def spelled(how: Callable[[str], str]) -> Any:
        return text(_ids_changed(study, how), kind="outcomes")

    def wrong_first(rows: int) -> Callable[[Cells], Cells]:
        def edit(cells: Cells) -> Cells:
            target = cells[0].index(study.target.name)
            wrong = [list(row) for row in cells[1 : rows + 1]]
            for row in wrong:
                row[target] = str(1 - int(row[target]))
            return [cells[0], *wrong, *cells[1:]]

        return edit

    return [
        *(
            case(f"outcomes of ids {how}", spelled(way), refused("another spelling"), **of_the_batch)
            for how, way in spellings.items()
        ),
        case(
            "outcomes of strangers, named after a batch",
            text(_other_ids(study, "stranger-{number}"), kind="outcomes"),
            refused("rows_of_batches, which the file is named after"),
            file_name="rows_of_batches_labels.csv",
            **of_the_batch,
        ),
        case(
            "outcomes of three people corrected further down",
            text(wrong_first(3), kind="outcomes"),
            taken(103, dict.fromkeys((1, 2, 3), study.id)),
            kind="outcomes",
        ),
        case(
            "outcomes of forty people corrected further down",
            text(wrong_first(40), kind="outcomes"),
            taken(140, dict.fromkeys(range(1, 41), study.id)),
            kind="outcomes",
        ),
    ]


def _without_last(text: Make, kind: str) -> Any:
    return text(lambda cells: cells[:-1], kind=kind)


def _ids_changed(study: Study, change: Callable[[str], str]) -> Callable[[Cells], Cells]:
    def edit(cells: Cells) -> Cells:
        place = cells[0].index(study.id)
        return [cells[0], *[[*row[:place], change(row[place]), *row[place + 1 :]] for row in cells[1:]]]

    return edit


def _other_ids(study: Study, pattern: str) -> Callable[[Cells], Cells]:
    def edit(cells: Cells) -> Cells:
        ids = iter(pattern.format(number=number) for number in range(len(cells)))
        return _ids_changed(study, lambda _: next(ids))(cells)

    return edit


def _codes_with_zeros(study: Study) -> Callable[[Cells], Cells]:
    """Return an edit that writes every code, features' and target's, with a zero before it."""

    def spelled(name: str, cell: str) -> str:
        return cell if name == study.id or not cell.isdigit() else f"0{cell}"

    def edit(cells: Cells) -> Cells:
        names: Sequence[str] = cells[0]
        rows = [[spelled(name, cell) for name, cell in zip(names, row, strict=True)] for row in cells[1:]]
        return [cells[0], *rows]

    return edit
