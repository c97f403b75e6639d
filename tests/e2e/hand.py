"""What a hand does in the App."""

from playwright.sync_api import expect

SLOW = 60_000  # milliseconds


def dismiss_popup(page):
    button = page.get_by_role("button", name="Dismiss")
    if button.count():
        button.first.click()


def open_app(page, url):
    page.goto(url)
    page.wait_for_selector("[data-cy=looker]", timeout=90_000)
    page.wait_for_timeout(2000)
    dismiss_popup(page)


def open_form(page, label):
    page.keyboard.press("`")
    search = page.get_by_placeholder("Search operations by name...")
    search.wait_for()
    search.fill(label)
    page.get_by_text(label, exact=True).last.click()
    expect(page.get_by_role("button", name="Execute", exact=True)).to_be_enabled(timeout=SLOW)


def open_panel(page, label):
    page.locator("[data-cy=new-panel-btn]").last.click()
    page.get_by_text(label, exact=True).first.click()


def wait_for(page, condition):
    for _ in range(60):
        if condition():
            return
        page.wait_for_timeout(500)
    raise AssertionError("the App did not get there in 30 seconds")
