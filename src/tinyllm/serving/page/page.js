"use strict";
const at = (id) => document.getElementById(id);

fetch("healthz").then((reply) => reply.json()).then((health) => {
  at("key-field").hidden = !health.needs_key;
  at("explain-field").hidden = !health.explains;
});

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (at("ask").getAttribute("aria-disabled") === "true") return;
  at("error").textContent = "";
  const asked = {
    question: at("question").value.trim(),
    choices: at("choices").value.split("\n").map((line) => line.trim()).filter(Boolean),
    explain: at("explain").checked,
  };
  if (at("context").value.trim()) asked.context = at("context").value.trim();
  at("ask").setAttribute("aria-disabled", "true");
  at("status").textContent = asked.explain ? "The student writes…" : "The student answers…";
  try {
    show(asked.choices, await ask(asked));
    at("status").textContent = "";
  } catch (error) {
    at("answer").hidden = true;
    at("status").textContent = "";
    at("error").textContent = error.message;
  } finally {
    at("ask").removeAttribute("aria-disabled");
  }
});

async function ask(asked) {
  const headers = { "Content-Type": "application/json" };
  if (at("key").value) headers.Authorization = "Bearer " + at("key").value;
  const reply = await fetch("predict", { method: "POST", headers, body: JSON.stringify(asked) })
    .catch(() => { throw new Error("The server cannot be reached."); });
  const told = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error(told.error ? told.error.message : "The server says " + reply.status + ".");
  return told;
}

function show(choices, answer) {
  at("answer-title").textContent = "Answer: " + answer.text;
  at("bars").replaceChildren(...choices.map((choice, place) => {
    const row = element("tr", "", place === answer.choice ? "taken" : "");
    const name = element("th", choice);
    name.scope = "row";
    const percent = (100 * answer.probabilities[place]).toFixed(1);
    name.append(drawn(percent));
    row.append(name, element("td", percent + " %", "number"));
    return row;
  }));
  at("rationales").replaceChildren(...Object.entries(answer.rationales || {}).flatMap(([teacher, text]) => [
    element("h3", "As " + teacher), element("p", text || "(no text)"),
  ]));
  at("answer").hidden = false;
  at("answer").focus();
}

function drawn(percent) {
  const make = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  };
  const picture = make("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", focusable: "false", "aria-hidden": "true" });
  picture.append(make("rect", { width: Math.max(percent, 0.3), height: 4 }));
  return picture;
}

function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
