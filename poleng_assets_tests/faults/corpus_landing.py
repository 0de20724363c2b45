"""Cases of the corpus about landing itself: names, copies that are not whole, litter, texts that are cut off.

How the folders behave while somebody writes to them stands in ``resources/test_landing_copies.py``: a case of
the corpus is a file that nobody touches any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from poleng_assets.study.schema import Study

# ``corpus.py`` has the functions and classes that make cases; it gives them, as it imports this module.
Make = Callable[..., Any]


def landing_cases(
    case: Make, text: Make, parquet: Make, refused: Make, taken: Make, waits: Make
) -> list[Any]:
    """Return the cases, made by the functions and classes of the corpus that are given."""
    good, bad = taken(), refused("name")
    temporary = {
        "WinSCP": "winscp.csv.filepart",
        "WinSCP in capitals": "winscp2.csv.FILEPART",
        "Chrome": "chrome.csv.crdownload",
        "rclone": "rclone.csv.a1b2c3d4.partial",
        "Hadoop": "hadoop.csv._COPYING_",
        "the AWS command line": "aws.csv.6eF3dA21",
        "a plain temporary name": "plain.csv.tmp",
        "a web upload": "web.csv.upload",
        "an incomplete download": "torrent.csv.incomplete",
        "part three": "part.csv.part3",
        "a download manager": "manager.csv.aria2",
        "Vim": "vim.csv.swp",
        "the owner file of Office": "~$office.csv",
        "Emacs saving by itself": "#emacs.csv#",
        "rsync": ".rsync.csv.Ab12Cd",
        "ProFTPD": ".in.proftpd.csv.",
    }
    litter = ["Thumbs.db", "desktop.ini", "ehthumbs.db", "backup_of_an_editor.csv~", "._resource_fork.csv"]
    pages = {"models": "models.csv", "overview": "overview.csv", "a page": "overview.html.csv"}
    pages |= {"a version of a page": "version_1.html.csv", "null": "null.csv"}
    devices = ["COM0.csv", "lpt0.csv", "PRN.2024.csv", "AuX.csv.gz"]
    return [
        *(
            case(f"a temporary name of {who}", text(), waits(), file_name=name)
            for who, name in temporary.items()
        ),
        *(case(f"litter called {name}", text(), waits(), file_name=name) for name in litter),
        *(case(f"a name like that of {what}", text(), good, file_name=name) for what, name in pages.items()),
        case("a name like that of the folder of reports", parquet(), good, file_name="batches.parquet"),
        *(case(f"device {name}", text(), bad, file_name=name) for name in devices),
        case("a blank before the suffix", text(), bad, file_name="blank .csv"),
        case("a blank at the end", text(), refused("name|neither|none of"), file_name="blank.csv "),
        case("the sign of versions in the name", text(), bad, file_name="march@2.csv"),
        case("a name that is a path of windows", text(), bad, file_name="c:march.csv"),
        case("a name in small letters", text(), good, file_name="capitals.csv"),
    ]


def cut_off_cases(study: Study, case: Make, text: Make, refused: Make, taken: Make) -> list[Any]:
    """Return texts whose last line has no end: whole ones, and such as may be cut off within a value."""
    feature = next(one for one in study.features if any(longer(one.codes, code) for code in one.codes))
    short = next(code for code in feature.codes if longer(feature.codes, code))
    long = longer(feature.codes, short)[0]
    torn = refused("break off")

    def ending(value: object) -> Callable[[list[str]], list[str]]:
        """Put the column last, and end the file with a value of it."""

        def edit(lines: list[str]) -> list[str]:
            lines = [line for line in lines if line]
            place = lines[0].split(",").index(feature.name)
            rows = [line.split(",") for line in lines]
            moved = [[*row[:place], *row[place + 1 :], row[place]] for row in rows]
            moved[-1][-1] = str(value)
            return [",".join(row) for row in moved]

        return edit

    changed = {(100, feature.name): int(long)}
    return [
        case("a whole last value that no code begins with", text(lines=ending(long)), taken(changed=changed)),
        case("a last value that may be longer", text(lines=ending(short)), torn),
        case("a last value that is missing", text(lines=ending("")), torn),
        case("a last value in quotes", text(lines=ending(f'"{long}"')), taken(changed=changed)),
        case("a last value cut within its quotes", text(lines=ending(f'"{short}')), refused(r"quot")),
    ]


def longer(codes: Any, code: object) -> list[Any]:
    """Return the codes that begin with another one."""
    return [other for other in codes if str(other) != str(code) and str(other).startswith(str(code))]
