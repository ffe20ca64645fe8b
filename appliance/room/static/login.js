import { byId, post, sentence } from "./api.js";

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const fields = Object.fromEntries(new FormData(event.target));
  const answer = await post("/api/login", fields);
  if (answer.ok) return location.assign("/");
  byId("problem").textContent = sentence(answer.error, answer.hint);
  byId("problem").hidden = false;
  if (String(answer.error).includes("second step")) byId("second").hidden = false;
});
