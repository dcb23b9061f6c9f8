/* The suggestions below the box: asked for, streamed in side by side, stopped, taken. They never touch what is
   typed; the desk is told by `task.chose(action, suggestion)`. Each turn keeps its own, so that undo shows them again. */

import { Offers } from "./offers.js";
import { Away, post } from "./send.js";
import { make } from "./shown.js";

const LOOK = 4000;
const SOON = 400;
const LATER = 5000;

const ACTIONS = [
  ["take", "Take"],
  ["edit", "Edit"],
  ["next", "Next sentence"],
];
const ENDED = { length: "cut at its longest", stopped: "stopped" };
const AWAY = "Suggestions are not available now";
const STOPPED = "Stopped before the first word.";
const CROWDED = "Many texts are being watched at this moment, so these come in larger pieces.";

export class Suggestions {
  /** place: where they are shown; line: where a word of them is said; task: the desk. */
  constructor(place, line, task) {
    Object.assign(this, { place, line, task });
    this.of = new Map();
    this.cards = [];
    this.after = "";
    place.addEventListener("click", (event) => this.click(event));
  }

  /** Those of the open turn, for the side that it is on. */
  get now() {
    const { key, role } = this.task.manuscript.turn;
    const found = this.of.get(key);
    return found?.role === role ? found : null;
  }

  get pending() {
    return Boolean(this.now?.pending) || this.asking;
  }

  // --- Asking ------------------------------------------------------------------------------------------------------

  async ask({ hint = "", n = Number(this.task.dataset.count) } = {}) {
    const { turn, at, before, doc } = this.task.manuscript;
    const asked = { key: turn.key, role: turn.role };
    this.asked = asked;
    this.asking = true;
    this.close();
    this.say("");
    this.show(blank(n));
    try {
      const fields = { role: turn.role, before: JSON.stringify(before), hint, n };
      if (doc.system !== null) fields.system = doc.system;
      const answer = await post(this.task.dataset.suggestUrl, fields);
      if (this.asked !== asked) {
        // Stopped, or left, before it had begun; what was asked for since has taken its place.
        if (!this.asked) post(this.task.dataset.stopUrl).catch(() => {});
        return;
      }
      this.asking = false;
      this.of.set(turn.key, new Offers({ ...answer, role: turn.role, position: at + 1, hint }));
      this.follow();
    } catch (error) {
      if (this.asked !== asked) return;
      this.asking = false;
      this.refresh();
      this.say(error instanceof Away ? "No connection: no suggestions now. Write on, and ask again in a moment." : error.message, true);
    }
  }

  /** Show those of the open turn, and watch what is still being written. */
  follow() {
    this.refresh();
    if (!this.now?.pending) return;
    this.task.heard(`${this.now.n === 1 ? "A suggestion is" : `${this.now.n} suggestions are`} being written.`);
    this.watch(this.now);
  }

  watch(offers) {
    this.close();
    this.watched = offers;
    this.source = new EventSource(`${this.task.dataset.streamUrl}?after=${this.after}`);
    this.source.addEventListener("message", (event) => {
      this.after = event.lastEventId || this.after;
      this.take(JSON.parse(event.data));
    });
    this.source.addEventListener("end", () => this.look());
    this.source.addEventListener("away", () => this.look());
    // There was no place: the browser comes back in a moment for what is written meanwhile.
    this.source.addEventListener("crowded", () => this.gone || this.say(CROWDED));
    // The browser tries again by itself, unless the server said no: then it has nothing more to tell.
    this.source.addEventListener("error", () => this.source?.readyState === EventSource.CLOSED && this.later());
    this.silent = setTimeout(() => this.look(), LOOK);
  }

  take(event) {
    const news = this.watched?.take(event);
    if (news === "nothing" || !news) return;
    this.failures = 0;
    clearTimeout(this.silent);
    if (news === "end") this.look();
    else this.draw();
    if (this.gone) this.say("");
  }

  later() {
    this.failures = (this.failures ?? 0) + 1;
    this.source?.close();
    clearTimeout(this.poll);
    this.poll = setTimeout(() => this.look(), Math.min(LATER, SOON * this.failures));
  }

  /** Ask the server how they stand: at the end, where the stream is lost, and where nothing comes. */
  async look() {
    const offers = this.watched;
    clearTimeout(this.silent);
    if (!offers) return;
    let answer;
    try {
      const response = await fetch(this.task.dataset.suggestionsUrl, { headers: { Accept: "application/json" } });
      answer = response.ok ? await response.json() : null;
    } catch {
      answer = null;
    }
    if (this.watched !== offers) return;
    if (!answer) {
      this.later();
      return;
    }
    this.saySituation(answer);
    if (answer.request !== offers.request) return;
    offers.adopt(answer);
    this.draw();
    if (offers.pending) this.wait();
    else this.ended(offers);
  }

  /** Nothing to read yet: look again in a while, and read on where the stream is still open. */
  wait() {
    clearTimeout(this.silent);
    if (this.source?.readyState === EventSource.CLOSED) this.poll = setTimeout(() => this.watch(this.watched), LATER);
    else this.silent = setTimeout(() => this.look(), LATER);
  }

  saySituation({ away, state, request }) {
    if (away && request === this.watched?.request && (state === "waiting" || state === "claimed")) {
      this.gone = true;
      this.say(`${AWAY}: ${away[1]} They come as soon as the model is there. Write on meanwhile.`);
    } else if (this.gone) this.say("");
  }

  ended(offers) {
    this.close();
    if (this.line.textContent === CROWDED) this.say("");
    if (offers !== this.now) return;
    const ready = offers.all.filter((one) => one.ready).length;
    const why = offers.reason ? `: ${offers.reason}` : ".";
    if (offers.state === "failed") this.say(`No suggestion could be written${why} Ask again, now or later; what you write is not concerned.`, true);
    else if (offers.state === "refused") this.say("The conversation is longer than the model can read, so it cannot suggest anything here. Write on.", true);
    else if (!ready) this.say(offers.state === "cancelled" ? STOPPED : "The model had nothing to suggest. Ask again.");
    else this.task.heard(`${ready === 1 ? "One suggestion is" : `${ready} suggestions are`} ready.`);
  }

  async stop() {
    if (!this.pending) return;
    if (this.asking) {
      this.asked = null;
      this.asking = false;
      this.refresh();
      this.say(STOPPED);
    }
    try {
      await post(this.task.dataset.stopUrl);
    } catch (error) {
      this.say(error instanceof Away ? "No connection: it could not be stopped." : error.message, true);
    }
    this.refresh();
    if (this.watched) this.look();
  }

  /** The open turn is another one, or on the other side: what is still being written for the one before is not wanted any more. */
  turned() {
    if (this.watched && this.watched !== this.now) {
      if (this.watched.pending) post(this.task.dataset.stopUrl).catch(() => {});
      this.close();
    }
    const { key, role } = this.task.manuscript.turn;
    if (this.asking && (this.asked?.key !== key || this.asked.role !== role)) {
      this.asked = null;
      this.asking = false;
    }
    this.say("");
    if (this.now?.pending) this.watch(this.now);
    this.refresh();
  }

  close() {
    clearTimeout(this.silent);
    clearTimeout(this.poll);
    this.source?.close();
    this.source = null;
    this.watched = null;
  }

  /** After a reload: what was asked for last, where it belongs to the open turn. */
  async restore() {
    const { turn, at } = this.task.manuscript;
    try {
      const response = await fetch(this.task.dataset.suggestionsUrl, { headers: { Accept: "application/json" } });
      const answer = await response.json();
      if (!answer.request || answer.position !== at + 1 || answer.role !== turn.role || this.of.has(turn.key) || this.asking) return;
      this.of.set(turn.key, Offers.from(answer));
      this.follow();
    } catch {
      // Then they are asked for again.
    }
  }

  // --- What is seen ------------------------------------------------------------------------------------------------

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.refresh();
    });
  }

  refresh() {
    if (this.asking) return;
    const offers = this.now;
    if (offers && !offers.pending && !offers.all.some((one) => one.text)) this.show([]);
    else this.show(offers ? offers.all : [], offers?.pending);
    if (offers && this.task.manuscript.shown(offers.all.filter((one) => one.begun).map((one) => one.ref))) this.task.kept();
  }

  show(all, pending = true) {
    while (this.cards.length > all.length) this.cards.pop().remove();
    while (this.cards.length < all.length) {
      this.cards.push(card(this.cards.length));
      this.place.append(this.cards.at(-1));
    }
    this.place.hidden = !all.length;
    this.place.dataset.count = all.length;
    this.task.asks(Boolean(all.length), this.pending);
    const next = this.nextOf(all);
    for (const [index, one] of all.entries()) this.fill(this.cards[index], one, pending, one === next);
  }

  /** The one whose next sentence the key takes: the one that the text comes from, else the first that has one. */
  nextOf(all) {
    const { manuscript } = this.task;
    const from = manuscript.turn.from?.join("/");
    const able = all.filter((one) => one.ready && manuscript.hasNext(one));
    return able.find((one) => one.ref.join("/") === from) ?? able[0] ?? null;
  }

  fill(made, one, pending, next) {
    const body = made.querySelector(".text");
    const live = !one.ready && !one.finish && pending;
    made.classList.toggle("live", live);
    made.classList.toggle("begun", Boolean(one.begun));
    made.setAttribute("aria-busy", String(live));
    if (one.ready) this.task.shows.show(body, one.text);
    else if (body.textContent !== one.text || body.dataset.text !== undefined) {
      delete body.dataset.text;
      body.classList.add("as-typed");
      body.textContent = one.text;
    }
    made.querySelector(".state").textContent = live ? this.doing(one) : (ENDED[one.finish] ?? (one.text ? "" : "nothing came"));
    made.querySelector("[data-act=stop]").hidden = !live;
    for (const [action] of ACTIONS) made.querySelector(`[data-act=${action}]`).hidden = !one.ready;
    const button = made.querySelector("[data-act=next]");
    button.disabled = one.ready && !this.task.manuscript.hasNext(one);
    button.toggleAttribute("aria-keyshortcuts", false);
    if (next) button.setAttribute("aria-keyshortcuts", "Alt+N");
    button.querySelector("kbd").hidden = !next;
  }

  doing({ begun, thinking }) {
    if (begun) return "";
    if (this.gone) return "Waits for the model";
    return thinking ? "Thinking…" : "Writing…";
  }

  say(text, alarm = false) {
    this.gone = this.gone && text.startsWith(AWAY);
    this.line.textContent = text;
    this.line.hidden = !text;
    this.line.classList.toggle("notice", alarm);
  }

  // --- Choosing ------------------------------------------------------------------------------------------------------

  click(event) {
    const button = event.target.closest("[data-act]");
    if (!button) return;
    if (button.dataset.act === "stop") {
      this.stop();
      this.task.land();
    } else this.choose(button.dataset.act, this.cards.indexOf(button.closest(".offer")));
  }

  /** Whether there is such a suggestion to choose. */
  choose(action, index) {
    const one = this.now?.all[index];
    if (!one?.ready) return false;
    this.task.chose(action, { ref: one.ref, text: one.text });
    return true;
  }
}

const blank = (n) => Array.from({ length: n }, (_, index) => ({ ref: [0, index], text: "", finish: "", begun: false, ready: false }));

function card(index) {
  const number = index + 1;
  const button = (action, label) => {
    const key = { take: `Alt+${number}`, edit: `Alt+Shift+${number}` }[action];
    const made = make("button", { type: "button", class: "plain small", "data-act": action, hidden: true, "aria-keyshortcuts": key }, label);
    made.append(make("span", { class: "unseen" }, ` of suggestion ${number}`));
    if (action === "next") made.append(" ", make("kbd", {}, "Alt N"));
    return made;
  };
  const stop = make("button", { type: "button", class: "plain small", "data-act": "stop" }, "Stop ", make("kbd", {}, "Esc"));
  // What is chosen stands above the text: it keeps its place while this text and the others grow.
  return make(
    "article",
    { class: "offer live", "aria-label": `Suggestion ${number}` },
    make("header", {}, make("kbd", {}, `Alt ${number}`), ...ACTIONS.map(([action, label]) => button(action, label)), stop),
    make("div", { class: "text message as-typed", dir: "auto" }),
    make("p", { class: "state quiet" }),
  );
}
