// The page: asks for JSON, listens for events, and shows what it is told as text.
import { clockText, dateOfMjd, footprint, known, measured, node, quantity, trendChart } from "./drawing.js";

const PAGE = 24, LATEST = 4, KEPT = 300, SILENT_S = 45;
const byId = (id) => document.getElementById(id);
const seen = { state: null, at: 0, overview: null, message: 0, plots: [], total: 0, chosen: {}, viewed: [], place: 0 };

const TABLES = [["pointings", "Pointing"], ["foci", "Focus"], ["skydips", "Skydip"], ["calibrations", "Calibration"], ["spectra", "Averages"]];
const NAMES = { width: "FWHM", position: "best focus", tau: "τ", f_eff: "f_eff", t_rec: "T_rec", t_sys: "T_sys", t_sys_star: "T_sys*", pwv: "PWV", rms_expected: "expected rms", exptime: "time" };
const TRENDS = [["pwv", "mm"], ["tau", "Np, zenith"], ["t_rec", "K"], ["t_sys", "K"], ["t_sys_star", "K"]];

// Not on small screens: columns, and errors.
const SECOND = new Set(["t_sys"]), SHORT = new Set(["pwv"]);

async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error || `HTTP ${answer.status}`);
  return found;
}

function connection(text, good) {
  byId("connection").textContent = text;
  byId("connection").className = `pill ${good ? "good" : "bad"}`;
}

function age(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 5400) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${Math.floor(seconds / 86400)} d`;
}

function when(seconds) {
  const date = new Date(seconds * 1000);
  const text = clockText(date);
  return Math.abs(Date.now() - date) > 7.2e7 ? `${date.toISOString().slice(0, 10)} ${text}` : text;
}

// When the last dump was observed, not when the picture was drawn.
function observed(mjd) {
  const date = dateOfMjd(mjd);
  const day = Math.abs(Date.now() - date) > 7.2e7 ? `${date.toISOString().slice(0, 10)} ` : "";
  return `${day}${clockText(date)} UT`;
}

// Pipeline

function taskWord(task) {
  if (!task.workers && task.wanted) return ["error", "no worker"];
  if (task.failed) return ["error", "trouble"];
  if (!task.workers) return task.active || task.pending ? ["warning", "no worker"] : ["soft", "off"];
  if (task.workers < task.wanted) return ["warning", "few workers"];
  if (task.active) return ["good", "working"];
  return task.pending ? ["", "waiting"] : ["soft", "idle"];
}

// What a task makes, in plain words.
function nameOf(task) {
  const found = seen.state?.tasks.find((t) => t.task === task);
  return found ? found.name : task;
}

function showTasks(state) {
  const since = (performance.now() - seen.at) / 1000;
  const heads = [["task"], ["state"], ["pending", "number"], ["oldest", "number"], ["active", "number wide"], ["failed", "number"], ["done", "number wide"], ["per min", "number wide"], ["workers", "number wide"], ["last message", "wide"]];
  if (state.controls) heads.push([""]);
  const head = node("thead", {}, node("tr", {}, heads.map(([text, kind]) => node("th", { class: kind }, text))));
  const rows = state.tasks.map((task) => {
    const [kind, word] = taskWord(task);
    const cells = [node("td", { title: `${task.task} in commands` }, task.name), node("td", { class: `name ${kind}` }, word),
      node("td", { class: "number" }, task.pending),
      node("td", { class: "number" }, task.pending ? age(task.oldest + since) : "–"),
      node("td", { class: "number wide" }, task.active),
      node("td", { class: `number ${task.failed ? "error" : ""}` }, task.failed),
      node("td", { class: "number wide" }, task.done), node("td", { class: "number wide" }, task.rate.toFixed(1)),
      node("td", { class: "number wide" }, task.workers),
      node("td", { class: `text wide ${task.level === "info" ? "soft" : task.level}` }, task.message)];
    if (state.controls) {
      const button = node("button", { type: "button", "data-task": task.task }, "restart");
      button.addEventListener("click", () => change("restart", { task: task.task }, `${task.name} will be restarted`));
      cells.push(node("td", {}, button));
    }
    return node("tr", {}, cells);
  });
  byId("tasks").replaceChildren(head, node("tbody", {}, rows));
}

function showStatus(state) {
  showTasks(state);
  const scans = Object.entries(state.scans).map(([name, n]) => `${n} ${name}`);
  byId("scans").textContent = scans.length ? `Scans: ${scans.join(", ")}` : "No scan has come yet.";
  byId("disks").textContent = state.disks.map((d) => `${d.uses.join(", ")}: ${(d.free / 2 ** 30).toFixed(1)} of ${(d.total / 2 ** 30).toFixed(0)} GiB free`).join("; ");
  byId("problems").hidden = !state.problems.length;
  byId("problems").replaceChildren(...state.problems.map((p) => node("p", { class: p.level === "error" ? "error" : "" }, node("b", {}, p.level), p.text)));
  byId("operator").hidden = !state.controls;
  byId("failed").hidden = !state.failed.length;
  byId("failed-jobs").replaceChildren(...state.failed.map((job) => {
    const item = node("li", {}, node("b", {}, `${nameOf(job.task)}: `), `${job.name} `, node("span", { class: "error" }, job.error), " ", node("span", { class: "soft" }, when(job.when)));
    if (state.controls) {
      const button = node("button", { type: "button" }, "try again");
      button.addEventListener("click", () => change("retry", { task: job.task, name: job.name }, `${job.name} is tried again`));
      item.append(button);
    }
    return item;
  }));
}

async function change(what, body, done) {
  const answer = byId("answer");
  answer.className = "";
  answer.textContent = "asking …";
  try {
    const token = sessionStorage.getItem("gpucal-token") || "";
    const reply = await fetch(`/api/${what}`, { method: "POST", body: JSON.stringify(body),
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` } });
    const found = await reply.json();
    if (!reply.ok) throw new Error(found.error);
    answer.className = "good";
    answer.textContent = done;
  } catch (error) {
    answer.className = "error";
    answer.textContent = error.message;
  }
}

// Results

// The error stays away from small screens, where it would push other columns out of sight.
function valueAndError({ name, value, error }) {
  const [head, tail] = measured(value, error).split(" ± ");
  if (!tail) return head;
  return SHORT.has(name) ? [head, node("span", { class: "wide" }, ` ± ${tail}`)] : `${head} ± ${tail}`;
}

function resultTable(title, lines) {
  if (!lines.length) return null;
  const several = new Set(lines.map((l) => l.project)).size > 1;
  const first = lines[0].values;
  // with bands the source is left out on small screens: both together push the last columns out of sight
  const source = lines.some((l) => l.place.startsWith("band")) ? "wide" : null;
  const head = node("tr", {}, node("th", {}, "scan"), node("th", { class: source }, "source"), node("th", { class: "wide" }, "UT"), node("th", {}, ""),
    first.map((v) => node("th", { class: `number${SECOND.has(v.name) ? " wide" : ""}` }, quantity(NAMES[v.name] || v.name), v.unit ? ` [${v.unit}]` : "")));
  const rows = lines.flatMap((line) => {
    const row = node("tr", { class: line.valid ? null : "invalid" },
      node("td", { class: "name" }, several ? `${line.project} ${line.scan}` : line.scan), node("td", { class: source }, line.source),
      node("td", { class: "name wide soft" }, known(line.mjd) ? clockText(dateOfMjd(line.mjd), false) : "–"), node("td", { class: "name" }, line.place),
      line.values.map((v) => node("td", { class: `number${SECOND.has(v.name) ? " wide" : ""}` }, valueAndError(v))));
    if (line.valid && !line.reason) return [row];
    const words = line.valid ? line.reason : `not valid: ${line.reason || "no reason given"}`;
    return [row, node("tr", { class: "reason" }, node("td", { colspan: 4 + first.length }, words))];
  });
  return node("div", { class: "result" }, node("h3", {}, title), node("div", { class: "scroll" }, node("table", {}, node("thead", {}, head), node("tbody", {}, rows))));
}

function showArray() {
  const entries = seen.overview.footprints, select = byId("receiver");
  const names = entries.map((e) => `${e.band} receiver ${e.receiver}`.trim());
  options(select, names.map((name, i) => [String(i), name]), null);
  select.closest("p").hidden = entries.length < 2;
  const entry = entries[Number(select.value || 0)];
  if (!entry) {
    byId("footprints").replaceChildren(node("p", { class: "empty" }, "No calibration yet."));
    byId("footprint-note").textContent = "";
    return;
  }
  const panels = [["t_rec", "T_rec", "K"], ["t_sys", "T_sys", "K"], ["t_sys_star", "T_sys*", "K"], ["rms", "rms", "K"]];
  byId("footprints").replaceChildren(...panels.map(([key, title, unit]) => footprint(entry.pixels, key, title, unit)).filter(Boolean));
  const scans = [...new Set(Object.values(entry.scans))].map((scan) => {
    const names = panels.filter(([key]) => entry.scans[key] === scan).map(([, title]) => title);
    return names.length ? `${names.join(", ")} of scan ${scan}` : "";
  }).filter(Boolean);
  const dead = entry.pixels.filter((p) => !p.valid).length;
  const places = entry.placed ? `Places from the look at ${entry.look}, longitude to the left` : "The offsets of the pixels are not known: they are shown in the order of their numbers";
  byId("footprint-note").textContent = [`${entry.project}, ${scans.join(", ")}`, `${entry.pixels.length} pixels${dead ? `, ${dead} not valid (×)` : ""}`, places].join(". ") + ".";
}

function showTrends() {
  const points = seen.overview.trends, place = byId("trends");
  const charts = TRENDS.filter(([key]) => points.some((p) => known(p[key])));
  if (!charts.length) {
    place.replaceChildren(node("p", { class: "empty" }, "No calibration yet."));
    return;
  }
  const columns = Math.min(charts.length, Math.max(1, Math.floor(place.clientWidth / 250)));
  const width = Math.max(240, Math.floor((place.clientWidth - 14 * (columns - 1)) / columns));
  place.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  place.replaceChildren(...charts.map(([key, unit]) => trendChart(points, key, NAMES[key], unit, width)));
}

async function refreshOverview() {
  seen.overview = await ask("/api/overview");
  const tables = TABLES.map(([key, title]) => resultTable(title, seen.overview.results[key])).filter(Boolean);
  byId("tables").replaceChildren(...(tables.length ? tables : [node("p", { class: "empty" }, "No results yet.")]));
  showArray();
  showTrends();
}

// Pictures

function options(select, pairs, any) {
  const before = select.value;
  const all = any === null ? pairs : [["", any], ...pairs];
  select.replaceChildren(...all.map(([value, text]) => node("option", { value }, text)));
  if (all.some(([value]) => value === before)) select.value = before;
}

function card(plots, i) {
  const plot = plots[i], title = plot.title || plot.file;
  const link = node("a", { href: plot.url, target: "_blank", rel: "noopener" }, node("img", { src: plot.url, alt: title, loading: "lazy", decoding: "async" }));
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    view(plots, i);
  });
  return node("figure", {}, link, node("figcaption", {}, title, known(plot.mjd) ? ` · ${observed(plot.mjd)}` : ""));
}

function view(plots, i) {
  seen.viewed = plots;
  seen.place = Math.min(Math.max(i, 0), plots.length - 1);
  const plot = plots[seen.place];
  byId("large").src = plot.url;
  byId("large").alt = plot.title;
  byId("original").href = plot.url;
  byId("caption").textContent = `${plot.project}, scan ${plot.scan}, ${plot.kind}: ${plot.title}${known(plot.mjd) ? `, ${observed(plot.mjd)}` : ""}`;
  byId("newer").disabled = seen.place === 0;
  byId("older").disabled = seen.place === plots.length - 1;
  if (!byId("viewer").open) byId("viewer").showModal();
}

async function fetchPlots(offset, limit) {
  const query = new URLSearchParams({ offset, limit });
  for (const name of ["project", "scan", "kind"]) if (byId(name).value) query.set(name, byId(name).value);
  return ask(`/api/plots?${query}`);
}

async function refreshPlots(more = false) {
  const limit = more ? PAGE : Math.max(PAGE, Math.min(seen.plots.length, 120));
  const found = await fetchPlots(more ? seen.plots.length : 0, limit);
  for (const name of ["project", "scan", "kind"]) options(byId(name), found[`${name}s`].map((v) => [String(v), String(v)]), "all");
  seen.plots = more ? [...seen.plots, ...found.plots] : found.plots;
  byId("plots").replaceChildren(...(seen.plots.length ? seen.plots.map((_, i) => card(seen.plots, i)) : [node("p", { class: "empty" }, "No pictures.")]));
  byId("count").textContent = found.total ? `${seen.plots.length} of ${found.total}` : "";
  byId("more").hidden = seen.plots.length >= found.total;
}

async function refreshLatest() {
  const { plots } = await ask(`/api/plots?limit=${LATEST}`);
  byId("latest-pictures").replaceChildren(...(plots.length ? plots.map((_, i) => card(plots, i)) : [node("p", { class: "empty" }, "No pictures yet.")]));
}

// Messages

async function refreshMessages() {
  const { messages } = await ask(seen.message ? `/api/messages?after=${seen.message}` : "/api/messages");
  for (const m of messages) {
    seen.message = Math.max(seen.message, m.id);
    const place = [nameOf(m.task), m.project, m.scan >= 0 ? `scan ${m.scan}` : ""].filter(Boolean).join(" ");
    const kind = m.level === "error" ? "error" : m.level === "warning" ? "warning" : "soft";
    byId("messages").prepend(node("li", { "data-level": m.level }, node("span", { class: "soft number" }, when(m.time)), node("b", { class: kind }, m.level), node("span", { class: "soft" }, place), m.text));
  }
  while (byId("messages").childElementCount > KEPT) byId("messages").lastElementChild.remove();
  filterMessages();
}

function filterMessages() {
  const shown = { "": null, warning: ["warning", "error"], error: ["error"] }[byId("level").value];
  for (const item of byId("messages").children) item.hidden = Boolean(shown) && !shown.includes(item.dataset.level);
}

// Live

const running = new Map();

// One at a time; what is asked for meanwhile is done once more when it ends.
async function once(name, action) {
  if (running.has(name)) {
    running.set(name, true);
    return;
  }
  running.set(name, false);
  try {
    await action();
  } catch (error) {
    connection(error.message, false);
    // What it would have shown is asked for again with the next event.
    if (seen.state) seen.state.revision = {};
  }
  const again = running.get(name);
  running.delete(name);
  if (again) once(name, action);
}

function arrived(state) {
  const before = seen.state ? seen.state.revision : {};
  const differs = (key) => JSON.stringify(before[key]) !== JSON.stringify(state.revision[key]);
  seen.state = state;
  seen.at = performance.now();
  connection("live", true);
  showStatus(state);
  if (differs("messages")) once("messages", refreshMessages);
  if (differs("data")) once("overview", refreshOverview);
  if (differs("plots")) {
    once("latest", refreshLatest);
    once("plots", () => refreshPlots());
  }
}

function listen() {
  const source = new EventSource("/events");
  source.addEventListener("state", (event) => arrived(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    connection("no connection, trying again", false);
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  });
}

function tick() {
  byId("clock").textContent = `${new Date().toISOString().slice(0, 19).replace("T", " ")} UT`;
  if (!seen.state) return;
  if ((performance.now() - seen.at) / 1000 > SILENT_S) connection(`silent for ${age((performance.now() - seen.at) / 1000)}`, false);
  if (seen.state.tasks.some((t) => t.pending)) showAges();
}

function showAges() {
  const since = (performance.now() - seen.at) / 1000;
  const rows = byId("tasks").tBodies[0].rows;
  seen.state.tasks.forEach((task, i) => {
    if (task.pending) rows[i].cells[3].textContent = age(task.oldest + since);
  });
}

// Choices

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function nameTheme() {
  byId("theme").textContent = dark() ? "light" : "dark";
}

byId("theme").addEventListener("click", () => {
  const chosen = dark() ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  try {
    localStorage.setItem("gpucal-theme", chosen);
  } catch (_) {
    // It holds for this visit.
  }
  nameTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
byId("operator").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("gpucal-token", byId("token").value);
  byId("token").value = "";
  byId("answer").className = "soft";
  byId("answer").textContent = "The token is kept until this tab is closed.";
});
byId("project").addEventListener("change", () => { byId("scan").value = ""; byId("kind").value = ""; });
byId("scan").addEventListener("change", () => { byId("kind").value = ""; });
for (const name of ["project", "scan", "kind"]) {
  byId(name).addEventListener("change", () => { seen.plots = []; once("plots", () => refreshPlots()); });
}
byId("more").addEventListener("click", () => once("plots", () => refreshPlots(true)));
byId("receiver").addEventListener("change", showArray);
byId("level").addEventListener("change", filterMessages);
byId("close").addEventListener("click", () => byId("viewer").close());
byId("newer").addEventListener("click", () => view(seen.viewed, seen.place - 1));
byId("older").addEventListener("click", () => view(seen.viewed, seen.place + 1));
byId("viewer").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") view(seen.viewed, seen.place - 1);
  if (event.key === "ArrowRight") view(seen.viewed, seen.place + 1);
});
new ResizeObserver(() => { if (seen.overview) showTrends(); }).observe(byId("trends"));
nameTheme();
tick();
setInterval(tick, 1000);
listen();
