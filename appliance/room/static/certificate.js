import { byId, followStates, keys } from "./api.js";

byId("print")?.addEventListener("click", () => window.print());

// A certificate never changes; the page waits for one that is still being made.
followStates(() => !byId("print"));
keys({ Escape: () => location.assign("/end") });
