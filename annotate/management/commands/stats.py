"""`manage.py stats`: what the projects hold, in counts."""

import json
from collections.abc import Iterator

from annotate import counts, projects
from annotate.management.refusal import RefusingCommand


class Command(RefusingCommand):
    help = "Count what projects hold: by state, by iteration, by person."
    example = """
    manage.py stats --project demo
    manage.py stats --json
    """

    def add_arguments(self, parser):
        parser.add_argument("--project", help="its slug; all projects where it is left out")
        parser.add_argument("--json", action="store_true", help="print a JSON list, one object a project")

    def handle(self, *args, **options):
        if options["project"] is not None:
            projects.project_named(options["project"])
        found = counts.of_projects(options["project"])
        if options["json"]:
            self.stdout.write(json.dumps(found, indent=2))
            return
        for project in found:
            for line in _lines(project):
                self.stdout.write(line)


def _lines(project: dict) -> Iterator[str]:
    yield project["project"]
    yield f"  prompts        {_told(project['prompts'])}"
    yield f"  imported       {_told(project['imported'])}"
    for iteration in project["iterations"]:
        yield f"  iteration {iteration['number']}, {iteration['state']}"
        yield f"    conversations  {_told(iteration['conversations'])}"
        yield f"    written        {_told(_reviewed(iteration['written']))}"
        for role, sources in iteration["messages"].items():
            yield f"    {f'as {role}':<14} {_told(sources)}"
        yield f"    suggestions    {_told(iteration['suggestions'])}"
        yield f"    comparisons    {_told(iteration['comparisons'])}"
        for kind, states in iteration["assignments"].items():
            yield f"    {f'{kind} slots':<14} {_told(states)}"
        for purpose, states in iteration["requests"].items():
            yield f"    {purpose:<14} {_told(states)}"
        yield f"    rankings       {_told(iteration['rankings'])}"
    for person in project["people"]:
        email, seconds = person["email"], person["seconds"]
        numbers = {name: count for name, count in person.items() if name not in ("email", "seconds")}
        yield f"  {email}: {_told(numbers)}; {seconds / 3600:.1f} hours at work"


def _reviewed(states: dict[str, int]) -> dict[str, int]:
    words = {"none": "not to be reviewed", "wanted": "to be reviewed"}
    return {words.get(state, state): count for state, count in states.items()}


def _told(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in numbers.items() if count) or "none"
