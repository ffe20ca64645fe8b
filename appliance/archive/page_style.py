"""The report's style sheet: system fonts, 8 px grid, one accent; light, dark and paper. No external asset."""

STYLE = """
:root{color-scheme:light dark;--ground:#fff;--raised:#f5f6f8;--ink:#1b2230;--soft:#566074;--line:#d5dae3;
--accent:#1f5fbf;
--green:#1d7a45;--yellow:#9a6200;--red:#b3261e;--none:#566074;--technical:#5b4a9c;--recorded:#8fb3e6;--gap:#1b2230}
@media (prefers-color-scheme:dark){:root{--ground:#12161d;--raised:#1b212b;--ink:#e7ebf2;--soft:#a3adbd;
--line:#343d4b;
--accent:#86b4ff;--green:#63c98d;--yellow:#e8b04a;--red:#ff8a80;--none:#a3adbd;--technical:#b9a8ff;--recorded:#3f679f;
--gap:#e7ebf2}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:32px 24px 48px}
header p{margin:0;color:var(--soft)}
h1{font-size:28px;line-height:1.2;margin:0 0 8px}
h2{font-size:18px;margin:40px 0 8px}
.state{margin:24px 0;padding:16px;border:1px solid var(--line);
border-left:4px solid var(--green);border-radius:4px;background:var(--raised)}
.state.partial{border-left-color:var(--ink)}
.state p{margin:0}
.state .head{font-weight:600}
.state ul{margin:8px 0 0;padding-left:20px}
.notice{margin:16px 0;padding:12px 16px;border:1px solid var(--accent);border-radius:4px;font-weight:600}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:16px 24px;margin:0}
dt{color:var(--soft);font-size:13px}
dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto}
table{width:100%;border-collapse:collapse;font-size:14px}
caption{text-align:left;color:var(--soft);padding-bottom:8px}
th,td{text-align:left;vertical-align:top;padding:8px 16px 8px 0;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600;font-size:13px}
td.time,td.long{white-space:nowrap}
summary{cursor:pointer;color:var(--soft);font-size:13px}
details dl{margin-top:8px}
td small,dd small{color:var(--soft);font-size:13px;display:block}
code{font:12px/1.6 ui-monospace,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
.mark{width:16px;height:16px;vertical-align:-2px;margin-right:6px}
.level{white-space:nowrap}
.green{fill:var(--green);color:var(--green);stroke:var(--green)}
.yellow{fill:var(--yellow);color:var(--yellow);stroke:var(--yellow)}
.red{fill:var(--red);color:var(--red);stroke:var(--red)}
.none{fill:var(--none);color:var(--none);stroke:var(--none)}
.technical{fill:var(--technical);color:var(--technical);stroke:var(--technical)}
.mark circle,.mark path,.timeline g>*{stroke-width:0}
.mark .ring,.timeline g>.ring{fill:none;stroke:inherit;stroke-width:1.8}
.timeline{display:block;width:100%;min-width:720px;height:auto;font-size:13px}
.timeline text{fill:var(--ink)}
.timeline .tick{fill:var(--soft);font-size:12px}
.timeline .grid,.timeline .rule{stroke:var(--line);stroke-width:1}
.timeline .axis{stroke:var(--soft);stroke-width:1}
.recorded{fill:var(--recorded)}
.unwitnessed{fill:var(--recorded);stroke:var(--gap);stroke-width:1.5;stroke-dasharray:3 2}
.finding{fill:var(--technical)}
.gap{fill:var(--ground);stroke:var(--gap);stroke-width:1.5}
.timeline g>.span{stroke:inherit;stroke-width:4;stroke-opacity:.55}
.key{display:flex;flex-wrap:wrap;gap:4px 24px;padding:0;margin:8px 0 0;
list-style:none;color:var(--soft);font-size:13px}
footer{margin-top:40px;padding-top:16px;border-top:1px solid var(--line);color:var(--soft);font-size:13px}
@media print{@page{margin:14mm}:root{color-scheme:light;--ground:#fff;--raised:#fff;--ink:#000;--soft:#444;
--line:#bbb;
--accent:#000;--green:#1d7a45;--yellow:#9a6200;--red:#b3261e;--none:#444;--technical:#5b4a9c;
--recorded:#8fb3e6;--gap:#000}
details::details-content{content-visibility:visible;display:block}
body{font-size:11pt}main{max-width:none;padding:0}.scroll{overflow:visible}.timeline{min-width:0}
tr,.state,.timeline{break-inside:avoid}h2{break-after:avoid}thead{display:table-header-group}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
""".strip()
