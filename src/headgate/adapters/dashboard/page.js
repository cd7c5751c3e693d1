"use strict";

// The figures come as documents (docs/dashboard.md), by a stream or, where there is none, by polling. Everything
// foreign becomes text of a node or a number of an attribute, never markup.

const POINTS = 300;
const SPANS = [60, 120, POINTS];
const POLL = 2000;
const STALE = 5000;
const STEP = 120;
const COLORS = 6;
const CURVES = 24; // as many as there are in a document
const ROWS = 100;
const SVG = "http://www.w3.org/2000/svg";

const past = [];
let paused = false;
let polling = null;
let newest = null;
let arrived = 0;

// ---- numbers as text

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

function isNumber(value) { return typeof value === "number" && Number.isFinite(value); }

function count(value) {
  if (!isNumber(value)) return "–";
  return Math.abs(value) < 10000 ? plain.format(value) : short.format(value);
}

function amount(value) {
  if (!isNumber(value)) return "–";
  return Math.abs(value) < 10 && value !== Math.round(value) ? value.toFixed(1) : count(value);
}

function rate(value) { return isNumber(value) ? `${amount(value)}/s` : "–"; }

function percent(value, digits = 1) {
  return isNumber(value) ? `${(100 * value).toFixed(digits).replace("-", "−")} %` : "–";
}

function target(value) { return isNumber(value) ? `${Number((100 * value).toPrecision(8))} %` : "–"; }

function milliseconds(value) {
  if (!isNumber(value) || value === 0) return "–";
  return value < 1 ? `${(1000 * value).toPrecision(3)} ms` : `${value.toPrecision(3)} s`;
}

function bytes(value) {
  if (!isNumber(value)) return "–";
  for (const [size, unit] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (value >= size) return `${(value / size).toPrecision(3)} ${unit}`;
  }
  return `${value} B`;
}

function windowOf(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Number((seconds / size).toPrecision(3))} ${unit}`;
  }
  return `${seconds} s`;
}

function sum(values) { return Object.values(values || {}).filter(isNumber).reduce((all, each) => all + each, 0); }

function of(values, name) { return (values || {})[name]; }

function share(part, rest) { return part + rest > 0 ? part / (part + rest) : null; }

// ---- nodes, which are kept and changed only where something differs, so that selections and readers stay

function set(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

function text(node, value) {
  if (node.textContent !== String(value)) node.textContent = value;
  return node;
}

function child(parent, at, tag, namespace) {
  let node = parent.children[at];
  if (!node || node.localName !== tag) {
    const made = namespace ? document.createElementNS(namespace, tag) : document.createElement(tag);
    if (node) parent.replaceChild(made, node);
    else parent.append(made);
    node = made;
  }
  return node;
}

function trim(parent, length) {
  while (parent.children.length > length) parent.lastElementChild.remove();
}

function byId(id) { return document.getElementById(id); }

function part(parent, name, tag) {
  let node = parent.querySelector(`:scope > [data-part="${name}"]`);
  if (!node) {
    node = document.createElement(tag);
    node.dataset.part = name;
    parent.append(node);
  }
  return node;
}

// Parts of rows that are no more, whose names end with a number.
function trimParts(section, length) {
  for (const node of section.querySelectorAll(":scope > [data-part]")) {
    const number = /\d+$/.exec(node.dataset.part);
    if (number && Number(number[0]) >= length) node.remove();
  }
}

// The rows that are shown, below how many there are if that is more.
function first(section, name, rows) {
  const note = part(section, name, "p");
  note.className = "about more";
  note.hidden = rows.length <= ROWS;
  text(note, `The first ${ROWS} of ${plain.format(rows.length)}.`);
  return rows.slice(0, ROWS);
}

function badge(node, value, kind) {
  text(node, value);
  if (node.className !== `badge ${kind}`) node.className = `badge ${kind}`;
}

function bar(parent, value, over) {
  const track = child(parent, 0, "span");
  track.className = over ? "bar over" : "bar";
  child(track, 0, "span").style.width = `${Math.min(100, Math.max(0, 100 * (value || 0)))}%`;
}

// ---- tables: columns are [title, how a row shows it, class], the first one the header of the row

function table(section, name, caption, columns, all) {
  const rows = first(section, `more-${name}`, all);
  const node = part(section, name, "table");
  text(child(node, 0, "caption"), caption).className = "unseen";
  const head = child(child(node, 1, "thead"), 0, "tr");
  columns.forEach(([title, , kind], at) => {
    const cell = text(child(head, at, "th"), title);
    cell.className = kind || (at ? "number" : "");
    cell.scope = "col";
  });
  trim(head, columns.length);
  const body = child(node, 2, "tbody");
  rows.forEach((row, at) => {
    const line = child(body, at, "tr");
    if (line.children.length !== columns.length) line.replaceChildren();
    columns.forEach(([, show, kind], position) => {
      const cell = child(line, position, position ? "td" : "th");
      if (!position) cell.scope = "row";
      cell.className = kind || (position ? "number" : "");
      const shown = show(row, cell, at);
      if (shown !== undefined) text(cell, shown);
    });
  });
  trim(body, rows.length);
}

// A name after the color of its line in the chart.
function named(node, name, color) {
  const swatch = child(node, 0, "svg", SVG);
  set(swatch, "class", "swatch");
  set(swatch, "viewBox", "0 0 14 8");
  set(swatch, "aria-hidden", "true");
  const line = child(swatch, 0, "line", SVG);
  for (const [key, value] of [["x1", 1], ["x2", 13], ["y1", 4], ["y2", 4]]) set(line, key, value);
  set(line, "class", `s${color % COLORS}`);
  text(child(node, 1, "span"), name);
}

function swatched(name) {
  return (row, cell, at) => (at < CURVES ? named(cell, name(row), at) : name(row));
}

function barred(value, over) { return (row, cell) => bar(cell, value(row), over && over(row)); }

// ---- charts

function values(kind, name) {
  return past.map((point) => [point.at, of(of(point.series, kind), name)]);
}

function niceTop(most) {
  if (!(most > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((top) => top >= most);
}

function chart(section, caption, names, lines, show, fixedTop) {
  const node = part(section, "chart", "figure");
  text(child(node, 0, "figcaption"), caption).className = "about";
  const drawing = child(node, 1, "svg", SVG);
  const width = Math.max(200, Math.round(node.clientWidth)), height = 150, left = 44, bottom = 20, top = 8;
  set(drawing, "class", "chart");
  set(drawing, "viewBox", `0 0 ${width} ${height}`);
  set(drawing, "role", "img");
  set(drawing, "aria-label", `${caption}: ${names.slice(0, CURVES).join(", ")}`);
  const all = lines.flatMap((line) => line.values.map(([, value]) => value)).filter(isNumber);
  const most = fixedTop || niceTop(Math.max(...all, 0)), every = newest.every;
  const begin = past[0].at, end = past[past.length - 1].at;
  const span = every * (SPANS.find((each) => each * every >= end - begin) || POINTS);
  const x = (at) => left + (width - left - 4) * (1 - (end - at) / span);
  const y = (value) => height - bottom - (height - bottom - top) * Math.min(1, value / most);
  let next = 0;
  for (const part of [0, 0.5, 1]) {
    const rule = child(drawing, next++, "line", SVG);
    set(rule, "class", "rule");
    for (const [key, value] of [["x1", left], ["x2", width - 4], ["y1", y(part * most)], ["y2", y(part * most)]]) {
      set(rule, key, value.toFixed(1));
    }
    next = axisText(drawing, next, left - 7, y(part * most) + 4, "end", show(part * most));
  }
  next = axisText(drawing, next, left, height - 4, "start", `${windowOf(span)} ago`);
  next = axisText(drawing, next, width - 4, height - 4, "end", "now");
  for (const line of lines) {
    const path = child(drawing, next++, "path", SVG);
    set(path, "class", `curve s${line.color % COLORS}${line.bound ? " bound" : ""}`);
    set(path, "d", pathOf(line.values, x, y, left, every));
  }
  trim(drawing, next);
}

function axisText(drawing, at, x, y, anchor, value) {
  const node = text(child(drawing, at, "text", SVG), value);
  set(node, "x", x);
  set(node, "y", y.toFixed(1));
  set(node, "text-anchor", anchor);
  return at + 1;
}

// A line is broken where a value is absent, and where nothing was read for long.
function pathOf(points, x, y, left, every) {
  let path = "", before = null;
  for (const [at, value] of points) {
    if (!isNumber(value) || x(at) < left) {
      before = null;
      continue;
    }
    const joined = before !== null && at - before < 5 * every + 5;
    path += `${joined ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    if (!joined) path += `h0.01`;
    before = at;
  }
  return path || "M0 0";
}

function curves(kind, names) {
  return names.slice(0, CURVES).map((name, color) => ({ color, values: values(kind, name) }));
}

// ---- cards

function card(id, title, rows, fill) {
  let section = byId(id);
  if (!rows.length) {
    if (section) section.hidden = true;
    return;
  }
  if (!section) {
    section = document.createElement("section");
    section.id = id;
    section.setAttribute("aria-labelledby", `${id}-title`);
    text(child(section, 0, "h2"), title).id = `${id}-title`;
    byId("cards").append(section);
  }
  section.hidden = false;
  const shown = first(section, "more", rows);
  trimParts(section, shown.length);
  fill(section, shown);
}

function fullName(row) { return row.level ? `${row.name}: ${row.level}` : row.name; }

function ratioNow(row) { return of(newest.series.hit_ratio, row.name); }

function hitsAndMisses(row) {
  if (row.requests === undefined) return [row.hits, row.misses];
  return [of(row.requests, "hit") + of(row.requests, "stale"),
    of(row.requests, "miss") + of(row.requests, "revalidation")];
}

function lookups(row) {
  if (row.requests_per_second) return sum(row.requests_per_second);
  return row.hits_per_second + row.misses_per_second;
}

function size(row, show = count) {
  if (row.size === undefined) return count(row.entries);
  return row.max_size === undefined ? show(row.size) : `${show(row.size)} of ${show(row.max_size)}`;
}

function showCaches(section, rows) {
  const names = rows.map((row) => row.name);
  chart(section, "Hit ratio", names, curves("hit_ratio", names), (value) => percent(value, 0), 1);
  table(section, "table", "Caches", [
    ["cache", swatched((row) => row.name)],
    ["hit ratio now", (row) => percent(ratioNow(row))],
    ["since start", (row) => percent(share(...hitsAndMisses(row)))],
    ["lookups", (row) => rate(lookups(row))],
    ["size", (row) => size(row, row.requests ? bytes : count), "number wide"],
    ["evicted", (row) => rate(row.evictions_per_second), "number wider"],
  ], rows);
}

function showLimits(section, rows) {
  const names = rows.map(fullName);
  chart(section, "Denied requests", names, curves("denied", names), rate);
  table(section, "table", "Limits", [
    ["limit", swatched(fullName)],
    ["allowed", (row) => rate(of(row.requests_per_second, "allowed"))],
    ["denied", (row) => rate(of(row.requests_per_second, "denied"))],
    ["share denied", (row) => percent(share(
      of(row.requests_per_second, "denied"), of(row.requests_per_second, "allowed")))],
    ["denied since start", (row) => count(of(row.requests, "denied")), "number wide"],
  ], rows);
}

function showKeys(about) {
  return (section, rows) => {
    text(part(section, "about", "p"), about).className = "about";
    rows.forEach((row, at) => {
      text(part(section, `title${at}`, "h3"), fullName(row));
      const most = row.keys.length ? row.keys[0].count : 1;
      table(section, `keys${at}`, fullName(row), [
        ["key", (key) => key.key],
        ["count", (key) => (key.error ? `${count(key.count - key.error)} – ${count(key.count)}` : count(key.count))],
        ["share", barred((key) => key.count / most), "bars"],
      ], row.keys);
    });
  };
}

function showBalancers(section, rows) {
  rows.forEach((row, at) => {
    const title = part(section, `title${at}`, "h3");
    const healthy = of(row.servers, "healthy") || 0, all = sum(row.servers);
    text(child(title, 0, "span"), row.name);
    badge(child(title, 1, "span"), `${healthy} of ${all} healthy`, healthy === all ? "good" : healthy ? "warn" : "bad");
    const load = row.requests_per_second || row.inflight || {};
    const most = Math.max(...Object.values(load).filter(isNumber), 0) || 1;
    const requests = ["requests", (server) => rate(of(row.requests_per_second, server))];
    table(section, `servers${at}`, `Servers of ${row.name}`, [
      ["server", (server) => server.replace(/^https?:\/\//, "")],
      ["in flight", (server) => count(of(row.inflight, server))],
      ...(row.requests_per_second ? [requests] : []),
      ["latency", (server) => milliseconds(of(row.latency, server)), "number wide"],
      ["state", (server, cell) => {
        const isHealthy = of(row.healthy, server) === 1;
        badge(child(cell, 0, "span"), isHealthy ? "healthy" : "out", isHealthy ? "good" : "bad");
      }],
      ["load", barred((server) => of(load, server) / most), "bars wide"],
    ], Object.keys(row.weight || {}).sort());
  });
}

function showObjectives(section, rows) {
  rows.forEach((row, at) => {
    const name = row.name, left = row.error_budget;
    const firing = Object.entries(row.alert_firing || {}).filter(([, fires]) => fires)
      .map(([rule]) => rule.replace(/ \S+ \S+$/, ""));
    const title = part(section, `title${at}`, "h3");
    named(title, name, at);
    badge(child(title, 2, "span"), firing.length ? `firing: ${[...new Set(firing)].join(", ")}` : "no alert",
      firing.includes("page") ? "bad" : firing.length ? "warn" : "good");
    const budget = part(section, `budget${at}`, "div");
    budget.className = "budget";
    const line = child(budget, 0, "div");
    line.className = "line";
    text(child(line, 0, "span"), `${percent(left)} of the error budget left`);
    text(child(line, 1, "span"), `${isNumber(row.availability) ? (100 * row.availability).toFixed(3) : "–"} % of ${target(row.target)}`)
      .className = "about";
    bar(child(budget, 1, "div"), left, left < 0.2);
    const windows = Object.entries(row.burn_rate || {}).sort(([a], [b]) => a - b);
    text(child(budget, 2, "p"), `Burn rate: ${windows.map(([seconds, burn]) =>
      `${amount(burn)}× in ${windowOf(Number(seconds))}`).join(", ")}`).className = "about";
  });
  const names = rows.map((row) => row.name);
  chart(section, "Burn rate in the shortest window", names, curves("burn", names), (value) => `${amount(value)}×`);
}

function showConcurrency(section, rows) {
  const names = rows.map((row) => row.name);
  const bounds = curves("limit", names).map((line) => ({ ...line, bound: true }));
  chart(section, "Requests in flight, and their limit (dashed)", names, [...curves("inflight", names), ...bounds], count);
  table(section, "table", "Concurrency", [
    ["limiter", swatched((row) => row.name)],
    ["in flight", (row) => count(row.inflight)],
    ["limit", (row) => count(row.limit)],
    ["used", (row) => percent(row.inflight / row.limit, 0)],
    ["denied", (row) => rate(row.denied_per_second), "number wide"],
    ["latency", (row) => milliseconds(row.latency), "number wide"],
  ], rows);
}

function showShedding(section, rows) {
  const lines = rows.flatMap((row) => [...new Set(Object.keys(row.requests).map((each) => each.replace(/ ?\S+$/, "")))]
    .map((priority) => ({ row, priority })));
  const at = (line, outcome) => of(line.row.requests_per_second, line.priority ? `${line.priority} ${outcome}` : outcome);
  table(section, "table", "Shedding", [
    ["priority", (line) => (line.priority ? `${line.row.name}: ${line.priority}` : line.row.name)],
    ["admitted", (line) => rate(at(line, "admitted"))],
    ["shed", (line) => rate(at(line, "shed"))],
  ], lines);
}

function showStores(section, rows) {
  table(section, "table", "Stores", [
    ["limit", (row) => row.name],
    ["calls", (row) => rate(row.calls_per_second)],
    ["failures", (row) => rate(row.failures_per_second)],
    ["degraded", (row) => rate(row.degraded_per_second)],
    ["breakers open", (row) => count(row.open_breakers), "number wide"],
  ], rows);
}

function showPlacements(section, rows) {
  rows.forEach((row, at) => {
    text(part(section, `title${at}`, "h3"), `${row.name}: ${count(row.nodes)} nodes`);
    const shares = row.share || {}, most = Math.max(...Object.values(shares).filter(isNumber), 0) || 1;
    const nodes = Object.keys(shares).sort((a, b) => shares[b] - shares[a]).slice(0, 12);
    table(section, `nodes${at}`, `Nodes of ${row.name}`, [
      ["node", (node) => node],
      ["share of keys", (node) => percent(shares[node])],
      ["relative", barred((node) => shares[node] / most), "bars"],
    ], nodes);
  });
}

function showOthers(section, rows) {
  table(section, "table", "Other objects", [
    ["object", (row) => row.name], ["figure", (row) => row.figure], ["share", barred((row) => row.share), "bars"],
  ], rows);
}

function others(data) {
  return [
    ...data.buckets.map((row) => ({ name: row.name, share: row.available / row.capacity,
      figure: `${amount(row.available)} of ${amount(row.capacity)} tokens` })),
    ...data.throttles.map((row) => ({ name: row.name, share: row.rejection_probability,
      figure: `${percent(row.rejection_probability)} rejected here` })),
    ...data.retry_budgets.map((row) => ({ name: row.name, share: null, figure: `${amount(row.balance)} retries left` })),
  ];
}

// ---- the page

function showProblems(problems) {
  const list = byId("attention").querySelector("ul");
  const found = problems.length ? problems : [{ severity: "good", text: "Nothing needs attention." }];
  const shown = first(byId("attention"), "more", found);
  shown.forEach((problem, at) => {
    const item = child(list, at, "li");
    const kind = { critical: "bad", warning: "warn", good: "good" }[problem.severity];
    badge(child(item, 0, "span"), problem.severity, kind);
    text(child(item, 1, "span"), problem.text);
  });
  trim(list, shown.length);
}

// A request that several levels of a limit decide on is one: of the levels the one with the most counts.
function most(limits, outcome) {
  const found = new Map();
  for (const row of limits) {
    found.set(row.name, Math.max(found.get(row.name) || 0, of(row.requests_per_second, outcome) || 0));
  }
  return sum([...found.values()]);
}

function showTotals(data) {
  const caches = [...data.caches, ...data.near, ...data.http_caches];
  const all = caches.map(hitsAndMisses).reduce((a, b) => [a[0] + b[0], a[1] + b[1]], [0, 0]);
  const allowed = most(data.limits, "allowed"), denied = most(data.limits, "denied");
  const worst = data.objectives.reduce((least, row) => (least && least.error_budget <= row.error_budget ? least : row), null);
  const inflight = data.concurrency.reduce((total, row) => total + (row.inflight || 0), 0);
  const known = data.interval !== null;
  const totals = [
    caches.length && ["Hit ratio", percent(share(...all)), known ? `${rate(caches.reduce((a, row) => a + lookups(row), 0))} lookups` : ""],
    Object.keys(data.series.allowed).length && ["Allowed", rate(allowed), "by all limits"],
    Object.keys(data.series.denied).length && ["Denied", rate(denied), `${percent(share(denied, allowed))} of requests`],
    data.concurrency.length && ["In flight", count(inflight),
      `limit ${count(data.concurrency.reduce((total, row) => total + (row.limit || 0), 0))}`],
    worst && ["Least error budget", percent(worst.error_budget), worst.name],
  ].filter(Boolean);
  const list = byId("totals").querySelector("dl");
  totals.forEach(([title, value, more], at) => {
    const group = child(list, at, "div");
    group.className = "total";
    text(child(group, 0, "dt"), title);
    text(child(group, 1, "dd"), value);
    text(child(group, 2, "dd"), more);
  });
  trim(list, totals.length);
  byId("totals").hidden = totals.length === 0;
}

function show() {
  const data = newest;
  text(byId("process"), `${data.host}, process ${data.process}`);
  text(byId("version"), `headgate ${data.headgate}, ${data.backend}`);
  showProblems(data.problems);
  showTotals(data);
  card("caches", "Hit ratios", [...data.caches, ...data.near, ...data.http_caches], showCaches);
  card("limits", "Rate limits", data.limits.filter((row) => row.requests), showLimits);
  card("denied", "Who is denied", data.denied.filter((row) => row.keys.length),
    showKeys("Denials of each key, halved every five minutes."));
  card("balancers", "Balance of servers", data.balancers, showBalancers);
  card("objectives", "Objectives", data.objectives, showObjectives);
  card("concurrency", "Concurrency", data.concurrency, showConcurrency);
  card("hotkeys", "Hottest keys", data.hotkeys.filter((row) => row.keys.length),
    showKeys("Counts, or their bounds where a key may have been counted for another."));
  card("shedding", "Shedding", data.shedding, showShedding);
  card("stores", "Stores", data.stores, showStores);
  card("placements", "Placement of keys", data.placements, showPlacements);
  card("others", "Buckets and budgets", others(data), showOthers);
  byId("nothing").hidden = byId("cards").querySelector("section:not([hidden])") !== null;
}

function add(data) {
  const ahead = past.length ? past[past.length - 1].at - data.at : -1;
  if (ahead >= 0 && ahead < STEP) return; // polled twice, or of another worker
  if (ahead >= STEP) past.length = 0; // the clock of the host was set back
  past.push({ at: data.at, series: data.series });
  if (past.length > POINTS) past.shift();
}

function take(data) {
  arrived = Date.now();
  newest = data;
  add(data);
  if (!paused) show();
  showState();
}

function showState() {
  const age = Date.now() - arrived;
  const kind = paused ? ["Paused", "warn"] : !arrived ? ["Connecting", "warn"]
    : age > STALE + 2000 * newest.every ? ["No news", "bad"] : polling ? ["Polling", "good"] : ["Live", "good"];
  badge(byId("state"), ...kind);
  if (arrived) text(byId("updated"), new Date(1000 * newest.at).toLocaleTimeString("en-GB"));
}

async function poll() {
  try {
    const response = await fetch("data.json", { cache: "no-store" });
    if (response.ok) take(await response.json());
    else if (response.status === 403) badge(byId("state"), "Forbidden", "bad");
  } catch {
    showState();
  }
}

function follow() {
  const stream = new EventSource("events");
  stream.addEventListener("past", (message) => {
    past.length = 0;
    JSON.parse(message.data).forEach(add);
  });
  stream.addEventListener("message", (message) => {
    if (polling) {
      clearInterval(polling);
      polling = null;
    }
    take(JSON.parse(message.data));
  });
  stream.addEventListener("error", () => {
    if (stream.readyState === EventSource.CLOSED && !polling) {
      poll();
      polling = setInterval(poll, POLL);
    }
  });
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  set(byId("pause"), "aria-pressed", paused);
  text(byId("pause"), paused ? "Resume" : "Pause");
  if (newest && !paused) show();
  showState();
});
window.addEventListener("resize", () => { if (newest) show(); });
setInterval(showState, 1000);
follow();
