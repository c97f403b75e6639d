"""What a hand does in the App."""

from PIL import Image
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


def filter_in_sidebar(page, field, *values):
    """Keep the samples with some values of a field."""
    page.locator(f"[data-cy=sidebar-field-arrow-enabled-{field}]").dispatch_event("click")
    search = page.locator(f"[data-cy=selector-sidebar-search-{field}]")
    for value in values:
        search.fill(value)
        page.wait_for_timeout(1000)
        search.press("Enter")
        expect(page.locator(f"[data-cy=categorical-filter-{field}]").get_by_text(value, exact=True)).to_be_visible()


def modal(page):
    return page.locator("#modal")


def button(page, name):
    """Return the newest answer's button in the panel "Ask" of the open sample."""
    return modal(page).get_by_role("button", name=name, exact=True).first


def open_ask(page):
    """Open the first sample with the panel "Ask" beside it."""
    page.locator("[data-cy=looker]").first.click()
    modal(page).locator("[data-cy=panel-tab-side_by_side]").get_by_title("Close").click(timeout=SLOW)
    modal(page).locator("[data-cy=panel-tab-ask_panel]").click(timeout=SLOW)
    modal(page).get_by_title("Split horizontally").first.click()
    expect(modal(page).locator("textarea").first).to_be_visible(timeout=SLOW)


def ask(page, expression, enter=True):
    """Type a question about the open sample, and press Enter."""
    modal(page).locator("textarea").first.click()
    page.keyboard.type(expression, delay=20)
    if enter:
        page.keyboard.press("Enter")


def drag(page, filepath, start, end):
    """Drag what is at a place of the open image to another; places are x and y, relative to the image."""
    width, height = Image.open(filepath).size
    canvas = modal(page).locator("[data-cy=lighter-sample-renderer-canvas]").bounding_box()
    scale = min(canvas["width"] / width, canvas["height"] / height)
    left = canvas["x"] + (canvas["width"] - scale * width) / 2
    top = canvas["y"] + (canvas["height"] - scale * height) / 2
    (x, y), (to_x, to_y) = ((left + scale * width * x, top + scale * height * y) for x, y in (start, end))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move((x + to_x) / 2, (y + to_y) / 2, steps=5)
    page.mouse.move(to_x, to_y, steps=5)
    page.mouse.up()
