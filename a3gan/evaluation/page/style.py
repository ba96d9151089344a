"""The page's style sheet: light, dark, narrow and on paper."""

METHOD_COLOURS = 10  # as many as there are in the sheet; more methods start over, their markers do not

CSS = (
    """
:root {
  --ground: #ffffff; --text: #1c1f23; --soft: #5b626b; --line: #d9dde2; --shade: #f4f6f8; --mark: #e3efe4;
  --good: #1d6b33; --bad: #a4262c; --alert: #fbe9e9; --warn: #fdf3dc; --warn-line: #c48a00;
  --m0: #0b62b8; --m1: #b85c00; --m2: #6f4bb8; --m3: #007a6c; --m4: #a8324e; --m5: #6a6f00; --m6: #55606b;
    --m7: #8a4b2f; --m8: #b02a8f; --m9: #2e7d32;
  --original: #1c1f23;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ground: #15181c; --text: #e6e8eb; --soft: #a3abb5; --line: #363c44; --shade: #1e2227; --mark: #1f3a27;
    --good: #7fd396; --bad: #ff8f8f; --alert: #3a1d1f; --warn: #33290f; --warn-line: #d9a62e;
    --m0: #6db3f8; --m1: #f5a352; --m2: #b79df0; --m3: #4fc9b8; --m4: #f08aa4; --m5: #c6cc55; --m6: #aab4bf;
    --m7: #d99a7c; --m8: #ee86d3; --m9: #86d08a; --original: #e6e8eb;
  }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; }
body { margin: 0 auto; max-width: 74rem; padding: 1.5rem 1.25rem 4rem; background: var(--ground); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .35rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .35rem; }
p, ul, ol { margin: .5rem 0 .8rem; max-width: 46rem; }
li { margin: .2rem 0; }
.lead { color: var(--soft); margin-top: 0; }
.note, figcaption, caption { color: var(--soft); font-size: .875rem; line-height: 1.45; }
caption { text-align: left; caption-side: bottom; padding-top: .5rem; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .85em; }
pre { background: var(--shade); padding: .8rem 1rem; border-radius: 6px; white-space: pre-wrap;
    word-break: break-word; }
a { color: inherit; }
nav { font-size: .9rem; color: var(--soft); margin: .8rem 0 0; }
nav a { margin-right: .9rem; white-space: nowrap; }
.summary { display: grid; grid-template-columns: 1.5fr 1fr 1fr; gap: 1rem; margin: 1.2rem 0; }
.card { background: var(--shade); border-radius: 8px; padding: .9rem 1.1rem; }
.card h3 { margin: 0 0 .4rem; font-size: .95rem; }
.card p { margin: .35rem 0; font-size: .95rem; line-height: 1.45; }
.big { font-size: 1.7rem; font-weight: 650; line-height: 1.15; display: block; font-variant-numeric: tabular-nums; }
.banner { border-left: 4px solid var(--warn-line); background: var(--warn); padding: .6rem 1rem; margin: .8rem 0; }
.banner.bad { border-color: var(--bad); background: var(--alert); }
.banner.good { border-color: var(--good); background: var(--mark); }
.banner p, .banner ul { margin: .2rem 0; }
.scroll { overflow-x: auto; margin: .6rem 0 1rem; }
.many { position: relative; left: 50%; transform: translateX(-50%); width: calc(100vw - 4rem); max-width: 110rem; }
.many table { font-size: .8rem; } .many th, .many td { padding: .35rem .4rem; }
.many th:first-child { position: sticky; left: 0; background: var(--ground); }
.many tr.part th:first-child { background: var(--shade); }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .86rem; line-height: 1.35;
    font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .6rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
table.words td, table.words th { text-align: left; }
table.short { width: auto; } table.short td { white-space: nowrap; text-align: right; }
thead th { border-bottom: 2px solid var(--line); font-weight: 600; vertical-align: bottom; white-space: nowrap; }
tbody th { font-weight: 400; min-width: 11rem; max-width: 19rem; }
tr.part th { font-weight: 650; background: var(--shade); padding-top: .55rem; text-align: left; }
td { white-space: nowrap; }
table.words td { white-space: normal; }
td small, th small { display: block; color: var(--soft); font-size: .92em; }
td.best { background: var(--mark); font-weight: 650; }
td.best small { font-weight: 400; }
.better { color: var(--soft); white-space: nowrap; }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .35em; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1.2rem; }
.plots.wide { grid-template-columns: repeat(auto-fill, minmax(28rem, 1fr)); }
.strips { display: grid; gap: .35rem; max-width: 46rem; }
.strips figure { display: grid; grid-template-columns: 5.5rem 1fr; align-items: center; margin: 0; }
.strips img { width: 100%; }
figure { margin: .6rem 0 1rem; break-inside: avoid; }
figure svg { width: 100%; height: auto; display: block; }
figure.narrow { max-width: 34rem; }
figure.mid { max-width: 46rem; }
figure img { max-width: 100%; height: auto; image-rendering: auto; border-radius: 4px; display: block; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .875rem; margin: .3rem 0; }
.legend svg, figure .legend svg { display: inline-block; width: 1em; height: 1em; vertical-align: -.12em;
    margin-right: .35em; }
svg text { fill: var(--text); font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
svg .soft { fill: var(--soft); }
svg .title { font-weight: 600; }
svg .axis { stroke: var(--soft); stroke-width: 1; fill: none; }
svg .grid { stroke: var(--line); stroke-width: 1; fill: none; }
svg .frame { stroke: var(--text); stroke-width: 1.6; fill: none; }
svg .empty { fill: var(--shade); }
svg .guess { stroke: var(--soft); stroke-dasharray: 3 3; stroke-width: 1.2; fill: none; }
details { margin: .6rem 0; }
summary { cursor: pointer; }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 46rem) {
  body { padding: 1rem .8rem 3rem; font-size: 15px; }
  .summary { grid-template-columns: 1fr; }
  .plots.wide { grid-template-columns: 1fr; }
  .strips figure { grid-template-columns: 1fr; }
  th:first-child { position: sticky; left: 0; background: var(--ground); max-width: 9.5rem; min-width: 8.5rem; }
  tr.part th:first-child { background: var(--shade); max-width: none; }
  thead th, td { padding: .35rem .45rem; }
  .many { left: 0; transform: none; width: auto; }
}
@media print {
  @page { margin: 14mm 12mm; size: A4; }
  html { font-size: 9.5pt; }
  body { font-size: 9.5pt; max-width: none; padding: 0; }
  h2 { break-after: avoid; margin-top: 1.6rem; } h3 { break-after: avoid; }
  nav, #all { display: none; }
  table { font-size: 7.2pt; } td, th { padding: .22rem .3rem; } tbody th { min-width: 7rem; max-width: 11rem; }
  h2, h3, tr.part, thead, .legend { break-after: avoid; }
  .scroll { overflow: visible; } .many { left: 0; transform: none; width: auto; }
  tr, figure, .card, .banner { break-inside: avoid; }
  thead { display: table-header-group; }
  .card, .banner, td.best, tr.part th, pre, .swatch { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .plots { grid-template-columns: 1fr 1fr; }
}
"""
    + "".join(f".m{i}{{color:var(--m{i})}}" for i in range(METHOD_COLOURS))
    + ".original{color:var(--original)}\n"
)
