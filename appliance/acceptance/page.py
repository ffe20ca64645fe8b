"""The report as one self-contained HTML page, and its first lines for the terminal. Pure: the document in, text out.

No script, nothing fetched; every text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from appliance.inference.cards import QUALITY_WORDS
from appliance.inference.rules import KINDS

STYLE = """
:root{color-scheme:light dark;--ground:#fff;--raised:#f5f6f8;--ink:#1b2230;--soft:#566074;--line:#d5dae3;
--accent:#1f5fbf}
@media (prefers-color-scheme:dark){:root{--ground:#12161d;--raised:#1b212b;--ink:#e7ebf2;--soft:#a3adbd;--line:#343d4b;
--accent:#86b4ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:32px 24px 48px}
header p,dt,footer,caption,small{color:var(--soft)}
h1{font-size:28px;line-height:1.2;margin:0 0 8px}
h2{font-size:18px;margin:40px 0 8px}
.state{margin:24px 0;padding:16px;border:1px solid var(--line);border-left:4px solid var(--accent);border-radius:4px;
background:var(--raised)}
.state p{margin:0}.state .head{font-weight:600}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:16px 24px;margin:0}
dt,small{font-size:13px}dd{margin:0;overflow-wrap:anywhere}small{display:block}
.scroll{overflow-x:auto}
table{width:100%;border-collapse:collapse;font-size:14px}
caption{text-align:left;padding-bottom:8px}
th,td{text-align:left;vertical-align:top;padding:8px 16px 8px 0;border-bottom:1px solid var(--line)}
td.mark{font-weight:600;white-space:nowrap}
footer{margin-top:40px;padding-top:16px;border-top:1px solid var(--line);font-size:13px}
@media print{@page{margin:14mm}:root{color-scheme:light;--ground:#fff;--raised:#fff;--ink:#000;--soft:#444;--line:#bbb}
body{font-size:11pt}main{max-width:none;padding:0}.scroll{overflow:visible}tr,.state{break-inside:avoid}}
""".strip()

Document = Mapping[str, Any]


def summary(report: Document) -> list[str]:
    """What ran, hits and false observations, in sentences."""
    staged, innocent = report["totals"]["staged"], report["totals"]["innocent"]
    low, high = (f"{100 * edge:.0f}" for edge in staged["interval_95"])
    false = innocent["false_observations"]
    return [
        _what_ran(report),
        f"staged behaviours observed: {staged['hits']} of {staged['ran']}"
        + (f" (95 % interval {low} to {high} %)" if staged["ran"] else ""),
        f"innocent behaviours in which something was observed: {innocent['with_false_observation']} of "
        f"{innocent['ran']}, {false} observation{'' if false == 1 else 's'} in {innocent['seconds']:.0f} s",
        f"pixels between the eyes: {_eyes_words(report['eyes'])}",
        f"light: {_light_words(report['light'])}",
    ]


def render(report: Document) -> str:
    """The whole page."""
    head, *rest = (escape(sentence) for sentence in summary(report))
    return "".join(
        (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            '<meta name="referrer" content="no-referrer">'
            f"<title>{escape(report['desk'])} · {escape(report['room'])} · Invigil room acceptance</title>"
            f"<style>{STYLE}</style></head><body><main>",
            f"<header><h1>Room acceptance of {escape(report['desk'])}</h1><p>{escape(report['institution'])}, room "
            f"{escape(report['room'])}, {escape(_wall(report['began']))}</p></header>",
            f'<div class="state"><p class="head">{head}</p>{"".join(f"<p>{one}</p>" for one in rest)}</div>',
            "<h2>What can be done</h2>",
            _listed(report["advice"], "Nothing that was measured asks for a change."),
            "<h2>Steps</h2>",
            _steps(report["steps"]),
            "<h2>Observed between the steps</h2>",
            _between(report["between_steps"]),
            "<h2>Measured</h2>",
            _pairs(_measured(report)),
            "<h2>With what</h2>",
            _pairs(_setting(report)),
            "<h2>What this does not show</h2>",
            _listed(report["does_not_show"], ""),
            "<footer>Written by invigil node accept. Nothing was recorded; the readings were kept in memory until this "
            "page was written.</footer></main></body></html>\n",
        )
    )


def _what_ran(report: Document) -> str:
    ran = len(report["steps"])
    if report["full"]:
        return f"all {ran} steps ran"
    last = f"after step {report['steps'][-1]['number']}" if ran else "before the first step had ended"
    missing = f"{ran} of {ran + len(report['not_run'])} steps ran: not a full acceptance"
    return missing if report["stopped"] is None else f"stopped {last} ({report['stopped']}); {missing}"


def _steps(steps: Iterable[Document]) -> str:
    rows = "".join(_row(step) for step in steps)
    if not rows:
        return "<p>No step ran to its end.</p>"
    return _table(
        "Seconds from the beginning; left and right as the sitting person sees them",
        ("Step", "What was acted", "Expected", "Observed", "Outcome", "Also observed", "Pictures"),
        rows,
    )


def _row(step: Document) -> str:
    expected = step["expected"]
    wanted = "nothing" if expected is None else KINDS[expected["kind"]].words + _side(expected["side"])
    # In an innocent step everything that was observed stands in one column.
    observed = [step["observed"]] if step["observed"] else [] if step["staged"] else step["others"]
    also = step["others"] if step["staged"] else []
    why = f"<small>{escape(step['why'])}</small>" if step["why"] else ""
    return "<tr>" + "".join(
        (
            f"<td>{step['number']}<small>{step['began_s']:.0f} to {step['ended_s']:.0f} s</small></td>",
            f"<td>{escape(step['title'])}<small>{escape(step['said'])}</small></td>",
            f"<td>{escape(wanted)}</td>",
            f"<td>{_observations(observed)}{why}</td>",
            f'<td class="mark">{escape(step["outcome"])}</td>',
            f"<td>{_observations(also)}</td>",
            f"<td>{step['frames']}<small>{step['assessed_share']:.0%} could be assessed; "
            f"{escape(_light_words(step['light']))}</small></td></tr>",
        )
    )


def _between(observations: list[Document]) -> str:
    if not observations:
        return "<p>Nothing.</p>"
    rows = "".join(f"<tr><td>{_observations([one])}</td></tr>" for one in observations)
    return _table("Nothing was asked for at these times", ("What",), rows)


def _observations(found: Iterable[Document]) -> str:
    return "".join(
        f"<div>{escape(one['words'] + _side(one['side']))}<small>{_span(one)}</small></div>" for one in found
    )


def _span(one: Document) -> str:
    end = "the end" if one["to_s"] is None else f"{one['to_s']:.1f} s"
    return f"{one['from_s']:.1f} s to {end}, said at {one['opened_s']:.1f} s"


def _side(side: str | None) -> str:
    return "" if side is None else f", {side}"


def _measured(report: Document) -> dict[str, str]:
    frames, baseline, usable = report["frames"], report["baseline"], report["gaze_usable_share"]
    return {
        "Pixels between the eyes": _eyes_words(report["eyes"]),
        "Light": _light_words(report["light"]),
        "Gaze sure enough to be used": "no face"
        if usable is None
        else f"{usable:.0%} of the pictures with a face",
        "Pictures looked at": f"{frames['assessed']} in {frames['seconds']:.0f} s: {frames['reached_hz']:.1f} a "
        f"second, {frames['set_hz']:g} are set",
        "Usual direction": f"{baseline['yaw_deg']:.0f} degrees across, {baseline['pitch_deg']:.0f} up, "
        f"learned over {baseline['learned_s']:.0f} s",
    }


def _setting(report: Document) -> dict[str, str]:
    camera = report["camera"]
    return {
        "Camera": f"{camera['source']}, {camera['width_px']} x {camera['height_px']}, "
        f"{camera['frame_rate_hz']:g} a second",
        "Picture for the models": f"{camera['models_width_px']} x {camera['models_height_px']}",
        "Indicator light": "driven by the desk" if camera["indicator_light"] else "none of ours",
        "CPU for the models": f"at most {report['frames']['cpu_percent']} % of one core",
        "Runtime": report["runtime"],
        "Software": report["software"],
        "Ended": _wall(report["ended"]),
        **{name: f"SHA-256 {sha256}" for name, sha256 in report["models"].items()},
    }


def _eyes_words(eyes: Document) -> str:
    if eyes["median_px"] is None:
        return "no face that looks at the camera"
    return (
        f"{eyes['median_px']:.0f} (a tenth of the time under {eyes['p10_px']:.0f}; {eyes['frames']} pictures)"
    )


def _light_words(light: Mapping[str, float]) -> str:
    return (
        ", ".join(f"{QUALITY_WORDS[quality]} {part:.0%}" for quality, part in light.items()) or "no picture"
    )


def _wall(moment: str) -> str:
    return f"{moment[:10]} {moment[11:16]} UTC"


def _pairs(pairs: Mapping[str, str]) -> str:
    cells = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs.items())
    return f"<dl>{''.join(cells)}</dl>"


def _listed(sentences: list[str], otherwise: str) -> str:
    if not sentences:
        return f"<p>{otherwise}</p>"
    return "<ul>" + "".join(f"<li>{escape(one)}</li>" for one in sentences) + "</ul>"


def _table(caption: str, columns: tuple[str, ...], rows: str) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    return (
        f'<div class="scroll"><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
