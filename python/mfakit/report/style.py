"""The page's style sheet: no fonts, scripts or pictures from elsewhere; light and dark; one column on a phone."""

from __future__ import annotations

__all__ = ["CSS"]

# Blue and vermilion are those of the pictures (Okabe and Ito), lighter on a dark ground.
CSS = """
:root { --ground: #fff; --box: #f4f5f7; --ink: #1b1f24; --soft: #57606a; --line: #d5d9de;
  --yes: #0067a6; --no: #b34700; --open: #5f6770; --link: #0067a6; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --box: #1e2228; --ink: #e7eaee; --soft: #a3acb6;
  --line: #383f48; --yes: #6cb8ec; --no: #ff9a57; --open: #a3acb6; --link: #6cb8ec; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
main, header { max-width: 1160px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 18px; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 2.4em 0 .5em; padding-top: .6em; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; line-height: 1.35; margin: 1.3em 0 .35em; }
p { margin: .4em 0; max-width: 76ch; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible, .picture:focus-visible {
  outline: 2px solid var(--link); outline-offset: 2px; }
ul { margin: .4em 0; padding-left: 1.2em; }
.soft, .soft a { color: var(--soft); } .soft { font-size: .9rem; }
.answer { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 0 36px; }
.answer h2 { border: 0; padding: 0; margin: .7em 0 .2em; font-size: 1.1rem; }
.short ul { list-style: none; padding: 0; margin: .3em 0; }
.short li { display: flex; gap: .6em; align-items: baseline; padding: .08em 0; font-size: .92rem; line-height: 1.35; }
.short .chip { flex: 0 0 7.9em; }
.chip { display: inline-block; text-align: center; font-size: .78rem; font-weight: 600; line-height: 1.5;
  padding: 0 .5em; border: 1px solid currentColor; border-radius: 1em; white-space: nowrap; }
.yes { color: var(--yes); } .no { color: var(--no); } .open { color: var(--open); font-weight: 400; }
.bars { list-style: none; margin: .5em 0; padding: 0; }
.bars li { display: grid; grid-template-columns: 8.6em minmax(0, 1fr) 7.6em; gap: .7em; align-items: center;
  font-size: .92rem; padding: .12em 0; }
.track { position: relative; height: 1.05em; background: var(--box); }
.bar { position: absolute; inset: 0 auto 0 0; background: currentColor; }
.mark { position: absolute; top: -.25em; bottom: -.25em; border-left: 2px solid var(--ink); }
nav { margin-top: 1em; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2em 1.1em; font-size: .92rem; }
.claim { background: var(--box); border-radius: 6px; padding: .2em 1em .6em; }
.claims { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 29rem), 1fr)); gap: 14px; }
.claim h3 { margin: .6em 0 .2em; } .claim .chip { margin-left: .4em; }
.scroll { overflow-x: auto; width: fit-content; max-width: 100%; margin: .5em 0;
  border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: .86rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
th, td { padding: .28em .7em; text-align: left; vertical-align: bottom; white-space: nowrap; }
td { vertical-align: top; } .number { text-align: right; }
th { font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--line); }
tbody + tbody td { border-top: 1px solid var(--line); } tbody + tbody tr + tr td { border-top: 0; }
details { margin: .5em 0; } summary { cursor: pointer; } summary h3 { display: inline; }
figure { margin: 1em 0; }
.picture { overflow-x: auto; max-width: 100%; }
.picture img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .3em; max-width: 90ch; }
dl { margin: .4em 0; font-size: .9rem; } dl div { display: flex; flex-wrap: wrap; gap: 0 .8em; padding: .1em 0; }
dt { color: var(--soft); flex: 0 0 9em; } dd { margin: 0; flex: 1 1 12em; min-width: 0; overflow-wrap: anywhere; }
footer { margin-top: 3em; padding-bottom: 2em; }
@media (max-width: 820px) { .answer { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 520px) { main, header { padding-left: 14px; padding-right: 14px; }
  .bars li { grid-template-columns: minmax(0, 1fr) auto; } .bars .track { grid-column: 1 / -1; grid-row: 2; }
  .bars li { padding: .25em 0; gap: .15em .7em; } dt { flex-basis: 100%; }
  .picture img { max-width: 640px; } }
@media print { .scroll { overflow: visible; } }
"""
