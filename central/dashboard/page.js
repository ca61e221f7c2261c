"use strict";
// The dashboard's page: reads `events` and keeps one card for each factory up to date, with problems first.
// Every value of a factory passes `sane`, so that an invalid value becomes unknown and raises no exception.
// Values enter the page only through textContent.

const SILENT_MS = 25000, REOPEN_MS = 5000, UNKNOWN = "–", SVG = "http://www.w3.org/2000/svg";
const STATES = ["offline", "late", "running"], WELL = ["", "running", "operational", "starting", "stopping"];
const THEMES = ["auto", "light", "dark"];
const FACTS = [["experiments", "experiments"], ["device", "device"], ["trained", "last training"], ["place", "at"]];
const ATTENTION = "attention", MINUTE = 60, MOST_PERCENT = 1e6, LONGEST = 300, MOST_NAMES = 1000;
const order = new Intl.Collator("en", { numeric: true }).compare;
const at = (id) => document.getElementById(id);

const factories = new Map(), cards = new Map(), sections = new Map();
let serverAhead = 0, heardAt = 0, openedAt = 0, source = null, chosenState = "", words = [];

// --- small things ---

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function drawn(tag, className, parent) {
  const node = document.createElementNS(SVG, tag);
  node.setAttribute("class", className);
  parent.append(node);
  return node;
}

/** Set a text only if it changes: an unchanged text costs the browser nothing. */
function setText(node, text) {
  if (node.shownText !== text) node.textContent = node.shownText = text;
}

function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 129600 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
}

const present = () => Date.now() + serverAhead;
const since = (moment) => span((present() - Date.parse(moment)) / 1000);
const isMoment = (value) => typeof value === "string" && !Number.isNaN(Date.parse(value));

/** "5 min ago"; or the factory's own text if it is not a time. */
function ago(moment) {
  if (!moment) return UNKNOWN;
  return isMoment(moment) ? `${since(moment)} ago` : moment;
}

// --- values from outside ---

const asObject = (value) => (value !== null && typeof value === "object" ? value : {});
const asNumber = (value) => (Number.isFinite(value) ? value : null);
const asMoment = (value) => (isMoment(value) ? value : null);

function asText(value) {
  if (typeof value === "string") return value.slice(0, LONGEST);
  return Number.isFinite(value) ? String(value) : "";
}

function asExperiments(value) {
  return Array.isArray(value) ? value.slice(0, MOST_NAMES).map(asText) : asNumber(value);
}

function asRecent(value) {
  const { until, cpu } = asObject(value);
  return { until: asNumber(until) ?? 0, cpu: Array.isArray(cpu) ? cpu.slice(-MINUTE).map(asNumber) : [] };
}

/** A factory whose fields all have the types that the page expects; null without a name. */
function sane(value) {
  const { factory_name, load, port, ...more } = asObject(value);
  if (typeof factory_name !== "string") return null;
  const { cpu_usage, memory_usage } = asObject(load);
  const texts = ["reported_status", "hostname", "device", "region", "location", "last_training_completion"];
  return {
    factory_name: asText(factory_name),
    status: STATES.includes(more.status) ? more.status : "offline",
    ...Object.fromEntries(texts.map((key) => [key, asText(more[key])])),
    port: asNumber(port),
    load: { cpu_usage: asNumber(cpu_usage), memory_usage: asNumber(memory_usage) },
    last_seen: asMoment(more.last_seen),
    last_heartbeat: asMoment(more.last_heartbeat),
    active_experiments: asExperiments(more.active_experiments),
    recent_load: asRecent(more.recent_load),
  };
}

// --- one factory ---

const unwell = (factory) => factory.status === "running" && !WELL.includes(factory.reported_status);
const group = (factory) => (factory.status !== "running" || unwell(factory) ? ATTENTION : `region ${factory.region}`);
const rank = (factory) => STATES.indexOf(factory.status);

function experiments(names) {
  if (!Array.isArray(names)) return names === null ? UNKNOWN : String(names);
  return names.length ? `${names.length}: ${names.join(", ")}` : "none";
}

function percent(value) {
  return typeof value === "number" && value >= 0 && value <= MOST_PERCENT ? `${Math.round(value)} %` : UNKNOWN;
}

/** The status; for a running factory that reports a problem, its own word for it. */
const stateText = (factory) => (unwell(factory) ? factory.reported_status : factory.status);

/** The last status that a factory reported itself, if it says more than its status does. */
function reportedText(factory) {
  return unwell(factory) || ["", "running", "operational"].includes(factory.reported_status) ? "" : `last reported: ${factory.reported_status}`;
}

function beatText(factory) {
  if (factory.status === "running") return factory.last_heartbeat ? `heartbeat ${ago(factory.last_heartbeat)}` : "no heartbeat yet";
  return factory.last_seen ? `no heartbeat for ${since(factory.last_seen)}` : "no heartbeat known";
}

function newCard(name) {
  const node = element("li", "card"), facts = element("dl", "facts"), card = { node, factory: null };
  node.dataset.name = name;
  card.name = element("h3", "", name);
  card.name.title = name;
  card.state = element("span", "status");
  card.beat = element("span", "beat");
  card.reported = element("span", "said");
  const spark = drawn("svg", "spark", node);
  spark.setAttribute("viewBox", "0 0 59 20");
  spark.setAttribute("preserveAspectRatio", "none");
  spark.setAttribute("role", "img");
  spark.setAttribute("aria-label", "CPU, the last hour");
  drawn("path", "floor", spark).setAttribute("d", "M0 20H59");
  card.area = drawn("path", "area", spark);
  card.line = drawn("path", "line", spark);
  card.load = element("span", "load");
  card.cpu = element("span", "cpu");
  card.memory = element("small", "memory");
  card.load.append(card.cpu, document.createElement("br"), card.memory);
  for (const [key, title] of FACTS) {
    card[key] = element("dd", key);
    facts.append(element("dt", key, title), card[key]);
  }
  node.append(card.name, card.state, card.beat, card.reported, spark, card.load, facts);
  return card;
}

function fill(card, factory) {
  card.factory = factory;
  const look = unwell(factory) ? "unwell" : factory.status;
  card.node.className = `card ${look}`;
  card.node.dataset.status = factory.status;
  card.state.className = `status ${look}`;
  setText(card.state, stateText(factory));
  setText(card.reported, reportedText(factory));
  const load = factory.status === "offline" ? null : factory.load;
  setText(card.cpu, `CPU ${percent(load?.cpu_usage)}`);
  setText(card.memory, `memory ${percent(load?.memory_usage)}`);
  setText(card.device, factory.device || UNKNOWN);
  setText(card.experiments, experiments(factory.active_experiments));
  card.experiments.title = card.experiments.shownText;
  const region = group(factory) === ATTENTION ? factory.region : "";
  const address = [factory.hostname, factory.port].filter(Boolean).join(":");
  setText(card.place, [region, factory.location, address].filter(Boolean).join(" · "));
  card.place.title = card.place.shownText;
  card.text = [factory.factory_name, factory.region, factory.location, factory.device, factory.hostname, factory.status,
    factory.reported_status, experiments(factory.active_experiments)].join(" ").toLowerCase();
  age(card);
}

/** The parts that change with time alone. */
function age(card) {
  setText(card.beat, beatText(card.factory));
  setText(card.trained, ago(card.factory.last_training_completion));
  spark(card);
}

function spark(card) {
  const { until, cpu } = card.factory.recent_load, minute = Math.floor(present() / 1000 / MINUTE);
  const key = `${minute} ${until} ${cpu.join()}`;
  if (card.sparked === key) return;
  card.sparked = key;
  const last = 59 - (minute - until / MINUTE);
  const points = cpu.map((value, place) => [last - (cpu.length - 1 - place), value]);
  const runs = [[]];
  for (const [x, value] of points) {
    if (value === null || x < 0 || x > 59) runs.push([]);
    else runs.at(-1).push(`${x} ${(20 - Math.min(100, Math.max(0, value)) / 5).toFixed(1)}`);
  }
  const some = runs.filter((run) => run.length);
  card.line.setAttribute("d", some.map((run) => `M${run[0]}L${(run.length > 1 ? run : [run[0], run[0]]).join("L")}`).join(""));
  card.area.setAttribute("d", some.map((run) => `M${run[0].split(" ")[0]} 20L${run.join("L")}V20Z`).join(""));
}

// --- all factories ---

function compare(one, other) {
  return rank(one) - rank(other) || order(one.factory_name, other.factory_name);
}

const matches = (card) =>
  (!chosenState || card.factory.status === chosenState) && words.every((word) => card.text.includes(word));

/** The sections in order, each with its cards in order. */
function grouped() {
  const groups = new Map();
  for (const card of cards.values()) {
    if (!matches(card)) continue;
    const key = group(card.factory);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(card);
  }
  const keys = [...groups.keys()].sort((a, b) =>
    (b === ATTENTION) - (a === ATTENTION) || (a === "region ") - (b === "region ") || order(a, b));
  return keys.map((key) => [key, groups.get(key).sort((a, b) => compare(a.factory, b.factory))]);
}

function section(key) {
  if (!sections.has(key)) {
    const parts = { node: element("section", key === ATTENTION ? ATTENTION : "region"), list: element("ul", "cards") };
    parts.title = element("span");
    parts.count = element("small");
    const head = element("h2");
    head.append(parts.title, parts.count);
    parts.node.append(head, parts.list);
    sections.set(key, parts);
  }
  return sections.get(key);
}

function title(key, only) {
  if (key === ATTENTION) return "Needs attention";
  return key === "region " ? (only ? "Running" : "No region") : key.slice("region ".length);
}

function inAttention(region) {
  let count = 0;
  for (const factory of factories.values()) if (factory.region === region && group(factory) === ATTENTION) count += 1;
  return count;
}

function countText(key, shown) {
  const number = shown.length === 1 ? "1 factory" : `${shown.length} factories`;
  const wrong = key === ATTENTION ? 0 : inAttention(key.slice("region ".length));
  return wrong ? `${number} running, ${wrong} above` : number;
}

/** Put nodes into a parent in this order, and move only those that are elsewhere. */
function place(parent, nodes) {
  let next = parent.firstChild;
  for (const node of nodes) {
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
  while (next) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}

function arrange() {
  const groups = grouped(), shown = groups.reduce((sum, [, some]) => sum + some.length, 0);
  const regions = groups.filter(([key]) => key !== ATTENTION);
  for (const [key, some] of groups) {
    const parts = section(key);
    setText(parts.title, title(key, regions.length === 1));
    setText(parts.count, countText(key, some));
    place(parts.list, some.map((card) => card.node));
  }
  place(at("board"), groups.map(([key]) => section(key).node));
  for (const key of [...sections.keys()]) if (!groups.some(([kept]) => kept === key)) sections.delete(key);
  at("board").dataset.density = shown <= 6 ? "few" : shown <= 40 ? "some" : "many";
  at("empty").hidden = factories.size > 0;
  at("none").hidden = shown > 0 || factories.size === 0;
  count();
}

function count() {
  const numbers = Object.fromEntries(STATES.map((state) => [state, 0]));
  for (const factory of factories.values()) numbers[factory.status] += 1;
  for (const state of STATES) {
    const button = at("counts").querySelector(`[data-state="${state}"]`);
    setText(button.querySelector("b"), String(numbers[state]));
    button.className = numbers[state] ? state : "zero";
    button.setAttribute("aria-pressed", String(chosenState === state));
  }
  const wrong = ["offline", "late"].filter((state) => numbers[state]).map((state) => `${numbers[state]} ${state}`);
  document.title = [...wrong, "Factories"].join(" · ");
}

function take(factory) {
  factories.set(factory.factory_name, factory);
  if (!cards.has(factory.factory_name)) cards.set(factory.factory_name, newCard(factory.factory_name));
  fill(cards.get(factory.factory_name), factory);
}

// --- live ---

/** The content of a message; null if it is not valid, which counts as silence. */
function read(message) {
  try {
    const content = asObject(JSON.parse(message.data));
    return isMoment(content.now) ? content : null;
  } catch { return null; }
}

/** The factories in a message; null if it contains none. */
function heard(message) {
  const content = read(message);
  if (!content) return null;
  serverAhead = Date.parse(content.now) - Date.now();
  heardAt = Date.now();
  at("lost").hidden = true;
  document.body.className = "";
  at("connection").className = "live";
  setText(at("connection"), "Live");
  return Array.isArray(content.factories) ? content.factories.map(sane).filter(Boolean) : null;
}

function lost() {
  const moment = heardAt ? ` since ${new Date(heardAt).toLocaleTimeString()}` : "";
  setText(at("lost"), `No connection to the dashboard${moment}. This page shows old data.`);
  at("lost").hidden = false;
  document.body.className = "stale";
  at("connection").className = "";
  setText(at("connection"), "Connecting …");
}

function listen() {
  source?.close();
  openedAt = Date.now();
  source = new EventSource("events");
  source.addEventListener("snapshot", (message) => {
    const received = heard(message);
    if (!received) return;
    const names = new Set(received.map((one) => one.factory_name));
    for (const name of [...factories.keys()]) if (!names.has(name)) factories.delete(name), cards.delete(name);
    received.forEach(take);
    arrange();
  });
  source.addEventListener("change", (message) => {
    const received = heard(message);
    if (!received) return;
    const stay = received.every((one) => {
      const known = factories.get(one.factory_name);
      return known && known.region === one.region && group(known) === group(one) && rank(known) === rank(one) && !words.length;
    });
    received.forEach(take);
    if (!stay) arrange();
  });
  source.addEventListener("ping", heard);
  source.onerror = () => {
    lost();
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, REOPEN_MS);
  };
}

function tick() {
  for (const card of cards.values()) if (card.node.isConnected) age(card);
  if (Date.now() - Math.max(heardAt, openedAt) > SILENT_MS) {
    lost();
    listen();
  }
}

// --- the operator's choices ---

function choose(state, text) {
  chosenState = STATES.includes(state) ? state : "";
  words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = new URLSearchParams(Object.entries({ state: chosenState, filter: text }).filter(([, value]) => value));
  history.replaceState(null, "", kept.size ? `?${kept}` : location.pathname);
  arrange();
}

function stateButton(state) {
  const item = element("li"), button = element("button", "zero");
  button.type = "button";
  button.dataset.state = state;
  button.append(element("b", "", "0"), state);
  button.addEventListener("click", () => choose(chosenState === state ? "" : state, at("filter").value));
  item.append(button);
  return item;
}

function theme(chosen) {
  const known = THEMES.includes(chosen) ? chosen : "auto";
  if (known === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = known;
  setText(at("theme"), `Colours: ${known}`);
  at("theme").dataset.theme = known;
  at("theme").title = `Switch between ${THEMES.join(", ")}`;
  return known;
}

function remembered() {
  try { return localStorage.getItem("theme"); } catch { return null; }
}

function begin() {
  at("counts").append(...STATES.map(stateButton));
  theme(remembered());
  at("theme").addEventListener("click", () => {
    const next = theme(THEMES[(THEMES.indexOf(at("theme").dataset.theme) + 1) % THEMES.length]);
    try { localStorage.setItem("theme", next); } catch { /* the choice lasts as long as the page */ }
  });
  at("filter").addEventListener("input", () => choose(chosenState, at("filter").value));
  at("clear").addEventListener("click", () => choose("", at("filter").value = ""));
  const kept = new URLSearchParams(location.search);
  at("filter").value = kept.get("filter") ?? "";
  if (kept.size) choose(kept.get("state") ?? "", at("filter").value);
  at("empty").hidden = true;
  listen();
  setInterval(tick, 1000);
}

begin();
