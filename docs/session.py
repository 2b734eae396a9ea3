#!/usr/bin/env python3
"""Generates docs/session.svg, the picture of a session in the README.

    python3 docs/session.py          writes docs/session.svg
    python3 docs/session.py -        writes the picture to standard output

The picture is a sequence diagram: edit STEPS to change it. It needs nothing but Python, and is readable on a light and on a
dark background.
"""

import sys
from html import escape
from pathlib import Path

WIDTH = 900
TOP = 96
ROW = 30
LANES = {"ecu": 90, "agent": 350, "cloud": 620, "operator": 810}
TITLES = {
    "ecu": ("Vehicle", "ECUs"),
    "agent": ("Connector", "connector-agent"),
    "cloud": ("Cloud", "REST, websocket"),
    "operator": ("Operator", "tool or expert"),
}

# Each step is one row:
#   ("phase", text)              a heading
#   ("send", from, to, text)     an arrow
#   ("both", lane, lane, text)   an arrow with two heads
#   ("cut", lane, lane, text)    the link between two lanes is lost
STEPS = [
    ("phase", "The vehicle is identified"),
    ("both", "ecu", "agent", "find the bit rate, read the VIN"),
    ("send", "agent", "cloud", "log in, report VIN and status"),
    ("phase", "An operator joins"),
    ("send", "operator", "cloud", "join the ticket"),
    ("send", "cloud", "agent", "open the connection"),
    ("send", "operator", "agent", "configure buses, open channels"),
    ("phase", "Whole PDUs cross the network, frames stay in the vehicle"),
    ("send", "operator", "agent", "PDU  36 01 … (4 kB)"),
    ("send", "agent", "ecu", "first frame"),
    ("send", "ecu", "agent", "flow control"),
    ("send", "agent", "ecu", "586 consecutive frames"),
    ("send", "ecu", "agent", "7F 36 78  response pending"),
    ("send", "ecu", "agent", "76 01"),
    ("send", "agent", "operator", "PDU  76 01"),
    ("phase", "The link drops, the session continues"),
    ("cut", "agent", "operator", "no link for seconds"),
    ("send", "agent", "ecu", "TesterPresent keeps the session"),
    ("send", "ecu", "agent", "responses are kept"),
    ("both", "agent", "operator", "resume: send only what is missing"),
]

STYLE = """
    text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 13px; fill: #1f2328; }
    .title { font-size: 16px; font-weight: 600; }
    .phase { font-weight: 600; fill: #0a5ea8; }
    .quiet { fill: #59636e; font-size: 12px; }
    .ground { fill: #ffffff; }
    .zone { fill: #eaf3fb; }
    .far { fill: #f4f1e8; }
    .box { fill: #ffffff; stroke: #8c959f; }
    .life { stroke: #b4bcc4; stroke-dasharray: 3 4; }
    .arrow { stroke: #1f2328; stroke-width: 1.4; fill: none; }
    .head { fill: #1f2328; }
    .cut { stroke: #c4320a; stroke-width: 1.6; fill: none; }
    .lost { fill: #c4320a; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .phase { fill: #79c0ff; }
      .quiet { fill: #9198a1; }
      .ground { fill: #0d1117; }
      .zone { fill: #132234; }
      .far { fill: #211d14; }
      .box { fill: #161b22; stroke: #6e7681; }
      .life { stroke: #484f58; }
      .arrow { stroke: #e6edf3; }
      .head { fill: #e6edf3; }
      .cut { stroke: #ff7b72; }
      .lost { fill: #ff7b72; }
    }
"""


def text(x, y, words, kind="", anchor="middle"):
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'


def head(x, y, direction):
    """An arrow head whose tip is at x; direction is 1 to the right, -1 to the left."""
    back = x - 9 * direction
    return f'<path class="head" d="M{x} {y} L{back} {y - 4.5} L{back} {y + 4.5} Z"/>'


def arrow(start, end, y, words, has_two_heads):
    direction = 1 if end > start else -1
    parts = [f'<path class="arrow" d="M{start} {y} H{end}"/>', head(end, y, direction)]
    if has_two_heads:
        parts.append(head(start, y, -direction))
    # an arrow across the cloud has its words beside the connector, where they cross no line
    between = sorted((start, end))
    middle = (between[0] + LANES["cloud"]) / 2 if between[0] == LANES["agent"] else sum(between) / 2
    parts.append(text(f"{middle:g}", y - 5, words))
    return parts


def lost(start, end, y, words):
    middle = (start + LANES["cloud"]) / 2
    return [
        f'<path class="cut" stroke-dasharray="7 5" d="M{start} {y} H{end}"/>',
        f'<path class="cut" d="M{middle - 7:g} {y - 7} l14 14 m0 -14 l-14 14"/>',
        text(f"{middle:g}", y - 11, words, "lost"),
    ]


def rows():
    """The parts of all steps, and the height that they take."""
    parts, y = [], TOP + 24
    for kind, *rest in STEPS:
        if kind == "phase":
            y += 12
            parts.append(f'<rect class="ground" y="{y - 18}" width="{WIDTH}" height="27"/>')
            parts.append(text(LANES["ecu"] - 70, y, rest[0], "phase", "start"))
            y += ROW + 2
            continue
        start, end = LANES[rest[0]], LANES[rest[1]]
        if kind == "cut":
            y += 4
            parts += lost(start, end, y, rest[2])
        else:
            parts += arrow(start, end, y, rest[2], kind == "both")
        y += ROW
    return parts, y


def picture():
    parts, height = rows()
    label = "Sequence diagram of a session: vehicle, connector, cloud, operator"
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{label}">',
        f"  <style>{STYLE}  </style>",
        f'  <rect class="ground" width="{WIDTH}" height="{height}"/>',
        f'  <rect class="zone" x="{LANES["ecu"]}" y="{TOP - 22}" width="{LANES["agent"] - LANES["ecu"]}" height="{height - TOP + 12}"/>',
        f'  <rect class="far" x="{LANES["agent"]}" y="{TOP - 22}" width="{LANES["operator"] - LANES["agent"]}" height="{height - TOP + 12}"/>',
    ]
    near = (LANES["ecu"] + LANES["agent"]) / 2
    far = (LANES["agent"] + LANES["operator"]) / 2
    svg.append("  " + text(f"{near:g}", TOP - 6, "the bus: deadlines of milliseconds", "quiet"))
    svg.append("  " + text(f"{far:g}", TOP - 6, "the network: any delay, and it may drop", "quiet"))
    for lane, x in LANES.items():
        title, subtitle = TITLES[lane]
        svg.append(f'  <path class="life" d="M{x} {TOP - 22} V{height - 10}"/>')
        svg.append(f'  <rect class="box" x="{x - 70}" y="14" width="140" height="50" rx="6"/>')
        svg.append("  " + text(x, 35, title, "title"))
        svg.append("  " + text(x, 54, subtitle, "quiet"))
    svg += ["  " + part for part in parts]
    svg.append("</svg>")
    return "\n".join(svg) + "\n"


def main():
    svg = picture().encode()
    if sys.argv[1:] == ["-"]:
        sys.stdout.buffer.write(svg)
    else:
        Path(__file__).with_suffix(".svg").write_bytes(svg)


main()
