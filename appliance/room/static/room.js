import { act, ask, byId, follow, keys, leave, roomNowMs, span, timeOfDay } from "./api.js";

const part = (tile, name) => tile.querySelector(`[data-f="${name}"]`);
const tiles = () => [...document.querySelectorAll(".tile")];

function put(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

function showTile(view) {
  const tile = byId(`tile-${view.desk}`);
  if (!tile) return location.reload();
  tile.dataset.state = view.state;
  tile.dataset.link = view.link;
  if (view.level) tile.dataset.level = view.level;
  else delete tile.dataset.level;
  tile.toggleAttribute("data-needs", view.needs_you);
  put(part(tile, "who"), view.name ?? view.candidate ?? "");
  put(part(tile, "level_words"), view.level_words);
  put(part(tile, "words"), view.seen ?? view.words);
  put(part(tile, "technical_words"), view.technical.join("; "));
  part(tile, "technical").hidden = view.technical.length === 0;
  tile.dataset.breakSince = view.state === "break" ? view.break_since : "";
  put(part(tile, "blank"), view.state);
}

function showAge(desk, age) {
  const tile = byId(`tile-${desk}`);
  if (!tile) return;
  part(tile, "rec").hidden = age === null;
  part(tile, "level").hidden = age === null || !part(tile, "level_words").textContent;
  if (age !== null) put(part(tile, "age"), age);
  part(tile, "rec").classList.toggle("late", age !== null && age >= 6);
  if (tile.dataset.breakSince) put(part(tile, "words"), `on a break, ${span((roomNowMs() - Date.parse(tile.dataset.breakSince)) / 1000)}`);
}

function showStill(desk, src) {
  const image = part(byId(`tile-${desk}`), "still");
  image.hidden = !src;
  if (src) image.src = src;
}

function showNeeds(needs) {
  byId("needs").dataset.calm = needs.length ? "no" : "yes";
  const list = byId("needs-list");
  const wanted = JSON.stringify(needs);
  if (list.dataset.shown === wanted) return;
  list.dataset.shown = wanted;
  list.replaceChildren(...needs.map((need) => {
    const item = document.createElement("li"), time = document.createElement("time"), words = document.createElement("span");
    time.textContent = timeOfDay(need.since);
    words.textContent = need.words;
    item.append(time, words);
    if (need.action !== "none") {
      const link = document.createElement("a");
      link.className = "button";
      link.href = need.action === "end" ? "/end" : `/desk/${need.desk}`;
      link.textContent = "Open";
      item.append(link);
    }
    return item;
  }));
}

function showCounts(counts, needs) {
  const shown = Object.entries(counts).filter(([, n]) => n > 0).map(([state, n]) => [n, state, ""]);
  if (needs) shown.push([needs, needs === 1 ? "needs you" : "need you", "you"]);
  const line = byId("counts"), wanted = JSON.stringify(shown);
  if (line.dataset.shown === wanted) return;
  line.dataset.shown = wanted;
  line.replaceChildren(...shown.map(([n, words, kind]) => {
    const span = document.createElement("span"), number = document.createElement("b");
    span.className = kind;
    number.textContent = n;
    span.append(number, ` ${words}`);
    return span;
  }));
}

follow("/events", {
  room: (view) => {
    showCounts(view.counts, view.needs.length);
    showNeeds(view.needs);
    view.tiles.forEach(showTile);
    Object.entries(view.ages).forEach(([desk, age]) => showAge(desk, age));
    Object.entries(view.stills ?? {}).forEach(([desk, src]) => showStill(desk, src));
  },
});

function move(dx, dy) {
  const all = tiles();
  if (!all.length) return false;
  const here = all.indexOf(document.activeElement);
  const columns = all.filter((tile) => tile.offsetTop === all[0].offsetTop).length;
  const to = here < 0 ? 0 : Math.min(all.length - 1, Math.max(0, here + dx + dy * columns));
  all[to].focus();
  return true;
}

keys({
  ArrowLeft: () => move(-1, 0), ArrowRight: () => move(1, 0), ArrowUp: () => move(0, -1), ArrowDown: () => move(0, 1),
  l: () => document.activeElement.classList.contains("tile") && document.activeElement.click(),
});

const seat = (desk) => part(byId(`tile-${desk}`), "seat").textContent;
byId("start-all")?.addEventListener("click", async () => {
  const code = await ask("Start all ready desks", "Each desk that is ready begins to record. The candidate's code is the desk's own id; the institution keeps the seating plan.", { yes: "Start" });
  if (code !== null) await act("/api/sessions/start", { all: true }, "Starts sent", seat);
});
byId("end-all")?.addEventListener("click", async () => {
  const sure = await ask("End all sessions", "All desks stop recording and make their certificates. Let nobody leave before theirs is complete.", { yes: "End all" });
  if (sure !== null && await act("/api/sessions/end", {}, "Sessions ending", seat)) leave("/end");
});
