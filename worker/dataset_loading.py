"""What Hugging Face's `datasets` makes of an exported folder."""

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path


def version() -> str | None:
    """The version of the installed `datasets`, None where there is none."""
    if importlib.util.find_spec("datasets") is None:
        return None
    import datasets

    return datasets.__version__


def problems(folder: Path, rows: dict[str, int]) -> Iterator[str]:
    """Where the folder is loaded otherwise than its manifest counts rows by split."""
    import datasets

    shown = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        # What it keeps of the files it reads is as large as they are: nobody needs it afterwards.
        with tempfile.TemporaryDirectory(prefix="bothsides-loaded-") as cache:
            loaded = datasets.load_dataset(str(folder), cache_dir=cache)
            found = {name: split.num_rows for name, split in loaded.items()}
    except Exception as error:  # it raises whatever the reader below it does
        yield f"datasets cannot load the folder: {_first_line(error)}"
        return
    finally:
        if shown:
            datasets.enable_progress_bars()
    for name in sorted(rows.keys() | found.keys()):
        if rows.get(name) != found.get(name):
            yield f"{name}: datasets loads {found.get(name, 0):,} rows, there are {rows.get(name, 0):,}"


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return (str(cause).splitlines() or [type(cause).__name__])[0]
