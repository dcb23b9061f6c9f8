"""What commands that train show: how far they are, and figures."""

from tqdm import tqdm


class Bar:
    """A progress bar a step, on a terminal, with what was measured last behind it."""

    def __init__(self):
        self.step, self.bar = "", None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, step: str, done: int, total: int | None, values: dict[str, float]) -> None:
        """Show how far it is."""
        if step != self.step:
            self.__exit__()
            self.step, self.bar = step, tqdm(desc=step, total=total, disable=None)
        self.bar.total = total
        self.bar.update(done - self.bar.n)
        if values:
            self.bar.set_postfix({name: _short(value) for name, value in values.items()})


def figures(metrics: dict) -> str:
    """The numbers among metrics, those within a part of it with its name before them."""
    found = []
    for name, value in metrics.items():
        within = value.items() if isinstance(value, dict) else [("", value)]
        found += [f"{name} {part}".strip() + f" {_short(one)}" for part, one in within if isinstance(one, int | float)]
    return ", ".join(found)


def _short(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
