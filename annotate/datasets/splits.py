"""The split of what is exported. The rule of a family is in `families`; what authors add to it is here."""

from functools import lru_cache

from annotate import derive, families
from annotate.models import Project, SplitBy

HELD_OUT = "held_out"


class Splitter:
    """Tells the split of works of one project: train, validation, test or held_out, the same for ever."""

    def __init__(self, project: Project):
        self._project = project
        self._by_author = project.split_by == SplitBy.AUTHOR
        # Lines of one family and of one author come together; a cache of all would grow with the export.
        self._of_family = lru_cache(maxsize=4096)(self._split_of_family)
        self._of_author = lru_cache(maxsize=4096)(self._split_of_author)

    def of(self, family: str, author_id: int | None = None, family_author_id: int | None = None) -> str:
        """The split of a work of this family.

        `author_id` is whoever held or wrote it, None where it was brought in. `family_author_id` is the author of the
        FamilyMember that is named as the family. Both count only where the project splits by authors: then a family
        goes with the author who began it, and what another author made of it is held out where they are in another
        split, so that neither a family nor an author is in two.
        """
        if not self._by_author:
            return self._of_family(family, None)
        split = self._of_family(family, family_author_id)
        if author_id is None or author_id == family_author_id or self._of_author(author_id) == split:
            return split
        return HELD_OUT

    def _split_of_family(self, family: str, begun_by: int | None) -> str:
        return families.split(self._project, family, begun_by)

    def _split_of_author(self, author_id: int) -> str:
        return derive.split_of_author(self._project.secret, author_id)
