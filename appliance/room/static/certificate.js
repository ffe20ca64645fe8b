import { byId, follow, keys } from "./api.js";

byId("print")?.addEventListener("click", () => window.print());

// A certificate never changes; the page waits for one that is still being made.
const states = new Map();
follow("/events?pictures=false", {
  room: (view) => {
    let changed = false;
    for (const tile of view.tiles) {
      changed ||= states.has(tile.desk) && states.get(tile.desk) !== tile.state;
      states.set(tile.desk, tile.state);
    }
    if (changed && !byId("print")) location.reload();
  },
});
keys({ Escape: () => location.assign("/end") });
