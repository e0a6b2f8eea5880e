"""The report's style sheet: one page, light and dark, nothing from outside."""

CSS = """
:root { color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1c2126; --soft: #626c76; --line: #e3e6e9;
  --accent: #0b6e63; --base: #9aa5b1; --good: #13795b; --bad: #b42318; --good-bg: #e5f4ee; --bad-bg: #fdeceb;
  --plain-bg: #eef1f4; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #111417; --card: #191d21; --ink: #e6e9ec; --soft: #98a2ad; --line: #2b3137;
  --accent: #3fb8a6; --base: #6b7681; --good: #4cc38a; --bad: #ff8a80; --good-bg: #12291f; --bad-bg: #34191a;
  --plain-bg: #242a30; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 40px 24px 64px; }
header { display: flex; flex-wrap: wrap; gap: 12px 24px; align-items: flex-start;
  justify-content: space-between; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h1 span { color: var(--soft); font-weight: 400; }
h2 { font-size: 17px; margin: 36px 0 10px; }
.tight td:nth-child(2), .tight td:nth-last-child(2) { white-space: nowrap; }
.tight td:last-child { min-width: 260px; }
h3 { font-size: 13px; margin: 18px 0 6px; color: var(--soft); font-weight: 600; }
.card h3 { margin-top: 0; }
p { margin: 0 0 10px; } .soft { color: var(--soft); }
.badge { border-radius: 6px; padding: 6px 14px; font-weight: 600; white-space: nowrap;
  background: var(--plain-bg); }
.badge.pass { background: var(--good-bg); color: var(--good); }
.badge.fail { background: var(--bad-bg); color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px;
  margin-top: 24px; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 14px 16px; }
.tile .name { color: var(--soft); font-size: 13px; }
.tile .value { font-size: 24px; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 12.5px; white-space: nowrap; }
th, td { padding: 7px 12px; border-bottom: 1px solid var(--line); vertical-align: top; }
tbody tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
.nodes td { font-size: 13px; overflow-wrap: anywhere; } .nodes td:first-child { min-width: 130px; }
.nodes td:nth-child(5) { min-width: 150px; } .nodes td:last-child { min-width: 260px; overflow-wrap: normal; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
code, .mono { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: minmax(120px, max-content) 1fr; gap: 4px 20px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
ul { margin: 0; padding-left: 20px; } li { margin: 3px 0; }
details > summary { cursor: pointer; padding: 6px 0; color: var(--accent); }
.charts > :only-child { max-width: 560px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr)); gap: 12px; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
svg .strong { fill: var(--ink); } svg .ours { fill: var(--accent); } svg .base { fill: var(--base); }
svg .area { fill-opacity: .45; stroke-width: 1.5; } svg .ours.area { stroke: var(--accent); }
svg .base.area { stroke: var(--base); } svg .axis { stroke: var(--line); }
.legend { font-size: 13px; color: var(--soft); margin: 0 0 6px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 6px 0 0; }
.legend i + i, .legend span { margin-right: 14px; } .legend .ours { background: var(--accent); }
.legend .base { background: var(--base); }
footer { margin-top: 40px; color: var(--soft); font-size: 13px; }
@media print { main { padding: 0; max-width: none; } .scroll { overflow: visible; } }
"""
