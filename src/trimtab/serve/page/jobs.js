// Long work on the server: one job at a time, with progress and a way to stop it.
import { post, read, remove } from "./api.js";
import { button, h, say, show } from "./dom.js";

const watching = new Set();
let running = null;

/** Call `tell(busy)` now and whenever a job begins or ends. */
export function whileBusy(tell) {
  watching.add(tell);
  tell(running !== null);
}

function turn(next) {
  running = next;
  for (const tell of watching) tell(running !== null);
}

/** A way out when a job from before, or from another tab, is in the way. */
function stopOther(place) {
  return button("Stop that one", async () => {
    const { jobs } = await read("/api/jobs");
    await Promise.all(jobs.filter(one => one.state === "running").map(one => remove("/api/jobs/" + one.id)));
    show(place, h("p", { class: "soft" }, "It stops at its next step. Then try again."));
  });
}

/** Begin a job and show its progress in `place`; the finished job, or null when it was stopped. */
export async function run(path, body, place, title) {
  turn({});
  try {
    let job = await post(path, body);
    const bar = h("progress", { "aria-label": title });
    const words = h("span", { class: "soft" });
    const stop = button("Stop", async () => {
      stop.disabled = true;
      words.textContent = "stopping";
      await remove("/api/jobs/" + job.id).catch(() => {});
    });
    show(place, h("div", { class: "progress" }, h("b", {}, title), bar, words, stop));
    place.hidden = false;
    say(`${title}: begun.`);
    for (let wait = 120; job.state === "running"; wait = Math.min(800, wait * 1.3)) {
      await new Promise(done => setTimeout(done, wait));
      job = await read("/api/jobs/" + job.id);
      if (!stop.disabled) words.textContent = job.stage;
      if (job.total > 0) [bar.max, bar.value] = [job.total, job.done];
    }
    show(place);
    if (job.state === "failed") throw new Error(job.error);
    say(`${title}: ${job.state === "done" ? "done" : "stopped"}.`);
    if (job.state === "cancelled") show(place, h("p", { class: "soft" }, "Stopped."));
    return job.state === "done" ? job : null;
  } catch (error) {
    show(place, h("p", { class: "trouble", role: "alert" }, error.message), error.code === "busy" && stopOther(place));
    place.hidden = false;
    return null;
  } finally {
    turn(null);
  }
}
