/* The chat page: forms that work by themselves, posted in place by htmx, and a reply that streams in.
   What the server shows of the conversation is the truth: a stream only fills the time until the
   finished reply is there, and whatever goes wrong with it ends in asking the server again. */

import { ActiveTime } from "./active-time.js";
import { Draft } from "./draft.js";
import { Reply } from "./reply.js";
import { left } from "./typed.js";

const POLL = 3000;
const NEAR = 120;

class ChatTask extends HTMLElement {
  connectedCallback() {
    this.form = this.querySelector("[data-say]");
    this.box = this.form.elements.text;
    this.quit = new AbortController();
    this.time = new ActiveTime(Number(this.dataset.active));
    this.draft = new Draft(this, {
      read: () => ({ text: this.box.value }),
      restore: ({ text = "" }) => this.fill(text),
      time: this.time,
    });
    const on = (target, name, act) => target.addEventListener(name, act, { signal: this.quit.signal });
    on(this.box, "keydown", (event) => this.key(event));
    on(this.box, "input", () => this.draft.changed());
    on(this, "htmx:beforeRequest", (event) => this.asking(event));
    on(this, "htmx:afterRequest", (event) => this.asked(event));
    on(this, "htmx:sendError", (event) => this.away(event));
    on(this, "htmx:responseError", (event) => event.target === this.conversation && this.later());
    on(this, "htmx:afterSwap", () => this.follow());
    on(document, "keydown", (event) => event.key === "Escape" && this.escape(event));
    on(window, "online", () => this.refresh());
    on(window, "scroll", () => this.scrolled());
    for (const form of document.querySelectorAll("dialog form[data-ends]")) on(form, "submit", () => this.draft.end());
    this.follow();
    this.down();
    if (matchMedia("(hover: hover)").matches) this.box.focus({ preventScroll: true });
  }

  disconnectedCallback() {
    this.quit.abort();
    this.time.stop();
    this.draft.end();
    this.close();
  }

  get conversation() {
    return this.querySelector("#conversation");
  }

  /** What the server last said of the conversation. */
  get stand() {
    return this.conversation.querySelector("[data-stand]").dataset;
  }

  // --- The box -------------------------------------------------------------------------------------------------

  key(event) {
    // While an input method composes, Enter chooses a character.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!event.repeat) this.form.requestSubmit();
  }

  fill(text) {
    this.box.value = text;
    this.box.setSelectionRange(text.length, text.length);
  }

  asking(event) {
    if (event.target !== this.form) return;
    const { pending, blocked } = this.stand;
    this.querySelector("[data-notices]").replaceChildren();
    if (this.box.value.trim() && !blocked) {
      this.sent = this.box.value;
      return;
    }
    event.preventDefault();
    this.box.focus();
    if (pending) this.notice("A reply is being written. Wait for it, or stop it.");
    else if (blocked) this.notice("Your last message has no reply yet. Ask for the reply first.");
  }

  /** The cursor stays where somebody types on. */
  keepTyped(text) {
    if (text === this.box.value) return;
    const behind = this.box.value.length - this.box.selectionEnd;
    this.fill(text);
    const at = Math.max(0, text.length - behind);
    this.box.setSelectionRange(at, at);
  }

  notice(text) {
    const notice = document.createElement("p");
    notice.className = "notice";
    notice.setAttribute("role", "alert");
    notice.textContent = text;
    this.querySelector("[data-notices]").replaceChildren(notice);
  }

  asked(event) {
    if (event.target === this.form && event.detail.successful) {
      // Only what was sent leaves the box; somebody may have typed on.
      this.keepTyped(left(this.box.value, this.sent));
      this.draft.adopt(this.draft.version, JSON.stringify({ text: "" }));
      this.begun();
      this.down();
    } else if (event.target.matches("[data-blank]") && event.detail.successful) {
      this.fill("");
      this.draft.changed();
      this.begun();
      this.box.focus();
    }
  }

  /** The opening is used or put aside: the box is an ordinary one. */
  begun() {
    for (const part of this.querySelectorAll("[data-opening]")) {
      if (part.nextElementSibling?.hidden) part.nextElementSibling.hidden = false;
      part.remove();
    }
  }

  away(event) {
    this.draft.say("No connection: what you wrote is kept", true);
    if (event.target === this.conversation) this.later();
  }

  escape(event) {
    const stop = this.querySelector("[data-stop]");
    if (!stop || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    stop.form.requestSubmit(stop);
  }

  // --- The reply -------------------------------------------------------------------------------------------------

  /** Look at what the server has shown: open a stream for a reply that is being written, end it otherwise. */
  follow() {
    const { pending, streams, blocked, finishes, version } = this.stand;
    const returned = this.querySelector("[data-returned]");
    if (returned && Number(version) > this.draft.version) this.bringBack(returned.value, Number(version));
    this.form.querySelector("[data-send]").disabled = Boolean(blocked);
    for (const button of document.querySelectorAll("[data-finish]")) button.disabled = !finishes;
    if (this.stick) this.down();
    this.announce(Boolean(pending));
    this.close();
    if (!pending || !streams) return;
    this.reply = new Reply(Number(pending));
    // The end of this very reply was announced and the page does not show it yet: not at once again.
    if (this.ended === pending) this.later();
    else this.openStream();
  }

  openStream() {
    this.source = new EventSource(this.dataset.streamUrl);
    this.source.addEventListener("message", (event) => this.take(JSON.parse(event.data)));
    this.source.addEventListener("end", () => this.end());
    this.source.addEventListener("away", (event) => this.nothingComes(JSON.parse(event.data)));
    this.source.addEventListener("open", () => this.opened());
    this.source.addEventListener("crowded", () => this.crowd());
    this.source.addEventListener("error", () => this.broken());
  }

  opened() {
    this.crowded = false;
    this.say("");
  }

  /** There was no place: the browser comes back in a moment for what is written meanwhile. */
  crowd() {
    this.crowded = true;
    this.show("[data-crowded]", true);
  }

  take(event) {
    if (!this.crowded) this.show("[data-crowded]", false);
    const news = this.reply.take(event);
    if (news === "text") this.draw();
    else if (news === "end") this.end();
    else if (news === "stale") this.refresh();
    if (news !== "nothing") this.failures = 0;
    this.halted(false);
  }

  /** The worker is gone; or nobody has begun yet, and the server says best what is waited for. */
  nothingComes({ state }) {
    if (state === "absent" || state === "failed") this.halted(true);
    else if (!this.reply.points) this.refresh();
  }

  /** The worker is gone, or writes again. */
  halted(gone) {
    this.show("[data-halted]", gone);
  }

  show(what, shown) {
    const place = this.querySelector(what);
    if (place && place.hidden === shown) place.hidden = !shown;
  }

  end() {
    this.ended = this.stand.pending;
    this.refresh();
  }

  /** The browser tries again by itself, unless the server said no: then it has nothing more to tell. */
  broken() {
    if (this.source.readyState === EventSource.CLOSED) this.later();
    else if (!this.crowded) this.say("Connection lost, trying again.");
  }

  /** Ask for the conversation in a moment, each time a little later. */
  later() {
    this.failures = (this.failures ?? 0) + 1;
    this.source?.close();
    clearTimeout(this.poll);
    this.poll = setTimeout(() => this.refresh(), Math.min(POLL, 150 * 2 ** this.failures));
    this.ended = null;
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      const place = this.querySelector("[data-stream]");
      if (!place || !this.reply) return;
      place.textContent = this.reply.text;
      this.querySelector("[data-doing]").textContent = this.reply.thinking ? "Thinking" : "Writing";
      place.closest(".turn").classList.toggle("begun", this.reply.points > 0);
      if (this.stick) this.down();
    });
  }

  close() {
    clearTimeout(this.poll);
    this.source?.close();
    this.source = null;
    this.reply = null;
  }

  refresh() {
    this.source?.close();
    window.htmx.trigger(this.conversation, "refresh");
  }

  bringBack(text, version) {
    const typed = this.box.value.trim();
    this.draft.adopt(version, JSON.stringify({ text }));
    this.fill(typed && typed !== text ? `${text}\n\n${typed}` : text);
    this.draft.changed();
    this.box.focus();
  }

  say(text) {
    const status = this.querySelector("[data-status]");
    if (status.textContent !== text) status.textContent = text;
  }

  /** Screen readers get the reply once, whole, instead of letter by letter. */
  announce(pending) {
    if (pending && !this.waiting) this.say("The model is writing.");
    if (!pending && this.waiting) {
      const replies = this.querySelectorAll(".turn.assistant > raw-text > .message");
      this.say(replies.length ? `Assistant: ${replies[replies.length - 1].textContent}` : "");
    }
    this.waiting = pending;
  }

  /** Who has scrolled up to read stays there. */
  scrolled() {
    const page = document.documentElement;
    this.stick = page.scrollHeight - page.scrollTop - page.clientHeight < NEAR;
  }

  down() {
    this.stick = true;
    // Where nothing is said yet, the page begins with what there is to do.
    if (this.querySelector(".turn")) scrollTo(0, document.documentElement.scrollHeight);
  }
}

customElements.define("chat-task", ChatTask);
