import { act, ask, byId, follow, keys, roomNowMs, span, timeOfDay } from "./api.js";

const main = byId("main");
const desk = main.dataset.desk;
const decides = main.dataset.role !== "staff";
const MAY_END = ["check-in", "recording", "break"];
let view = null;

function items(list, texts) {
  const wanted = JSON.stringify(texts);
  if (list.dataset.shown === wanted) return;
  list.dataset.shown = wanted;
  list.replaceChildren(...texts.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

function pairs(lines) {
  return lines.map(([name, value]) => {
    const row = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    row.append(dt, dd);
    return row;
  });
}

function measured(values) {
  return Object.entries(values).map(([name, value]) => `${name.replaceAll("_", " ")} ${value ?? "unknown"}`).join(", ") || "nothing";
}

const explained = new Set();

function explanation(details, seen) {
  details.querySelector("dl").replaceChildren(...pairs(seen.card));
  details.open = explained.has(seen.number);
  details.addEventListener("toggle", () => explained[details.open ? "add" : "delete"](seen.number));
}

function observation(seen) {
  const item = byId("observation").content.firstElementChild.cloneNode(true);
  const part = (name) => item.querySelector(`[data-f="${name}"]`);
  if (seen.level) item.dataset.level = seen.level;
  part("level_words").textContent = seen.technical ? "technical" : seen.level ?? "no level";
  part("at").textContent = timeOfDay(seen.at);
  part("words").textContent = seen.words;
  part("duration").textContent = `${seen.duration_s.toFixed(1)} s${seen.closed ? seen.until ? `, until ${timeOfDay(seen.until)}` : "" : ", still"}`;
  part("rule").textContent = seen.rule;
  part("measured").textContent = measured(seen.measured);
  part("uncertainty").textContent = seen.uncertainty;
  part("uncertainty_row").hidden = !seen.uncertainty;
  explanation(part("card"), seen);
  item.classList.toggle("reviewed", seen.review !== null);
  part("review").textContent = seen.review ?? "";
  part("no_concern").hidden = part("note").hidden = seen.review !== null || !decides;
  part("no_concern").addEventListener("click", () => review(seen.number));
  part("note").addEventListener("click", () => note(`${timeOfDay(seen.at)} ${seen.words}: `));
  return item;
}

const review = (number) => act(`/api/sessions/${view.sid}/review`, { number, outcome: "no concern" }, "Marked: no concern.");

function note(begin = "") {
  if (byId("note").hidden) return false;
  const text = byId("note").elements.text;
  if (!text.value) text.value = begin;
  text.focus();
  return true;
}

let shownObservations = "";
function show(now) {
  view = now;
  byId("who").textContent = [now.name, now.candidate].filter(Boolean).join(", ");
  byId("state").textContent = now.state;
  byId("words").textContent = now.words === now.state ? "" : now.words;
  if (now.state === "break") byId("words").textContent = span((roomNowMs() - Date.parse(now.break_since)) / 1000);
  byId("rec").hidden = now.recording_age_s === null;
  byId("rec").classList.toggle("late", now.recording_age_s >= 6);
  byId("age").textContent = now.recording_age_s ?? "";
  items(byId("technical"), now.technical);
  items(byId("desk-needs"), now.needs);
  items(byId("seat-rules"), now.accommodations.map(({ words }) => words));
  const rows = [];
  if (now.recorded) {
    rows.push(["recorded", span(now.recorded.seconds)], ["fragments", now.recorded.fragments]);
    rows.push(["witnessed", `${now.recorded.witnessed} of ${now.recorded.leaves}`], ["gaps", now.recorded.gaps]);
  }
  if (now.looked_at_hz !== null) rows.push(["looked at", `${now.looked_at_hz.toFixed(1)} times a second`]);
  if (now.free_bytes !== null) rows.push(["free on the desk", `${(now.free_bytes / 1e9).toFixed(1)} GB`]);
  if (now.software) rows.push(["software", now.software]);
  byId("facts").replaceChildren(...pairs(rows));
  const wanted = JSON.stringify(now.observations);
  if (wanted !== shownObservations) {
    shownObservations = wanted;
    byId("observations").replaceChildren(...now.observations.map(observation));
  }
  byId("none").hidden = now.observations.length > 0;
  const startable = ["ready", "released", "syncing", "synced", "purged", "awaiting approval", "held", "discarded", "certified"].includes(now.state);
  byId("start").hidden = !decides || !startable;
  byId("note").hidden = !decides || !now.sid;
  byId("session-actions").hidden = !decides || !now.sid;
  byId("end").hidden = byId("break").hidden = !MAY_END.includes(now.state);
  byId("break").textContent = now.state === "break" ? "End the break" : "Begin a break";
  byId("certified").hidden = !now.certified;
  if (now.certified) byId("certified").firstElementChild.href = `/certificates/${now.certified}`;
  items(byId("notes"), now.notes.map((entry) => `${timeOfDay(entry.at)} ${entry.by}: ${entry.text}`));
  if (!now.preview) byId("live").hidden = true;
}

follow(`/events?desk=${encodeURIComponent(desk)}`, {
  desk: show,
  still: ({ src }) => {
    byId("live").hidden = !src;
    if (src) byId("live").src = src;
  },
});

byId("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const { candidate_code, name } = Object.fromEntries(form);
  const accommodations = form.getAll("accommodations");
  const body = { desk, candidate_code, accommodations, ...(name ? { name } : {}) };
  if (await act("/api/sessions/start", body, "Start was sent.")) event.target.reset();
});
// A note, and an answer to a dialog, is for the session that was shown when somebody began it.
let noted = null;
byId("note").addEventListener("input", ({ target }) => { noted = target.value ? noted ?? view.sid : null; });
byId("note").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = event.target.elements.text.value;
  if (!await act(`/api/sessions/${noted ?? view.sid}/note`, { text }, "The note is written.")) return;
  event.target.reset();
  noted = null;
});
const setBreak = () => act(`/api/sessions/${view.sid}/break`, { on: view.state !== "break" }, "Done.");
byId("break").addEventListener("click", setBreak);
byId("end").addEventListener("click", async () => {
  const { sid } = view;
  const sure = await ask("End this session", "The desk stops recording and makes its certificate.", { yes: "End" });
  if (sure !== null) await act(`/api/sessions/${sid}/end`, {}, "The session is ending.");
});
byId("set-aside")?.addEventListener("click", async () => {
  const { sid } = view;
  const reason = await ask("Set this session aside", "The desk stops recording and becomes free again. What it recorded stays on it. Your name and reason are logged.", { label: "Reason", yes: "Set aside" });
  if (reason) await act(`/api/sessions/${sid}/set-aside`, { reason }, "The session was set aside.");
});
const go = (to) => (to ? location.assign(`/desk/${to}`) : false);
keys({
  n: () => note(),
  b: () => !byId("break").hidden && !byId("session-actions").hidden && setBreak(),
  1: () => {
    const open = view?.observations.find((seen) => seen.review === null);
    return open && decides ? review(open.number) : false;
  },
  ArrowLeft: () => go(main.dataset.before), ArrowRight: () => go(main.dataset.after),
  Escape: () => location.assign("/"),
});
