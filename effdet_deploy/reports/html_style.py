"""The look of the HTML report: light and dark, on screen and on paper, no file from elsewhere."""

STYLE = """
:root { --ink:#16202c; --soft:#5b6878; --line:#dfe5ec; --card:#fff; --page:#f4f6f9;
  --band:#f1f4f8; --accent:#2f5fd0; --both:#1f9d6b; --missed:#d13b4f; --extra:#e08a00;
  --good:#1f9d6b; --bad:#d13b4f; --open:#b87900; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6ebf2; --soft:#98a5b5; --line:#2c3644;
  --card:#1a212b; --page:#11161d; --band:#202934; --accent:#7da2ff; --both:#43c791;
  --missed:#ff6b7d; --extra:#ffb347; --good:#43c791; --bad:#ff6b7d; --open:#ffb347; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--page); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif; }
main { max-width:1140px; margin:0 auto; padding:36px 24px 72px; }
header p, .note { color:var(--soft); margin:4px 0 0; }
h1 { font-size:27px; margin:0; letter-spacing:-.01em; }
h2 { font-size:21px; margin:44px 0 14px; display:flex; gap:12px; align-items:center;
  flex-wrap:wrap; overflow-wrap:anywhere; }
h3 { font-size:15px; margin:0 0 10px; }
.card { background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:18px 20px; margin:14px 0; overflow-x:auto; }
.grid2 { display:grid; grid-template-columns:repeat(auto-fit,minmax(330px,1fr)); gap:14px; }
.grid2 > .card { margin:0; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
th { text-align:right; font-weight:600; color:var(--soft); font-size:13px; padding:4px 10px; }
td { text-align:right; padding:6px 10px; border-top:1px solid var(--line); }
th:first-child, td:first-child { text-align:left; padding-left:0; overflow-wrap:anywhere; }
td.zero { color:var(--soft); opacity:.6; }
tr.first td { color:var(--bad); font-weight:600; }
code { font:13px/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace; }
.badge { font-size:13px; font-weight:600; padding:2px 11px; border-radius:99px; color:#fff; }
.badge.passed { background:var(--good); } .badge.failed { background:var(--bad); }
.badge.inconclusive { background:var(--open); }
@media (prefers-color-scheme: dark) { .badge { color:#11161d; } }
.causes { border-left:4px solid var(--open); }
.causes ul { margin:0; padding-left:18px; } .causes li { margin:3px 0; overflow-wrap:anywhere; }
a { color:var(--accent); text-decoration:none; } a:hover { text-decoration:underline; }
svg { width:100%; height:auto; display:block; }
svg text { fill:var(--soft); font-size:12px; }
svg .grid { stroke:var(--line); } svg .band { fill:var(--band); }
svg .part { font-weight:600; fill:var(--ink); }
svg .layer { fill:var(--accent); } svg circle.first { fill:var(--bad); }
svg text.first { fill:var(--bad); font-weight:600; }
svg line.limit { stroke:var(--open); stroke-dasharray:6 4; } svg text.limit { fill:var(--open); }
svg .diagonal { stroke:var(--soft); stroke-dasharray:3 4; opacity:.6; }
svg circle.pair { fill:var(--both); opacity:.45; } svg circle.missed { fill:var(--missed); }
svg circle.extra { fill:var(--extra); } svg .bar { fill:var(--accent); }
.gallery { display:grid; grid-template-columns:repeat(auto-fill,minmax(330px,1fr)); gap:14px; }
figure { margin:0; background:var(--card); border:1px solid var(--line); border-radius:12px;
  overflow:hidden; break-inside:avoid; }
figcaption { padding:9px 14px 11px; font-size:13px; color:var(--soft); }
figcaption b { color:var(--ink); margin-right:6px; }
.picture { position:relative; } .picture img { display:block; width:100%; }
.picture svg { position:absolute; inset:0; height:100%; }
.picture rect { fill:transparent; stroke-width:2; vector-effect:non-scaling-stroke; }
.picture rect.pair { stroke:#27d08d; } .picture rect.missed { stroke:#ff3b57; stroke-width:2.5; }
.picture rect.extra { stroke:#ffa51f; stroke-width:2.5; stroke-dasharray:7 4; }
.picture rect:hover { fill:#ffffff38; }
.key { display:flex; gap:18px; flex-wrap:wrap; color:var(--soft); font-size:13px; margin:0 0 12px; }
.key i { display:inline-block; width:20px; border-top:3px solid; vertical-align:middle;
  margin-right:7px; }
.key .pair { color:var(--both); } .key .missed { color:var(--missed); }
.key .extra { color:var(--extra); border-top-style:dashed; }
@media print { body { background:#fff; } main { max-width:none; padding:0; }
  .card, figure { break-inside:avoid; } }
"""
