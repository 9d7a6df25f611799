"""Write the tables and the charts of runs into the documentation.

    python benchmarks/publish.py results.json [others.json ...]

Each is what ``run.py --json`` wrote. The README gets a table of some rows of the first
and the chart, docs/performance.md all rows of all. Rows of the area growth become a
chart. docs/performance.json, docs/performance-1.json and so on are the runs themselves.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from harness.loops import CEILING, KNOWN
from harness.report import amount

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- bench:start -->", "<!-- bench:end -->"
SHOWN = [
    "core.call_soon",
    "core.call_later_cancel_live",
    "core.sleep_0",
    "threads.call_soon_threadsafe",
    "threads.to_thread",
    "tcp.echo_1k_10",
    "tcp.echo_100k",
    "tcp.streams_echo",
    "tcp.four_writes",
    "connect.server",
    "sock.echo",
    "udp.bursts",
    "process.spawn",
]
"""The rows that stand for their areas."""

COLOURS = {
    "asyncio": "#9aa5b1",
    "uvloop": "#e2a03f",
    "rloop": "#b0563c",
    "zuvloop": "#7a6bb0",
    "fastloop": "#2f6fdb",
}


def main() -> int:
    """Publish the runs that the command line names."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    runs = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    sections = []
    for number, run in enumerate(runs):
        name = f"performance-{number}.json" if number else "performance.json"
        (ROOT / "docs" / name).write_text(json.dumps(run, indent=2) + "\n")
        draw_growth(run, ROOT / "docs/growth.svg")
        keys = [key for key, row in run["rows"].items() if row["area"] != "growth"]
        if keys:
            sections.append(
                f"## CPython {run['python']['version']}{variant(run)}\n\n"
                f"{setting(run)} [Every sample]({name}).\n\n{table(run, keys)}\n"
            )
    run = runs[0]
    shown = [key for key in SHOWN if key in run["rows"]]
    draw(run, [run["rows"][key] for key in shown], ROOT / "docs/performance.svg")
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(START)
    after = rest.split(END)[1]
    readme.write_text(
        f"{before}{START}\n{setting(run)}\n\n{table(run, shown)}\n\n"
        "![Speed of the loops](docs/performance.svg)\n\n"
        f"[All rows](docs/performance.md)\n{END}{after}"
    )
    page = [
        "# Performance\n\nWhat a row does, and how it is measured, is in\n"
        "[the benchmarks' own page](../benchmarks/README.md).\n",
        "![Speed of the loops](performance.svg)\n",
        *sections,
    ]
    if (ROOT / "docs/growth.svg").exists():
        page.append("## How costs grow\n\n![How costs grow](growth.svg)\n")
    (ROOT / "docs/performance.md").write_text("\n".join(page))
    return 0


def variant(run: dict[str, Any]) -> str:
    """Say what is unusual about a run."""
    return "" if run["malloc"] else ", where glibc gives freed memory back"


def setting(run: dict[str, Any]) -> str:
    """Say where and how the run was made."""
    loops = ", ".join(
        f"{loop} {version}"
        for loop, version in run["loops"].items()
        if loop not in ("asyncio", "fastloop", CEILING)
    )
    machine = run["machine"]
    return (
        f"CPython {run['python']['version']}, {loops}; "
        f"{machine['processors']} processors ({machine.get('processor', '?')}); "
        f"medians of {run['rounds']} rounds, the loops in turn; processor time where "
        "one thread works, wall time elsewhere. Times are for one operation; in "
        "brackets is the speed, where uvloop's is 1."
    )


def table(run: dict[str, Any], keys: list[str]) -> str:
    """Lay out rows in Markdown, the fastest loop of each in bold."""
    loops = list(run["loops"])
    rivals = [loop for loop in loops if loop != CEILING]
    lines = [
        "| | " + " | ".join(loops) + " |",
        "|---|" + "---:|" * len(loops),
    ]
    for key in keys:
        row = run["rows"][key]
        medians = row["median"]
        cells = []
        known = [medians[loop] for loop in rivals if loop in medians]
        best = min([value for value in known if value > 0] or known)  # early is no gain
        for loop in loops:
            if loop not in medians:
                cells.append("-")
                continue
            cell = amount(medians[loop], row["metric"])
            if loop != "uvloop" and medians.get("uvloop", 0) > 0 and medians[loop] > 0:
                cell += f" ({medians['uvloop'] / medians[loop]:.2f})"
            if loop in rivals and medians[loop] == best:
                cell = f"**{cell}**"
            cells.append(cell)
        lines.append(f"| {row['title']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_growth(run: dict[str, Any], path: Path) -> None:
    """Draw how the cost of an operation grows with what else there is."""
    families: dict[str, dict[int, dict[str, Any]]] = {}
    for key, row in run["rows"].items():
        if row["area"] == "growth":
            family, _, size = key.partition(".")[2].rpartition("_")
            families.setdefault(family, {})[int(size)] = row
    if not families:
        return
    figure, places = plt.subplots(
        1, len(families), figsize=(4 * len(families), 3.2), squeeze=False
    )
    for axes, rows in zip(places[0], families.values(), strict=True):
        for loop in [loop for loop in KNOWN if loop in run["loops"]]:
            points = [
                (size, row["median"][loop] * 1e6)
                for size, row in sorted(rows.items())
                if loop in row["median"]
            ]
            if points:
                colour = COLOURS.get(loop)
                axes.plot(*zip(*points, strict=True), "o-", label=loop, color=colour)
        any_row = next(iter(rows.values()))
        axes.set_title(any_row["title"].rpartition(", ")[0].rstrip(",0123456789"))
        axes.set_ylabel(f"µs a {any_row['unit']}")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    lines, names = places[0][0].get_legend_handles_labels()
    figure.legend(lines, names, loc="lower center", ncols=len(names), frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw(run: dict[str, Any], rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the speed of each loop in each row, asyncio's is 1, on a log scale."""
    others = ("asyncio", CEILING)
    loops = [loop for loop in KNOWN if loop in run["loops"] and loop not in others]
    height = 0.8 / len(loops)
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(rows) + 1.2))
    for place, loop in enumerate(loops):
        positions, values = [], []
        for number, row in enumerate(rows):
            if loop in row["median"] and "asyncio" in row["median"]:
                positions.append(number + (place - (len(loops) - 1) / 2) * height)
                values.append(row["median"]["asyncio"] / row["median"][loop])
        axes.barh(positions, values, height, label=loop, color=COLOURS.get(loop))
    axes.axvline(1, color="#555555", linewidth=1)
    axes.set_xscale("log")
    ticks = [0.5, 1, 2, 5, 10, 20, 50]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("speed, where asyncio's is 1")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
