"""The charts of the report's page show what its tables say, in a real browser: each mark is measured against the table."""

import re
import sys
from datetime import timedelta

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))
import browser as browsers
import report_fixture

FIXTURE = report_fixture.fixture()
CHARTS = {chart.name: chart for section in FIXTURE.values() for chart in section}
SPARSE_DAYS = [day for day, _ in report_fixture.SPARSE_RUNS]
# Half a pixel: what rounding can do.
NEAR = 0.51
# What a chart consists of, in the drawing's own coordinates. Lines become their points, one list for each stretch.
MARKS = """(id) => {
  const svg = document.querySelector(`#${id} .plot > svg`);
  const at = (element) => (element.getAttribute("transform") ?? "").match(/-?[\\d.]+/g)?.map(Number) ?? [0, 0];
  const rects = (name) => [...svg.querySelectorAll(`g.${name} rect, rect.${name}`)].map((rect) => {
    const own = (key) => Number(rect.getAttribute(key));
    const [dx, dy] = at(rect.parentElement);
    return {x: own("x") + dx, y: own("y") + dy, width: own("width"), height: own("height"), fill: rect.getAttribute("fill") };
  });
  const ticks = (axis, over) => [...svg.querySelectorAll(`[aria-label="${axis}-axis tick label"] text`)]
    .map((text) => ({text: text.textContent, at: at(text)[over] + at(text.closest("g"))[over]}));
  return {
    marks: rects("marks"), missing: rects("missing"), oddBoxes: rects("odd-box"),
    lines: [...svg.querySelectorAll("g.marks path")].map((path) => path.getAttribute("d").split("M").filter(Boolean)
      .map((stretch) => stretch.replace("Z", "").split("L").map((point) => point.split(",").map(Number)))),
    strokes: [...svg.querySelectorAll("g.marks")].map((group) => [group.getAttribute("stroke"), group.getAttribute("stroke-dasharray")]),
    alone: [...svg.querySelectorAll(".alone circle")].map((circle) => circle.cy.baseVal.value),
    before: [...svg.querySelectorAll(".before line")].map((line) => line.x1.baseVal.value),
    oddDots: svg.querySelectorAll(".odd-dot circle").length,
    values: [...svg.querySelectorAll(".values text")].map((text) => text.textContent),
    x: ticks("x", 0), y: ticks("y", 1), width: svg.viewBox.baseVal.width,
    legend: [...document.querySelectorAll(`#${id} .legend li`)].map((item) =>
      [item.textContent, item.querySelector("rect, line").getAttribute("fill") ?? item.querySelector("line")?.getAttribute("stroke") ?? ""])
  };
}"""
UNITS = {"": 1, "%": 0.01, "s": 1, "min": 60, "h": 3600, "d": 86400, "k": 1e3, "M": 1e6}


@pytest.fixture(scope="module")
def chromium():
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(chromium, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_fixture.page(FIXTURE))
    with browsers.opened(chromium, path) as page:
        page.wait_for_function("() => [...document.querySelectorAll('.plot')].every((plot) => plot.querySelector(':scope > svg'))")
        yield page


@pytest.fixture(scope="module")
def marks(page):
    return lambda name: page.evaluate(MARKS, name)


def number(label):
    """The value of a tick's label, as `20 min`."""
    digits, unit = re.fullmatch(r"([\d,.]+) ?(\D*)", label).groups()
    return float(digits.replace(",", "")) * UNITS[unit]


def scale(ticks):
    """From a value to its place, by the first and the last label of a linear axis."""
    (low, start), (high, end) = [(number(tick["text"]), tick["at"]) for tick in (ticks[0], ticks[-1])]
    assert len(ticks) >= 2 and low != high
    return lambda value: start + (value - low) * (end - start) / (high - low)


def near(one, other, what):
    assert abs(one - other) <= NEAR, f"{what}: {one} is not {other}"


STACKED = ["conversations-day", "conversations-week", "csat-spread", "messages", "run-durations"]


@pytest.mark.parametrize("name", STACKED)
def test_bars_are_as_high_as_the_numbers(marks, name):
    chart, drawn = CHARTS[name], marks(name)
    place = scale(drawn["y"])
    series = chart.series()
    assert len(drawn["marks"]) == len(chart.rows) * len(series)
    bars = iter(drawn["marks"])
    below = [0] * len(chart.rows)
    columns = [[] for _ in chart.rows]
    for label, _, _ in series:
        for at, value in enumerate(chart.column(label)):
            bar = next(bars)
            near(bar["y"] + bar["height"], place(below[at]), f"foot of {label} in row {at}")
            below[at] += value
            near(bar["y"], place(below[at]), f"top of {label} in row {at}")
            columns[at].append(bar["x"])
    # Each row has its own column, from left to right.
    assert all(max(column) - min(column) < NEAR for column in columns)
    assert [column[0] for column in columns] == sorted({column[0] for column in columns})
    assert [entry[0] for entry in drawn["legend"]] == ([label for label, _, _ in series] if len(series) > 1 else [])
    assert [entry[1] for entry in drawn["legend"]] == list(dict.fromkeys(bar["fill"] for bar in drawn["marks"]))[: len(drawn["legend"])]


@pytest.mark.parametrize("wide", [390, 1280])
@pytest.mark.parametrize("days", [SPARSE_DAYS, [0, 400], [0, 1, 1500]])
def test_bars_over_sparse_dates_are_as_wide_as_their_days(chromium, tmp_path, days, wide):
    chart = CHARTS["run-durations"]
    rows = [[chart.rows[0][0] + timedelta(days=day), 60 * (day + 1), 1] for day in days]
    path = tmp_path / "sparse.html"
    few = report_fixture.Chart(chart.name, chart.kind, chart.title, chart.columns, rows, **chart.data)
    path.write_text(report_fixture.page({"support": [few], "data": []}))
    with browsers.opened(chromium, path, width=wide) as page:
        page.wait_for_selector("#run-durations .plot > svg")
        drawn = page.evaluate(MARKS, "run-durations")
        names = page.evaluate("""() => [...document.querySelectorAll('#run-durations [aria-label="x-axis tick label"] text')]
          .map((text) => text.getBoundingClientRect()).map(({left, right}) => [left, right])""")
    # A bar's middle is its day's; the first and the last day touch the ends of the axis.
    middles = [bar["x"] + bar["width"] / 2 for bar in drawn["marks"]]
    step = (middles[-1] - middles[0]) / days[-1]
    for day, bar, middle in zip(days, drawn["marks"], middles, strict=True):
        near(middle, middles[0] + day * step, f"day {day}")
        # Neighbours are parted, and a bar that is too thin to see is widened to a pixel.
        assert max(1, step - 2) - 0.01 <= bar["width"] <= max(1, step) + 0.01, (bar, step)
    assert step * (days[-1] + 1) > drawn["width"] * 0.8
    assert len(names) >= 2 and all(right < left for (_, right), (left, _) in zip(names, names[1:])), names


@pytest.mark.parametrize("name", ["deflection-day", "csat-day", "duration", "lag"])
def test_lines_go_through_the_numbers_and_stop_at_gaps(marks, name):
    chart, drawn = CHARTS[name], marks(name)
    place = scale(drawn["y"])
    assert len(drawn["lines"]) == len(chart.series())
    for (label, _, _), stretches in zip(chart.series(), drawn["lines"]):
        values = chart.column(label)
        expected = [[]]
        for value in values:
            expected[-1].append(value) if value is not None else expected.append([])
        expected = [stretch for stretch in expected if stretch]
        assert [len(stretch) for stretch in stretches] == [len(stretch) for stretch in expected]
        for stretch, known in zip(stretches, expected):
            for (_, y), value in zip(stretch, known):
                near(y, place(value), f"{label} at {value}")
        alone = [stretch[0] for stretch in expected if len(stretch) == 1]
        assert len(drawn["alone"]) == len(alone)
        for y, value in zip(drawn["alone"], alone):
            near(y, place(value), f"the lone {value}")
    if name == "csat-day":
        assert len(expected) == 5 and len(alone) == 1, "the fixture has gaps and a lone day"


def test_a_logarithmic_axis_has_readable_ticks(marks):
    chart, drawn = CHARTS["first-response"], marks("first-response")
    assert [tick["text"] for tick in drawn["y"]] == ["10 s", "1 min", "10 min", "1 h", "6 h"]
    import math

    (low, start), (high, end) = [(math.log(number(tick["text"])), tick["at"]) for tick in (drawn["y"][0], drawn["y"][-1])]
    for (label, _, _), [stretch] in zip(chart.series(), drawn["lines"]):
        for (_, y), value in zip(stretch, chart.column(label)):
            near(y, start + (math.log(value) - low) * (end - start) / (high - low), f"{label} at {value}")
    # Three lines differ in colour and in dashes, and the legend names them.
    assert len({color for color, _ in drawn["strokes"]}) == len({dash for _, dash in drawn["strokes"]}) == 3
    assert [name for name, _ in drawn["legend"]] == [name for name, _, _ in chart.series()]


def test_ranked_bars_are_as_long_as_the_numbers(marks):
    chart, drawn = CHARTS["tags"], marks("tags")
    place = scale(drawn["x"])
    now, before = [label for label, _, _ in chart.series()]
    assert len(drawn["marks"]) == len(chart.rows)
    for bar, value in zip(drawn["marks"], chart.column(now)):
        near(bar["x"], place(0), "start")
        near(bar["x"] + bar["width"], place(value), f"end of {value}")
    assert drawn["values"] == [chart.text(row, now) for row in chart.rows]
    known = [value for value in chart.column(before) if value is not None]
    assert len(drawn["before"]) == len(known) == len(chart.rows) - 1
    for x, value in zip(drawn["before"], known):
        near(x, place(value), f"the tick of {value}")


def test_shares_fill_their_rows(marks):
    chart, drawn = CHARTS["csat-tag"], marks("csat-tag")
    place = scale(drawn["x"])
    assert len(drawn["marks"]) == len(chart.rows) * 5
    bars = iter(drawn["marks"])
    totals = [sum(row[1:6]) for row in chart.rows]
    ends = [0.0] * len(totals)
    for label, _, _ in chart.series():
        for at, value in enumerate(chart.column(label)):
            bar = next(bars)
            near(bar["x"], place(ends[at]), f"start of {label}")
            ends[at] += value / totals[at]
            # A gap of one pixel parts neighbours.
            near(bar["x"] + bar["width"] + 1, place(ends[at]), f"end of {label}")
    assert drawn["values"] == [chart.text(row, "Average") for row in chart.rows]


def in_class(value, label):
    """Whether a class of the legend holds a value, as `below 10`, `10 – 20`, `20 or more`."""
    limits = [float(limit.replace(",", "")) for limit in re.findall(r"[\d,.]+", label)]
    if label.startswith("below"):
        return 0 < value < limits[0]
    if label.endswith("or more"):
        return value >= limits[0]
    return limits[0] <= value < limits[1] if len(limits) == 2 else value == limits[0]


def check_classes(cells, legend):
    shades = dict((color, label) for label, color in legend if label not in ("missing", "odd"))
    for value, cell in cells:
        assert in_class(value, shades[cell["fill"]]), f"{value} is drawn as {shades[cell['fill']]}"
    assert len({cell["fill"] for _, cell in cells}) == len(shades) >= 3, "every class of the legend is used"
    assert list(shades) == sorted(shades), "stronger colours stand for greater values"


def test_a_heat_map_has_a_cell_for_each_number(marks):
    chart, drawn = CHARTS["busy"], marks("busy")
    values = [value for row in chart.rows for value in row[1:]]
    assert len(drawn["marks"]) == len(values) == 7 * 24
    check_classes(list(zip(values, drawn["marks"])), drawn["legend"])
    for at, cell in enumerate(drawn["marks"]):
        near(cell["x"], drawn["marks"][at % 24]["x"], "the column of an hour")
        near(cell["y"], drawn["marks"][at // 24 * 24]["y"], "the row of a weekday")


def test_a_calendar_shows_each_day_in_its_week(marks):
    chart, drawn = CHARTS["partitions"], marks("partitions")
    days = [(day, size, state) for day, size, state in chart.rows]
    present = [(day, size, state) for day, size, state in days if state != "missing"]
    assert (len(drawn["marks"]), len(drawn["missing"]), len(drawn["oddBoxes"]), drawn["oddDots"]) == (len(present), 3, 2, 2)
    monday = days[0][0] - timedelta(days=days[0][0].weekday())
    size = drawn["marks"][1]["y"] - drawn["marks"][0]["y"]
    left = min(mark["x"] for mark in drawn["marks"])
    top = min(mark["y"] for mark in drawn["marks"])
    for (day, _, _), mark in zip(present, drawn["marks"]):
        near(mark["x"], left + (day - monday).days // 7 * size, f"week of {day}")
        near(mark["y"], top + day.weekday() * size, f"weekday of {day}")
    # Odd days are far from the others; they may be in the outer class, which then has no upper limit.
    check_classes([(value, mark) for (_, value, state), mark in zip(present, drawn["marks"]) if not state], drawn["legend"])
    assert [label for label, _ in drawn["legend"]][-2:] == ["missing", "odd"]


def test_a_calendar_wider_than_the_page_goes_on_below(marks):
    drawn = marks("year")
    assert len(drawn["marks"]) == 730
    rows = sorted({round(mark["y"]) for mark in drawn["marks"]})
    assert len(rows) == 14, "two blocks of seven days"
    assert max(mark["x"] + mark["width"] for mark in drawn["marks"]) <= drawn["width"]


def test_months_are_bars(marks):
    chart, drawn = CHARTS["partitions-month"], marks("partitions-month")
    place = scale(drawn["y"])
    known = [value for value in chart.column("Rows") if value is not None]
    assert (len(drawn["marks"]), len(drawn["missing"]), drawn["oddDots"]) == (len(known), 1, 1) == (25, 1, 1)
    for bar, value in zip(drawn["marks"], known):
        near(bar["height"], place(0) - place(value), f"bar of {value}")
    # The missing month is hatched in its own place, from the axis to the top.
    at = chart.column("State").index("missing")
    [hatched] = drawn["missing"]
    before, following = drawn["marks"][at - 1], drawn["marks"][at]
    assert before["x"] + before["width"] < hatched["x"] and hatched["x"] + hatched["width"] < following["x"]
    near(hatched["y"] + hatched["height"], place(0), "foot of the hatch")
    near(hatched["y"], drawn["y"][-1]["at"], "top of the hatch")
    assert [label for label, _ in drawn["legend"]] == ["missing", "odd"]


def test_the_drawing_says_what_it_shows(page):
    for name, says in {
        "deflection-day": ["Deflection rate by day. Line chart: 2024-02-01 to 2024-04-30", "first", "last", "lowest", "highest"],
        "partitions": ["Partitions. Calendar", "missing: 3", "odd: 2"],
        "tags": ["Top tags. Ranked bars: 12 rows", report_fixture.HOSTILE],
        "busy": ["Busiest hours. Heat map: lowest 0 (Monday, 00)"],
    }.items():
        svg = page.locator(f"#{name} .plot > svg")
        assert (svg.get_attribute("role"), svg.get_attribute("tabindex")) == ("img", "0")
        label = svg.get_attribute("aria-label")
        assert all(part in label for part in says), label
    rate = CHARTS["deflection-day"]
    least = min(rate.rows, key=lambda row: row[1])
    label = page.locator("#deflection-day .plot > svg").get_attribute("aria-label")
    assert f"lowest {rate.text(least, 'Deflection rate')} ({least[0]})" in label
