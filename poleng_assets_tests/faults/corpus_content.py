"""Cases of the corpus about what stands in files: headers, codes, truth values, ids, and what unfolds."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from poleng_assets.study.schema import Study

Cells = list[list[str]]


def content_cases(
    study: Study,
    case: Callable[..., Any],
    text: Callable[..., Any],
    parquet: Callable[..., Any],
    refused: Callable[[str], Any],
    taken: Callable[..., Any],
) -> list[Any]:
    """Return the cases, made by the corpus's own builders."""
    build = _Build(study, case, text, parquet, refused, taken)
    return [*build.headers(), *build.missing(), *build.codes(), *build.truths(), *build.ids(), *build.bombs()]


class _Build:
    def __init__(self, study: Study, case: Any, text: Any, parquet: Any, refused: Any, taken: Any) -> None:
        self.study, self.case, self.text, self.parquet = study, case, text, parquet
        self.refused, self.taken = refused, taken
        self.nominal = next(f.name for f in study.features if f.kind == "nominal")
        self.yes_no = next(f.name for f in study.features if f.is_yes_or_no)
        self.one_two = next(f.name for f in study.features if f.kind == "binary" and not f.is_yes_or_no)

    def headers(self) -> list[Any]:
        """Return headers in which anybody sees the names."""
        good, named = self.taken(), self._named
        mark, wide = "\ufeff", lambda code: lambda t: ("\ufeff\ufeff" + t).encode(code)
        cases = {
            "a header behind two marks": self.text(encode=lambda t: (mark * 2 + t).encode()),
            "a header in quotes behind three marks": self.text(
                quote=True, encode=lambda t: (mark * 3 + t).encode()
            ),
            "a header behind a mark that was taken for letters": self.text(
                encode=lambda t: ("\u00ef\u00bb\u00bf" + t).encode()
            ),
            "a header with a mark before each name": self.text(named(lambda n: mark + n)),
            "a header behind two marks of utf-16": self.text(encode=wide("utf-16-le")),
            "a header behind two marks of utf-32": self.text(encode=wide("utf-32-be")),
            "names in no-break blanks": self.text(named(lambda n: f"\u00a0{n}\u202f")),
            "names in wide blanks": self.text(named(lambda n: f"\u3000{n}\u2003")),
            "names with tabs around them": self.text(named(lambda n: f"\t{n}\t")),
            "names with invisible signs": self.text(named(lambda n: f"\u200b{n}\u2060")),
            "names with marks of direction": self.text(named(lambda n: f"\u202a{n}\u202c")),
            "names in quotes behind blanks": self.text(lines=lambda ls: [self._quoted(ls[0]), *ls[1:]]),
            "names and rows in quotes behind blanks": self.text(
                lines=lambda ls: [self._quoted(one) for one in ls]
            ),
            "names in quotes within quotes": self.text(named(lambda n: f'"{n}"')),
            "names in single quotes": self.text(named(lambda n: f"'{n}'")),
            "names in the quotes of a word processor": self.text(named(lambda n: f"\u201c{n}\u201d")),
            "names in quotes with semicolons": self.text(named(lambda n: f" '{n}' "), delimiter=";"),
        }
        made = [self.case(name, write, good) for name, write in cases.items()]
        rename = lambda table: table.rename_columns([f"\ufeff {n}\u00a0" for n in table.column_names])  # noqa: E731
        return [
            *made,
            self.case("parquet names with a mark and blanks", self.parquet(rename), good, ".parquet"),
        ]

    def missing(self) -> list[Any]:
        """Return headers in which a name is another: told as the nearest, and not guessed."""
        other = lambda new: self._named(lambda n: new if n == self.nominal else n)  # noqa: E731
        nearest = f"missing.*{self.nominal}.*It has:.*"
        return [
            self.case(
                "a name with a capital",
                self.text(other(self.nominal.title())),
                self.refused(f"{nearest}{self.nominal.title()} for {self.nominal}"),
            ),
            self.case(
                "a name with a letter too few",
                self.text(other(self.nominal[:-1])),
                self.refused(f"{nearest}{self.nominal[:-1]} for {self.nominal}"),
            ),
            self.case(
                "every name in capitals in quotes",
                self.text(self._named(str.upper), quote=True),
                self.refused(f"none of the needed.*{self.nominal.upper()} for {self.nominal}"),
            ),
            self.case(
                "a parquet name with a blank inside",
                self.parquet(
                    lambda t: t.rename_columns(
                        [f"{n[:3]} {n[3:]}" if n == self.nominal else n for n in t.column_names]
                    )
                ),
                self.refused(f"{nearest}for {self.nominal}"),
                ".parquet",
            ),
        ]

    def codes(self) -> list[Any]:
        """Return codes in spellings that other programs read otherwise."""
        spelled = {
            "zeros before them": lambda c: f"{c:0>6}",
            "a point and zeros": lambda c: f"{c}.00",
            "a plus": lambda c: f"+{c}",
            "blanks of other scripts": lambda c: f"\u3000{c}\u00a0",
        }
        good = [
            self.case(f"codes with {what}", self.text(self._answers(self.nominal, spell)), self.taken())
            for what, spell in spelled.items()
        ]
        strange = ["0x1", "0o7", "0b1", "1_0", "1:30"]
        changed = {(row, self.nominal): one for row, one in enumerate(strange, 11)}
        return [
            *good,
            self.case(
                "codes that only programs read",
                self.text(changed=changed),
                self.taken(quarantined={row: self.nominal for row, _ in changed}),
            ),
        ]

    def truths(self) -> list[Any]:
        """Return truth values in words."""
        target = self.study.target.name
        words = {"0": "False", "1": "True"}
        cases = [
            self.case(
                f"truth values as {what}",
                self.text(self._answers(target, spell)),
                self.taken(),
            )
            for what, spell in {
                "words": words.__getitem__,
                "capitals": lambda c: words[c].upper(),
                "small letters and blanks": lambda c: f" {words[c].lower()} ",
            }.items()
        ]
        in_words = lambda t: t.set_column(  # noqa: E731
            t.column_names.index(target), target, pa.array([words[str(v)] for v in t[target].to_pylist()])
        )
        return [
            *cases,
            self.case("truth values as words in parquet", self.parquet(in_words), self.taken(), ".parquet"),
            self.case(
                "outcomes that are truth values in words",
                self.text(self._answers(target, words.__getitem__), kind="outcomes"),
                self.taken(),
                kind="outcomes",
            ),
            self.case(
                "a question of yes and no in words",
                self.text(self._answers(self.yes_no, lambda c: words.get(c, c))),
                self.taken(),
            ),
            self.case(
                "truth values for other codes",
                self.text(changed={(5, self.one_two): "True", (9, self.one_two): "FALSE"}),
                self.taken(quarantined={5: self.one_two, 9: self.one_two}),
            ),
        ]

    def ids(self) -> list[Any]:
        """Return ids of types that tables have; each is one text, at every door."""
        cases = []
        for what, kind in {"uuids": pa.uuid(), "uuids as sixteen bytes": pa.binary(16)}.items():
            people = [uuid.uuid5(uuid.NAMESPACE_URL, f"{what} {row}") for row in range(100)]
            cases.append(
                self.case(
                    f"ids that are {what}",
                    self.parquet(self._ids(pa.array([one.bytes for one in people], kind))),
                    self._known_as([str(one) for one in people]),
                    ".parquet",
                )
            )
        numbers = [700_000_000 + row for row in range(100)]
        texts = list(map(str, numbers))
        types = {"decimals": pa.decimal128(38, 2), "unsigned": pa.uint64(), "floats": pa.float64()}
        cases += [
            self.case(
                f"ids that are {what} of nine digits",
                self.parquet(self._ids(pa.array([n + 1000 * place for n in numbers]).cast(kind))),
                self._known_as([str(int(one) + 1000 * place) for one in texts]),
                ".parquet",
            )
            for place, (what, kind) in enumerate(types.items(), 1)
        ]
        for what, kind in {"large texts": pa.large_string(), "views of texts": pa.string_view()}.items():
            cases.append(
                self.case(
                    f"ids that are {what}", self.parquet(self._cast_ids(kind)), self.taken(), ".parquet"
                )
            )
        spelled = ["000777", "777", "777.0", "a\u200b777", "A777", "a777", "\u202d778\u202c", "778"]
        changed = {(row, self.study.id): one for row, one in enumerate(spelled, 21)}
        around = {
            (row, self.study.id): f"{b}id-{row}{b}" for row, b in enumerate("\u00a0\u3000\u2003\u202f", 31)
        }
        return [
            *cases,
            self.case(
                "a broken row among views of texts",
                self.parquet(lambda t: self._cast_ids(pa.string_view())(self._broken(t))),
                self.taken(quarantined={5: self.one_two}),
                ".parquet",
            ),
            self.case("ids that differ by spelling", self.text(changed=changed), self.taken(changed=changed)),
            self.case(
                "ids in blanks of other scripts",
                self.text(changed=around),
                self.taken(changed={place: one.strip() for place, one in around.items()}),
            ),
            self.case(
                "ids that are truth values",
                self.parquet(self._ids(pa.array([True, False] * 50))),
                self.refused(f"{self.study.id}.*cannot be ids"),
                ".parquet",
            ),
        ]

    def bombs(self) -> list[Any]:
        """Return files of some kilobytes that would unfold to gigabytes."""
        long = self.refused(r"before it is unpacked.*120,00\d bytes")
        fill = {
            "ids": (self.study.id, "x" * 120_000),
            "answers": (self.nominal, "x" * 120_000),
            "a code and blanks": (self.nominal, "1" + " " * 120_000),
            "a code and zeros": (self.nominal, "0" * 120_000 + "1"),
        }
        cases = [
            self.case(
                f"a bomb of a dictionary of {what}",
                self._many_rows({name: _repeated(value)}),
                long,
                ".parquet",
            )
            for what, (name, value) in fill.items()
        ]
        deep = pa.array([[1] * 10_000] * 100)
        return [
            *cases,
            self.case(
                "a bomb of a dictionary of bytes",
                self._many_rows({self.study.id: _repeated(b"x" * 120_000)}),
                long,
                ".parquet",
            ),
            self.case(
                "a bomb of long lists",
                self.parquet(lambda t: t.set_column(t.column_names.index(self.nominal), self.nominal, deep)),
                self.refused(f"{self.nominal} holds list"),
                ".parquet",
            ),
            self.case(
                "a long text again and again that nobody needs",
                self.parquet(
                    lambda t: t.append_column("notes", _repeated("x" * 120_000, 100)), store_schema=False
                ),
                self.taken(),
                ".parquet",
            ),
        ]

    def _named(self, spell: Callable[[str], str]) -> Callable[[Cells], Cells]:
        return lambda cells: [list(map(spell, cells[0])), *cells[1:]]

    @staticmethod
    def _quoted(line: str) -> str:
        return ", ".join(f'"{cell}"' for cell in line.split(",")) if line else line

    def _answers(self, name: str, spell: Callable[[str], str]) -> Callable[[Cells], Cells]:
        def edit(cells: Cells) -> Cells:
            at = cells[0].index(name)
            return [
                cells[0],
                *[[*row[:at], spell(row[at]) if row[at] else "", *row[at + 1 :]] for row in cells[1:]],
            ]

        return edit

    def _ids(self, values: pa.Array) -> Callable[[pa.Table], pa.Table]:
        return lambda table: table.set_column(table.column_names.index(self.study.id), self.study.id, values)

    def _cast_ids(self, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
        return lambda table: self._ids(table[self.study.id].cast(kind))(table)

    def _broken(self, table: pa.Table) -> pa.Table:
        answers = [str(one) for one in table[self.one_two].to_pylist()]
        answers[4] = "77"
        return table.set_column(table.column_names.index(self.one_two), self.one_two, pa.array(answers))

    def _known_as(self, ids: Sequence[str]) -> Any:
        return self.taken(changed={(row, self.study.id): one for row, one in enumerate(ids, 1)})

    def _many_rows(self, columns: dict[str, pa.Array]) -> Any:
        """Return a writer of a hundred thousand rows of one person, with other values in some columns."""

        def edit(table: pa.Table) -> pa.Table:
            rows = len(next(iter(columns.values())))
            many = {
                name: columns.get(name, _repeated_value(table[name][0], rows)) for name in table.column_names
            }
            return pa.table(many)

        return self.parquet(edit, store_schema=False)


def _repeated(value: str | bytes, rows: int = 100_000) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([value]))


def _repeated_value(value: pa.Scalar, rows: int) -> pa.Array:
    return pa.repeat(value, rows)
