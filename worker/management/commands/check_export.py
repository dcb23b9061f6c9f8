"""`manage.py check_export`: look an exported folder over."""

from pathlib import Path

from django.core.management.base import CommandError
from tqdm import tqdm

from annotate.datasets import manifest, shapes, shards
from annotate.datasets.check import SHOWN, check
from annotate.management.refusal import RefusingCommand
from worker import dataset_loading, trl_columns


class Command(RefusingCommand):
    help = (
        "Hold an exported folder against its manifest and its format. Needs no database. "
        "Exit code 0: all is well; 1: something is wrong, each thing with its file and line; 2: it is no export."
    )
    example = "manage.py check_export data/ranked"
    requires_system_checks = ()

    def add_arguments(self, parser):
        parser.add_argument("folder", type=Path, metavar="DIR", help="what `export --out` wrote")

    def handle(self, *args, **options):
        folder = options["folder"]
        report = check(folder, progress=lambda lines, name: tqdm(lines, desc=name, unit=" lines", disable=None))
        said = f"{_loaded(folder, report)}; {_trl(folder, report)}"
        splits = ", ".join(f"{name} {split['rows']:,}" for name, split in report.manifest["counts"]["by_split"].items())
        self.stdout.write(f"{folder}: {report.manifest['what']}, {report.manifest['format']}, rows: {report.rows:,}")
        ranks = f"; ranks: {order}" if (order := report.manifest.get("rank_order")) else ""
        self.stdout.write(f"splits: {splits}{ranks}; {said}")
        for problem in report.problems:
            self.stdout.write(problem)
        if report.count > SHOWN:
            self.stdout.write(f"… and {report.count - SHOWN:,} more")
        if report.count:
            problems = "problem" if report.count == 1 else "problems"
            raise CommandError(f"{report.count:,} {problems} in {folder}", returncode=1)
        self.stdout.write("ok")


def _loaded(folder: Path, report) -> str:
    """Have `datasets` load files that are otherwise well; a phrase about it."""
    format = report.manifest["format"]
    if not shapes.is_table(shapes.SHAPES[format]):
        return f"datasets loads no {format}"
    if report.count:
        return "not loaded by datasets"
    version = dataset_loading.version()
    if version is None:
        return "datasets is not installed, the folder was not loaded by it"
    rows = {name: split["rows"] for name, split in report.manifest["counts"]["by_split"].items()}
    for problem in dataset_loading.problems(folder, rows):
        report.add(manifest.MANIFEST, problem)
    return f"loaded by datasets {version}"


def _trl(folder: Path, report) -> str:
    """Try TRL's own rules on files that are otherwise well; a phrase about it."""
    format = report.manifest["format"]
    if format not in trl_columns.TYPES:
        return f"TRL has no type for {format}"
    if report.count:
        return "TRL was not asked"
    version = trl_columns.version()
    if version is None:
        return "TRL is not installed, its own rules were not tried"
    names = [name for name in report.manifest["files"] if shards.split_of(name)]
    for where, problem in trl_columns.problems(folder, names, format):
        report.add(where, problem)
    return f"read by TRL {version}, the first {trl_columns.ROWS:,} rows of each file"
