// The device check: challenge from the portal, signature from the agent on loopback, proof to the portal.
// Everything it needs is in data attributes; it shows text only, never markup.
"use strict";

const card = document.getElementById("check");
const { onward, first } = card.dataset;
const agents = card.dataset.agents.split(" ").filter(Boolean);
const ANSWER_MS = 4000;
const ASK_PERSON_MS = 120000; // while the browser asks whether this page may reach the device itself
const LOOP_MS = 20000;

class Stop extends Error {
  constructor(step, title, text, again) {
    super(text);
    Object.assign(this, { step, title, again: Boolean(again) });
  }
}

const element = (id) => document.getElementById(id);

function mark(step, state) {
  document.querySelector(`[data-step="${step}"]`).className = state;
}

function say(title, text) {
  element("title").textContent = title;
  element("text").textContent = text;
}

function note(text) {
  element("note").textContent = text;
  element("note").hidden = !text;
}

async function post(path, body) {
  const response = await fetch(`/.ztproxy/device/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify(body),
    cache: "no-store",
  });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const ended = response.status === 401 || answer.code === "device-mismatch";
  throw new Stop("proof", "The device was not accepted", answer.title || "Something went wrong. Try again.", ended);
}

// Chromium asks the person before a page reaches loopback; only then is waiting for minutes right.
async function asksPerson() {
  for (const name of ["loopback-network", "local-network-access"]) {
    try {
      return (await navigator.permissions.query({ name })).state === "prompt";
    } catch {
      // this browser does not know the permission by that name
    }
  }
  return false;
}

function agentRequest(agent, body, signal) {
  const options = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    credentials: "omit",
    cache: "no-store",
    redirect: "error",
    referrerPolicy: "no-referrer",
    signal,
  };
  try {
    return new Request(`${agent}/v1/prove`, { ...options, targetAddressSpace: "loopback" });
  } catch {
    return new Request(`${agent}/v1/prove`, options); // a browser with an older list of address spaces
  }
}

async function askAgent(agent, challenge, patience) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), patience);
  try {
    const response = await fetch(agentRequest(agent, challenge, controller.signal));
    const answer = await response.json();
    return { reached: true, proof: response.ok && typeof answer.proof === "string" ? answer.proof : "" };
  } catch {
    return { reached: false, proof: "" };
  } finally {
    clearTimeout(timer);
  }
}

async function proofFromAgent() {
  const challenge = await post("nonce", {});
  const ask = await asksPerson();
  if (ask) note("Your browser may ask whether this page may reach this device. Allow it.");
  let reached = false;
  for (const agent of agents) {
    const answer = await askAgent(agent, challenge, ask ? ASK_PERSON_MS : ANSWER_MS);
    note("");
    reached ||= answer.reached;
    if (answer.proof) return { nonce: challenge.nonce, proof: answer.proof };
  }
  if (reached) {
    throw new Stop("proof", "The agent did not answer for this device",
      "The agent runs, but this device is not enrolled here yet. Ask your administrator for an enrolment code.");
  }
  throw new Stop("agent", "No agent found on this device",
    "Start the ztproxy agent, or ask your administrator how to enrol this device. You can go on without it; " +
    "applications that ask for a device will not open.");
}

// An application that still refuses after a good check would send us here for ever.
function wasJustHere() {
  try {
    const key = `checked ${onward.replace(/[?&]flow=[^&]*/, "")}`;
    const before = Number(sessionStorage.getItem(key) || 0);
    sessionStorage.setItem(key, String(Date.now()));
    return Date.now() - before < LOOP_MS;
  } catch {
    return false;
  }
}

function finish(device) {
  mark("state", device.healthy ? "ok" : "failed");
  const name = device.name || "This device";
  if (device.healthy) {
    say(`${name} is ready`, "The device is proved and healthy.");
  } else if (device.reported) {
    say(`${name} needs attention`, `The device is proved, but its last report does not pass: ${device.wanting.join(", ")}.`);
  } else {
    say(`${name} has not reported yet`, "The device is proved. Its agent tells its state in a moment.");
  }
  if (device.healthy && !wasJustHere()) {
    location.replace(onward);
    return;
  }
  if (device.healthy) note("The application asked for the check again right away. Continue when you are ready.");
  else if (first) setTimeout(() => location.replace(onward), 1500);
  element("actions").hidden = false;
}

function fail(problem) {
  const known = problem instanceof Stop;
  mark(known ? problem.step : "agent", "failed");
  say(known ? problem.title : "The check did not work", known ? problem.message : "The portal can not be reached. Try again.");
  element("again").hidden = !(known && problem.again);
  element("actions").hidden = false;
  element("onward").focus();
}

async function check() {
  element("actions").hidden = true;
  for (const step of ["agent", "proof", "state"]) mark(step, "");
  say("Checking this device", "The agent on this device is asked to prove itself. This takes a moment.");
  note("");
  try {
    mark("agent", "now");
    const proof = await proofFromAgent();
    mark("agent", "ok");
    mark("proof", "now");
    const device = await post("proof", proof);
    mark("proof", "ok");
    finish(device);
  } catch (problem) {
    fail(problem);
  }
}

element("retry").addEventListener("click", check);
check();
