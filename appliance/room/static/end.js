import { act, ask, byId, followStates, keys, leave, span, timeOfDay } from "./api.js";

for (const time of document.querySelectorAll("time[data-utc]")) time.textContent = timeOfDay(time.dataset.utc);
for (const time of document.querySelectorAll("time[data-span]")) time.textContent = `at ${span(Number(time.dataset.span))}`;

// From the question to the answer the page stays as it is.
let deciding = 0;
async function decide(decision) {
  deciding += 1;
  const done = await decision().finally(() => { deciding -= 1; });
  if (done) leave();
}

const seat = (desk) => document.querySelector(`tr[data-desk="${desk}"]`)?.dataset.seat ?? desk;
byId("approve-all")?.addEventListener("click", ({ target }) => decide(async () => {
  const sure = await ask("Approve all complete sessions", `${target.dataset.n} complete recordings are released to the institution's storage, in your name.`, { yes: "Approve" });
  return sure !== null && act("/api/sessions/approve", {}, "Sessions approved", seat);
}));

const decisions = {
  approve: async (row, button) => {
    const gaps = Boolean(button.dataset.gaps);
    const words = gaps ? "This recording has gaps. It is released as it is, with its gaps and their causes, in your name." : "This recording is released to the institution's storage, in your name.";
    const sure = await ask(`Approve seat ${row.dataset.seat}`, words, { yes: "Approve" });
    return sure !== null && act(`/api/sessions/${row.dataset.sid}/approve`, { accept_gaps: gaps }, "Approved.");
  },
  damaged: async (row, button) => {
    const files = JSON.parse(button.dataset.files);
    const names = (some) => some.slice(0, 3).map(({ name }) => name).join(", ") + (some.length > 3 ? ` and ${some.length - 3} more` : "");
    const there = files.filter(({ sha256 }) => sha256);
    const gone = files.filter(({ sha256 }) => !sha256);
    const words = [
      there.length && `${names(there)}: no longer as recorded. Sent as it lies on the desk; what is whole in it can still be opened.`,
      gone.length && `${names(gone)}: cannot be read and is left out. First try invigil store salvage on the desk: it may still copy parts of it.`,
      "The approval names what is sent so, in your name.",
    ];
    const sure = await ask(`Send seat ${row.dataset.seat} as it is`, words.filter(Boolean).join(" "), { yes: "Send as it is" });
    return sure !== null && act(`/api/sessions/${row.dataset.sid}/approve-damaged`, { files }, "Approved.");
  },
  hold: async (row) => {
    const reason = await ask(`Hold seat ${row.dataset.seat}`, "The recording stays on its desk until somebody approves it.", { label: "Reason", yes: "Hold" });
    return reason && act(`/api/sessions/${row.dataset.sid}/hold`, { reason }, "Held.");
  },
  discard: async (row) => {
    const reason = await ask(`Discard seat ${row.dataset.seat}`, "It takes two leads. The recording never leaves the room and is erased on its date.", { label: "Reason", yes: "Discard" });
    return reason && act(`/api/sessions/${row.dataset.sid}/discard`, { reason }, "Noted.");
  },
};
document.querySelector("tbody")?.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (button) decide(() => decisions[button.dataset.do](button.closest("tr"), button));
});

followStates(() => !deciding && !document.querySelector("dialog[open]"));
keys({ Escape: () => location.assign("/") });
