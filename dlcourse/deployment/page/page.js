// The service's page: pictures in, answers out. What others wrote (names of files and classes, reasons of errors)
// enters the page as text, never as HTML.

const SHOWN_CLASSES = 5;
const AT_ONCE = 4; // requests under way
const KEPT = 60; // answers on the page; older ones leave it, with the memory of their pictures
const ATTEMPTS = 4; // while the service says that it is busy
const LONGEST_PAUSE = 5; // seconds

const [name, purpose, facts, example, drop, pictures, samples, sampleList, status, answers, clear] = [
  "name", "purpose", "facts", "example", "drop", "pictures", "samples", "sample-list", "status", "answers", "clear",
].map((id) => document.getElementById(id));

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// ---- Talking to the service --------------------------------------------------------------------------------------

// The response to a request that succeeded. Asks for the key when the service wants one, and waits when it is busy.
// Throws an Error whose message is a sentence for the reader.
async function ask(path, options = {}) {
  for (let attempt = 1; ; attempt++) {
    const sent = apiKey;
    let response;
    try {
      response = await fetch(path, { ...options, headers: sent ? { "X-API-Key": sent } : {} });
    } catch {
      throw new Error("The service gave no answer: it is not running, cannot be reached, or refused the upload halfway.");
    }
    if (response.ok) return response;
    const reason = await reasonOf(response);
    if (response.status === 401) {
      if (sent === apiKey) await enteredKey(reason); // else another request was told the key meanwhile
    } else if (response.status === 503 && attempt < ATTEMPTS) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(seconds, LONGEST_PAUSE)));
    } else {
      throw new Error(reason);
    }
  }
}

async function reasonOf(response) {
  try {
    const { detail } = await response.json();
    if (typeof detail === "string" && detail) return detail;
  } catch { /* no JSON: something between here and the service answered */ }
  if (response.status === 413) return "The picture is too large.";
  return `The service refused the request (status ${response.status}).`;
}

let apiKey = ""; // in memory only
let entering = null;

function enteredKey(reason) {
  const form = document.getElementById("key-form");
  const field = document.getElementById("key");
  document.getElementById("key-reason").textContent = reason;
  entering ??= new Promise((resolve) => {
    form.hidden = false;
    field.focus();
    form.onsubmit = (event) => {
      event.preventDefault();
      apiKey = field.value;
      field.value = "";
      form.hidden = true;
      entering = null;
      pictures.focus();
      resolve();
    };
  });
  return entering;
}

// ---- What the model is -------------------------------------------------------------------------------------------

async function describe() {
  const model = await (await ask("model")).json();
  document.title = name.textContent = model.name;
  const { classes, preprocessing, limits } = model;
  mostBytes = limits.body_bytes - 2048; // the form around the file takes some
  purpose.textContent = `Tells which of ${classes.length} classes a picture shows.`;
  const rows = {
    classes: classes.join(", "),
    "picture size": `${preprocessing.size} × ${preprocessing.size} pixels; others are brought to it`,
    "computed by": model.backend,
    ...model.details,
  };
  for (const [term, value] of Object.entries(rows)) {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    facts.append(make("dt", { textContent: term }), make("dd", { textContent: text }));
  }
}

async function offerSamples() {
  const offered = await (await ask("samples")).json();
  for (const { id, name } of offered) {
    const file = new File([await (await ask(`samples/${id}`)).blob()], name);
    const button = make("button", { type: "button", title: name, onclick: () => take([file]) }, image(file, name));
    sampleList.append(make("li", {}, button));
    samples.hidden = false;
  }
}

// ---- Pictures and their answers ----------------------------------------------------------------------------------

function image(file, alt) {
  const url = URL.createObjectURL(file);
  const picture = make("img", { alt });
  picture.onload = () => {
    URL.revokeObjectURL(url);
    picture.classList.toggle("small", picture.naturalWidth < 128);
  };
  picture.onerror = () => {
    URL.revokeObjectURL(url);
    picture.replaceWith(make("span", { className: "blank", textContent: "no preview" }));
  };
  picture.src = url;
  return picture;
}

const waiting = [];
let underWay = 0;
let mostBytes = Infinity; // that a request may have; the service says how many
let asked = 0;
let answered = 0;

function take(files) {
  for (const file of files) {
    const title = make("h3", { textContent: "Waiting" });
    const body = make("div", {}, title, make("p", { className: "file", textContent: file.name }));
    const card = make("li", { className: "answer" }, image(file, ""), body);
    card.setAttribute("aria-busy", "true");
    answers.prepend(card);
    waiting.push({ file, card, title, body });
    asked++;
  }
  while (answers.children.length > KEPT) answers.lastElementChild.remove();
  clear.hidden = !answers.children.length;
  work();
}

function work() {
  while (underWay < AT_ONCE && waiting.length) {
    const job = waiting.shift();
    if (!job.card.isConnected) { answered++; continue; } // cleared while it waited
    underWay++;
    answer(job).finally(() => { underWay--; work(); });
  }
}

async function answer({ file, card, title, body }) {
  let said;
  title.textContent = "Looking";
  if (asked - answered > 1) status.textContent = `${asked - answered} pictures to go.`;
  try {
    if (file.size > mostBytes) throw new Error(`The file has ${megabytes(file.size)}; ${megabytes(mostBytes)} are the most.`);
    const form = new FormData();
    form.append("files", file, file.name);
    const response = await ask(`predict?top_k=${SHOWN_CLASSES}`, { method: "POST", body: form });
    const { label, probability, top } = (await response.json()).predictions[0];
    title.textContent = label;
    body.append(make("ol", { className: "classes" }, ...top.map(row)));
    said = `${file.name}: ${label}, ${percent(probability)}.`;
  } catch (error) {
    title.textContent = "No answer";
    body.append(make("p", { className: "error", textContent: error.message }));
    said = `${file.name}: no answer. ${error.message}`;
  }
  card.removeAttribute("aria-busy");
  answered++;
  const left = asked - answered;
  if (card.isConnected) status.textContent = left ? `${said} ${left} to go.` : said;
}

function row({ label, probability }) {
  const bar = make("div", { className: "bar", ariaHidden: "true" });
  bar.style.setProperty("--share", probability);
  return make("li", {},
    make("span", { textContent: label }), " ",
    make("span", { className: "percent", textContent: percent(probability) }), bar);
}

function megabytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(1)} MB`;
}

function percent(probability) {
  if (probability > 0 && probability < 0.001) return "under 0.1 %";
  if (probability < 1 && probability > 0.999) return "over 99.9 %";
  return `${(100 * probability).toFixed(1)} %`;
}

// ---- How pictures arrive -----------------------------------------------------------------------------------------

pictures.onchange = () => {
  take(pictures.files);
  pictures.value = ""; // so that the same file can be chosen again
};

// Anywhere on the page: a picture dropped beside the field would otherwise replace the page.
let depth = 0; // dragenter and dragleave come for every element that the pointer crosses
function dragging(change) {
  depth = change ? depth + change : 0;
  drop.classList.toggle("over", depth > 0);
}
addEventListener("dragenter", () => dragging(1));
addEventListener("dragleave", () => dragging(-1));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  dragging(0);
  take(event.dataTransfer.files);
});
addEventListener("paste", (event) => take(event.clipboardData.files));

clear.onclick = () => {
  answers.replaceChildren();
  clear.hidden = true;
  status.textContent = "No picture yet.";
  pictures.focus();
};

example.textContent = `curl -F files=@picture.png ${new URL("predict", location.href)}`;
describe().catch((error) => { purpose.textContent = error.message; });
offerSamples().catch(() => {}); // the page works without them
