// Shared by all pages: POST with the page's token, the room's clock, the lost strip, dialogs, keys.

const csrf = document.querySelector('meta[name="csrf"]')?.content ?? "";
export const byId = (id) => document.getElementById(id);

export async function post(path, body = {}) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
    body: JSON.stringify(body),
  }).catch(() => null);
  if (!answer) return { ok: false, error: "no contact with the room controller", hint: "" };
  const data = await answer.json().catch(() => ({}));
  if (answer.status === 401 && path !== "/api/login") location.assign("/login");
  return { ok: answer.ok, ...data };
}

export async function act(path, body, done, seat) {
  const answer = await post(path, body);
  if (answer.outcomes) await tell(answer.outcomes, done, seat);
  else say(answer.ok ? done : sentence(answer.error, answer.hint));
  return answer.ok;
}

// What became of each desk, where several were asked: `done` says what is counted, `seat` knows a desk's label.
async function tell(outcomes, done, seat) {
  const refused = outcomes.filter((outcome) => outcome.refused);
  const count = `${done}: ${outcomes.length - refused.length}.`;
  if (!refused.length) return say(count);
  const reasons = refused.map((outcome) => `Seat ${seat(outcome.desk)}: ${outcome.refused}.`);
  await ask(count, reasons.join("\n"), { yes: "Close", no: "" });
}

export function sentence(error, hint) {
  const parts = [error, hint].filter(Boolean).map(String);
  return parts.map((part) => `${part[0].toUpperCase()}${part.slice(1)}.`).join(" ");
}

let toastTimer = 0;
export function say(words) {
  const toast = byId("toast");
  toast.textContent = words;
  toast.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { toast.hidden = true; }, 6000);
}

// To another page, or to this one anew; what is being said is said there once more, or nobody could read it.
export function leave(to) {
  if (!byId("toast").hidden) sessionStorage.setItem("said", byId("toast").textContent);
  if (to) location.assign(to);
  else location.reload();
}
const said = sessionStorage.getItem("said");
sessionStorage.removeItem("said");
if (said) say(said);

// Resolves to null for cancel, else to what was typed ("" where nothing is asked for); without `no` it only tells.
export function ask(title, words, { label = "", yes = "Yes", no = "Cancel" } = {}) {
  const dialog = byId("ask"), input = byId("ask-input");
  byId("ask-title").textContent = title;
  byId("ask-words").textContent = words;
  byId("ask-label").hidden = !label;
  byId("ask-label").firstElementChild.textContent = label;
  byId("ask-yes").textContent = yes;
  byId("ask-no").textContent = no;
  byId("ask-no").hidden = !no;
  input.value = "";
  input.required = Boolean(label);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? input.value.trim() : null), { once: true });
  });
}

// The page shows the room's clock: the controller's time, kept running between events.
let offsetMs = Date.parse(document.body.dataset.roomTime) - Date.now();
export function setRoomTime(utc) { offsetMs = Date.parse(utc) - Date.now(); }
export const roomNowMs = () => Date.now() + offsetMs;
export const timeOfDay = (utc) => new Date(utc).toLocaleTimeString("en-GB");
export const span = (seconds) => {
  const s = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, "0");
  return s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${two(Math.floor(s / 60))}:${two(s % 60)}`;
};
setInterval(() => { byId("clock").textContent = timeOfDay(roomNowMs()); }, 1000);

// One event stream while the page can be seen; closing it is what ends the desks' previews.
export function follow(path, handlers) {
  let source = null, heardMs = Date.now();
  const heard = (handler) => (event) => {
    heardMs = Date.now();
    document.body.classList.remove("old");
    byId("lost").hidden = true;
    const data = JSON.parse(event.data);
    if (data.now) setRoomTime(data.now);
    handler(data);
  };
  const open = () => {
    source?.close();
    source = null;
    if (document.visibilityState !== "visible") return;
    heardMs = Date.now();
    source = new EventSource(path);
    for (const [name, handler] of Object.entries(handlers)) source.addEventListener(name, heard(handler));
  };
  document.addEventListener("visibilitychange", open);
  addEventListener("pagehide", () => source?.close());
  setInterval(() => {
    if (document.visibilityState !== "visible" || Date.now() - heardMs < 4000) return;
    document.body.classList.add("old");
    byId("lost").textContent = `No contact with the room controller since ${timeOfDay(heardMs + offsetMs)}. What stands here is old; desks record on.`;
    byId("lost").hidden = false;
    if (source?.readyState === EventSource.CLOSED) {
      fetch("/api/room", { method: "GET" }).then((answer) => (answer.status === 401 ? location.assign("/login") : open())).catch(() => {});
    }
  }, 2000);
  open();
}

// A page that the server rendered is fetched anew, as soon as it may, once a desk's state (or, where the page names
// them, the decisions about all sessions) is not the one that it was rendered with. A change is told only once.
export function followStates(mayReload) {
  const { states, decisions } = byId("main").dataset, rendered = JSON.parse(states);
  let stale = false;
  follow("/events?pictures=false", {
    room: (view) => {
      stale ||= view.tiles.some((tile) => tile.state !== rendered[tile.desk]);
      stale ||= decisions !== undefined && decisions !== view.decisions;
      if (stale && mayReload()) leave();
    },
  });
}

export function keys(table) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, dialog")) return;
    const action = table[event.key] ?? table[event.key.toLowerCase()];
    if (action && action(event) !== false) event.preventDefault();
  });
}

byId("help-open")?.addEventListener("click", () => byId("help").showModal());
keys({ "?": () => byId("help").showModal() });
byId("log-out")?.addEventListener("click", async () => { await post("/api/logout"); location.assign("/login"); });
