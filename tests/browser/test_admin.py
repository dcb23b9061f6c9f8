"""The admin site and the API's docs under the site's own Content-Security-Policy, in a real browser."""

import json
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib import admin
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]


def test_every_list_and_a_page_of_each_opens_without_a_complaint(running, open_page, complaints) -> None:
    page = open_page(running.link("Admin"), viewport={"width": 1200, "height": 900})
    page.goto(f"{running.url}/admin/")
    lists = page.locator("#content-main th a").evaluate_all("links => links.map(link => link.href)")
    shown = {address.split("/annotate/")[1].strip("/") for address in lists if "/annotate/" in address}
    assert shown - {""} == {model._meta.model_name for model in apps.get_app_config("annotate").get_models()} & {
        model._meta.model_name for model in admin.site._registry
    }
    for address in lists:
        page.goto(address)
        row = page.locator("#result_list tbody th a").first
        if row.count():
            row.click()
            expect(page.locator("#content h1")).to_be_visible()
        page.goto(address)
        add = page.locator(".object-tools a.addlink")
        if add.count():
            add.click()
            expect(page.locator("form input[name=_save]")).to_be_visible()
    assert complaints == []


def test_an_admin_opens_slots_and_adds_a_member(running, open_page, complaints) -> None:
    page = open_page(running.link("Admin"), viewport={"width": 1200, "height": 900})
    page.goto(f"{running.url}/admin/annotate/project/")
    page.get_by_role("link", name="Everyday help").click()
    page.get_by_role("link", name="Open chat slots").click()
    page.get_by_label("Chat slots:").fill("3")
    page.get_by_role("button", name="Open chat slots").click()
    expect(page.locator(".messagelist .success")).to_have_text("3 chat slots are open.")

    running.manage("invite", "ada@example.org", "--role", "trainer")
    page.get_by_role("button", name="Add another Member").click()
    page.locator("#memberships-group .select2-selection").last.click()
    page.locator(".select2-container--open .select2-search__field").fill("ada")
    page.get_by_role("option", name="ada@example.org").click()
    page.get_by_role("button", name="Save and continue editing").click()
    expect(page.locator("#memberships-group")).to_contain_text("ada@example.org")
    assert complaints == []


def test_an_admin_makes_a_link_for_somebody(running, open_page, complaints) -> None:
    page = open_page(running.link("Admin"), viewport={"width": 1200, "height": 900})
    page.goto(f"{running.url}/admin/annotate/user/?q=trainer%40demo")
    page.get_by_role("link", name="trainer@demo.invalid").click()
    page.get_by_role("button", name="Make a sign-in link").click()
    link = page.locator("dd code").inner_text()
    assert complaints == []

    other = open_page()
    other.goto(link)
    other.get_by_role("button", name="Sign in").click()
    other.wait_for_url(f"{running.url}/")
    assert other.goto(f"{running.url}/admin/").status == 403


def test_an_admin_asks_for_an_export_sees_it_done_and_downloads_it(running, open_page, complaints) -> None:
    running.manage(
        "shell", "--no-imports", "--command", "from tests.browser import prepared; prepared.ranked(number=900)"
    )
    page = open_page(running.link("Admin"), viewport={"width": 1200, "height": 900})
    page.goto(f"{running.url}/admin/annotate/export/add/")
    page.get_by_label("Project:").select_option("A test's own, 900")
    # Only the filters of what is chosen are there.
    expect(page.get_by_label("Rankings:")).to_be_visible()
    page.get_by_label("What and format:").select_option("demonstrations: messages")
    expect(page.get_by_label("Rankings:")).to_be_hidden()
    expect(page.get_by_label("Mix seed:")).to_be_visible()
    page.get_by_label("What and format:").select_option("comparisons: ranked")
    page.get_by_role("button", name="Export", exact=True).click()
    # A worker writes it, and the page hears of it by itself.
    expect(page.locator(".how-far")).to_have_text("done", timeout=60_000)
    with page.expect_download() as download:
        page.get_by_role("link", name="manifest.json").click()
    assert json.loads(Path(download.value.path()).read_text())["counts"]["rankings"] == 2
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    assert complaints == []


def test_the_page_of_workers_keeps_itself_fresh_and_what_was_closed(running, open_page, complaints) -> None:
    page = open_page(running.link("Admin"), viewport={"width": 390, "height": 700})
    page.goto(f"{running.url}/admin/")
    page.get_by_role("link", name="Workers and queues").click()
    policy = page.locator("details.policy")
    expect(policy.locator(".state")).to_have_text("ready")
    policy.locator("summary").click(position={"x": 4, "y": 8})
    page.evaluate("document.activeElement.blur()")
    now = page.locator("[data-live=now]")
    seen = now.inner_text()
    scrolled = page.evaluate("scrollTo(0, 150), scrollY")
    expect(now).not_to_have_text(seen)
    expect(policy.locator(".state")).to_have_text("ready")
    assert not policy.evaluate("one => one.open")
    assert page.evaluate("scrollY") == scrolled
    # Nothing reaches over the edge of a phone.
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert complaints == []


def test_the_docs_of_the_api_show_every_operation(running, open_page, complaints) -> None:
    page = open_page()
    page.goto(f"{running.url}/api/docs/")
    schema = page.request.get(f"{running.url}/api/schema/?format=json").json()
    operations = sum(len(methods) for methods in schema["paths"].values())
    assert operations > 10
    expect(page.locator(".opblock")).to_have_count(operations)
    claim = page.locator("#operations-assignments-projects_claim_create")
    claim.locator(".opblock-summary-control").click()
    expect(claim.get_by_text("Take the next slot of work.")).to_be_visible()
    assert complaints == []
