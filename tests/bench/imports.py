"""Imports, each beside COPY of the same rows into the same tables by psycopg in the same process.

BENCH_MESSAGES says of how many messages, several numbers parted by commas. The rows of the floor are read back from
what was imported, so that both write the same into the same tables with the same indexes and constraints; they lie in
files, as they would not fit into memory.
"""

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from random import Random

import psutil
from django.db import connection, transaction

from annotate import families
from annotate.datasets.incoming import bringing, files
from annotate.datasets.incoming.bringing import How
from annotate.datasets.incoming.copying import COLUMNS
from annotate.models import Import, Project
from tests import factory

SIZES = [int(size) for size in os.environ.get("BENCH_MESSAGES", "10000,1000000").split(",")]


def _vocabulary(count: int) -> list[str]:
    """Made-up words, as many as a language uses; of a few only, all texts would be alike and one family."""
    dice = Random(0)
    parts = [
        f"{first}{second}" for first in "bcdfghklmnprstvw" for second in ("a", "e", "i", "o", "u", "ar", "en", "is")
    ]
    return ["".join(dice.choices(parts, k=dice.randint(1, 4))) for _ in range(count)]


WORDS = _vocabulary(20_000)
OFTEN = list(accumulate(1 / (place + 10) for place in range(len(WORDS))))
"""How often each word is used: as in a language, the first ones most."""


def words(dice: Random, count: int) -> str:
    """A text of so many words."""
    return " ".join(dice.choices(WORDS, cum_weights=OFTEN, k=count)).capitalize() + "."


def messages(count: int) -> Iterator[dict]:
    """Conversations of four turns: so many messages with the system message that is added to each."""
    dice = Random(1)
    roles = ("user", "assistant", "user", "assistant")
    for number in range(count // 5):
        yield {
            "id": f"row-{number}",
            "messages": [{"role": role, "content": words(dice, dice.randint(10, 80))} for role in roles],
        }


def oasst(count: int) -> Iterator[dict]:
    """Trees of a question, three ranked answers and, to the best two, a further question with two ranked answers.

    Each gives five conversations of 3 or 5 messages, and three rankings.
    """
    dice = Random(1)
    for number in range(count // 23):
        yield {"message_tree_id": f"tree-{number}", "tree_state": "ready_for_export", "prompt": _tree(dice, number)}


def _tree(dice: Random, number: int) -> dict:
    made = iter(range(100))

    def node(role: str, replies: list, rank: int | None = None) -> dict:
        return {
            "message_id": f"{number}-{next(made)}", "text": words(dice, dice.randint(10, 80)), "role": role,
            "lang": "en", "review_count": 3, "review_result": True, "deleted": False, "rank": rank,
            "synthetic": False, "model_name": None, "emojis": {"+1": 2}, "replies": replies,
            "labels": {"quality": {"value": 0.75, "count": 3}, "toxicity": {"value": 0.0, "count": 3}},
        }  # fmt: skip

    def answers(count: int, further: int) -> list:
        return [
            node("assistant", [node("prompter", answers(2, 0))] if rank < further else [], rank)
            for rank in range(count)
        ]

    return node("prompter", answers(3, 2))


class Peak:
    """The most memory of this process while a block runs, in megabytes; as it was before in `begun`."""

    def __enter__(self) -> "Peak":
        self._process, self._ended = psutil.Process(), threading.Event()
        self.begun = self.megabytes = self._process.memory_info().rss // 2**20
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.megabytes = max(self.megabytes, self._process.memory_info().rss // 2**20)


def copied_out(project: Project, folder: Path) -> int:
    """The rows of a project's imports into files, as COPY writes them. How many."""
    own = {
        "annotate_conversation": "project_id = %s",
        "annotate_message": "conversation_id IN (SELECT id FROM annotate_conversation WHERE project_id = %s)",
        "annotate_comparison": "project_id = %s",
        "annotate_completion": "id IN (SELECT completion_id FROM annotate_candidate candidate JOIN annotate_comparison "
        "comparison ON comparison.id = candidate.comparison_id WHERE project_id = %s)",
        "annotate_candidate": "comparison_id IN (SELECT id FROM annotate_comparison WHERE project_id = %s)",
        "annotate_ranking": "comparison_id IN (SELECT id FROM annotate_comparison WHERE project_id = %s)",
        "annotate_rankedcandidate": "ranking_id IN (SELECT ranking.id FROM annotate_ranking ranking JOIN "
        "annotate_comparison comparison ON comparison.id = comparison_id WHERE project_id = %s)",
    }
    rows = 0
    for table, columns in COLUMNS.items():
        with connection.cursor() as cursor, (folder / table).open("wb") as file:
            found = f"SELECT {columns} FROM {table} WHERE {own[table] % project.pk} ORDER BY 1"  # noqa: S608 (names from the code)
            with cursor.copy(f"COPY ({found}) TO STDOUT") as copy:
                for piece in copy:
                    file.write(piece)
                    rows += bytes(piece).count(b"\n")
    return rows


def floor(folder: Path) -> float:
    """Seconds of COPY of the same rows, in one transaction."""
    start = time.perf_counter()
    with transaction.atomic(), connection.cursor() as cursor:
        for table, columns in COLUMNS.items():
            with (folder / table).open("rb") as file, cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                while piece := file.read(128 * 1024):
                    copy.write(piece)
    return time.perf_counter() - start


def without_families(project: Project, path: Path, format: str) -> tuple[float, Peak]:
    """Seconds of an import up to its commit, and its memory."""
    join, families.join_pending = families.join_pending, lambda **_: 0
    try:
        with Peak() as peak, files.lines_of(path, name=path.name) as rows:
            start = time.perf_counter()
            bringing.bring(project=project, rows=rows, how=How(format=format), source="bench")
            return time.perf_counter() - start, peak
    finally:
        families.join_pending = join


def cleared() -> None:
    """Empty the tables; the database is the benchmarks' own."""
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(COLUMNS)}, annotate_familymember CASCADE")


def told(format: str, size: int, lines: Iterator[dict]) -> None:
    """Import, copy the same rows, join the families; print all three."""
    project = factory.project()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = folder / "rows.jsonl"
        with path.open("w") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in lines)
        seconds, peak = without_families(project, path, format)
        rows = copied_out(project, folder)
        cleared()
        bare = floor(folder)
        again, _ = without_families(project, path, format)
        start = time.perf_counter()
        with Peak() as joining:
            joined = families.join_pending(project=project)
        took = time.perf_counter() - start
    report = Import.objects.filter(project=project).first().report
    assert report["there_already"] == joined
    print(
        f"import of {size:,} messages as {format}: {seconds:.1f} s, {rows / seconds:,.0f} rows a second "
        f"({size / seconds:,.0f} messages), {seconds / bare:.2f} times COPY of the same {rows:,} rows ({bare:.1f} s), "
        f"{peak.megabytes} MB at most ({peak.begun} before); again, all there already: {again:.1f} s; families: "
        f"{joined / took:,.0f} conversations a second, {joining.megabytes} MB at most"
    )
    cleared()


def main() -> None:
    """Print rows a second and memory of each format beside its floor, at each size."""
    for size in SIZES:
        told("messages", size, messages(size))
        told("oasst", size, oasst(size))
