// Talking to the server that the page came from. A problem carries the server's own words.
class Problem extends Error {
  constructor(message, status = 0, code = null) {
    super(message);
    Object.assign(this, { status, code });
  }
}

let key = sessionStorage.getItem("trimtab.key") || "";
let asking = null;

async function send(path, { method = "GET", body, signal } = {}) {
  const headers = { ...(key && { Authorization: "Bearer " + key }), ...(body && { "Content-Type": "application/json" }) };
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  const { message = `The server answers ${answer.status}.`, code = null } = said?.error ?? {};
  if (answer.status === 401) {
    await (asking ??= askKey(message).finally(() => { asking = null; }));
    return send(path, { method, body, signal });
  }
  throw new Problem(message, answer.status, code);
}

/** Let a person give the key that the server demands. */
function askKey(message) {
  const box = document.createElement("dialog"), form = document.createElement("form");
  form.method = "dialog";
  form.innerHTML = '<h2>This server needs a key</h2><p></p><div class="field"><label for="key">Key</label>'
    + '<input id="key" type="password" autocomplete="off" required></div><p><button class="main">Go on</button></p>';
  form.querySelector("p").textContent = message;
  box.append(form);
  document.body.append(box);
  box.addEventListener("cancel", event => event.preventDefault());
  box.showModal();
  return new Promise(done => box.addEventListener("close", () => {
    key = form.querySelector("input").value;
    sessionStorage.setItem("trimtab.key", key);
    box.remove();
    done();
  }));
}

export const needsKey = () => Boolean(key);
export const read = async (path, options) => (await send(path, options)).json();
export const post = (path, body, signal) => read(path, { method: "POST", body, signal });
export const bytes = async path => (await send(path)).blob();
export const remove = path => send(path, { method: "DELETE" });

/** The objects of a stream of server-sent events, until [DONE]. */
export async function* events(path, body, signal) {
  const answer = await send(path, { method: "POST", body, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Problem("The server ended the answer before it was complete.");
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const found = JSON.parse(data);
      if (found.error) throw new Problem(found.error.message, 0, found.error.code);
      yield found;
    }
  }
}
