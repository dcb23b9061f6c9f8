/* Nothing typed is lost: at once in this browser, after a moment on the server.
   The server counts versions; a save that was made from an older one is turned back, and the
   person chooses which of the two to keep. Tabs of one browser tell each other. */

import { Away, Refused, beacon, post } from "./send.js";

const PAUSE = 2000;
const RETRY = 5000;
const MOST_TRIED = 20;
const HINDERED = "It could not be saved, so it stays here for now. Nothing is lost; try again in a moment.";

/* The server keeps keys in an order of its own. */
const sorted = (value) => {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
};
const alike = (one, other) => JSON.stringify(sorted(JSON.parse(one))) === JSON.stringify(sorted(JSON.parse(other)));

export class Draft {
  /** task: the element with data-draft-url, data-keep-url, data-version, data-key, data-seat and data-lease.
      read() gives the draft; restore(draft) shows one; time is the ActiveTime. sign(draft) is a text that is equal
      where nothing that was written differs. With `tabs` the other tabs of the same task are told of each save, and
      the page says how long ago the last one was. focus() is called when a choice that had the focus is made. */
  constructor(task, { read, restore, time, sign = JSON.stringify, tabs = false, focus = () => {} }) {
    Object.assign(this, { task, read, restore, time, sign, tabs, focus });
    this.hindrance = HINDERED;
    this.version = Number(task.dataset.version);
    this.key = `bothsides:${task.dataset.key}`;
    this.saved = sign(read());
    // What was sent and not answered: the server may have it all the same.
    this.tried = new Set();
    this.leaving = () => this.leave();
    this.online = () => this.save();
    addEventListener("pagehide", this.leaving);
    addEventListener("online", this.online);
    if (tabs) this.meet();
    // Long before the lease runs out, and seldom.
    this.keeper = setInterval(() => this.keep(), Math.min(240, Number(task.dataset.lease) / 4) * 1000);
    this.compare();
    // A slot that was fetched ahead becomes the one that is worked on.
    if (task.dataset.seat !== "1") this.keep(true);
  }

  get now() {
    return this.sign(this.read());
  }

  /** What this browser still has of the task, against what the server has shown. */
  compare() {
    let kept;
    try {
      kept = JSON.parse(localStorage.getItem(this.key));
    } catch {
      kept = null;
    }
    if (!kept || this.sign(kept.draft) === this.saved) return;
    if (kept.version >= this.version) {
      this.restore(kept.draft);
      this.changed();
    } else {
      this.choose("A newer draft of this came from another tab. This browser also keeps an older one.", kept.draft, "Bring the older one back");
    }
  }

  changed() {
    const draft = this.read();
    try {
      localStorage.setItem(this.key, JSON.stringify({ version: this.version, draft }));
    } catch {
      // Storage is full or forbidden: the server's copy remains.
    }
    if (this.sign(draft) === this.saved) return;
    if (!this.trouble) this.say("");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), PAUSE);
  }

  async save() {
    if (this.ended || this.conflict) return;
    if (this.saving) {
      this.again = true;
      return;
    }
    const draft = this.read();
    const now = this.sign(draft);
    if (now === this.saved) return;
    this.saving = true;
    this.tried.add(now);
    if (this.tried.size > MOST_TRIED) this.tried.delete(this.tried.values().next().value);
    try {
      const answer = await this.send(draft);
      this.adopt(answer.version, now);
      if (this.now === now) this.restored();
      else this.trouble = false;
      this.tell("saved", { version: answer.version, draft });
    } catch (error) {
      this.failed(error);
    } finally {
      this.saving = false;
      if (this.again) {
        this.again = false;
        this.save();
      }
    }
  }

  send(draft) {
    return post(this.task.dataset.draftUrl, { draft: JSON.stringify(draft), version: this.version, active_seconds: this.time.seconds });
  }

  /** Save now, the time spent included. Whether all of it is on the server then. */
  async flush() {
    clearTimeout(this.timer);
    while (this.saving) await new Promise((done) => setTimeout(done, 50));
    if (this.ended || this.conflict) return false;
    this.saved = "";
    await this.save();
    return this.saved === this.now;
  }

  /** It is saved, and whatever hindered it is over. */
  restored() {
    this.trouble = false;
    this.savedAt = Date.now();
    this.task.querySelector("[data-signed-out]")?.remove();
    if (this.tabs) this.sayWhen();
    else this.say("Saved");
  }

  sayWhen() {
    clearInterval(this.clock);
    const tick = () => {
      const seconds = Math.round((Date.now() - this.savedAt) / 1000);
      this.say(seconds < 2 ? "Saved" : seconds < 100 ? `Saved ${seconds} s ago` : `Saved ${Math.round(seconds / 60)} min ago`);
    };
    tick();
    this.clock = setInterval(tick, 1000);
  }

  adopt(version, text) {
    this.version = version;
    this.saved = text;
    this.tried.clear();
    if (this.now !== text) {
      this.changed();
      return;
    }
    try {
      localStorage.removeItem(this.key);
    } catch {
      // As above.
    }
  }

  failed(error) {
    if (this.ended) return;
    this.trouble = true;
    this.hindrance = error instanceof Refused ? error.message : HINDERED;
    if (error instanceof Away) {
      this.say("No connection: kept in this browser, trying again", true);
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.save(), RETRY);
    } else if (this.tabs && error instanceof Refused && (error.status === 401 || error.answer.code === "too_old")) {
      this.signedOut();
    } else if (error instanceof Refused && error.answer.code === "draft_conflict" && this.own(error.answer.current)) {
      this.adopt(error.answer.version, this.own(error.answer.current));
      if (this.saved === this.now) this.restored();
      else this.again = true;
    } else if (error instanceof Refused && error.answer.code === "draft_conflict") {
      this.conflict = error.answer;
      this.hindrance = "Choose first which of the two texts to keep.";
      this.say("Not saved: choose which text to keep", true);
      this.choose(error.message, error.answer.current, "Use the newer one", "Keep mine");
    } else {
      this.say(error.message, true);
    }
  }

  /** What of this page the server has: a save whose answer was lost, or the last word before a reload; else undefined. */
  own(current) {
    const there = this.sign(current);
    return [this.now, ...this.tried].find((mine) => alike(there, mine));
  }

  /** The session is over. Somebody signs in again in another tab, and comes back to what is here. */
  signedOut() {
    this.hindrance = "You are signed out: sign in again in another tab, then try again here. Nothing is lost.";
    this.say("Signed out: kept in this browser", true);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.signedIn(), RETRY);
    if (this.task.querySelector("[data-signed-out]")) return;
    const notice = document.createElement("p");
    notice.className = "notice";
    notice.dataset.signedOut = "";
    notice.setAttribute("role", "alert");
    const link = document.createElement("a");
    link.href = "/";
    link.target = "_blank";
    link.textContent = "Sign in again in another tab";
    notice.append("You are signed out. ", link, ", then come back here: what you wrote is kept, and is saved then.");
    this.task.querySelector("[data-notices]").append(notice);
  }

  /** Signing in made a new token for what pages send: it is in a fresh copy of this one. */
  async signedIn() {
    try {
      const response = await fetch(location.href, { redirect: "error" });
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html").querySelector("[name=csrfmiddlewaretoken]");
      for (const field of document.querySelectorAll("[name=csrfmiddlewaretoken]")) field.value = fresh.value;
    } catch {
      // Still signed out, or away: saving says which.
    }
    this.save();
  }

  /** Two drafts, one person: offer the other one. */
  choose(text, other, use, keep = "") {
    const notice = document.createElement("div");
    notice.className = "notice";
    notice.setAttribute("role", "alert");
    notice.append(text, " ");
    const button = (label, act) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = label;
      made.addEventListener("click", () => {
        if (this.conflict) this.version = this.conflict.version;
        this.conflict = null;
        this.trouble = false;
        notice.remove();
        act();
        this.focus();
      });
      notice.append(made, " ");
    };
    button(use, () => {
      this.restore(other);
      this.changed();
    });
    if (keep) button(keep, () => this.save());
    this.task.querySelector("[data-notices]").replaceChildren(notice);
  }

  /** The server keeps a task for so long only; somebody who reads types nothing. */
  async keep(now = false) {
    if (this.ended || (!now && !this.time.working)) return;
    try {
      await post(this.task.dataset.keepUrl);
      this.task.dataset.seat = "1";
    } catch (error) {
      if (this.tabs) this.notHeld(error);
      else if (error instanceof Refused) this.say(error.message, true);
    }
  }

  /** What is no longer held can still be written, saved and finished. */
  notHeld(error) {
    if (!(error instanceof Refused) || error.status !== 409) return;
    clearInterval(this.keeper);
    const notice = this.task.querySelector("[data-expired]");
    notice?.removeAttribute("hidden");
    // It stands at the top, where somebody who writes does not look.
    if (notice) this.task.toast?.(notice.textContent);
  }

  // --- Other tabs ------------------------------------------------------------------------------------------------

  meet() {
    this.others = new Set();
    this.id = Math.random();
    try {
      this.channel = new BroadcastChannel(this.key);
    } catch {
      // Then only the server tells the two apart.
      return;
    }
    this.channel.addEventListener("message", ({ data }) => this.heard(data));
    this.tell("here");
  }

  tell(kind, more = {}) {
    if (!this.ended) this.channel?.postMessage({ kind, id: this.id, ...more });
  }

  heard({ kind, id, version, draft }) {
    if (this.ended) return;
    if (kind === "gone") this.others.delete(id);
    else this.others.add(id);
    if (kind === "here") this.tell("also");
    if (kind === "saved" && version > this.version && this.now === this.saved) this.follow(version, draft);
    const notice = this.task.querySelector("[data-tabs]");
    if (notice) notice.hidden = !this.others.size;
  }

  /** Another tab has saved, and this one has nothing of its own. */
  follow(version, draft) {
    this.restore(draft);
    this.adopt(version, this.now);
    this.restored();
  }

  leave() {
    this.tell("gone");
    if (this.ended || this.conflict || this.now === this.saved) return;
    beacon(this.task.dataset.draftUrl, { draft: JSON.stringify(this.read()), version: this.version, active_seconds: this.time.seconds });
  }

  /** The work is sent or given up: nothing is saved any more. */
  end() {
    this.tell("gone");
    this.ended = true;
    this.channel?.close();
    clearInterval(this.clock);
    clearTimeout(this.timer);
    clearInterval(this.keeper);
    removeEventListener("pagehide", this.leaving);
    removeEventListener("online", this.online);
    try {
      localStorage.removeItem(this.key);
    } catch {
      // As above.
    }
  }

  say(text, alarm = false) {
    if (alarm || !text) clearInterval(this.clock);
    const saved = document.querySelector("[data-saved]");
    if (!saved) return;
    saved.textContent = text;
    saved.toggleAttribute("data-alarm", alarm);
    // Only trouble is read out.
    saved.setAttribute("aria-live", alarm ? "assertive" : "off");
  }
}
