// Does it do what it should, more than controls that cost as much? The verdict in words, and what it rests on.
import { bytes, needsKey, read } from "./api.js";
import { $, button, field, h, say, show } from "./dom.js";
import { run, whileBusy } from "./jobs.js";
import { change, state, steering, watch } from "./state.js";

export function setUp() {
  const prompts = h("textarea", { rows: 5, value: state.verify.prompts, oninput: () => change("verify", { prompts: prompts.value }) });
  const samples = amount("samples", 2, 16), tokens = amount("tokens", 2, 200);
  const go = h("button", { class: "main" }, "Verify"), job = h("div", { hidden: true }), result = h("div", { class: "verdict" });
  let of = null; // what the verdict that is shown is about
  whileBusy(busy => { go.disabled = busy; });
  const form = h("form", {},
    h("p", { class: "soft" }, "Writes with the panel, without it, and with controls of the same cost (a random direction, the sign flipped, a random feature), reads everything back with the unsteered model, and says by fixed rules what that shows. With fewer than 5 prompts it speaks for these prompts alone."),
    field("Prompts, one a line", prompts), h("div", { class: "amounts" }, field("Samples of each", samples), field("Tokens", tokens), go), job);
  form.addEventListener("submit", async event => {
    event.preventDefault();
    const wanted = steering();
    if (!wanted) {
      show(job, h("p", { class: "soft" }, "Nothing on the panel is switched on."));
      job.hidden = false;
      return;
    }
    const lines = prompts.value.split("\n").filter(line => line.trim());
    show(result);
    const body = { steering: wanted, prompts: lines, samples: state.verify.samples, max_tokens: state.verify.tokens, seed: state.write.seed };
    const done = await run("/api/verify", body, job, "Verifying");
    if (!done) return;
    of = JSON.stringify(wanted);
    show(result, verdict(done.id, await read(`/api/jobs/${done.id}/tables`)));
    stale();
  });
  const stale = () => {
    const note = result.querySelector(".pending");
    if (note) note.hidden = JSON.stringify(steering()) === of;
  };
  watch(what => what === "parts" && stale());
  $("verify").append(form, result);
}

function amount(name, min, max) {
  const input = h("input", { type: "number", min, max, required: true, value: state.verify[name] });
  input.addEventListener("input", () => input.checkValidity() && change("verify", { [name]: Number(input.value) }));
  return input;
}

function verdict(id, found) {
  say("Verdict: " + found.verdict);
  return [
    h("p", {}, h("strong", { class: "verdict-word " + found.kind }, found.verdict), " ",
      h("span", { class: "pending", hidden: true }, "of what was on the panel before")),
    h("ul", { class: "reasons" }, found.reasons.map(one => h("li", {}, one))),
    grid(found.arms),
    h("details", {}, h("summary", {}, "How to read the table"), found.notes.map(one => h("p", { class: "soft" }, one))),
    found.selectivity.length ? h("details", {}, h("summary", {}, "How selective it was"), found.selectivity.map(one => h("p", {}, one))) : null,
    h("p", { class: "row" }, needsKey() ? null : h("a", { href: `/api/jobs/${id}/report`, target: "_blank", rel: "noopener" }, "The whole report, with every text"),
      button("Download the report", () => download(`/api/jobs/${id}/report`, `verification-${id}.html`))),
  ];
}

function grid({ headings, rows }) {
  const cell = (one, heading) => h("td", { "data-name": heading }, one.text + one.mark,
    one.interval && h("span", { class: "ci" }, one.interval), one.note && h("span", { class: "ci" }, one.note));
  return h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Scores by arm" }, h("table", { class: "arms" },
    h("thead", {}, h("tr", {}, headings.map(one => h("th", { scope: "col" }, one)))),
    h("tbody", {}, rows.map(([name, cells]) => h("tr", {}, h("th", { scope: "row" }, name), cells.map((one, i) => cell(one, headings[i + 1])))))));
}

/** Save what the server sends as a file; works with a key too. */
export async function download(path, name) {
  const address = URL.createObjectURL(await bytes(path));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
