"""An order as letters and as a sentence, the way the ranking page shows it while it is typed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where one answer stands: 1 is best."""

    rank: int
    tied: bool

    @property
    def word(self) -> str:
        """`1st`, `2nd, tied`."""
        ending = {1: "st", 2: "nd", 3: "rd"}.get(self.rank, "th")
        return f"{self.rank}{ending}{', tied' if self.tied else ''}"


@dataclass(frozen=True, slots=True)
class Order:
    """A whole order: letters in tiers, best first."""

    tiers: list[list[str]]
    all_bad: bool = False

    @property
    def text(self) -> str:
        """`B A = D C`"""
        return " ".join(" = ".join(tier) for tier in self.tiers)

    @property
    def sentence(self) -> str:
        """`B first, then A and D tied, then C.`"""
        said = [f"{_and(tier)}{' tied' if len(tier) > 1 else ''}" for tier in map(sorted, self.tiers)]
        first_alone = bool(self.tiers) and len(self.tiers[0]) == 1
        if len(said) > 1:
            start = f"{said[0]} first" if first_alone else f"{said[0]} for first"
            sentence = f"{start}, then {', then '.join(said[1:])}."
        else:
            sentence = "".join(f"{one}{' first' if first_alone else ''}." for one in said)
        return f"All are bad. {sentence}".strip() if self.all_bad else sentence

    def place(self, letter: str) -> Place | None:
        """The place of a letter, None where it has none."""
        for rank, tier in enumerate(self.tiers, 1):
            if letter in tier:
                return Place(rank=rank, tied=len(tier) > 1)
        return None


def _and(letters: list[str]) -> str:
    return letters[0] if len(letters) == 1 else f"{', '.join(letters[:-1])} and {letters[-1]}"


def lettered(tiers: list[list[int]], letters: dict[int, str], *, all_bad: bool = False) -> Order:
    """Tiers of candidate ids in the letters under which they were shown."""
    return Order([[letters[candidate] for candidate in tier] for tier in tiers], all_bad=all_bad)
