"""A project's recipe: defaults, and each mistake refused in words, in the admin site too."""

import pytest
from django.urls import reverse

from annotate import passages
from annotate.errors import Invalid, NotFound
from annotate.models import Role
from tests import factory
from tests.admin_pages import filled

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ([], "is an object in JSON"),
        ({"x": 1}, "has no x"),
        ({"rounds": "some"}, "rounds is 'some'"),
        ({"comparisons": {"origin": 1}}, "comparisons: origin: there is no such filter"),
        ({"comparisons": {"iteration": 1}}, "comparisons: leave iteration out"),
        ({"comparisons": None}, "comparisons is None; it is an object"),
        ({"demonstrations": {"mix": ["/etc/seed.jsonl:0.5"]}}, "demonstrations: mix: /etc/seed.jsonl is a file"),
        ({"demonstrations": {"mix": ["export:12345:0.5"]}}, "demonstrations: .*12345"),
        ({"reward": {"learning_rate": 0}}, "reward: learning_rate is 0"),
        ({"comparisons": {"split": "test"}}, "comparisons: leave split out"),
        ({"reward": {"learning_rate": 1e999}}, "learning_rate is inf; it is a number"),
        ({"reward": {"learning_rate": 10**400}}, "learning_rate is 10{50,60}…; it is a number"),
        ({"reward": {"seed": 10**30}}, "seed is 10{30}; it is at most 2,147,483,647"),
        ({"reward": {"seed": -1}}, "seed is -1; at least 0"),
        ({"reward": {"epochs": 1e300}}, r"epochs is 1e\+300; at most 10,000"),
        ({"dpo": {"beta": 0}}, "dpo: beta is 0"),
        ({"begins_with": "a\0"}, "begins_with is 'a.x00'; it is a text"),
        ({"reward": None}, "policy is ppo, which needs a reward model"),
        ({"policy": "sft"}, "policy is sft, which is left out"),
        ({"sft": 3}, "sft is 3; it is an object, or null"),
        ({"weights": {"new": 0, "last": 0}}, "both 0"),
        ({"weights": {"new": -1}}, "0 to 1000"),
        ({"weights": {"new": "1"}}, "weights: new is '1'"),
        ({"weights": {"old": 1}}, "object with new and last"),
        ({"scores": 1}, "scores is 1; it is true or false"),
        ({"begins_with": 1}, "begins_with is 1; it is a text"),
        ({"rounds": "this", "prompts_of": "prompts"}, "prompts are of no round"),
    ],
)
def test_a_wrong_recipe_is_refused_in_words(recipe, told):
    with pytest.raises(Invalid, match=told):
        passages.recipe_of(recipe)


def test_a_recipe_has_sensible_defaults():
    recipe = passages.recipe_of({})
    assert recipe.trainings() == ["reward", "policy"]
    assert set(recipe.exports()) == {"comparisons", "prompts"}
    assert passages.recipe_of({"sft": {}, "policy": "sft"}).trainings() == ["sft", "reward"]


def test_a_policy_that_there_is_not_is_refused():
    with pytest.raises(NotFound, match="no policy nobody"):
        passages.recipe_of({"begins_with": "nobody"})


def test_the_admin_site_keeps_a_recipe_and_says_what_is_wrong_in_one(client):
    project = factory.project(recipe={"policy": "dpo"})
    client.force_login(factory.person(project, role=Role.ADMIN), backend="sesame.backends.ModelBackend")
    address = reverse("admin:annotate_project_change", args=[project.pk])
    page = client.get(address)
    assert page.context["adminform"].form["recipe"].value() == '{\n  "policy": "dpo"\n}'
    for text, told in (("{", "valid JSON"), ('{"policy": "x"}', "policy is"), ("[]", "is an object in JSON")):
        answer = client.post(address, filled(page, recipe=text))
        assert told in str(answer.context["errors"])
    for text, kept in (('{"policy": "sft", "sft": {}}', {"policy": "sft", "sft": {}}), ("", {})):
        assert client.post(address, filled(page, recipe=text)).status_code == 302
        project.refresh_from_db()
        assert project.recipe == kept


@pytest.mark.parametrize(
    "text",
    [
        '{"begins_with": "\\ud800"}',
        '{"\\ud800": 1}',
        '{"demonstrations": {"mix": ["\\u0000:1"]}}',
        "[" * 100_000,
        '{"ppo": {"seed": ' + "9" * 5000 + "}}",
    ],
    ids=["half a character", "half of a name", "NUL", "deep", "digits"],
)
def test_what_the_record_cannot_keep_is_no_recipe(client, text):
    project = factory.project()
    client.force_login(factory.person(role=Role.ADMIN), backend="sesame.backends.ModelBackend")
    address = reverse("admin:annotate_project_change", args=[project.pk])
    answer = client.post(address, filled(client.get(address), recipe=text))
    assert answer.context["adminform"].form.errors["recipe"] == ["Enter a valid JSON."]
